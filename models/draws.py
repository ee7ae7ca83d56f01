"""Which support images carry a gradient: random rows, each with the factor that keeps the estimate unbiased.

Every rule here gives row n a known probability p_n of being drawn and the factor 1 / p_n, so that the mean over all
draws of sum_n factor_n g_n is sum_n g_n whatever the g_n (Horvitz and Thompson, A Generalization of Sampling Without
Replacement From a Finite Universe, JASA 1952). The rules differ in variance alone. Shape letters: N support images, H
drawn rows, C way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Drawn rows of the support set and the factor on each one's gradient.

    Attributes:
        indices: int64 [H], distinct.
        factors: float64 [H], at least 1.
    """

    indices: Int[Tensor, " H"]
    factors: Float[Tensor, " H"]

    def to(self, device: torch.device) -> Rows:
        """Copy to ``device``."""
        return Rows(self.indices.to(device), self.factors.to(device))


def draw_rows(n: int, h: int, generator: torch.Generator) -> Int[Tensor, " H"]:
    """Draw min(h, n) of 0..n-1 uniformly without replacement; int64 [min(h, n)]."""
    return torch.randperm(n, generator=generator)[:h]


def draw_uniform(n: int, h: int, generator: torch.Generator) -> Rows:
    """Draw as `draw_rows`, every row with the factor N/H: eq. (8) of the LITE paper, without replacement."""
    indices = draw_rows(n, h, generator)
    return Rows(indices, torch.full((len(indices),), n / max(1, len(indices)), dtype=torch.float64))


def draw_covering_rows(labels: Tensor, way: int, h: int, generator: torch.Generator) -> Tensor:
    """Draw max(h, way) rows without replacement: one of each class, the others uniformly; int64, sorted."""
    order = torch.randperm(len(labels), generator=generator)
    firsts = torch.stack([order[labels[order] == c][0] for c in range(way)])
    others = order[~torch.isin(order, firsts)]
    return torch.cat([firsts, others[: max(0, h - way)]]).sort().values


def draw_stratified(labels: Int[Tensor, " N"], way: int, h: int, generator: torch.Generator) -> Rows:
    """Draw min(h, N) rows spread over the classes.

    With h >= way, class c of k_c images gives h_c >= 1 of them, uniformly, each with the factor k_c / h_c; the shares
    h_c are those of `allocate`. With h < way no share can be positive for every class, so classes are left out at
    random: rows lie class after class in random order and are taken at equal distances, each with probability h/N and
    the factor N/h. Both are unbiased for any sum over the support set.

    Args:
        labels: int64 [N] on the CPU, every class present.
        way: C.
        h: rows wanted.
        generator: randomness, on the CPU.
    """
    n = len(labels)
    if h < way:
        return draw_systematic(torch.ones(n, dtype=torch.float64), h, class_by_class(labels, way, generator), generator)
    counts = labels.bincount(minlength=way).tolist()
    shares = allocate(counts, counts, h, torch.randperm(way, generator=generator).tolist())
    indices, factors = [], []
    for c, share in enumerate(shares):
        members = (labels == c).nonzero().squeeze(1)
        indices.append(members[draw_rows(len(members), share, generator)])
        factors.append(torch.full((share,), len(members) / share, dtype=torch.float64))
    return Rows(torch.cat(indices), torch.cat(factors))


def draw_importance(
    sizes: Float[Tensor, " N"], labels: Int[Tensor, " N"], way: int, h: int, generator: torch.Generator
) -> Rows:
    """Draw about h rows with chances that follow their sizes, spread over the classes.

    With at least two rows for every class of positive size, each class gives a fixed number of them, its share by
    `allocate` of its total size, and rows within it follow their sizes. With fewer, rows of all classes follow their
    sizes along one line, class after class, so that a class gives its expected number of rows rounded down or up.

    Args:
        sizes: float64 [N], not negative, on the CPU; a row may have size 0 only where its gradient is 0.
        labels: int64 [N] on the CPU.
        way: C.
        h: rows wanted; fewer are drawn where fewer have a positive size.
        generator: randomness, on the CPU.
    """
    order = class_by_class(labels, way, generator)
    totals = torch.zeros(way, dtype=sizes.dtype).index_add_(0, labels, sizes).tolist()
    counts = labels[sizes > 0].bincount(minlength=way).tolist()
    classes = [c for c in dict.fromkeys(labels[order].tolist()) if counts[c]]
    if h < 2 * max(1, len(classes)):
        return draw_systematic(sizes, h, order, generator)
    drawn = []
    for c, share in enumerate(allocate(totals, counts, h, classes)):
        members = order[labels[order] == c]
        within = draw_systematic(sizes[members], share, torch.arange(len(members)), generator)
        drawn.append(Rows(members[within.indices], within.factors))
    return Rows(torch.cat([rows.indices for rows in drawn]), torch.cat([rows.factors for rows in drawn]))


def allocate(sizes: Sequence[float], counts: Sequence[int], h: int, order: Sequence[int]) -> list[int]:
    """Share min(h, sum of counts) rows among classes, each at least one (where it has any) and at most its count.

    Minimises sum_c size_c^2 / h_c exactly, the variance of a sum whose spread within a class is in proportion to the
    class's size: the next row always goes where it lowers this sum most.

    Args:
        sizes: of the classes: k_c where images count alike.
        counts: rows that each has to give.
        h: rows to share, at least the number of classes that have any.
        order: the classes that have any, in the order that settles ties.
    """
    shares = [min(1, count) for count in counts]
    for _ in range(min(h, sum(counts)) - sum(shares)):
        open_classes = [c for c in order if shares[c] < counts[c]]
        best = max(open_classes, key=lambda c: sizes[c] ** 2 / (shares[c] * (shares[c] + 1)))
        shares[best] += 1
    return shares


def class_by_class(labels: Int[Tensor, " N"], way: int, generator: torch.Generator) -> Int[Tensor, " N"]:
    """Order all rows class after class: classes in random order, rows in random order within each."""
    rank = torch.randperm(way, generator=generator)
    shuffled = torch.randperm(len(labels), generator=generator)
    return shuffled[torch.argsort(rank[labels[shuffled]], stable=True)]


def draw_systematic(sizes: Float[Tensor, " N"], h: int, order: Int[Tensor, " N"], generator: torch.Generator) -> Rows:
    """Draw about h rows with probabilities proportional to their sizes, as evenly along ``order`` as can be.

    Row n is drawn with probability p_n = min(1, h size_n / scale), the scale such that the p_n sum to h; its factor is
    1 / p_n. Rows of size 0 are never drawn, so a row may have size 0 only where its gradient is 0. Laid end to end in
    ``order`` with lengths p_n, rows are taken at equal distances from a random start (Madow, On the Theory of
    Systematic Sampling II, 1949).

    Args:
        sizes: float64 [N], not negative, on the CPU.
        h: rows wanted; fewer are drawn where fewer have a positive size.
        order: a permutation of the rows.
        generator: randomness, on the CPU.
    """
    chances = inclusion_probabilities(sizes, h)
    start = float(torch.rand((), generator=generator, dtype=torch.float64))
    certain = (chances >= 1).nonzero().squeeze(1)
    line = order[(chances[order] > 0) & (chances[order] < 1)]
    ends = chances[line].cumsum(0)
    count = round(float(ends[-1])) if len(line) else 0
    ticks = torch.arange(count, dtype=torch.float64) + start
    indices = torch.cat([certain, line[torch.searchsorted(ends, ticks).clamp(max=max(0, len(line) - 1))]])
    return Rows(indices, 1 / chances[indices])


def inclusion_probabilities(sizes: Float[Tensor, " N"], h: int) -> Float[Tensor, " N"]:
    """Give min(1, size / scale), the scale such that they sum to h; to the number of positive sizes if that is less."""
    positive = int((sizes > 0).sum())
    if h >= positive:
        return (sizes > 0).to(sizes.dtype)
    # The largest m rows are certain for the smallest m that leaves every other row a probability below 1.
    ordered, index = sizes.sort(descending=True)
    rest = ordered.flip(0).cumsum(0).flip(0)
    for m in range(h + 1):
        chances = (h - m) * ordered / rest[m]
        if m == h or float(chances[m]) < 1:
            break
    chances[:m] = 1
    return torch.empty_like(sizes).scatter_(0, index, chances.clamp(max=1))
