"""Meta-training: tasks in, gradients summed, one optimizer step every few tasks, checkpoints, validation.

Everything random is keyed by the seed and the task's number, never by what ran before: a run killed at any instant goes
on from its last checkpoint and ends with the same bits.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NoReturn, Protocol

import torch
from torch import nn

from lite_bench.harness.assembly import Assembly, check_estimator_fits, precision_context, seeded
from lite_bench.harness.buffers import copy_buffers, put_back
from lite_bench.harness.checkpoints import CheckpointInfo, restore, save_checkpoint
from lite_bench.harness.clips import frames_per_item
from lite_bench.harness.core import Episode, Suite, Task, stable_key
from lite_bench.harness.errors import InterruptedRunError, RunError, UsageError
from lite_bench.harness.evaluation import Evaluation
from lite_bench.harness.files import append_line, write_atomically
from lite_bench.harness.interruption import interruptible
from lite_bench.harness.loading import EpisodeStream
from lite_bench.harness.measurement.parts import untouched_parts
from lite_bench.harness.memory import (
    BatchSizes,
    fixed_advice,
    is_out_of_memory,
    memory_advice,
    release_memory,
    without_frames,
)
from lite_bench.harness.runs import RESUMED_BY, RunFolder, Status, now_text
from lite_bench.harness.settings import DEFAULT_LR, Settings
from lite_bench.harness.statistics import estimate
from lite_bench.harness.step import TaskOutcome, accumulate_task_gradient

LOWERED = "batch_sizes_since_step"
"""Entry of ``run.json``: the batch sizes used since a step in which memory ran out."""

LR_SCALE = "lr_scale"
"""Entry of an optimizer's parameter group: the factor on its learning rate."""


@dataclass(frozen=True)
class StepMetrics:
    """One optimizer step, as written to ``metrics.jsonl``.

    Attributes:
        step: number of the step, from 1.
        tasks: training tasks seen so far.
        loss: mean task loss of the step.
        accuracy: mean query accuracy of the step, 0 to 1.
        lr: learning rate of the step; the backbone's is this times ``backbone_lr_scale``.
        seconds: wall time of the step.
        images_per_second: support and query images over that time.
        data_wait: share of that time spent waiting for data, 0 to 1.
        validation: mean validation accuracy after the step, if it was measured.
    """

    step: int
    tasks: int
    loss: float
    accuracy: float
    lr: float
    seconds: float
    images_per_second: float
    data_wait: float
    validation: float | None = None


class Reporter(Protocol):
    """Told what happens during training."""

    def step(self, metrics: StepMetrics, total_tasks: int) -> None:
        """A step is done."""

    def note(self, text: str) -> None:
        """Something worth a line happened."""


@dataclass
class Training:
    """A run of meta-training.

    Attributes:
        assembly: learner, estimator and device.
        suite: where tasks come from.
        settings: everything else.
        run: the run folder.
        reporter: told what happens.
        optimizer: of the learner's trainable parameters, in `parameter_groups`.
        info: how far the run has come.
        lowered: batch sizes to use from a step on, since memory ran out there.
    """

    assembly: Assembly
    suite: Suite
    settings: Settings
    run: RunFolder
    reporter: Reporter
    optimizer: torch.optim.Optimizer = field(init=False)
    info: CheckpointInfo = field(init=False)
    lowered: dict[int, BatchSizes] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Set up the optimizer."""
        settings, assembly = self.settings, self.assembly
        self.learner, self.estimator, self.device = assembly.learner, assembly.estimator, assembly.device
        self.module = assembly.module.train()
        groups = parameter_groups(self.module, assembly.backbone, settings.backbone_lr_scale, settings.learner)
        kind = torch.optim.SGD if settings.optimizer == "sgd" else torch.optim.Adam
        self.optimizer = kind(groups, lr=self._base_lr())
        self.info = CheckpointInfo(settings.learner, settings.backbone, self.suite.image_size, 0, 0)

    def _base_lr(self) -> float:
        return self.settings.lr or float(getattr(self.module, "default_lr", DEFAULT_LR))

    def resume(self) -> None:
        """Go back to the last checkpoint of the run folder; later lines of the metrics are dropped."""
        path = self.run.checkpoint("last")
        if path.is_file():
            self.info = restore(path, self.settings.learner, self.module, self.optimizer)
        if self.run.metrics.is_file():
            kept = [line for line in self.run.metrics.read_text("utf-8").splitlines() if self._is_past(line)]
            write_atomically(self.run.metrics, "".join(f"{line}\n" for line in kept))
        recorded = self.run.status().get(LOWERED) or {}
        self.lowered = {int(step): BatchSizes(**sizes) for step, sizes in recorded.items()}
        self.reporter.note(f"Resuming after {self.info.tasks} of {self.settings.tasks} tasks.")

    def _is_past(self, line: str) -> bool:
        try:
            return bool(json.loads(line)["step"] <= self.info.step)
        except (ValueError, KeyError, TypeError):
            return False

    def execute(self) -> None:
        """Train to the end.

        Raises:
            InterruptedRunError: by Ctrl-C or SIGTERM; the last whole step is saved.
            RunError: the loss or its gradient is not finite, memory ran out for single images, or the disk is full.
        """
        check_estimator_fits(self.module, self.estimator)
        self.run.set_status("running")
        try:
            with interruptible() as interruption:
                self._loop(interruption)
        except (InterruptedRunError, KeyboardInterrupt):
            self._leave("interrupted")
            raise
        except BaseException as error:
            self._leave("failed")
            if isinstance(error.__cause__, OSError):
                self.reporter.note(self._how_to_go_on())
            raise
        self.run.set_status("finished", tasks=self.info.tasks, step=self.info.step, finished=now_text())

    def _leave(self, status: Status) -> None:
        """Note how the run ended; on a full disk that may fail too, and must not hide why it ended."""
        with suppress(RunError):
            self.run.set_status(status, tasks=self.info.tasks, step=self.info.step)

    def _loop(self, interruption: threading.Event) -> None:
        settings = self.settings
        numbers = range(self.info.tasks, settings.tasks)
        stream = EpisodeStream(self.suite, (self.suite.train_task(i, settings.seed) for i in numbers), settings.workers)
        saved = time.monotonic()
        with closing(iter(stream)) as episodes:
            while self.info.tasks < settings.tasks:
                metrics = self._step(stream, episodes, interruption)
                due = self._validation_is_due(metrics.tasks)
                if due:
                    metrics = replace(metrics, validation=self._validate(metrics, interruption))
                self.info = replace(self.info, step=metrics.step, tasks=metrics.tasks)
                append_line(self.run.metrics, json.dumps(asdict(metrics)))
                self.reporter.step(metrics, settings.tasks)
                if due or time.monotonic() - saved >= settings.checkpoint_seconds:
                    self._save()
                    saved = time.monotonic()
        self._save()

    def _validation_is_due(self, tasks: int) -> bool:
        """Say whether to validate after the step that ends at ``tasks``."""
        settings = self.settings
        if not settings.validate_every or (tasks == settings.tasks and not settings.validate_at_end):
            return False
        if tasks - tasks % settings.validate_every < settings.validate_from:
            return False
        return crossed(self.info.tasks, tasks, settings.validate_every)

    def tasks_of_step(self) -> int:
        """Count the tasks of the coming step; the last of an epoch, and of all, may have fewer than the others."""
        settings, done = self.settings, self.info.tasks
        left = settings.tasks - done
        if settings.epoch:
            left = min(left, settings.epoch - done % settings.epoch)
        return min(settings.tasks_per_step, left)

    def _step(self, stream: EpisodeStream, episodes: Iterator[Episode], interruption: threading.Event) -> StepMetrics:
        start, waited = time.perf_counter(), stream.waited
        number = self.tasks_of_step()
        buffers = copy_buffers(self.module)
        seen: list[Task] = []  # tasks of this step that the stream has already given
        while True:
            problem = None
            try:
                outcomes, images = self._gradients(number, episodes, seen, buffers, interruption)
                break
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                problem = without_frames(error)
            put_back(self.module, buffers)
            self.optimizer.zero_grad(set_to_none=True)  # gradients of half a step also hold memory, when it is released
            self._lower_batch_sizes(problem)
        lr = self._lr()
        self._check_finite(outcomes, lr)
        self._apply(number, lr)
        return self._measure(outcomes, lr, time.perf_counter() - start, stream.waited - waited, images)

    def _gradients(
        self,
        number: int,
        episodes: Iterator[Episode],
        seen: list[Task],
        buffers: dict[str, torch.Tensor],
        interruption: threading.Event,
    ) -> tuple[list[TaskOutcome], int]:
        """Add up the gradients of the step's tasks, from the first; tasks in ``seen`` are made anew."""
        settings, sizes = self.settings, self._batch_sizes()
        precision = precision_context(settings.precision, self.device)
        self.estimator.chunk = sizes.chunk
        self.optimizer.zero_grad(set_to_none=True)
        outcomes, images = [], 0
        for position, index in enumerate(range(self.info.tasks, self.info.tasks + number)):
            again = position < len(seen)
            episode = self.suite.episode(seen[position]) if again else next(episodes)
            if not again:
                seen.append(episode.task)
            generator = torch.Generator().manual_seed(stable_key("gradient", settings.seed, index))
            with seeded("task", settings.seed, index):
                outcomes.append(
                    accumulate_task_gradient(
                        self.learner, episode, self.estimator, sizes.query, generator, self.device, precision
                    )
                )
            if index == 0:
                self._explain_h(len(episode.support.labels), clips=frames_per_item(episode.support.images) > 1)
            images += (len(episode.support.labels) + episode.n_query) * frames_per_item(episode.support.images)
            if interruption.is_set():
                self._stop_within_step(buffers)
        return outcomes, images

    def _batch_sizes(self) -> BatchSizes:
        """Give the batch sizes of the coming step."""
        step = self.info.step + 1
        asked = BatchSizes(self.settings.batch_size, self.settings.query_batch)
        return next((sizes for since, sizes in sorted(self.lowered.items(), reverse=True) if since <= step), asked)

    def _lower_batch_sizes(self, problem: BaseException) -> None:
        """Halve the batch sizes from the coming step on, and write that down; a resumed run does the same.

        Raises:
            RunError: they cannot be halved, or the learner's results depend on them.
        """
        release_memory()
        before = self._batch_sizes()
        if getattr(self.learner, "fixed_batches", False):
            raise RunError(fixed_advice(before)) from problem
        if before.smallest:
            raise RunError(memory_advice(before, self.settings.gradient, self.settings.h)) from problem
        after = before.halved()
        self.lowered[self.info.step + 1] = after
        self.run.set_status("running", **{LOWERED: {step: each.plain() for step, each in self.lowered.items()}})
        self.reporter.note(
            f"Memory ran out with {before} in step {self.info.step + 1}; the step starts again with {after}. The same "
            "images carry the same gradients: only rounding (and the masks of dropout) can differ."
        )

    def _explain_h(self, n_support: int, *, clips: bool) -> None:
        """Say after the first task what its H means: every image, or none and which parts that leaves untrained."""
        h = self.settings.h
        if not getattr(self.estimator, "uses_h", True):
            return
        if h > n_support:
            self.reporter.note(
                f"Note: --lite-h {h} covers all {n_support} support {'clips' if clips else 'images'} of the first "
                "task, so each one of such a task carries a gradient and nothing is saved."
            )
        untouched = untouched_parts(self.module) if h == 0 else []
        if untouched:
            self.reporter.note(
                f"Note: with --lite-h 0 these parts get no gradient and stay as they are: {', '.join(untouched)}."
            )

    def _stop_within_step(self, buffers: dict[str, torch.Tensor]) -> NoReturn:
        """Take back what the unfinished step did to running statistics, save, and stop."""
        put_back(self.module, buffers)
        self._save()
        raise InterruptedRunError(
            f"Stopped after {self.info.tasks} of {self.settings.tasks} tasks. {self._how_to_go_on()}"
        )

    def _how_to_go_on(self) -> str:
        return f"Go on with: {RESUMED_BY['train']} {self.run.path}"

    def _lr(self) -> float:
        """Learning rate of the coming step."""
        settings, done = self.settings, self.info.tasks
        drops = done // settings.lr_decay_every if settings.lr_decay_every else 0
        left = 1 - done / settings.tasks if settings.lr_linear else 1.0
        return self._base_lr() * settings.lr_decay**drops * left

    def _check_finite(self, outcomes: list[TaskOutcome], lr: float) -> None:
        """Refuse a step that would spoil the weights, before it is taken."""
        loss = sum(outcome.loss for outcome in outcomes) / len(outcomes)
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        finite = bool(torch.stack([gradient.isfinite().all() for gradient in gradients]).all())
        if math.isfinite(loss) and finite:
            return
        kept = self.run.checkpoint("last")
        raise RunError(
            f"The {'gradient' if math.isfinite(loss) else 'loss'} is not finite at step {self.info.step + 1} (loss "
            f"{loss:g}, after {self.info.tasks} tasks); train anew with a lower --lr (now {lr:g}) or with --precision "
            f"fp32. {f'{kept} holds finite weights.' if kept.is_file() else 'No checkpoint was written yet.'}"
        )

    def _apply(self, number: int, lr: float) -> None:
        """Average the gradients over the tasks of the step, or of a whole one where there are epochs, and take it."""
        divisor = self.settings.tasks_per_step if self.settings.epoch else number
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get(LR_SCALE, 1.0)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.div_(divisor)
        self.optimizer.step()

    def _measure(
        self, outcomes: list[TaskOutcome], lr: float, seconds: float, waited: float, images: int
    ) -> StepMetrics:
        loss = sum(outcome.loss for outcome in outcomes) / len(outcomes)
        accuracy = sum(outcome.correct / outcome.n_query for outcome in outcomes) / len(outcomes)
        step, tasks = self.info.step + 1, self.info.tasks + len(outcomes)
        return StepMetrics(step, tasks, loss, accuracy, lr, seconds, images / seconds, waited / seconds)

    def _validate(self, metrics: StepMetrics, interruption: threading.Event) -> float | None:
        """Measure mean validation accuracy over sources and keep the best weights; None without validation tasks."""
        sizes = self._batch_sizes()
        settings = self.settings.changed(batch_size=sizes.chunk, query_batch_size=sizes.query)
        evaluation = Evaluation(
            self.learner, self.module, self.estimator, settings, self.device, note=self.reporter.note
        )
        means: dict[str, float] = {}
        for source, tasks in self.suite.tasks("validation").items():
            accuracies = []
            for episode, score in evaluation.scores(self.suite, tasks[: self.settings.validation_tasks]):
                accuracies.extend(score.values or [0.0] * max(1, len(episode.groups)))
                if score.failed:
                    self.reporter.note(f"{episode.task} failed and counts as 0 % here: {score.failed}")
                if interruption.is_set():
                    raise InterruptedRunError(f"Stopped while validating. {self._how_to_go_on()}")
            means[source] = estimate(accuracies).mean
        if not means:
            return None
        accuracy = sum(means.values()) / len(means)
        improves: Improves = getattr(self.suite, "improves", higher_mean)
        if improves(means, self.info.best_by_source or None):
            self.info = replace(self.info, best_accuracy=accuracy, best_by_source=means)
            best = replace(self.info, step=metrics.step, tasks=metrics.tasks)
            save_checkpoint(self.run.checkpoint("best"), best, self.module)
        return accuracy

    def _save(self) -> None:
        save_checkpoint(self.run.checkpoint("last"), self.info, self.module, self.optimizer)


def trainable(module: nn.Module, name: str) -> list[nn.Parameter]:
    """List the parameters to meta-train.

    Raises:
        UsageError: there are none.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise UsageError(
            f"Learner {name} has nothing to meta-train: it learns each task from its support set alone. "
            f"Evaluate it directly: lite-bench eval {name}"
        )
    return parameters


def parameter_groups(
    module: nn.Module, backbone: nn.Module | None, backbone_scale: float, name: str
) -> list[dict[str, Any]]:
    """Group the parameters to meta-train by the factor on their learning rate, for an optimizer.

    Args:
        module: the learner.
        backbone: the part of it that learns at its own rate, if it is known.
        backbone_scale: factor on the learning rate of that part.
        name: of the learner, for messages.

    Returns:
        one group if there is one rate, as in checkpoints from before there were two; else the others' and the
        backbone's, as far as they have parameters, each with its factor.

    Raises:
        UsageError: there is nothing to meta-train.
    """
    parameters = trainable(module, name)
    if backbone is None or backbone_scale == 1:
        return [{"params": parameters}]
    inside = {id(p) for p in backbone.parameters()}
    parts = {
        1.0: [p for p in parameters if id(p) not in inside],
        backbone_scale: [p for p in parameters if id(p) in inside],
    }
    return [{"params": part, LR_SCALE: scale} for scale, part in parts.items() if part]


Improves = Callable[[Mapping[str, float], Mapping[str, float] | None], bool]
"""Says whether a model with these validation accuracies by source replaces the best so far, if there is one."""


def higher_mean(candidate: Mapping[str, float], incumbent: Mapping[str, float] | None) -> bool:
    """Prefer the higher mean over sources."""
    if incumbent is None:
        return True
    return sum(candidate.values()) / len(candidate) > sum(incumbent.values()) / len(incumbent)


def crossed(before: int, after: int, interval: int) -> bool:
    """Say whether a multiple of ``interval`` lies in (before, after]."""
    return after // interval > before // interval
