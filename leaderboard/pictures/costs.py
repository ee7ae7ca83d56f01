"""Accuracy against what adapting to a task costs: the message of the LITE paper's Figs. 1 and 3."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lite_bench.harness.errors import DataError
from lite_bench.harness.units import scaled
from lite_bench.leaderboard.pictures.label_placement import Box, Label, Place, place_labels
from lite_bench.leaderboard.pictures.scores import Score, measured, reported
from lite_bench.leaderboard.pictures.style import (
    AS_PUBLISHED,
    GREY,
    HEADING,
    INK,
    INTERVALS,
    LINE,
    LONGER,
    NORMAL,
    POINTS,
    PUBLISHED,
    SMALL,
    WIDTH,
    add_axes,
    new_figure,
    notes_height,
    point_look,
    short_names,
    shorten,
    style,
    text_width,
    wrap,
    write_heading,
    write_notes,
)
from lite_bench.leaderboard.rows import Row
from lite_bench.leaderboard.tables import Table
from lite_bench.leaderboard.text import column_title, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEFT, RIGHT, BELOW, ABOVE = 42.0, 14.0, 31.0, 18.0
"""Room around a panel for its scales and title."""
HEIGHT, MORE = 170.0, 6.0
"""Height of a panel, and what each point adds to it."""
MANY = 25
"""Points from which each adds more, as the search for room takes long in a crowd."""
RADIUS = 3.0
PAD = 1.5
"""What stays free around markers, intervals and labels."""
GROWTH = 1.35
"""A panel in which some label finds no room is drawn higher by this."""


@dataclass(frozen=True)
class Dot:
    """One learner in one panel; ``number`` is that of its row among ours, or among the published ones."""

    name: str
    macs: float
    score: Score
    number: int
    own: bool


@dataclass(frozen=True)
class Panel:
    """What one panel shows, and in words what it cannot show."""

    column: str
    dots: tuple[Dot, ...]
    absent: tuple[str, ...]


def accuracy_against_macs(table: Table, *, published: bool = False) -> Figure:
    """Plot accuracy against the MACs of adapting to a task, with 95 % intervals and each learner's name beside it.

    Accuracy is the mean of the first group; without groups every source has a panel.

    Args:
        table: what to plot.
        published: count MACs as published tables do, and add the table's published rows; by default MACs are the true
            ones and only measured rows are shown. The two countings never share an axis.

    Raises:
        DataError: there is nothing to plot.
    """
    every = [_panel(table, column, published=published) for column in columns_of(table)]
    panels = [panel for panel in every if panel.dots]
    what = "published MACs" if published else "MACs"
    if not panels:
        raise DataError(
            f"No picture of accuracy against {what} of {title(table)}: no row has both {what} and a complete mean; "
            "`lite-bench eval` counts MACs and finishes what is missing."
        )
    if published and all(dot.own for panel in panels for dot in panel.dots):
        raise DataError(
            f"No picture of accuracy against published MACs of {title(table)}: none of the table's published rows has "
            "MACs and a mean; the picture of true MACs shows the measured rows."
        )
    notes = _notes(every)
    heights = [HEIGHT + MORE * len(panel.dots) * max(1.0, len(panel.dots) / MANY) for panel in panels]
    with style():
        figure, crowded = _draw(table, panels, heights, notes, published=published)
        while any(crowded):  # comes to an end: the free margins above and below all intervals grow too
            heights = [height * GROWTH if full else height for height, full in zip(heights, crowded, strict=True)]
            figure, crowded = _draw(table, panels, heights, notes, published=published)
    return figure


def columns_of(table: Table) -> tuple[str, ...]:
    """Choose what accuracy is: the first group's mean, or without groups that of every source."""
    return tuple(table.groups)[:1] or table.sources


def _panel(table: Table, column: str, *, published: bool) -> Panel:
    """Gather the points of one panel."""
    dots: list[Dot] = []
    without: dict[str, list[str]] = {}
    names = short_names([row.label for row in table.rows])
    for number, (row, name) in enumerate(zip(table.rows, names, strict=True)):
        macs, why = _macs(row, published=published)
        score = measured(row, [column]).get(column)
        if score is None:
            without.setdefault("no complete mean", []).append(name)
        elif macs is None:
            without.setdefault(why, []).append(name)
        else:
            dots.append(Dot(name, macs, score, number, own=True))
    if published:
        shown = [(row, row.macs, reported(row, [column]).get(column)) for row in table.published]
        names = short_names([row.name for row in table.published], LONGER, PUBLISHED)
        others = [
            Dot(name, macs, score, number, own=False)
            for number, (name, (_, macs, score)) in enumerate(zip(names, shown, strict=True))
            if macs and score
        ]
        dots += others
        if len(others) < len(table.published):
            without["published rows without MACs or a mean"] = [str(len(table.published) - len(others))]
    return Panel(column, tuple(dots), tuple(f"{why}: {'; '.join(own)}." for why, own in without.items()))


def _macs(row: Row, *, published: bool) -> tuple[float | None, str]:
    """Give the MACs of a row, or None and why it cannot stand on a logarithmic axis."""
    what = "published MACs" if published else "MACs"
    macs = None
    if row.costs is not None:
        macs = row.costs.published_macs if published else row.costs.macs
    if macs is None:
        return None, f"{what} not known"
    return (macs, "") if macs > 0 else (None, "adapts without MACs")


def _notes(panels: Sequence[Panel]) -> list[str]:
    """List what is not shown, so that nobody takes it for absent from the table."""
    several = len(panels) > 1
    texts = [f"{panel.column}: {text}" if several else text for panel in panels for text in panel.absent]
    sentences = [f"Not shown, {text}" for text in texts]
    if not all(dot.own for panel in panels for dot in panel.dots):
        sentences.insert(0, AS_PUBLISHED)
    return [line for sentence in sentences for line in wrap(sentence)]


def _draw(
    table: Table, panels: Sequence[Panel], heights: Sequence[float], notes: Sequence[str], *, published: bool
) -> tuple[Figure, list[bool]]:
    """Draw all panels below each other; also say of each whether some name found no room in it."""
    foot = notes_height(notes)
    figure = new_figure(foot + sum(heights) + len(heights) * (ABOVE + BELOW) + HEADING)
    write_heading(figure, title(table))
    write_notes(figure, notes)
    top = figure.get_figheight() * POINTS - HEADING
    crowded = []
    for panel, height in zip(panels, heights, strict=True):
        axes = add_axes(figure, LEFT, top - ABOVE - height, WIDTH - LEFT - RIGHT, height)
        top -= ABOVE + height + BELOW
        _scales(axes, panel.dots)
        axes.set_title(
            f"{shorten(column_title(table, panel.column), 200.0)}, with {INTERVALS[table.interval]}",
            loc="left",
            fontsize=NORMAL,
        )
        counting = "as published tables count" if published else "true count"
        axes.set_xlabel(f"MACs to adapt to a task, {counting}", fontsize=NORMAL)
        axes.set_ylabel("Accuracy, %", fontsize=NORMAL)
        _points(axes, panel.dots)
        crowded.append(_labels(figure, axes, panel.dots))
    return figure, crowded


def _scales(axes: Axes, dots: Sequence[Dot]) -> None:
    """Scale the axes so that all points and intervals are inside, with some room, and label the ticks."""
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

    low, high = min(math.log10(dot.macs) for dot in dots), max(math.log10(dot.macs) for dot in dots)
    room = max(0.06 * (high - low), (1.0 - (high - low)) / 2, 0.05)
    # Names stand to the right of points, so there is more room on that side.
    left, right = low - room, high + 2 * room
    axes.set_xscale("log")
    axes.set_xlim(10**left, 10**right)
    axes.xaxis.set_major_locator(FixedLocator(ticks := log_ticks(left, right)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([scaled(tick) for tick in ticks])
    bottom, top = min(dot.score.low for dot in dots), max(dot.score.high for dot in dots)
    room = max(0.08 * (top - bottom), 1.0)
    axes.set_ylim(bottom - room, top + room)
    ends = max(0.0, bottom - room), min(100.0, top + room)
    found = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(*ends)
    values = [float(value) for value in found if ends[0] <= value <= ends[1]]
    axes.set_yticks(values, [f"{value:g}" for value in values])
    axes.grid(visible=True)


def log_ticks(low: float, high: float) -> list[float]:
    """Choose ticks between 10^low and 10^high: powers of ten, with 2 and 5 between them on a short scale."""
    wide = high - low
    digits = (1, 2, 5) if wide <= 3 else (1,)
    step = max(1, math.ceil(wide / 8))
    powers = [power for power in range(math.floor(low), math.ceil(high) + 1) if power % step == 0]
    ticks = [digit * 10.0**power for power in powers for digit in digits]
    return [tick for tick in ticks if low <= math.log10(tick) <= high]


def _points(axes: Axes, dots: Sequence[Dot]) -> None:
    """Draw markers and intervals; what others published is hollow and grey."""
    for dot in dots:
        score = dot.score
        axes.errorbar(
            [dot.macs],
            [score.mean],
            yerr=None if score.low == score.high else [[score.mean - score.low], [score.high - score.mean]],
            linestyle="none",
            markersize=2 * RADIUS,
            elinewidth=1.0,
            capsize=2.0,
            zorder=4 if dot.own else 3,
            **point_look(dot.number if dot.own else 0, own=dot.own),
        )


def _labels(figure: Figure, axes: Axes, dots: Sequence[Dot]) -> bool:
    """Write every name beside its point, with a line to it where it had to move; say whether one found no room."""
    box = axes.get_window_extent()
    scale = POINTS / figure.dpi
    bounds = Box(0.0, 0.0, box.width * scale, box.height * scale)
    labels = []
    for dot in dots:
        (x, y), (_, low), (_, high) = (
            (axes.transData.transform((dot.macs, value)) - (box.x0, box.y0)) * scale
            for value in (dot.score.mean, dot.score.low, dot.score.high)
        )
        mark = Box(x - RADIUS - PAD, y - RADIUS - PAD, x + RADIUS + PAD, y + RADIUS + PAD)
        interval = Box(x - 2.0 - PAD, low - PAD, x + 2.0 + PAD, high + PAD)
        width = text_width(dot.name) * 1.02 + 2 * PAD
        labels.append(Label(float(x), float(y), width, LINE * SMALL, (mark, interval)))
    places = place_labels(labels, bounds)
    for dot, label, place in zip(dots, labels, places, strict=True):
        if place is not None:
            _write_label(axes, dot, label, place)
    return None in places


def _write_label(axes: Axes, dot: Dot, label: Label, place: Place) -> None:
    """Write one name into its place."""
    box = place.box
    side = "right" if box.right <= label.x else "left" if box.left >= label.x else "center"
    x = {"right": box.right - PAD, "left": box.left + PAD, "center": (box.left + box.right) / 2}[side]
    tint = INK if dot.own else GREY
    axes.annotate(
        dot.name,
        (x, (box.bottom + box.top) / 2),
        xycoords="axes points",
        ha=side,
        va="center",
        fontsize=SMALL,
        color=tint,
        zorder=4,
    )
    if place.leader:
        axes.annotate(
            "",
            (label.x, label.y),
            xytext=place.end,
            xycoords="axes points",
            textcoords="axes points",
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": tint, "alpha": 0.6, "shrinkA": 0, "shrinkB": 0},
            zorder=2,
        )
