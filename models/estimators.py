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
from torch.utils.checkpoint import checkpoint

from lite_bench.harness.core import Draw, Encode, Support

Network = Callable[[Tensor], Tensor]


def encode_in_chunks(network: Network, images: Tensor, chunk: int) -> Tensor:
    """Apply ``network`` to images [N, 3, S, S], at most ``chunk`` at a time; returns [N, D]."""
    return torch.cat([network(part) for part in torch.split(images, chunk)])


def scale_gradient(values: Tensor, factor: float) -> Tensor:
    """Give ``values`` unchanged, with their derivative multiplied by ``factor`` (a straight-through factor)."""
    return values.detach() + factor * (values - values.detach())


def encode_recomputed(network: Network, images: Tensor, chunk: int) -> Tensor:
    """Apply ``network`` with a graph of one chunk at a time: each is recomputed when the backward pass reaches it.

    Dropout, stochastic depth and autocast replay in the recomputation. What fits into one chunk keeps its graph.
    """
    if len(images) <= chunk:
        return network(images)
    parts = torch.split(images, chunk)
    return torch.cat([checkpoint(network, part, use_reentrant=False, preserve_rng_state=True) for part in parts])


def encode_with_gradient_rows(network: Network, images: Tensor, rows: Tensor, factor: float, chunk: int) -> Tensor:
    """Encode all images; ``rows`` carry a gradient, scaled by ``factor``, the others none.

    Each image is forwarded once, the complement of ``rows`` without a graph, ``rows`` with one; if ``rows`` do not fit
    into one chunk, their graph is recomputed chunk by chunk, so that the chunk bounds the memory whatever H.

    Args:
        network: maps [n, 3, S, S] to [n, D].
        images: [N, 3, S, S].
        rows: int64 [H], distinct.
        factor: N/H makes the estimate unbiased.
        chunk: images at a time.

    Returns:
        [N, D], equal to the plain forward.
    """
    rest = torch.ones(len(images), dtype=torch.bool, device=images.device)
    rest[rows] = False
    parts = []
    if len(rows):
        parts.append(scale_gradient(encode_recomputed(network, images[rows], chunk), factor))
    others = rest.nonzero().squeeze(1)
    with torch.no_grad():
        parts += [network(images[indices]) for indices in torch.split(others, chunk) if len(indices)]
    return torch.cat(parts)[torch.argsort(torch.cat([rows, others]))]


@dataclass
class FullEncode:
    """One graph over all N images; without gradients, chunk by chunk."""

    chunk: int

    def __call__(self, network: Network, images: Tensor) -> Tensor:
        """Encode [N, 3, S, S] to [N, D]."""
        return network(images) if torch.is_grad_enabled() else encode_in_chunks(network, images, self.chunk)


@dataclass
class ExactEncode:
    """The graph of one chunk at a time: chunks are recomputed in the backward pass."""

    chunk: int

    def __call__(self, network: Network, images: Tensor) -> Tensor:
        """Encode [N, 3, S, S] to [N, D]."""
        if not torch.is_grad_enabled():
            return encode_in_chunks(network, images, self.chunk)
        return encode_recomputed(network, images, self.chunk)


@dataclass
class LiteEncode:
    """LITE, eq. (8), with an independent draw without replacement in every call.

    Independence is what keeps learners that pass the support set twice unbiased: their set-encoder gradient is
    a product of two sums over the support set, and the expectation of a product factorises only then.
    """

    chunk: int
    h: int
    generator: torch.Generator

    def __call__(self, network: Network, images: Tensor) -> Tensor:
        """Encode [N, 3, S, S] to [N, D]; H rows carry N/H times their gradient."""
        n = len(images)
        if not torch.is_grad_enabled():
            return encode_in_chunks(network, images, self.chunk)
        rows = draw_rows(n, self.h, self.generator).to(images.device)
        return encode_with_gradient_rows(network, images, rows, n / max(1, len(rows)), self.chunk)


@dataclass
class SharedDrawEncode:
    """What the released codes do: one draw for all passes, no factor on the support path, cached values.

    ``cache`` holds the features of all N images per pass, filled at the first query batch of a task and reused by the
    others.
    """

    chunk: int
    rows: Tensor
    cache: list[Tensor]
    passes: int = field(default=0, init=False)

    def __call__(self, network: Network, images: Tensor) -> Tensor:
        """Encode [N, 3, S, S] to [N, D]; the drawn rows carry their plain gradient."""
        if not torch.is_grad_enabled():
            return encode_in_chunks(network, images, self.chunk)
        if self.passes == len(self.cache):
            with torch.no_grad():
                self.cache.append(encode_in_chunks(network, images, self.chunk))
        values = self.cache[self.passes]
        self.passes += 1
        rows = self.rows.to(images.device)
        if not len(rows):
            return values
        return values.index_copy(0, rows, encode_recomputed(network, images[rows], self.chunk))


def draw_rows(n: int, h: int, generator: torch.Generator) -> Tensor:
    """Draw min(h, n) of 0..n-1 uniformly without replacement; int64 [min(h, n)]."""
    return torch.randperm(n, generator=generator)[:h]


@dataclass(frozen=True)
class TaskDraw:
    """One task as an estimator shows it: a support set and a maker of ``encode``."""

    support: Support
    make: Callable[[], Encode]

    def encode(self) -> Encode:
        """Give a fresh ``encode``."""
        return self.make()


@dataclass(eq=False)
class _Estimator:
    h: int
    chunk: int
    per_image = True
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
        return TaskDraw(support, lambda: LiteEncode(self.chunk, self.h, generator))


class LiteRedraw(Lite):
    """`Lite` with H drawn anew for every query batch, as in Algorithm 1; the support set is processed for each."""

    name = "lite-redraw"
    redraws = True


class Subsample(_Estimator):
    """The naive comparator: the task itself is made smaller, H support images with at least one per class."""

    name = "subsample"
    per_image = False

    def begin(self, support: Support, generator: torch.Generator) -> Draw:
        """Start on a task, keeping max(H, way) of its support images."""
        rows = draw_covering_rows(support.labels.cpu(), support.way, self.h, generator).to(support.images.device)
        smaller = Support(support.images[rows], support.labels[rows], support.way)
        return TaskDraw(smaller, lambda: FullEncode(self.chunk))


def draw_covering_rows(labels: Tensor, way: int, h: int, generator: torch.Generator) -> Tensor:
    """Draw max(h, way) rows without replacement: one of each class, the others uniformly; int64, sorted."""
    order = torch.randperm(len(labels), generator=generator)
    firsts = torch.stack([order[labels[order] == c][0] for c in range(way)])
    others = order[~torch.isin(order, firsts)]
    return torch.cat([firsts, others[: max(0, h - way)]]).sort().values


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
