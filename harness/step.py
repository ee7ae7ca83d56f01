"""The gradient of one task in two halves.

`adapt` reduces the support set to a small state; the queries run against that state batch by batch, each with its own
backward pass; one backward pass through `adapt` then carries the gathered gradients into the support set. The support
set is processed once per task whatever the number of query batches, and the batch size never changes the result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lite_bench.harness.clips import ItemEncode, classify, items_at_once, started_task
from lite_bench.harness.core import Draw, Episode, Estimator, Learner, QueryBatch, Support
from lite_bench.harness.errors import PluginError, RunError

Context = Callable[[], AbstractContextManager[Any]]
Phase = Literal["support forward", "query", "support gradient"]
Watch = Callable[[Phase], AbstractContextManager[Any]]
"""Gives the context that a part of a task runs in, such as a stopwatch."""


def unwatched(phase: Phase) -> AbstractContextManager[None]:
    """Give a context that does nothing."""
    del phase
    return nullcontext()


def map_tensors(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Apply ``change`` to every tensor of a learner's state, keeping its structure.

    Raises:
        PluginError: the state is not made of dataclasses, dicts, lists, tuples, tensors and plain values.
    """
    if isinstance(state, Tensor):
        return change(state)
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        fields = {f.name: map_tensors(getattr(state, f.name), change) for f in dataclasses.fields(state)}
        return dataclasses.replace(state, **fields)
    if isinstance(state, dict):
        return {key: map_tensors(value, change) for key, value in state.items()}
    if isinstance(state, list | tuple):
        values = [map_tensors(value, change) for value in state]
        return state._make(values) if hasattr(state, "_make") else type(state)(values)
    if state is None or isinstance(state, bool | int | float | str):
        return state
    raise PluginError(
        f"A learner's state holds a {type(state).__name__}; `adapt` must return a dataclass of tensors "
        "(dicts, lists and plain numbers inside it are fine)."
    )


def split_halves(state: Any) -> tuple[Any, list[tuple[Tensor, Tensor]]]:
    """Cut a state from its graph.

    Returns:
        the state with every differentiable tensor replaced by a leaf, and the pairs (tensor with graph, leaf).
    """
    pairs: list[tuple[Tensor, Tensor]] = []

    def cut(tensor: Tensor) -> Tensor:
        leaf = tensor.detach()
        if tensor.requires_grad:
            leaf = leaf.requires_grad_()
            pairs.append((tensor, leaf))
        return leaf

    return map_tensors(state, cut), pairs


def query_batches(query: Iterable[QueryBatch], size: int) -> Iterator[QueryBatch]:
    """Cut the batches of an episode into batches of at most ``size`` images, or of single clips that are longer."""
    for batch in query:
        items = items_at_once(batch.images, size)
        for start in range(0, len(batch.labels), items):
            part = slice(start, start + items)
            groups = None if batch.groups is None else batch.groups[part]
            yield QueryBatch(batch.images[part], batch.labels[part], groups)


@dataclass(frozen=True)
class TaskOutcome:
    """What one training task gave: mean query loss (cross-entropy and penalty), and the number of correct queries."""

    loss: float
    correct: int
    n_query: int


def accumulate_task_gradient(
    learner: Learner,
    episode: Episode,
    estimator: Estimator,
    batch_size: int,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    precision: Context = nullcontext,
    watch: Watch = unwatched,
) -> TaskOutcome:
    """Add the gradient of one task's loss, the mean cross-entropy over all its queries, to the parameters' ``.grad``.

    Args:
        learner: in training mode, on ``device``.
        episode: the task.
        estimator: supplies ``encode``.
        batch_size: queries at a time; a memory knob.
        generator: randomness of the estimator, on the CPU.
        device: where to run.
        precision: context of the networks, such as autocast to bfloat16.
        watch: context of each part of the task.

    Raises:
        RunError: the loss depends on no parameter.
    """
    support = move_support(episode.support, device)
    with started_task(estimator, support, generator) as draw:
        return _accumulate(learner, episode, estimator, draw, batch_size, device, precision, watch)


def _accumulate(
    learner: Learner,
    episode: Episode,
    estimator: Estimator,
    draw: Draw,
    batch_size: int,
    device: torch.device | str,
    precision: Context,
    watch: Watch,
) -> TaskOutcome:
    """Run the task that ``draw`` shows; see `accumulate_task_gradient`."""
    update_scale = estimator.update_scale(len(episode.support.labels))
    loss, correct = 0.0, 0
    caching = getattr(draw, "caching", None)
    if caching is not None:
        with watch("support forward"), torch.no_grad(), precision():
            learner.adapt(draw.support, ItemEncode(caching()))
    batches = query_batches(episode.query, batch_size)
    groups: Iterable[Iterable[QueryBatch]] = ([batch] for batch in batches) if estimator.redraws else [batches]
    for group in groups:
        encode = ItemEncode(draw.encode())
        with watch("support forward"), precision():
            state = learner.adapt(draw.support, encode)
        leaves, pairs = split_halves(state)
        del state
        for batch in group:
            weight = 1.0 if estimator.sums_batches else len(batch.labels) / episode.n_query
            with watch("query"):
                cross, penalty, logits = query_loss(learner, leaves, batch, device, precision)
                if not (cross + penalty).requires_grad:
                    raise nothing_to_learn(episode, estimator)
                on_penalty = update_scale if getattr(estimator, "scales_penalty", True) else 1.0
                total = weight * (cross * update_scale + penalty * on_penalty)
                total.backward()  # type: ignore[no-untyped-call]  # torch
                loss += float((cross + penalty).detach()) * len(batch.labels) / episode.n_query
                correct += int((logits.argmax(1).cpu() == batch.labels).sum())
            del cross, penalty, total, logits  # a batch's graph, before the next one is built
        with watch("support gradient"):
            finish = getattr(encode, "finish", None)
            backward_through_adapt(pairs, keep_graph=finish is not None)
            if finish is not None:
                finish()
    # An `encode` that hands out leaves makes every loss differentiable, also one that reaches no parameter.
    if isinstance(learner, nn.Module) and all(p.grad is None for p in learner.parameters()):
        raise nothing_to_learn(episode, estimator)
    return TaskOutcome(loss, correct, episode.n_query)


def nothing_to_learn(episode: Episode, estimator: Estimator) -> RunError:
    """Say that a task's loss depends on no parameter, and what to do."""
    return RunError(
        f"The loss of {episode.task} depends on no parameter with --gradient {estimator.name} and --lite-h "
        f"{estimator.h}, so nothing can be learned from it; raise --lite-h, or use --gradient exact."
    )


def move_support(support: Support, device: torch.device | str) -> Support:
    """Copy a support set to ``device``, in the type it has."""
    images = support.images.to(device, non_blocking=True)
    return Support(images, support.labels.to(device, non_blocking=True), support.way)


def query_loss(
    learner: Learner, state: Any, batch: QueryBatch, device: torch.device | str, precision: Context
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute mean cross-entropy, the learner's penalty (or zero), and the detached logits, of one query batch."""
    with precision():
        logits = classify(learner, state, batch.images.to(device, non_blocking=True))
    loss = cross_entropy(logits.float() if logits.dtype != torch.float64 else logits, batch.labels.to(device))
    penalty = getattr(learner, "penalty", None)
    return loss, torch.zeros_like(loss) if penalty is None else penalty(), logits.detach()


def backward_through_adapt(pairs: list[tuple[Tensor, Tensor]], *, keep_graph: bool = False) -> None:
    """Carry the gradients gathered at the leaves back through `adapt`; ``keep_graph`` if more are to come."""
    reached = [(tensor, leaf.grad) for tensor, leaf in pairs if leaf.grad is not None]
    if reached:
        tensors, gradients = zip(*reached, strict=True)
        torch.autograd.backward(tensors, gradients, retain_graph=keep_graph)
