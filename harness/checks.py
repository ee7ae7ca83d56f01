"""The public contract check of learners: ours pass it in the tests, a plug-in's author runs the same one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lite_bench.harness.assembly import build_backbone
from lite_bench.harness.clips import ItemEncode, classify
from lite_bench.harness.core import Encode, Episode, FeatureLearner, Learner, QueryBatch, Support, Task
from lite_bench.harness.errors import PluginError
from lite_bench.harness.registry import ESTIMATORS
from lite_bench.harness.settings import DEFAULT_GRADIENT
from lite_bench.harness.step import accumulate_task_gradient, map_tensors

SMALL_BACKBONE = "conv4"
TOLERANCE = 1e-3
QUERIES = 6


def check_learner(learner: Any, image_size: int = 32) -> None:
    """Check that a learner keeps the contract of `lite_bench.harness.core.Learner`.

    It must be a module whose `adapt` returns a dataclass of tensors and changes nothing, whose logits are finite and
    of shape [M, C] for 2 to 50 classes and for one shot, move with a relabelling of the classes, depend neither on the
    order of the support set nor on its chunks nor on the other queries of a batch, and, if it has parameters to train,
    carry a gradient to them: the same one whether the support set is run once or parts of it again. A learner with
    ``features`` and ``logits`` must classify clips that repeat an image as it does the image.

    Args:
        learner: the learner on the CPU, or its class, which is then built on a small backbone.
        image_size: side of the images it is tried on, in pixels.

    Raises:
        PluginError: the first rule it breaks, in one sentence.
    """
    if isinstance(learner, type):
        learner = learner(build_backbone(SMALL_BACKBONE, image_size=image_size, pretrained=False))
    _require(isinstance(learner, nn.Module), "is not a torch.nn.Module", learner)
    _require(isinstance(learner, Learner), "lacks adapt(support, encode) or classify(state, images)", learner)
    was_training = learner.training
    learner.eval()
    try:
        with torch.no_grad():
            _check_state(learner, image_size)
            _check_shapes(learner, image_size)
            _check_purity(learner, image_size)
            _check_symmetries(learner, image_size)
            _check_clips(learner, image_size)
        _check_gradients(learner, image_size)
        _check_estimators(learner, image_size)
    finally:
        learner.train(was_training)


def _require(condition: bool, failure: str, learner: Any) -> None:
    if not condition:
        raise PluginError(f"Learner {type(learner).__name__} {failure}.")


def _task(way: int, shot: int, side: int, seed: int = 0) -> tuple[Support, Tensor]:
    """Make a support set of noisy class patterns, and query images of the first classes."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randint(0, 256, (way, 3, side, side), generator=generator)

    def draw(labels: Tensor) -> Tensor:
        noise = torch.randint(0, 256, (len(labels), 3, side, side), generator=generator)
        return ((2 * patterns[labels] + noise) // 3).to(torch.uint8)

    labels = torch.arange(way * shot) % way
    return Support(draw(labels), labels, way), draw(torch.arange(QUERIES) % way)


def _encode(support: Support, chunk: int = 100) -> Encode:
    """Give the plain forward, by the name every installation has."""
    estimator = ESTIMATORS.load("full")(0, chunk)
    encode: Encode = estimator.begin(support, torch.Generator()).encode()
    return encode


def _logits(learner: Any, support: Support, queries: Tensor, chunk: int = 100) -> Tensor:
    logits: Tensor = learner.classify(learner.adapt(support, _encode(support, chunk)), queries)
    return logits


def _close(a: Tensor, b: Tensor) -> bool:
    spread = float((b - b.mean(1, keepdim=True)).abs().max())
    return a.shape == b.shape and bool(((a - b).abs() <= TOLERANCE * max(spread, 1e-3)).all())


def _check_state(learner: Any, side: int) -> None:
    support, _ = _task(2, 2, side)
    state = learner.adapt(support, _encode(support))
    _require(
        dataclasses.is_dataclass(state), f"adapts to a {type(state).__name__}, not a dataclass of tensors", learner
    )
    map_tensors(state, lambda tensor: tensor)


def _check_shapes(learner: Any, side: int) -> None:
    for way, shot in ((2, 3), (5, 1), (50, 1)):
        support, queries = _task(way, shot, side)
        logits = _logits(learner, support, queries)
        expected, found = (QUERIES, way), tuple(logits.shape)
        task = f"on a {way}-way {shot}-shot task"
        _require(found == expected, f"gives logits of shape {found} {task}, not {expected}", learner)
        _require(bool(logits.isfinite().all()), f"gives logits that are not finite {task}", learner)


def _check_purity(learner: Any, side: int) -> None:
    support, queries = _task(4, 3, side)
    before = {key: value.clone() for key, value in learner.state_dict().items()}
    flags = [(p.requires_grad, p.grad is None) for p in learner.parameters()]
    state = learner.adapt(support, _encode(support))
    after = learner.state_dict()
    changed = [key for key in after if key not in before or not torch.equal(before[key], after[key])]
    _require(
        not changed, f"changes itself in adapt ({', '.join(changed[:3])}); the state must hold all it learns", learner
    )
    same = flags == [(p.requires_grad, p.grad is None) for p in learner.parameters()]
    _require(same, "leaves gradients or changes requires_grad in adapt", learner)
    first, second = learner.classify(state, queries), _logits(learner, support, queries)
    _require(torch.equal(first, second), "gives other logits when it adapts to the same support set again", learner)


def _check_symmetries(learner: Any, side: int) -> None:
    support, queries = _task(5, 3, side)
    reference = _logits(learner, support, queries)
    order = torch.randperm(len(support.labels), generator=torch.Generator().manual_seed(1))
    shuffled = Support(support.images[order], support.labels[order], support.way)
    _require(
        _close(_logits(learner, shuffled, queries), reference),
        "depends on the order of the support set", learner,
    )  # fmt: skip
    renamed = torch.tensor([3, 0, 4, 1, 2])
    relabelled = Support(support.images, renamed[support.labels], support.way)
    _require(
        _close(_logits(learner, relabelled, queries)[:, renamed], reference),
        "does not permute its logits when the classes are renamed", learner,
    )  # fmt: skip
    _require(
        _close(_logits(learner, support, queries, chunk=4), reference),
        "depends on how the support set is cut into chunks (batch statistics?)", learner,
    )  # fmt: skip
    state = learner.adapt(support, _encode(support))
    singly = torch.cat([learner.classify(state, queries[i : i + 1]) for i in range(QUERIES)])
    _require(_close(singly, reference), "lets the queries of a batch influence each other", learner)


def _check_clips(learner: Any, side: int) -> None:
    """A clip that repeats one image has the image's features, so that nothing may change."""
    if not isinstance(learner, FeatureLearner):
        return
    support, queries = _task(4, 3, side)
    reference = _logits(learner, support, queries)
    state = learner.adapt(support, _encode(support))
    steps = learner.logits(state, learner.features(state, queries))
    _require(_close(steps, reference), "gives other logits by logits(features(images)) than by classify", learner)
    clips = support.images.unsqueeze(1).expand(-1, 2, -1, -1, -1)
    repeated = learner.adapt(Support(clips, support.labels, support.way), ItemEncode(_encode(support)))
    again = classify(learner, repeated, queries.unsqueeze(1).expand(-1, 2, -1, -1, -1))
    _require(_close(again, reference), "adapts otherwise to clips that repeat an image than to the image", learner)


def _check_gradients(learner: Any, side: int) -> None:
    if not any(p.requires_grad for p in learner.parameters()):
        return
    support, queries = _task(3, 2, side)
    loss = cross_entropy(_logits(learner, support, queries), torch.arange(QUERIES) % 3)
    parameters = [p for p in learner.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True) if loss.requires_grad else ()
    _require(any(_nonzero(gradients)), "has parameters to train but the loss carries no gradient to them", learner)


def _check_estimators(learner: Any, side: int) -> None:
    """Compare gradients that run support images again with the plain one; with H = N nothing is left to chance."""
    parameters = [p for p in learner.parameters() if p.requires_grad]
    if not parameters:
        return
    support, queries = _task(3, 3, side)
    batch = QueryBatch(queries, torch.arange(QUERIES) % 3)
    episode = Episode(Task("check@1", "noise", "train", 0), support, (batch,), QUERIES)

    def gradient(name: str, chunk: int) -> Tensor:
        learner.zero_grad(set_to_none=True)
        estimator = ESTIMATORS.load(name)(len(support.labels), chunk)
        accumulate_task_gradient(learner, episode, estimator, QUERIES, torch.Generator().manual_seed(0))
        return torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])

    expected = gradient("full", 100)
    for name in ("exact", DEFAULT_GRADIENT):
        found = gradient(name, 4)
        _require(
            bool((found - expected).norm() <= TOLERANCE * expected.norm()),
            f"has another gradient with --gradient {name} than with full; a network handed to `encode` must compute "
            "the same when it is run again (does it use a variable that has moved on since?)", learner,
        )  # fmt: skip
    learner.zero_grad(set_to_none=True)


def _nonzero(gradients: tuple[Tensor | None, ...]) -> Iterator[bool]:
    for gradient in gradients:
        yield gradient is not None and bool(gradient.isfinite().all()) and bool(gradient.any())
