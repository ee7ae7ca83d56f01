"""Meta-training: tasks in, gradients summed, one optimizer step every few tasks, checkpoints, validation.

Everything random is keyed by the seed and the task's number, never by what ran before: a run killed at any instant goes
on from its last checkpoint and ends with the same bits.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from types import FrameType
from typing import Any, Protocol

import torch
from torch import nn

from lite_bench.harness.assembly import check_estimator_fits, precision_context, seeded
from lite_bench.harness.checkpoints import CheckpointInfo, restore, save_checkpoint
from lite_bench.harness.core import Estimator, Learner, Suite, stable_key
from lite_bench.harness.errors import RunError, UsageError
from lite_bench.harness.evaluation import Evaluation
from lite_bench.harness.files import append_line, write_atomically
from lite_bench.harness.loading import EpisodeStream
from lite_bench.harness.runs import RunFolder, now_text
from lite_bench.harness.settings import DEFAULT_LR, Settings
from lite_bench.harness.statistics import estimate
from lite_bench.harness.step import TaskOutcome, accumulate_task_gradient


@dataclass(frozen=True)
class StepMetrics:
    """One optimizer step, as written to ``metrics.jsonl``.

    Attributes:
        step: number of the step, from 1.
        tasks: training tasks seen so far.
        loss: mean task loss of the step.
        accuracy: mean query accuracy of the step, 0 to 1.
        lr: learning rate of the step.
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


class TrainingInterrupted(RunError):
    """The user stopped the run; its folder is usable."""

    exit_code = 130


@dataclass
class Training:
    """A run of meta-training.

    Attributes:
        learner: under its own protocol.
        module: the same object as a module, on ``device``.
        suite: where tasks come from.
        estimator: supplies gradients.
        settings: everything else.
        run: the run folder.
        device: where to run.
        reporter: told what happens.
    """

    learner: Learner
    module: nn.Module
    suite: Suite
    estimator: Estimator
    settings: Settings
    run: RunFolder
    device: torch.device
    reporter: Reporter
    optimizer: torch.optim.Optimizer = field(init=False)
    info: CheckpointInfo = field(init=False)

    def __post_init__(self) -> None:
        """Set up the optimizer."""
        self.module.to(self.device).train()
        settings = self.settings
        self.optimizer = torch.optim.Adam(trainable(self.module, settings.learner), lr=self._base_lr())
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
        self.reporter.note(f"Resuming after {self.info.tasks} of {self.settings.tasks} tasks.")

    def _is_past(self, line: str) -> bool:
        try:
            return bool(json.loads(line)["step"] <= self.info.step)
        except (ValueError, KeyError):
            return False

    def execute(self) -> None:
        """Train to the end.

        Raises:
            TrainingInterrupted: by Ctrl-C or SIGTERM; the last whole step is saved.
            RunError: the loss is not finite, or memory ran out.
        """
        check_estimator_fits(self.module, self.estimator)
        self.run.set_status("running")
        try:
            with interruptible() as interruption:
                self._loop(interruption)
        except TrainingInterrupted:
            self.run.set_status("interrupted", tasks=self.info.tasks, step=self.info.step)
            raise
        except BaseException:
            self.run.set_status("failed", tasks=self.info.tasks, step=self.info.step)
            raise
        self.run.set_status("finished", tasks=self.info.tasks, step=self.info.step, finished=now_text())

    def _loop(self, interruption: threading.Event) -> None:
        settings = self.settings
        numbers = range(self.info.tasks, settings.tasks)
        stream = EpisodeStream(self.suite, (self.suite.train_task(i, settings.seed) for i in numbers), settings.workers)
        episodes = iter(stream)
        saved = time.monotonic()
        while self.info.tasks < settings.tasks:
            metrics = self._step(stream, episodes, interruption)
            due = settings.validate_every and crossed(self.info.tasks, metrics.tasks, settings.validate_every)
            self.info = replace(self.info, step=metrics.step, tasks=metrics.tasks)
            if due:
                metrics = replace(metrics, validation=self._validate())
            append_line(self.run.metrics, json.dumps(asdict(metrics)))
            self.reporter.step(metrics, settings.tasks)
            if due or time.monotonic() - saved >= settings.checkpoint_seconds:
                self._save()
                saved = time.monotonic()
        self._save()

    def _step(self, stream: EpisodeStream, episodes: Iterator[Any], interruption: threading.Event) -> StepMetrics:
        settings, start, waited = self.settings, time.perf_counter(), stream.waited
        number = min(settings.tasks_per_step, settings.tasks - self.info.tasks)
        precision = precision_context(settings.precision, self.device)
        self.optimizer.zero_grad(set_to_none=True)
        outcomes, images = [], 0
        for index in range(self.info.tasks, self.info.tasks + number):
            episode = next(episodes)
            generator = torch.Generator().manual_seed(stable_key("gradient", settings.seed, index))
            with seeded("task", settings.seed, index), memory_errors(settings):
                outcomes.append(
                    accumulate_task_gradient(
                        self.learner, episode, self.estimator, settings.batch_size, generator, self.device, precision
                    )
                )
            images += len(episode.support.labels) + episode.n_query
            self._stop_if(interruption)
        lr = self._apply(number)
        return self._measure(outcomes, lr, time.perf_counter() - start, stream.waited - waited, images)

    def _apply(self, number: int) -> float:
        """Average the gradients over the tasks of the step and take it."""
        settings = self.settings
        halvings = self.info.tasks // settings.lr_halve_every if settings.lr_halve_every else 0
        lr = self._base_lr() * 0.5**halvings
        for group in self.optimizer.param_groups:
            group["lr"] = lr
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.div_(number)
        self.optimizer.step()
        return lr

    def _measure(
        self, outcomes: list[TaskOutcome], lr: float, seconds: float, waited: float, images: int
    ) -> StepMetrics:
        loss = sum(outcome.loss for outcome in outcomes) / len(outcomes)
        accuracy = sum(outcome.correct / outcome.n_query for outcome in outcomes) / len(outcomes)
        step, tasks = self.info.step + 1, self.info.tasks + len(outcomes)
        if not math.isfinite(loss):
            raise RunError(
                f"The loss is {loss} at step {step} (task {tasks}); lower --lr (now {lr:g}), or use --precision fp32. "
                f"The last checkpoint, if any, is before that."
            )
        return StepMetrics(step, tasks, loss, accuracy, lr, seconds, images / seconds, waited / seconds)

    def _validate(self) -> float | None:
        """Measure mean validation accuracy over sources and keep the best weights; None without validation tasks."""
        evaluation = Evaluation(self.learner, self.module, self.estimator, self.settings, self.device)
        means = []
        for tasks in self.suite.tasks("validation").values():
            scores = evaluation.scores(self.suite, tasks[: self.settings.validation_tasks])
            means.append(estimate([score.accuracy for _, score in scores]).mean)
        if not means:
            return None
        accuracy = sum(means) / len(means)
        if self.info.best_accuracy is None or accuracy > self.info.best_accuracy:
            self.info = replace(self.info, best_accuracy=accuracy)
            save_checkpoint(self.run.checkpoint("best"), self.info, self.module)
        return accuracy

    def _save(self) -> None:
        save_checkpoint(self.run.checkpoint("last"), self.info, self.module, self.optimizer)

    def _stop_if(self, interruption: threading.Event) -> None:
        if not interruption.is_set():
            return
        self._save()
        raise TrainingInterrupted(
            f"Stopped after {self.info.tasks} of {self.settings.tasks} tasks. "
            f"Go on with: lite-bench train --resume {self.run.path}"
        )


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


def crossed(before: int, after: int, interval: int) -> bool:
    """Say whether a multiple of ``interval`` lies in (before, after]."""
    return after // interval > before // interval


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into a flag, so that a step is never cut in half; a second one acts at once."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        del frame
        if flag.is_set():
            raise KeyboardInterrupt
        flag.set()

    earlier = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


@contextmanager
def memory_errors(settings: Settings) -> Iterator[None]:
    """Explain what to do when memory runs out.

    Raises:
        RunError: it did.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if (
            isinstance(error, RuntimeError)
            and not isinstance(error, torch.OutOfMemoryError)
            and "allocate memory" not in str(error)
        ):
            raise
        raise RunError(
            f"Memory ran out with --batch-size {settings.batch_size}, --gradient {settings.gradient} and --lite-h "
            f"{settings.lite_h}. Lower --batch-size (it never changes the result), use --gradient exact, or lower --lite-h."
        ) from error
