"""How the gradient through the support set is obtained, behind one ``encode``.

A learner calls ``encode(network, images)`` and reads like the equations of its paper; what is kept for the backward
pass is decided here. Source: Bronskill et al., Memory Efficient Meta-Learning with Large Images, NeurIPS 2021
(LITE), eq. (8) and Algorithm 1. Shape letters: N support images, H of them with a gradient, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lite_bench.harness.core import Draw, Encode, Support
from lite_bench.models.draws import draw_covering_rows, draw_rows, draw_stratified, draw_uniform
from lite_bench.models.encoding import (
    CachingEncode,
    ExactEncode,
    FullEncode,
    ImportanceEncode,
    LiteEncode,
    OrbitCodeEncode,
    SharedDrawEncode,
)


@dataclass(frozen=True)
class TaskDraw:
    """One task as an estimator shows it: a support set and a maker of ``encode``.

    Attributes:
        support: what to adapt to.
        make: makes an ``encode``.
        caching: makes the ``encode`` of one pass without gradients ahead of all others, if there is to be one.
    """

    support: Support
    make: Callable[[], Encode]
    caching: Callable[[], Encode] | None = None

    def encode(self) -> Encode:
        """Give a fresh ``encode``."""
        return self.make()


@dataclass(eq=False)
class _Estimator:
    h: int
    chunk: int
    per_image = True
    uses_h = True
    bounded_memory = True
    covers_classes = False
    redraws = False
    sums_batches = False

    def update_scale(self, n_support: int) -> float:
        """Give the factor on the whole task gradient: 1."""
        del n_support
        return 1.0


class Full(_Estimator):
    """The true gradient with one graph over the whole support set; memory grows with N."""

    name = "full"
    uses_h = False
    per_image = False
    bounded_memory = False

    def begin(self, support: Support, generator: torch.Generator) -> Draw:
        """Start on a task."""
        del generator
        return TaskDraw(support, lambda: FullEncode(self.chunk))


class Exact(_Estimator):
    """The true gradient in constant memory, by recomputing one chunk at a time in the backward pass."""

    name = "exact"
    uses_h = False

    def begin(self, support: Support, generator: torch.Generator) -> Draw:
        """Start on a task."""
        del generator
        return TaskDraw(support, lambda: ExactEncode(self.chunk))


class Lite(_Estimator):
    """LITE's unbiased estimate: exact values, the gradient of H random support images, drawn once per pass and task."""

    name = "lite"

    def begin(self, support: Support, generator: torch.Generator) -> Draw:
        """Start on a task."""
        n = len(support.labels)
        return TaskDraw(support, lambda: LiteEncode(self.chunk, lambda: draw_uniform(n, self.h, generator)))


class LiteStratified(_Estimator):
    """`Lite` with its H spread over the classes, each row scaled by its own class; see `draw_stratified`."""

    name = "lite-stratified"

    def begin(self, support: Support, generator: torch.Generator) -> Draw:
        """Start on a task."""
        labels, way = support.labels.cpu(), support.way
        draw = lambda: draw_stratified(labels, way, self.h, generator)  # noqa: E731 - one line beside its only use
        return TaskDraw(support, lambda: LiteEncode(self.chunk, draw))


@dataclass(eq=False)
class LiteImportance(_Estimator):
    """`Lite` with its H drawn in the backward pass, where the loss asks most, spread over the classes.

    Costs one more forward of H images than `Lite` and keeps no graph of the support set while the queries run; see
    `ImportanceEncode`.
    """

    name = "lite-importance"
    random_passes: set[int] = field(default_factory=set, init=False)

    def begin(self, support: Support, generator: torch.Generator) -> Draw:
        """Start on a task."""
        labels, way = support.labels.cpu(), support.way

        def make() -> Encode:
            return ImportanceEncode(self.chunk, self.h, labels, way, generator, self.random_passes)

        return TaskDraw(support, make)


class LiteRedraw(Lite):
    """`Lite` with H drawn anew for every query batch, as in Algorithm 1; the support set is processed for each."""

    name = "lite-redraw"
    redraws = True


class Subsample(_Estimator):
    """The naive comparator: the task itself is made smaller, H support images with at least one per class."""

    name = "subsample"
    per_image = False
    covers_classes = True

    def begin(self, support: Support, generator: torch.Generator) -> Draw:
        """Start on a task, keeping max(H, way) of its support images."""
        rows = draw_covering_rows(support.labels.cpu(), support.way, self.h, generator).to(support.images.device)
        smaller = Support(support.images[rows], support.labels[rows], support.way)
        return TaskDraw(smaller, lambda: FullEncode(self.chunk))


class LiteCode(_Estimator):
    """The released VTAB+MD code: shared draw per query batch, no N/H anywhere, batch means summed. Biased."""

    name = "lite-code"
    redraws = True
    sums_batches = True

    def begin(self, support: Support, generator: torch.Generator) -> Draw:
        """Start on a task."""
        cache: list[Tensor] = []
        n = len(support.labels)
        return TaskDraw(support, lambda: SharedDrawEncode(self.chunk, draw_rows(n, self.h, generator), cache))


class LitePaper(LiteCode):
    """Algorithm 1 read literally: as `LiteCode`, with the whole accumulated update multiplied by N/H. Biased."""

    name = "lite-paper"

    def update_scale(self, n_support: int) -> float:
        """Give N/H (line 11 of Algorithm 1), with H at most N and at least 1."""
        return n_support / max(1, min(self.h, n_support))


class LiteOrbitCode(_Estimator):
    """The released ORBIT code, with clips as support items. Biased; here to repeat published runs, not to train well.

    For every query batch H of the N clips are drawn, the same for all passes; the other values come from one pass ahead
    without gradients, modulated by the task embedding of all frames. The cross-entropy of each query batch is
    multiplied by N/H, although only the support path is subsampled, with H as asked, so by less than 1 where N is
    smaller; the penalty is added as it is, once per query batch; batches are summed. The task embedding of the passes
    with gradients mixes up clips and frames, see `OrbitCodeEncode`. Source: microsoft/ORBIT-Dataset, branch
    results-neurips21-paper.

    It claims nothing that batch statistics could make false, and that code trains with them, so they are allowed.
    """

    name = "lite-orbit-code"
    per_image = False
    redraws = True
    sums_batches = True
    scales_penalty = False

    def begin(self, support: Support, generator: torch.Generator) -> Draw:
        """Start on a task."""
        cache: list[Tensor] = []
        n = len(support.labels)

        def make() -> Encode:
            return OrbitCodeEncode(self.chunk, draw_rows(n, n, generator), self.h, cache)

        return TaskDraw(support, make, lambda: CachingEncode(self.chunk, cache))

    def update_scale(self, n_support: int) -> float:
        """Give N/H, with H as asked and at least 1."""
        return n_support / max(1, self.h)
