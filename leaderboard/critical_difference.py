"""Which rows of a table cannot be told apart by their ranks: what a critical-difference diagram shows.

Friedman's test and Nemenyi's critical difference, as Demsar puts them together in "Statistical Comparisons of
Classifiers over Multiple Data Sets" (JMLR 7, 2006, section 3.2.2). Shapes: N blocks, k rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from lite_bench.leaderboard.rows import Row
from lite_bench.leaderboard.tables import Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FEWEST_SOURCES = 5
"""With fewer sources, too few for average ranks to tell much, tasks are the blocks."""
DIGITS = 12
"""Decimals by which scores must agree to be tied; accuracies are fractions, further digits rounding."""


@dataclass(frozen=True)
class CriticalDifference:
    """Average ranks of the rows that have every block, and how far apart two must be to count as different.

    Attributes:
        labels: of the rows that take part, the best average rank first, k of them.
        ranks: their average ranks, likewise, 1 for a row that is best in every block, k for one that is worst.
        n_blocks: number N of blocks over which ranks are averaged.
        blocks: what a block is, in words with their number, such as ``26 sources`` or ``600 tasks``.
        difference: Nemenyi's critical difference of average ranks at the 5 % level; two rows differ significantly
            if their average ranks are at least so far apart.
        chi_square: Friedman's statistic, corrected for ties, of k - 1 degrees of freedom.
        p: chance of ranks as uneven as these if rows do not differ, by the F statistic of Iman and Davenport. The
            difference means something only if this is below 0.05.
        bars: maximal groups of rows no two of which differ significantly, each as the labels of two or more neighbours
            in the order of ``labels``; groups may overlap, none is within another, the best comes first.
        left_out: labels of the table's rows that lack a block, in the table's order.
    """

    labels: tuple[str, ...]
    ranks: tuple[float, ...]
    n_blocks: int
    blocks: str
    difference: float
    chi_square: float
    p: float
    bars: tuple[tuple[str, ...], ...]
    left_out: tuple[str, ...]


def critical_difference(table: Table) -> CriticalDifference | None:
    """Rank the rows of ``table`` block by block; None unless two rows share two blocks.

    Blocks are the largest set of sources that two or more rows have complete, if these are five or more; else the tasks
    of these sources or, where scores come in clusters, the clusters, of which a row's score is the mean over all these
    sources. Rows that lack a block are left out.
    """
    sources = _shared_sources(table)
    labels = [row.label for row in table.rows]
    taking = [index for index, row in enumerate(table.rows) if sources and sources <= _complete(row)]
    columns = [name for name in table.sources if name in sources]
    if len(columns) >= FEWEST_SOURCES:
        scores = [_source_means(table.rows[index], columns) for index in taking]
        blocks = f"{len(columns)} sources"
    else:
        scores, blocks = _task_scores([table.rows[index] for index in taking], columns)
    if len(taking) < 2 or len(scores[0]) < 2:
        return None
    left_out = tuple(label for index, label in enumerate(labels) if index not in taking)
    return rank_blocks([labels[index] for index in taking], scores, blocks, left_out)


def rank_blocks(
    labels: Sequence[str], scores: Sequence[Sequence[float]], blocks: str, left_out: tuple[str, ...] = ()
) -> CriticalDifference:
    """Rank k rows in N blocks.

    Args:
        labels: of the rows, two or more, each different.
        scores: of every row in every block, [k, N], two blocks or more, fractions, higher is better.
        blocks: what a block is, in words.
        left_out: labels of rows that do not take part.
    """
    import numpy as np  # imported here, as scipy below: tables without a diagram need neither

    ranks = block_ranks(np.asarray(scores, dtype=np.float64))
    n = ranks.shape[1]
    average = ranks.mean(axis=1)
    order = sorted(range(len(labels)), key=lambda index: average[index])
    chi_square, p = friedman(ranks)
    best_first = [labels[index] for index in order]
    sorted_ranks = [float(average[index]) for index in order]
    difference = nemenyi(len(labels), n)
    return CriticalDifference(
        labels=tuple(best_first),
        ranks=tuple(sorted_ranks),
        n_blocks=n,
        blocks=blocks,
        difference=difference,
        chi_square=chi_square,
        p=p,
        bars=tuple(tuple(best_first[first:end]) for first, end in alike(sorted_ranks, difference)),
        left_out=left_out,
    )


def block_ranks(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank the rows of every block, 1 for the highest score, ties sharing their mean rank: [k, N] to [k, N]."""
    rounded = scores.round(DIGITS)
    higher = sum((each > rounded).astype(float) for each in rounded)
    equal = sum((each == rounded).astype(float) for each in rounded)
    ranks: NDArray[np.float64] = higher + (equal + 1) / 2
    return ranks


def friedman(ranks: NDArray[np.float64]) -> tuple[float, float]:
    """Test whether k rows differ, by their ranks in N blocks.

    chi^2 = 12 N / (k (k + 1)) sum_j (R_j - (k + 1) / 2)^2 for average ranks R_j, over the share of the ranks' variance
    that ties leave; F = (N - 1) chi^2 / (N (k - 1) - chi^2) of k - 1 and (k - 1)(N - 1) degrees of freedom, less
    conservative (Iman and Davenport, "Approximations of the critical region of the Friedman statistic", 1980).

    Args:
        ranks: with mean ranks for ties, [k, N].

    Returns:
        Friedman's chi square, and the p of F. If all blocks agree F is infinite, whatever their number; the p is then
        exact, the chance that all agree with the first.
    """
    from scipy.special import fdtrc

    k, n = ranks.shape
    deviations = ranks - (k + 1) / 2
    variance = float((deviations**2).sum()) / (k - 1)  # N k (k + 1) / 12 without ties
    if variance == 0.0:
        return 0.0, 1.0
    if (ranks == ranks[:, :1]).all():
        return float(n * (k - 1)), _arrangements(ranks[:, 0].tolist()) ** (1.0 - n)
    chi_square = float((deviations.sum(axis=1) ** 2).sum()) / variance
    f = (n - 1) * chi_square / (n * (k - 1) - chi_square)
    return chi_square, float(fdtrc(k - 1, (k - 1) * (n - 1), f))


def _arrangements(ranks: Sequence[float]) -> float:
    """Count the ways to deal ``ranks`` to rows: k! over the product of the factorials of the numbers of ties."""
    ties = [ranks.count(rank) for rank in set(ranks)]
    return float(math.factorial(len(ranks)) // math.prod(math.factorial(tie) for tie in ties))


def nemenyi(k: int, n: int) -> float:
    """Critical difference of the average ranks of ``k`` rows in ``n`` blocks at the 5 % level.

    q (k (k + 1) / (6 N))^0.5, where q is the studentized range statistic over the root of 2 (Demsar, table 5a).
    """
    from scipy.stats import studentized_range  # imported here: it takes a second

    q = float(studentized_range.ppf(0.95, k, math.inf)) / math.sqrt(2)
    return q * math.sqrt(k * (k + 1) / (6 * n))


def alike(ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """Find the maximal runs of two or more sorted ``ranks`` less than ``difference`` apart, as (first, end)."""
    found: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        end = first + 1
        while end < len(ranks) and ranks[end] - ranks[first] < difference:
            end += 1
        if end - first > 1 and (not found or end > found[-1][1]):
            found.append((first, end))
    return found


def _complete(row: Row) -> frozenset[str]:
    """Name the sources of which a row has a score."""
    return frozenset(name for name, cell in row.sources.items() if cell.estimate is not None)


def _shared_sources(table: Table) -> frozenset[str]:
    """Find the largest set of sources that two or more rows have; of several, one that most rows have."""
    complete = [_complete(row) for row in table.rows]
    shared = dict.fromkeys(one & other for one, other in combinations(complete, 2))
    return max(shared, key=lambda each: (len(each), sum(each <= own for own in complete)), default=frozenset())


def _source_means(row: Row, columns: Sequence[str]) -> list[float]:
    cells = [row.sources[name].estimate for name in columns]
    return [cell.mean for cell in cells if cell is not None]


def _task_scores(rows: Sequence[Row], columns: Sequence[str]) -> tuple[list[list[float]], str]:
    """Give every row's score in every task or cluster that all have, [k, N], and say what a block is."""
    blocks: dict[str, str] = {}
    for name in columns:
        for found in (row.scores[name] for row in rows if row.scores[name].clustered):
            blocks |= dict(zip(found.keys, found.clusters, strict=True))
    by_row = [_values(row, columns) for row in rows]
    keys = [key for key in by_row[0] if all(key in values for values in by_row)] if by_row else []
    scores = [_block_means(values, keys, blocks) for values in by_row]
    n = len(scores[0]) if scores else 0
    within = len({blocks[key] for key in keys if key in blocks})
    what = [f"{within} clusters"] * (within > 0) + [f"{n - within} tasks"] * (n > within)
    return scores, " and ".join(what)


def _values(row: Row, columns: Sequence[str]) -> dict[str, float]:
    """List a row's scores in all of ``columns``, by key."""
    found: dict[str, float] = {}
    for name in columns:
        found |= dict(zip(row.scores[name].keys, row.scores[name].values, strict=True))
    return found


def _block_means(values: Mapping[str, float], keys: Sequence[str], blocks: Mapping[str, str]) -> list[float]:
    """Average the scores of every cluster; a task without one stands for itself."""
    members: dict[tuple[str, ...], list[float]] = {}
    for key in keys:
        members.setdefault((blocks[key],) if key in blocks else (key, "task"), []).append(values[key])
    return [math.fsum(each) / len(each) for each in members.values()]
