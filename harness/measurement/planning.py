"""Batch sizes, and H if asked, that stay within a memory budget: chosen by running training tasks and measuring.

Larger batches are not always faster (on a CPU they rarely are), so every size that fits is timed and the fastest is
taken, the smallest among those as fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn

import torch

from lite_bench.harness.assembly import Assembly, build_estimator, check_estimator_fits, precision_context, seeded
from lite_bench.harness.buffers import kept_buffers
from lite_bench.harness.clips import frames_per_item
from lite_bench.harness.core import Episode
from lite_bench.harness.errors import UsageError
from lite_bench.harness.measurement.peak import measure_peak, resident_bytes
from lite_bench.harness.measurement.stopwatch import clock
from lite_bench.harness.memory import BatchSizes, is_out_of_memory, release_memory
from lite_bench.harness.settings import Settings
from lite_bench.harness.step import accumulate_task_gradient

HEADROOM = 0.9
"""Share of the budget to plan for: later tasks may be larger than those measured, and memory fragments."""
CONTEXT_BYTES = 600_000_000
"""What a CUDA process holds beside torch's own count: context, kernels, libraries."""
FIRST = 4
CLEARLY = 0.97
"""A larger batch must take less than this share of the best time to be worth its memory."""


@dataclass(frozen=True)
class Trial:
    """One training task that was run.

    Attributes:
        sizes: batch sizes.
        h: support images with a gradient.
        seconds: wall time, synchronised.
        bytes: memory of the whole process at its most; None if it ran out.
        fits: whether that is within the budget.
    """

    sizes: BatchSizes
    h: int
    seconds: float
    bytes: int | None
    fits: bool


@dataclass(frozen=True)
class Plan:
    """What was chosen, and all that was measured.

    Attributes:
        sizes: batch sizes.
        h: support images with a gradient.
        budget: in bytes.
        n_support: support images of the task it was measured on, the largest of those looked at.
        n_query: its queries.
        trials: in order.
    """

    sizes: BatchSizes
    h: int
    budget: int
    n_support: int
    n_query: int
    trials: tuple[Trial, ...]

    @property
    def chosen(self) -> Trial:
        """The trial of what was chosen."""
        return next(t for t in self.trials if (t.sizes, t.h) == (self.sizes, self.h))

    def plain(self) -> dict[str, Any]:
        """Give values that JSON can hold."""
        return asdict(self)

    def __str__(self) -> str:
        """Say what was chosen in one sentence."""
        taken = self.chosen.bytes or 0
        return (
            f"Chosen for {self.budget / 1e9:.3g} GB: {self.sizes} --lite-h {self.h} ({taken / 1e9:.2f} GB, "
            f"{self.chosen.seconds:.2f} s for a task of {self.n_support} support images and {self.n_query} queries)."
        )


def choose_sizes(
    settings: Settings,
    assembly: Assembly,
    episodes: Iterable[Episode],
    notify: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Choose batch sizes, and H where it is ``auto``, for the budget of ``settings``.

    Args:
        settings: with a memory budget.
        assembly: the learner, on its device.
        episodes: training tasks; the largest is measured.
        notify: told of every trial.

    Raises:
        UsageError: even single images exceed the budget, or there is no budget.
    """
    budget = settings.budget_bytes
    if budget is None:
        raise UsageError("--memory-budget is not given; write for example --memory-budget 16GB.")
    episode = max(episodes, key=lambda each: (len(each.support.labels), each.n_query))
    search = _Search(settings, assembly, episode, budget, notify)
    return search.run()


@dataclass
class _Search:
    settings: Settings
    assembly: Assembly
    episode: Episode
    budget: int
    notify: Callable[[str], None]

    def __post_init__(self) -> None:
        self.trials: list[Trial] = []
        self.n = len(self.episode.support.labels)
        self.frames = frames_per_item(self.episode.support.images)
        self.automatic = self.settings.lite_h == "auto"
        self.base = self._bytes_before()

    def run(self) -> Plan:
        """Choose the support chunk together with an equal query batch, then the query batch."""
        check_estimator_fits(self.assembly.module.train(), build_estimator(self.settings.changed(lite_h=1)))
        n_query = self.episode.n_query * self.frames
        largest = max(self.n * self.frames, n_query)
        best = self._grow([BatchSizes(size, size) for size in doubling(FIRST, largest)])
        if best is None:
            best = self._grow([BatchSizes(size, size) for size in (1, 2)])
        if best is None:
            self._refuse()
        beyond = {*doubling(2 * best.sizes.query, n_query), n_query}
        queries = sorted(size for size in beyond if size > best.sizes.query)
        smaller = [size for size in (best.sizes.query // 2,) if size >= 1]
        for candidates in (queries, smaller):
            best = self._grow([replace(best.sizes, query=size) for size in candidates], best) or best
        return Plan(best.sizes, best.h, self.budget, self.n, self.episode.n_query, tuple(self.trials))

    def _grow(self, candidates: list[BatchSizes], best: Trial | None = None) -> Trial | None:
        """Try sizes in order until one does not fit or two in a row are no faster; gives the best so far."""
        slower = 0
        for sizes in candidates:
            h = min(max(1, sizes.chunk // self.frames), self.n) if self.automatic else self.settings.h
            trial = self._try(sizes, h)
            if not trial.fits:
                break
            # An automatic H is to be as large as fits; otherwise the fastest wins.
            better = best is None or (trial.h > best.h) or trial.seconds < CLEARLY * best.seconds
            best, slower = (trial, 0) if better else (best, slower + 1)
            if slower == 2:
                break
        return best

    def _try(self, sizes: BatchSizes, h: int) -> Trial:
        try:
            seconds, used = self._measure(sizes, h)
            trial = Trial(sizes, h, seconds, used, used <= HEADROOM * self.budget)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            trial = Trial(sizes, h, 0.0, None, fits=False)
        release_memory()
        self.trials.append(trial)
        amount = "more memory than there is" if trial.bytes is None else f"{trial.bytes / 1e9:.2f} GB"
        self.notify(f"{sizes} --lite-h {h}: {amount}, {trial.seconds:.2f} s{'' if trial.fits else ' (too much)'}")
        return trial

    def _measure(self, sizes: BatchSizes, h: int) -> tuple[float, int]:
        """Run one training task; gives its time and the memory of the whole process."""
        device, module = self.assembly.device, self.assembly.module
        estimator = build_estimator(self.settings.changed(lite_h=h, batch_size=sizes.chunk))
        precision = precision_context(self.settings.precision, device)
        seconds = 0.0

        def task() -> None:
            nonlocal seconds
            module.zero_grad(set_to_none=True)
            start = clock(device)
            with seeded("task", 0), kept_buffers(module):
                accumulate_task_gradient(
                    self.assembly.learner, self.episode, estimator, sizes.query, torch.Generator().manual_seed(0),
                    device, precision,
                )  # fmt: skip
            seconds = clock(device) - start

        if device.type == "cuda":
            task()  # the first task of a size also loads kernels
        module.zero_grad(set_to_none=True)
        peak = measure_peak(task, device)
        module.zero_grad(set_to_none=True)
        return seconds, self.base + (peak.reserved if device.type == "cuda" else peak.tensors)

    def _bytes_before(self) -> int:
        """Memory beside the task's own: optimizer state, and what the process holds already."""
        adam = sum(2 * p.numel() * p.element_size() for p in self.assembly.module.parameters() if p.requires_grad)
        if self.assembly.device.type == "cuda":
            return adam + CONTEXT_BYTES
        images = self.episode.support.images.numel() + self.episode.n_query * self.episode.support.images[0].numel()
        return adam + resident_bytes() + (self.settings.workers + 1) * images

    def _refuse(self) -> NoReturn:
        needed = [trial.bytes for trial in self.trials if trial.bytes is not None]
        text = f"at least {min(needed) / HEADROOM / 1e9:.2g} GB" if needed else "more memory than there is"
        raise UsageError(
            f"--memory-budget {self.settings.memory_budget} is too little: with batches of one image a task of "
            f"{self.n} support images needs {text} with --gradient {self.settings.gradient}; raise it, use --gradient "
            "exact or a lower --lite-h, or a smaller --image-size or backbone."
        )


def doubling(first: int, largest: int) -> Iterator[int]:
    """Count ``first``, twice that, and so on, ending with ``largest``."""
    size = first
    while size < largest:
        yield size
        size *= 2
    if first <= largest:
        yield largest
