"""Scores as pictures show them: in %, with the ends of their interval."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lite_bench.leaderboard.published import PublishedRow
from lite_bench.leaderboard.rows import Row


@dataclass(frozen=True)
class Score:
    """A mean accuracy and its 95 % interval, all in %; both ends are the mean where there is no interval."""

    mean: float
    low: float
    high: float


def measured(row: Row, columns: Iterable[str]) -> dict[str, Score]:
    """Give a row's scores in those of ``columns`` in which it has one."""
    scores = {}
    for column in columns:
        cell = row.cells[column]
        if cell.estimate is not None:
            mean = cell.estimate.mean
            low, high = (cell.interval.low, cell.interval.high) if cell.interval else (mean, mean)
            scores[column] = Score(100 * mean, 100 * low, 100 * high)
    return scores


def reported(row: PublishedRow, columns: Iterable[str]) -> dict[str, Score]:
    """Give a published row's scores in those of ``columns`` in which it has one."""
    scores = {}
    for column in columns:
        figure = row.figures.get(column)
        if figure is not None:
            reach = figure.half_width or 0.0
            scores[column] = Score(*(100 * each for each in (figure.value, figure.value - reach, figure.value + reach)))
    return scores
