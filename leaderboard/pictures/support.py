"""Accuracy against H, the support images that carried a gradient in meta-training: the LITE paper's Table 2."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lite_bench.harness.errors import DataError
from lite_bench.leaderboard.labels import tell_apart
from lite_bench.leaderboard.pictures.scores import Score, measured, reported
from lite_bench.leaderboard.pictures.style import (
    AS_PUBLISHED,
    EDGE,
    HEADING,
    INTERVALS,
    NORMAL,
    POINTS,
    PUBLISHED,
    SMALL,
    WIDTH,
    add_axes,
    columns_shown,
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
from lite_bench.leaderboard.published import PublishedRow
from lite_bench.leaderboard.rows import Row
from lite_bench.leaderboard.tables import Table
from lite_bench.leaderboard.text import column_title, title
from lite_bench.leaderboard.training import WITHOUT_H

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ALL = math.inf
"""H of a gradient through the whole support set."""
WHOLE = "all"
"""The same in words, here and in published rows."""
Points = list[tuple[float, dict[str, Score]]]
"""H and the scores by column of each row of a series."""
ABREAST = 2
LEFT, GAP, RIGHT = 38.0, 38.0, 14.0
HEIGHT, ABOVE, BELOW = 130.0, 18.0, 32.0
BEYOND = 0.3
"""From the largest H to ``all``, in the scale's unit."""
HANDLE, BETWEEN, LEGEND_ROW = 24.0, 12.0, 11.0
LEGEND_WIDTH = 220.0
"""Width that a name in the legend may take."""


@dataclass(frozen=True)
class Series:
    """Rows that are alike but for H.

    Attributes:
        name: of the learner and of what tells it from other series.
        number: of its look, among ours or among the published ones.
        own: False for what others published.
        points: of its rows.
    """

    name: str
    number: int
    own: bool
    points: Points


def accuracy_against_h(table: Table) -> Figure:
    """Plot accuracy against H, one panel per group, or without groups per source, with 95 % intervals.

    A line joins the means of rows that are alike in learner, backbone, image size, pre-training, options, number of
    training tasks, precision and gradient. Gradients of the whole support set stand at ``all``, with a thin line
    across. Learners with one H only are left out. The table's published rows are dashed and grey.

    Raises:
        DataError: no learner has two values of H.
    """
    columns = columns_shown(tuple(table.groups), table.sources)
    ours = _measured(table, columns)
    columns = tuple(column for column in columns if any(column in scores for each in ours for _, scores in each.points))
    if not columns:
        raise DataError(
            f"No picture of accuracy against H of {title(table)}: no learner has complete means at two values of H "
            "with all else alike; train one again with another --lite-h and evaluate it."
        )
    series = ours + _published(table, columns)
    note = f"Accuracy in %, with {INTERVALS[table.interval]}. {WHOLE}: the gradient of the whole support set."
    notes = wrap(note if all(each.own for each in series) else f"{note} {AS_PUBLISHED}")
    with style():
        legend = _legend_rows([each.name for each in series])
        foot = notes_height(notes) + LEGEND_ROW * len(legend) + 4.0
        deep = math.ceil(len(columns) / ABREAST)
        figure = new_figure(foot + deep * (ABOVE + HEIGHT + BELOW) + HEADING)
        write_heading(figure, title(table))
        write_notes(figure, notes)
        top = figure.get_figheight() * POINTS - HEADING
        abreast = min(ABREAST, len(columns))
        width = (WIDTH - LEFT - RIGHT - GAP * (abreast - 1)) / abreast
        for number, column in enumerate(columns):
            down, along = divmod(number, ABREAST)
            bottom = top - (down + 1) * (ABOVE + HEIGHT) - down * BELOW
            axes = add_axes(figure, LEFT + along * (width + GAP), bottom, width, HEIGHT)
            _panel(axes, column, series, width)
            axes.set_title(shorten(column_title(table, column), width, NORMAL), fontsize=NORMAL, loc="left", pad=4.0)
            axes.set_ylabel("Accuracy, %" if along == 0 else "", fontsize=NORMAL)
        _legend(figure, series, legend, notes_height(notes))
    return figure


def _measured(table: Table, columns: Sequence[str]) -> list[Series]:
    """Gather our rows by what they have in common; only those that are alike but for H and the gradient's name."""
    found: dict[tuple[str, ...], Points] = {}
    for row in table.rows:
        h, scores = ALL if row.training.gradient in WITHOUT_H else row.training.h, measured(row, columns)
        if h is not None and scores:
            found.setdefault(_alike(row), []).append((h, scores))
    alike: dict[tuple[str, ...], set[float]] = {}
    for key, points in found.items():
        alike.setdefault(key[:-1], set()).update(h for h, _ in points)
    varying = {key: points for key, points in found.items() if len(alike[key[:-1]]) > 1}
    return _series(varying, own=True)


def _series(found: Mapping[tuple[str, ...], Points], *, own: bool) -> list[Series]:
    """Name series by learner, and those of one learner also by what tells them apart, their gradient first."""
    names = tell_apart([key[0] for key in found], [(key[-1], *key[1:-1]) for key in found])
    short = short_names(names, LEGEND_WIDTH, "" if own else PUBLISHED)
    return [
        Series(name, number, own, points)
        for number, (name, points) in enumerate(zip(short, found.values(), strict=True))
    ]


def _alike(row: Row) -> tuple[str, ...]:
    """Give what rows of one series have in common, in words; the gradient's name last."""
    manifest, training = row.manifest, row.training
    options = " ".join(f"{name}={value}" for name, value in training.options.items())
    tasks = "" if training.tasks is None else f"{training.tasks} tasks"
    made = (training.pretraining, options, tasks, training.pixels, manifest.precision)
    return (manifest.learner, manifest.backbone, f"{manifest.image_size} px", *made, training.gradient)


def _published(table: Table, columns: Sequence[str]) -> list[Series]:
    """Gather published rows that say their H, by learner, backbone, image size and pre-training."""
    found: dict[tuple[str, ...], Points] = {}
    for row in table.published:
        h, scores = _published_h(row), reported(row, columns)
        if h is not None and scores:
            size = "" if row.image_size is None else f"{row.image_size} px"
            key = (row.learner or row.system, row.backbone, size, row.pretraining)
            found.setdefault(key, []).append((h, scores))
    return _series({key: points for key, points in found.items() if len({h for h, _ in points}) > 1}, own=False)


def _published_h(row: PublishedRow) -> float | None:
    if row.h == WHOLE:
        return ALL
    return float(row.h) if row.h.isdecimal() else None


def _panel(axes: Axes, column: str, series: Sequence[Series], width: float) -> None:
    """Draw one panel on a scale of log(1 + H), which has room for H = 0."""
    from matplotlib.ticker import MaxNLocator

    values = sorted({h for each in series for h, scores in each.points if column in scores})
    finite = [h for h in values if h != ALL]
    end = math.log10(1 + max(finite, default=0.0)) + BEYOND

    def place(h: float) -> float:
        return end if h == ALL else math.log10(1 + h)

    first = place(values[0])
    room = 0.06 * max(end - first, 0.2)
    axes.set_xlim(first - room, place(values[-1]) + room)
    for each in series:
        _line(axes, column, each, place)
    texts = [WHOLE if h == ALL else f"{h:g}" for h in values]
    scale = width / (place(values[-1]) - first + 2 * room)
    axes.set_xticks([place(h) for h in values], _spaced(texts, [scale * place(h) for h in values]))
    axes.set_xlabel("H, support images with a gradient", fontsize=NORMAL)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.margins(y=0.1)
    axes.grid(visible=True)


def _line(axes: Axes, column: str, series: Series, place: Callable[[float], float]) -> None:
    """Draw one series: a marker and an interval per row, and a line through the mean at each H."""
    look = point_look(series.number, own=series.own)
    means: dict[float, list[float]] = {}
    for h, scores in sorted(series.points, key=lambda point: point[0]):
        if column in scores:
            score = scores[column]
            means.setdefault(h, []).append(score.mean)
            ends = None if score.low == score.high else [[score.mean - score.low], [score.high - score.mean]]
            axes.errorbar([place(h)], [score.mean], ends, elinewidth=0.9, capsize=2.0, markersize=4.5, zorder=3, **look)
    level = {h: math.fsum(each) / len(each) for h, each in means.items()}
    finite = [h for h in level if h != ALL]
    axes.plot([place(h) for h in finite], [level[h] for h in finite], **_stroke(series), zorder=2)
    if ALL in level:
        axes.axhline(level[ALL], color=look["color"], linewidth=0.8, linestyle=(0, (1, 1.5)), zorder=1.5)


def _stroke(series: Series) -> dict[str, Any]:
    """Give the look of a series' line."""
    tint = point_look(series.number, own=series.own)["color"]
    return {"color": tint, "linewidth": 1.3, "linestyle": "-" if series.own else (0, (4, 2))}


def _spaced(texts: Sequence[str], places: Sequence[float]) -> list[str]:
    """Blank the tick labels that would run into one already kept; the outermost are kept first, then larger ones."""
    kept: list[int] = []
    for number in [len(texts) - 1, 0, *range(len(texts) - 2, 0, -1)]:
        widths = {other: (text_width(texts[number]) + text_width(texts[other])) / 2 + 3.0 for other in kept}
        if all(abs(places[number] - places[other]) >= widths[other] for other in kept):
            kept.append(number)
    return [text if number in kept else "" for number, text in enumerate(texts)]


def _legend_rows(names: Sequence[str]) -> list[list[int]]:
    """Lay names out in rows that fit the picture's width."""
    rows: list[list[int]] = []
    used = 0.0
    for number, name in enumerate(names):
        width = HANDLE + text_width(name) + BETWEEN
        if not rows or used + width > WIDTH - 2 * EDGE:
            rows.append([])
            used = 0.0
        rows[-1].append(number)
        used += width
    return rows


def _legend(figure: Figure, series: Sequence[Series], rows: Sequence[Sequence[int]], bottom: float) -> None:
    """Draw which line is whose, below the panels."""
    axes = add_axes(figure, 0.0, bottom, WIDTH, LEGEND_ROW * len(rows))
    axes.set_xlim(0.0, WIDTH)
    axes.set_ylim(-LEGEND_ROW * len(rows), 0.0)
    axes.axis("off")
    for down, row in enumerate(rows):
        x, y = EDGE, -LEGEND_ROW * (down + 0.5)
        for each in (series[number] for number in row):
            look = _stroke(each) | point_look(each.number, own=each.own)
            axes.plot([x, x + HANDLE / 2 - 3, x + HANDLE - 6], [y] * 3, markevery=[1], markersize=4.5, **look)
            axes.text(x + HANDLE, y, each.name, va="center", ha="left", fontsize=SMALL)
            x += HANDLE + text_width(each.name) + BETWEEN
