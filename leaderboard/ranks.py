"""Ranks with ties, by the rule of Meta-Dataset's leaderboard.

The best model and everyone not significantly worse share the mean of their ranks; then the same among the
rest. Two means differ significantly if they are further apart than 1.96 sqrt(s1^2/n1 + s2^2/n2), the 95 %
interval of their difference (Triantafillou et al., ICLR 2020; ``Leaderboard.ipynb`` in the repository
google-research/meta-dataset). Among best models with the same mean, of which the rule names none, the least certain
counts, so that ranks do not depend on the order of rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lite_bench.harness.statistics import Estimate


def tied(best: Estimate, other: Estimate) -> bool:
    """Whether ``other`` is not significantly worse than ``best``.

    A half width is 1.96 s / sqrt(n), so the interval of the difference is the root of the summed squares.
    A score of one task has no interval: it counts as exact, and ties with what the other's interval covers.
    """
    return best.mean - other.mean <= math.hypot(best.half_width or 0.0, other.half_width or 0.0)


def column_ranks(scores: Sequence[Estimate | None]) -> list[float | None]:
    """Rank the scores of one column, 1 for the best.

    Returns:
        one rank per score, None where the score is missing.
    """
    ranks: list[float | None] = [None] * len(scores)
    present = [(score, index) for index, score in enumerate(scores) if score is not None]
    rest = sorted(present, key=lambda pair: (-pair[0].mean, -(pair[0].half_width or 0.0)))
    placed = 0
    while rest:
        best = rest[0][0]
        group = [index for score, index in rest if tied(best, score)]
        for index in group:
            ranks[index] = placed + (len(group) + 1) / 2
        placed += len(group)
        rest = [(score, index) for score, index in rest if not tied(best, score)]
    return ranks


def average_rank(ranks: Sequence[float | None]) -> float | None:
    """Average one row's ranks over all columns, or say None if any is missing or there is none."""
    present = [rank for rank in ranks if rank is not None]
    return math.fsum(present) / len(present) if present and len(present) == len(ranks) else None
