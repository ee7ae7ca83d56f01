"""Critical-difference diagrams, as drawn in Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets".

Journal of Machine Learning Research 7, 2006, Fig. 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lite_bench.harness.errors import DataError
from lite_bench.leaderboard.critical_difference import CriticalDifference, critical_difference
from lite_bench.leaderboard.pictures.style import (
    EDGE,
    HEADING,
    INK,
    LONGEST,
    NORMAL,
    SMALL,
    WIDTH,
    add_axes,
    new_figure,
    notes_height,
    short_names,
    style,
    text_width,
    wrap,
    write_heading,
    write_notes,
)
from lite_bench.leaderboard.tables import Table
from lite_bench.leaderboard.text import title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 12.0
"""From one name to the next."""
LEVEL = 6.0
"""From one bar to the next."""
SCALE = 34.0
"""Room above the scale: its title, the length of the critical difference and the tick labels."""
ELBOW = 8.0
"""What a line runs beyond the scale before its name."""
LEVEL_OF_SIGNIFICANCE = 0.05


def rank_diagram(table: Table) -> Figure:
    """Draw the average ranks of the rows of ``table``, and which of them Nemenyi's test does not tell apart.

    Raises:
        DataError: fewer than two rows share two blocks.
    """
    found = critical_difference(table)
    if found is None:
        raise DataError(
            f"No picture of critical differences of {title(table)}: fewer than two rows are complete on the same "
            "tasks; evaluate another learner on them."
        )
    return draw_ranks(found, title(table))


def draw_ranks(found: CriticalDifference, heading: str) -> Figure:
    """Draw a critical-difference diagram: the best to the right, thick lines between those that are not told apart."""
    bars = spans(found)
    levels = stack(bars)
    notes = _notes(found)
    k = len(found.labels)
    half = math.ceil(k / 2)
    below = LEVEL * (max(levels, default=-1) + 1) + 6.0 + ROW * half
    with style():
        foot = notes_height(notes)
        figure = new_figure(foot + below + SCALE + HEADING)
        write_heading(figure, heading)
        write_notes(figure, notes)
        axes = add_axes(figure, 0.0, foot, WIDTH, below + SCALE)
        axes.set_xlim(0.0, WIDTH)
        axes.set_ylim(-below, SCALE)
        axes.axis("off")
        names = short_names(found.labels, LONGEST)
        texts = [f"{name}  {rank:.2f}" for name, rank in zip(names, found.ranks, strict=True)]
        _Diagram(axes, found, texts).draw(bars, levels, half)
    return figure


def spans(found: CriticalDifference) -> list[tuple[int, int]]:
    """Give the places of the first and the last label of every bar."""
    starts = [found.labels.index(bar[0]) for bar in found.bars]
    return [(start, start + len(bar) - 1) for start, bar in zip(starts, found.bars, strict=True)]


def stack(bars: Sequence[tuple[int, int]]) -> list[int]:
    """Put every bar on the lowest level on which it shares no place with an earlier one."""
    levels: list[int] = []
    for first, last in bars:
        level = 0
        while any(
            other == level and first <= end and start <= last for other, (start, end) in zip(levels, bars, strict=False)
        ):
            level += 1
        levels.append(level)
    return levels


def _notes(found: CriticalDifference) -> list[str]:
    p = "p < 0.001" if found.p < 0.001 else f"p = {found.p:.3f}"
    verdict = "ranks differ" if found.p < LEVEL_OF_SIGNIFICANCE else "no difference is shown"
    text = (
        f"Mean ranks over {found.blocks}, the best to the right. Friedman's test: {p}, {verdict}. Thick lines join "
        f"learners that are closer than Nemenyi's critical difference (CD) at the 5 % level."
    )
    notes = wrap(text)
    if found.left_out:
        notes += wrap(f"Left out, as some of their scores are missing: {'; '.join(short_names(found.left_out))}.")
    return notes


class _Diagram:
    """The scale of one diagram: the worst rank to the left, the best to the right, 0 the height of the line."""

    def __init__(self, axes: Axes, found: CriticalDifference, texts: Sequence[str]) -> None:
        self.axes, self.found, self.texts = axes, found, texts
        self.k = len(found.labels)
        half = math.ceil(self.k / 2)
        self.right = WIDTH - EDGE - ELBOW - 4.0 - max(text_width(text) for text in texts[:half])
        self.left = EDGE + ELBOW + 4.0 + max((text_width(text) for text in texts[half:]), default=0.0)

    def x(self, rank: float) -> float:
        """Give the place of a rank, 1 to k."""
        return self.right - (rank - 1) / max(self.k - 1, 1) * (self.right - self.left)

    def draw(self, bars: Sequence[tuple[int, int]], levels: Sequence[int], half: int) -> None:
        """Draw all of it; the best ``half`` of the names stand to the right."""
        self._scale()
        for (first, last), level in zip(bars, levels, strict=True):
            ends = [self.x(self.found.ranks[first]) + 2.0, self.x(self.found.ranks[last]) - 2.0]
            self.axes.plot(ends, [-LEVEL * (level + 0.8)] * 2, color=INK, linewidth=2.4, solid_capstyle="butt")
        deep = LEVEL * (max(levels, default=-1) + 1) + 6.0
        for number, (rank, text) in enumerate(zip(self.found.ranks, self.texts, strict=True)):
            right = number < half
            place = number if right else self.k - 1 - number
            y = -deep - ROW * place
            end = self.right + ELBOW if right else self.left - ELBOW
            self.axes.plot([self.x(rank), self.x(rank), end], [0.0, y, y], color=INK, linewidth=0.7)
            self.axes.text(
                end + (3.0 if right else -3.0), y, text, va="center", ha="left" if right else "right", fontsize=SMALL
            )

    def _scale(self) -> None:
        """Draw the scale, with ticks at whole ranks, and above it the length of the critical difference."""
        self.axes.plot([self.left, self.right], [0.0, 0.0], color=INK, linewidth=0.9)
        widest = text_width(str(self.k)) + 4.0
        step = max(1, math.ceil(widest / ((self.right - self.left) / max(self.k - 1, 1))))
        for rank in range(1, self.k + 1):
            shown = (rank - 1) % step == 0
            self.axes.plot([self.x(rank)] * 2, [0.0, 4.0 if shown else 2.5], color=INK, linewidth=0.7)
            if shown:
                self.axes.text(self.x(rank), 5.5, str(rank), ha="center", va="bottom", fontsize=SMALL)
        self._length(24.0)

    def _length(self, y: float) -> None:
        """Draw the critical difference as a length; one longer than the scale is only named."""
        full = self.right - self.left
        length = self.found.difference / max(self.k - 1, 1) * full
        text = f"CD = {self.found.difference:.2f}"
        if length > full:
            self.axes.text(self.left, y, f"{text}, longer than the scale", va="center", fontsize=NORMAL)
            return
        ends = [self.left, self.left + length]
        self.axes.plot(ends, [y, y], color=INK, linewidth=0.9)
        for end in ends:
            self.axes.plot([end, end], [y - 2.5, y + 2.5], color=INK, linewidth=0.9)
        self.axes.text(ends[1] + 5.0, y, text, va="center", fontsize=NORMAL)
