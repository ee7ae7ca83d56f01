"""Accuracy by group of sources, one bar per learner: the LITE paper's Fig. 3."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lite_bench.harness.errors import DataError
from lite_bench.leaderboard.pictures.scores import Score, measured, reported
from lite_bench.leaderboard.pictures.style import (
    AS_PUBLISHED,
    EDGE,
    GREY,
    HEADING,
    INK,
    INTERVALS,
    LONGER,
    NORMAL,
    POINTS,
    PUBLISHED,
    SMALL,
    WIDTH,
    add_axes,
    bar_look,
    columns_shown,
    new_figure,
    notes_height,
    short_names,
    shorten,
    style,
    text_width,
    wrap,
    write_heading,
    write_notes,
)
from lite_bench.leaderboard.tables import Table
from lite_bench.leaderboard.text import DASH, column_title, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ABREAST = 5
"""Panels beside each other."""
GAP, RIGHT = 14.0, 12.0
BAR = 11.0
"""Height of a bar with what is free around it."""
ABOVE, BELOW = 16.0, 18.0
WIDE = 120.0
"""Width from which a panel has room for a label at every tick."""
FULL = 102.0
"""End of the scale in %, a little beyond all there is."""


@dataclass(frozen=True)
class Line:
    """One learner and its scores by column; ``number`` is that of its row among ours, or among the published ones."""

    name: str
    scores: dict[str, Score]
    number: int
    own: bool


def accuracy_by_group(table: Table) -> Figure:
    """Draw one panel per group, or without groups per source, with a bar and a 95 % interval per learner.

    Scales start at zero, so that lengths compare as accuracies do. A learner without a complete mean has a dash instead
    of a bar. The table's published rows are outlined.

    Raises:
        DataError: there is nothing to draw.
    """
    columns = columns_shown(tuple(table.groups), table.sources)
    lines = _lines(table, columns)
    columns = tuple(column for column in columns if any(column in line.scores for line in lines))
    if not columns:
        raise DataError(
            f"No picture of accuracy by group of {title(table)}: no row has a complete mean; repeat `lite-bench eval` "
            "to finish one."
        )
    missing = any(column not in line.scores for line in lines for column in columns)
    notes = [f"Accuracy in %, with {INTERVALS[table.interval]}."]
    notes += [] if all(line.own for line in lines) else [AS_PUBLISHED]
    notes += [f"{DASH}: no complete or no published mean."] if missing else []
    wrapped = wrap(" ".join(notes))
    with style():
        height = BAR * len(lines) + 4.0
        deep = math.ceil(len(columns) / ABREAST)
        figure = new_figure(notes_height(wrapped) + deep * (ABOVE + height + BELOW) + HEADING)
        write_heading(figure, title(table))
        write_notes(figure, wrapped)
        top = figure.get_figheight() * POINTS - HEADING
        names = max(text_width(line.name) for line in lines) + 12.0
        abreast = min(ABREAST, len(columns))
        width = (WIDTH - EDGE - names - RIGHT - GAP * (abreast - 1)) / abreast
        for number, column in enumerate(columns):
            deep, along = divmod(number, ABREAST)
            bottom = top - (deep + 1) * (ABOVE + height) - deep * BELOW
            axes = add_axes(figure, EDGE + names + along * (width + GAP), bottom, width, height)
            _panel(axes, column, lines, names=along == 0, wide=width > WIDE)
            axes.set_title(
                shorten(column_title(table, column), width + GAP - 4.0, NORMAL), fontsize=NORMAL, loc="left", pad=3.0
            )
    return figure


def _lines(table: Table, columns: Sequence[str]) -> list[Line]:
    """Gather ours, then what others published of these columns."""
    names = short_names([row.label for row in table.rows])
    lines = [
        Line(name, measured(row, columns), number, own=True)
        for number, (row, name) in enumerate(zip(table.rows, names, strict=True))
    ]
    others = [(row, scores) for row in table.published if (scores := reported(row, columns))]
    names = short_names([row.name for row, _ in others], LONGER, PUBLISHED)
    for number, (name, (_, scores)) in enumerate(zip(names, others, strict=True)):
        lines.append(Line(name, scores, number, own=False))
    return lines


def _panel(axes: Axes, column: str, lines: Sequence[Line], *, names: bool, wide: bool) -> None:
    """Draw one panel, the first line at its top."""
    for place, line in enumerate(lines):
        score = line.scores.get(column)
        if score is None:
            axes.text(2.0, place, DASH, va="center", fontsize=SMALL)
            continue
        axes.barh(place, score.mean, height=0.7, **bar_look(line.number, own=line.own))
        if score.high > score.low:
            axes.hlines(place, score.low, score.high, color=INK, linewidth=1.1, zorder=3)
            axes.vlines([score.low, score.high], place - 0.2, place + 0.2, color=INK, linewidth=0.8, zorder=3)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xlim(0.0, FULL)
    axes.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100"] if wide else ["0", "", "50", "", "100"])
    axes.set_yticks(range(len(lines)), [line.name for line in lines] if names else [""] * len(lines))
    for text, line in zip(axes.get_yticklabels(), lines, strict=True):
        text.set_color(INK if line.own else GREY)
    axes.tick_params(axis="y", length=0.0)
    axes.tick_params(axis="x", length=2.0, pad=2.0)
    axes.grid(visible=True, axis="x")
