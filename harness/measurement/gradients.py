"""Gradient estimators beside the exact gradient of the same tasks: bias, noise, time and memory.

Reproduces the analysis behind Fig. 4 of Bronskill et al., Memory Efficient Meta-Learning with Large Images, NeurIPS
2021, and goes past it: per part of the learner, for every estimator, with a test of the bias.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from lite_bench.harness.assembly import Assembly, check_estimator_fits, precision_context, seeded, use_precision
from lite_bench.harness.buffers import kept_buffers
from lite_bench.harness.core import Episode, Estimator, stable_key
from lite_bench.harness.errors import IncompatibleError, RunError, UsageError
from lite_bench.harness.measurement.deviations import BLOCKS, Deviation, Tally, TaskTally
from lite_bench.harness.measurement.parts import trainable_parts
from lite_bench.harness.measurement.peak import measure_peak
from lite_bench.harness.measurement.stopwatch import clock
from lite_bench.harness.memory import is_out_of_memory
from lite_bench.harness.registry import ESTIMATORS
from lite_bench.harness.step import accumulate_task_gradient

REFERENCE = "exact"
WHOLE = "all"


@dataclass(frozen=True)
class Case:
    """One estimator to study.

    Attributes:
        estimator: its entry-point name.
        h: support images that carry a gradient; None where H plays no part.
        precision: of the networks, ``fp32``, ``tf32`` or ``bf16``.
    """

    estimator: str
    h: int | None
    precision: str = "fp32"


@dataclass(frozen=True)
class Finding:
    """What the draws of one case showed.

    Attributes:
        case: the estimator.
        draws: per task.
        parts: how far its estimates are from the true gradient, by part; ``all`` is the whole gradient.
        seconds: median wall time of one draw, synchronised.
        peak_bytes: most memory that tensors took in one draw of the first task, above what they took before.
    """

    case: Case
    draws: int
    parts: dict[str, Deviation]
    seconds: float
    peak_bytes: int


@dataclass
class _Progress:
    """What has been seen of one case."""

    estimator: Estimator
    tallies: dict[str, Tally] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0


Notify = Callable[[int, int, str], None]
"""Told how many draws are done, of how many, and what is being drawn."""


@dataclass
class Study:
    """Compares gradient estimators on the same tasks.

    Attributes:
        assembly: the learner, on its device.
        batch_size: queries at a time.
        chunk: support images at a time.
        draws: random draws per case and task.
        seed: of the draws.
        notify: called as the work goes on.
        stop: set to end early; what is finished by then is kept.
    """

    assembly: Assembly
    batch_size: int
    chunk: int
    draws: int
    seed: int = 0
    notify: Notify = lambda done, total, what: None
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, episodes: Iterable[Episode], cases: Sequence[Case], n_tasks: int) -> list[Finding]:
        """Compare ``cases`` on the first ``n_tasks`` episodes; if stopped early, those that are finished.

        Raises:
            IncompatibleError: the learner's normalisation makes the reference or a case mean something else.
            RunError: memory ran out.
        """
        try:
            return self._run(episodes, cases, n_tasks)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise RunError(
                f"Memory ran out with --batch-size {self.chunk}; lower it (it changes no gradient), leave `full` and "
                "`subsample` out of --gradient, or lower --h."
            ) from error

    def _run(self, episodes: Iterable[Episode], cases: Sequence[Case], n_tasks: int) -> list[Finding]:
        module = self.assembly.module.train()
        progress = [_Progress(self._estimator(case)) for case in cases]
        reference = self._estimator(Case(REFERENCE, None))
        for estimator in (reference, *(each.estimator for each in progress)):
            check_estimator_fits(module, estimator)
        done, total = 0, n_tasks * sum(map(self.draws_of, cases))
        for number, episode in zip(range(n_tasks), episodes, strict=False):
            exact = by_part(module, self._gradient(episode, reference, Case(REFERENCE, None), 0))
            truth = {part: vector.double() for part, vector in exact.items()}
            for case, seen in zip(cases, progress, strict=True):
                for draw in self._draw(episode, case, seen, truth, first=number == 0):
                    self.notify(done + draw, total, describe(case))
                done += self.draws_of(case)
        module.zero_grad(set_to_none=True)
        return [self._finding(case, seen) for case, seen in zip(cases, progress, strict=True) if seen.tallies]

    def draws_of(self, case: Case) -> int:
        """Give the number of draws per task: one where nothing is drawn."""
        return self.draws if case.h else 1

    def _estimator(self, case: Case) -> Estimator:
        estimator: Estimator = ESTIMATORS.load(case.estimator)(case.h or 0, self.chunk)
        return estimator

    def _gradient(self, episode: Episode, estimator: Estimator, case: Case, draw: int) -> list[Tensor | None]:
        """Compute one draw of the gradient of every trainable parameter."""
        module = self.assembly.module
        module.zero_grad(set_to_none=True)
        generator = torch.Generator().manual_seed(stable_key("draw", self.seed, episode.task, describe(case), draw))
        use_precision(case.precision)
        precision = precision_context(case.precision, self.assembly.device)
        with seeded("task", self.seed, episode.task), kept_buffers(module):
            accumulate_task_gradient(
                self.assembly.learner, episode, estimator, self.batch_size, generator, self.assembly.device, precision
            )
        return [p.grad for p in module.parameters() if p.requires_grad]

    def _draw(
        self, episode: Episode, case: Case, seen: _Progress, truth: dict[str, Tensor], *, first: bool
    ) -> Iterator[int]:
        """Take the draws of one case, giving how many are done after each; they count once all are."""
        draws = self.draws_of(case)
        tallies = {part: TaskTally(vector, min(draws, BLOCKS)) for part, vector in truth.items()}
        for draw in range(draws):
            if self.stop.is_set():
                return
            start = clock(self.assembly.device)
            gradients = self._gradient(episode, seen.estimator, case, draw)
            seen.seconds.append(clock(self.assembly.device) - start)
            for part, vector in by_part(self.assembly.module, gradients).items():
                tallies[part].add(vector)
            yield draw + 1
        for part, tally in tallies.items():
            seen.tallies.setdefault(part, Tally()).add(tally)
        if first:
            del gradients
            self.assembly.module.zero_grad(set_to_none=True)
            work = partial(self._gradient, episode, seen.estimator, case, 0)
            seen.peak_bytes = measure_peak(work, self.assembly.device).tensors

    def _finding(self, case: Case, seen: _Progress) -> Finding:
        deviations = {part: tally.result() for part, tally in seen.tallies.items()}
        return Finding(case, self.draws_of(case), deviations, statistics.median(seen.seconds), seen.peak_bytes)


def by_part(module: nn.Module, gradients: Sequence[Tensor | None]) -> dict[str, Tensor]:
    """Join gradients of the trainable parameters, in order, into one vector [P] per part and one for all of them."""
    listed = [p for p in module.parameters() if p.requires_grad]
    filled = [torch.zeros_like(p) if g is None else g for p, g in zip(listed, gradients, strict=True)]
    own = {id(p): g.detach().flatten() for p, g in zip(listed, filled, strict=True)}
    named = trainable_parts(module)
    vectors = {part: torch.cat([own[id(p)] for p in parameters]) for part, parameters in named.items()}
    return vectors if len(named) == 1 else {WHOLE: torch.cat(list(own.values())), **vectors}


def describe(case: Case) -> str:
    """Name a case in a few words."""
    name = case.estimator if case.h is None else f"{case.estimator} H={case.h}"
    return name if case.precision == "fp32" else f"{name} {case.precision}"


def make_cases(
    estimators: Sequence[str], h: Sequence[int], n_support: int, way: int, precisions: Sequence[str] = ("fp32",)
) -> tuple[list[Case], list[str]]:
    """List what to study, leaving out what would repeat another case, and say what was left out or changed.

    Args:
        estimators: entry-point names.
        h: values of H.
        n_support: support images of the tasks.
        way: classes of the tasks.
        precisions: ``fp32``, ``bf16``.

    Raises:
        UsageError: no value of H is left.
    """
    notes = []
    useful = sorted({min(each, n_support) for each in h})
    beyond = sorted(each for each in h if each > n_support)
    if beyond:
        notes.append(
            f"--h {', '.join(map(str, beyond))}: tasks have {n_support} support images, so H = {n_support} is used, "
            "with the scale 1: the whole gradient."
        )
    if 0 in useful:
        notes.append(
            "--h 0: no support image carries a gradient; parts that only the support set passes through get none."
        )
    cases: list[Case] = []
    for name in estimators:
        estimator: Estimator = ESTIMATORS.load(name)(1, 1)
        own: list[int | None] = [None]
        if getattr(estimator, "uses_h", True):
            own = [*useful]
        if getattr(estimator, "covers_classes", False) and useful[0] < way:
            own = [*sorted({max(each, way) for each in useful})]
            notes.append(f"{name} takes at least one image of every class, so H below {way} is {way} for it.")
        cases += [Case(name, each, precision) for precision in precisions for each in own]
    if not cases:
        raise UsageError("--gradient names nothing to study; give for example --gradient lite,subsample.")
    return cases, notes


def check_tasks_alike(episodes: Sequence[Episode]) -> tuple[int, int]:
    """Give support size and way of the tasks, which must agree for one H to mean the same in all.

    Raises:
        IncompatibleError: they differ.
    """
    shapes = sorted({(len(each.support.labels), each.support.way) for each in episodes})
    if len(shapes) > 1:
        raise IncompatibleError(
            f"The tasks differ in size (from {shapes[0][0]} to {shapes[-1][0]} support images), so one H means "
            "different things in them; fix --way and --shot, or take --tasks 1."
        )
    return shapes[0]
