"""Time and memory of one training task by part, beside the floor that its arithmetic sets.

The floor of a training task is one forward of its N support images, a backward of the H that carry a gradient, and
forward and backward of its M queries, at the rate at which the plain forward of the support set runs. What a task takes
beyond it is overhead: recomputation, heads, small batches, waiting.
"""

from __future__ import annotations

import os
import statistics
from contextlib import suppress
from dataclasses import dataclass

import torch

from lite_bench.harness.assembly import Assembly, precision_context
from lite_bench.harness.buffers import kept_buffers
from lite_bench.harness.core import Episode, Estimator, QueryBatch, Support, Task
from lite_bench.harness.measurement.macs import macs_of
from lite_bench.harness.measurement.peak import Peak, measure_peak
from lite_bench.harness.measurement.stopwatch import Stopwatch, clock
from lite_bench.harness.memory import BatchSizes, is_out_of_memory, release_memory
from lite_bench.harness.registry import ESTIMATORS
from lite_bench.harness.step import accumulate_task_gradient, move_support

PARTS = ("support forward", "query", "support gradient", "optimizer")
SHARE_OF_MACHINE = 0.8


@dataclass(frozen=True)
class Work:
    """A training task to measure.

    Attributes:
        estimator: entry-point name.
        h: support images with a gradient; None where H plays no part.
        n_support: support images N.
    """

    estimator: str
    h: int | None
    n_support: int


@dataclass(frozen=True)
class Profile:
    """What one training task takes; medians over repeats.

    Attributes:
        work: the task.
        parts: seconds by part.
        peak_bytes: most memory that tensors took, above what they took before the task; on a GPU that includes the
            task's images, which are copied there.
        reserved_bytes: most memory that torch took from a GPU, all told.
        macs: multiply-accumulates of the floor.
        floor_seconds: the floor.
        failed: why there are no figures, or None.
    """

    work: Work
    parts: dict[str, float]
    peak_bytes: int = 0
    reserved_bytes: int = 0
    macs: int = 0
    floor_seconds: float = 0.0
    failed: str | None = None

    @property
    def seconds(self) -> float:
        """Time of the whole task."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Costs:
    """Multiply-accumulates per image, found by counting tasks that differ in one image.

    Attributes:
        support_forward: forward of a support image through all passes.
        support_backward: its backward.
        query: forward and backward of a query.
    """

    support_forward: int
    support_backward: int
    query: int

    def floor(self, n_support: int, h: int, n_query: int) -> int:
        """Multiply-accumulates that a training task cannot do without."""
        return n_support * self.support_forward + h * self.support_backward + n_query * self.query


@dataclass
class Profiler:
    """Measures training tasks of random pixels, whose values play no part in time and memory.

    Attributes:
        assembly: the learner, on its device.
        image_size: side in pixels.
        way: classes per task.
        n_query: queries per task.
        sizes: images at a time.
        precision: ``fp32`` or ``bf16``.
        repeats: tasks timed per case.
    """

    assembly: Assembly
    image_size: int
    way: int
    n_query: int
    sizes: BatchSizes
    precision: str = "fp32"
    repeats: int = 3

    def __post_init__(self) -> None:
        """Set up optimizer and precision."""
        self.device = self.assembly.device
        self.module = self.assembly.module.train()
        self.context = precision_context(self.precision, self.device)
        trainable = [p for p in self.module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trainable, lr=0.0)

    def episode(self, n_support: int, n_query: int) -> Episode:
        """Make a task of random pixels."""
        generator = torch.Generator().manual_seed(0)
        shape = (n_support + n_query, 3, self.image_size, self.image_size)
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        labels = torch.arange(n_support + n_query) % self.way
        support = Support(images[:n_support], labels[:n_support], self.way)
        query = QueryBatch(images[n_support:], (labels[n_support:] - n_support) % self.way)
        return Episode(Task("profile@1", "random", "train", 0), support, (query,), n_query)

    def measure(self, work: Work, costs: Costs) -> Profile:
        """Time ``work`` and measure its memory; memory that runs out is a result, not an error."""
        estimator = self._estimator(work)
        reason = self._too_large(work, estimator)
        if reason is not None:
            return Profile(work, {}, failed=reason)
        try:
            return self._measure(work, estimator, costs)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        release_memory()
        return Profile(work, {}, failed="out of memory")

    def _measure(self, work: Work, estimator: Estimator, costs: Costs) -> Profile:
        episode = self.episode(work.n_support, self.n_query)
        if self.device.type == "cuda":
            self._task(episode, estimator, Stopwatch(self.device))  # loads kernels
        watches = [Stopwatch(self.device) for _ in range(self.repeats)]
        for watch in watches:
            self._task(episode, estimator, watch)
        parts = {part: statistics.median(watch.seconds[part] for watch in watches) for part in PARTS}
        peak = self._peak(episode, estimator)
        h = work.n_support if work.h is None else min(work.h, work.n_support)
        seen = h if getattr(estimator, "covers_classes", False) else work.n_support  # `subsample` sees no other image
        macs = costs.floor(seen, h, self.n_query)
        rate = seen * costs.support_forward / self._forward_seconds(episode)
        return Profile(work, parts, peak.tensors, peak.reserved, macs, macs / rate)

    def _task(self, episode: Episode, estimator: Estimator, watch: Stopwatch) -> None:
        """Run one training task with its optimizer step, which changes nothing at a learning rate of 0."""
        self.optimizer.zero_grad(set_to_none=True)
        with kept_buffers(self.module):
            accumulate_task_gradient(
                self.assembly.learner, episode, estimator, self.sizes.query, torch.Generator().manual_seed(0),
                self.device, self.context, watch,
            )  # fmt: skip
        with watch("optimizer"):
            self.optimizer.step()

    def _peak(self, episode: Episode, estimator: Estimator) -> Peak:
        self.optimizer.zero_grad(set_to_none=True)
        return measure_peak(lambda: self._task(episode, estimator, Stopwatch(self.device)), self.device)

    def _estimator(self, work: Work) -> Estimator:
        estimator: Estimator = ESTIMATORS.load(work.estimator)(work.h or 0, self.sizes.chunk)
        return estimator

    @torch.no_grad()
    def _forward_seconds(self, episode: Episode) -> float:
        """Time the plain forward of the support set, as in an evaluation."""
        support = move_support(episode.support, self.device)
        estimator = self._estimator(Work("full", None, len(support.labels)))
        times = []
        for _ in range(self.repeats):
            start = clock(self.device)
            with self.context():
                self.assembly.learner.adapt(support, estimator.begin(support, torch.Generator()).encode())
            times.append(clock(self.device) - start)
        return statistics.median(times)

    def count(self) -> Costs:
        """Count multiply-accumulates per image from small tasks that differ in size only."""
        n, m = 2 * self.way, self.way
        task, more_support, more_queries = (
            self._macs(self.episode(*sizes)) for sizes in ((n, m), (2 * n, m), (n, 2 * m))
        )
        forward = (self._forward_macs(2 * n) - self._forward_macs(n)) // n
        return Costs(forward, (more_support - task) // n - forward, (more_queries - task) // m)

    def _macs(self, episode: Episode) -> int:
        estimator = self._estimator(Work("full", None, len(episode.support.labels)))
        return macs_of(lambda: self._task(episode, estimator, Stopwatch(self.device)))

    @torch.no_grad()
    def _forward_macs(self, n_support: int) -> int:
        support = move_support(self.episode(n_support, 0).support, self.device)
        estimator = self._estimator(Work("full", None, n_support))
        return macs_of(
            lambda: self.assembly.learner.adapt(support, estimator.begin(support, torch.Generator()).encode())
        )

    def _too_large(self, work: Work, estimator: Estimator) -> str | None:
        """Say how much memory a task would need that grows with its support set and would end this process.

        A GPU says so itself; on a CPU the system may kill the process instead.
        """
        if self.device.type == "cuda" or getattr(estimator, "bounded_memory", True):
            return None
        small = [self.way, 2 * self.way]
        if work.n_support <= small[1]:
            return None
        first, second = (self._peak(self.episode(n, self.n_query), estimator).tensors for n in small)
        predicted = second + (second - first) / self.way * (work.n_support - small[1])
        available = machine_bytes()
        if available is None or predicted < SHARE_OF_MACHINE * available:
            return None
        return f"would need about {predicted / 1e9:.0f} GB"


def machine_bytes() -> int | None:
    """Give the memory of this machine, or None if the system does not tell."""
    with suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None
