"""The grids on the page, scores by block, setup and costs: complete without a script, sortable with it.

A row has the same ``data-row`` in every grid of its table, so that the script can keep them in one order; a cell has
the number or text that it is sorted by as ``data-value``, and none where it is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lite_bench.harness.core import LATENESS
from lite_bench.harness.cost_statistics import CostSummary, Spread
from lite_bench.leaderboard.layout import Block
from lite_bench.leaderboard.page.elements import Markup, element, join, shorten
from lite_bench.leaderboard.page.footnotes import Footnotes
from lite_bench.leaderboard.pairs import p_text
from lite_bench.leaderboard.published import PublishedRow
from lite_bench.leaderboard.rows import Cell, Row
from lite_bench.leaderboard.tables import Table
from lite_bench.leaderboard.text import (
    COSTS,
    DASH,
    SETUP,
    TIED,
    cost_texts,
    published_cost_texts,
    published_notes,
    published_setup_texts,
    published_text,
    rank_text,
    score_text,
    setup_texts,
)

TEXTS = ("Learner", "Backbone", "Pre-training", "Gradient", "Steps", "Trained with", "Device")
"""Columns that are sorted as text; all others hold numbers."""
DIVIDER = "Published: measured by others, never ranked with the rows above"
HIDDEN = "visually-hidden"
Value = str | float | None
"""What a cell is sorted by; None where it is missing."""


@dataclass(frozen=True)
class Line:
    """A line of a grid.

    Attributes:
        key: of its row, unique in the table.
        search: names that the filter looks in.
        cells: table cells.
    """

    key: str
    search: str
    cells: tuple[Markup, ...]

    @property
    def markup(self) -> Markup:
        """The line as HTML."""
        return element("tr", *self.cells, data_row=self.key, data_search=self.search)


def row_key(number: int) -> str:
    """Key of one of our rows."""
    return f"r{number}"


def published_key(number: int) -> str:
    """Key of a published row."""
    return f"p{number}"


def score_grid(table: Table, block: Block, notes: Footnotes) -> Markup:
    """Make the grid of one block of columns; published rows without a score in it are left out."""
    head = [_head("Rank", "rank", "rank"), _head("Learner", "learner", "name")]
    head += [_head(column, f"score {column}", first=_better(column)) for column in block.columns]
    ours = []
    for number, row in enumerate(table.rows):
        rank = value_cell(rank_text(row.rank), row.rank)
        scores = [_score(row.cells[column], column, table, notes) for column in block.columns]
        ours.append(Line(row_key(number), _search(row), (rank, _label(row, number, notes), *scores)))
    theirs = []
    for number, other in enumerate(table.published):
        if any(column in other.figures for column in block.columns):
            scores = [_published_score(other, column, notes) for column in block.columns]
            label = _published_label(other, number, notes, notes.link(*published_notes(other)))
            cells = (element("td", class_="number"), label, *scores)
            theirs.append(Line(published_key(number), _published_search(other), cells))
    caption = f"{table.suite}, {table.split}: accuracy in % {f'of {block.title}' if block.title else ''}"
    return _grid(caption, head, ours, theirs)


def setup_grid(table: Table, notes: Footnotes) -> Markup:
    """Make the grid of how each learner was made."""
    ours = [(setup_texts(row), setup_values(row)) for row in table.rows]
    theirs = [(published_setup_texts(row), _published_setup_values(row)) for row in table.published]
    return _fact_grid("setup", SETUP, table, ours, theirs, notes)


def cost_grid(table: Table, notes: Footnotes) -> Markup:
    """Make the grid of what a task costs each learner; published rows without any cost are left out."""
    ours = [(cost_texts(row.costs), cost_values(row.costs)) for row in table.rows]
    theirs = [(published_cost_texts(row), _published_cost_values(row)) for row in table.published]
    return _fact_grid("cost of a task", COSTS, table, ours, theirs, notes)


def setup_values(row: Row) -> list[Value]:
    """Give what the columns `SETUP` are sorted by."""
    training = row.training
    text = setup_texts(row)
    return [text[0], row.manifest.image_size, text[2], text[3], training.h, training.tasks, text[6]]


def cost_values(costs: CostSummary | None) -> list[Value]:
    """Give what the columns `COSTS` are sorted by."""
    if costs is None:
        return [None] * len(COSTS)
    times = [_median(costs.adapt_seconds), _median(costs.query_seconds)]
    sizes = [costs.parameters, costs.adapted, costs.peak_bytes]
    return [costs.passes, costs.macs, costs.published_macs, *times, *sizes, ", ".join(costs.devices)]


def value_cell(text: str, value: Value, *marks: Markup, number: bool = True) -> Markup:
    """Make a cell that is sorted by ``value``."""
    shown = text if number else shorten(text)
    kind = "number" if number else None
    return element("td", shown, *marks, class_=kind, data_value=_sort_value(value, text))


def scroller(grid: Markup, label: str) -> Markup:
    """Put a grid that may be too wide into a box that scrolls, with the keyboard too."""
    return element("div", grid, class_="scroll", role="region", tabindex="0", aria_label=label)


def _fact_grid(
    what: str,
    names: Sequence[str],
    table: Table,
    ours: Sequence[tuple[list[str], list[Value]]],
    theirs: Sequence[tuple[list[str], list[Value]]],
    notes: Footnotes,
) -> Markup:
    """Make a grid of facts about rows, from the texts and sort values of each row's cells."""
    head = [_head("Learner", "learner", "name"), *(_head(name, f"{what} {name}") for name in names)]
    mine = [
        Line(row_key(number), _search(row), (_label(row, number, notes), *_value_cells(names, *facts)))
        for number, (row, facts) in enumerate(zip(table.rows, ours, strict=True))
    ]
    others = [
        Line(
            published_key(number),
            _published_search(row),
            (_published_label(row, number, notes), *_value_cells(names, *facts)),
        )
        for number, (row, facts) in enumerate(zip(table.published, theirs, strict=True))
        if set(facts[0]) != {DASH}
    ]
    return _grid(f"{table.suite}, {table.split}: {what}", head, mine, others)


def _grid(caption: str, head: Sequence[Markup], ours: Sequence[Line], theirs: Sequence[Line]) -> Markup:
    bodies = [element("tbody", *(line.markup for line in ours))]
    if theirs:
        across = element("th", DIVIDER, scope="rowgroup", colspan=str(len(head)))
        lines = (line.markup for line in theirs)
        bodies.append(element("tbody", element("tr", across, class_="divider"), *lines, class_="published"))
    title = element("caption", caption, class_=HIDDEN)
    grid = element("table", title, element("thead", element("tr", *head)), *bodies, class_="grid")
    return scroller(grid, caption)


def _head(name: str, key: str, kind: str = "", first: str = "ascending") -> Markup:
    """Make a column's head; the script sorts in the direction ``first`` when it is first asked."""
    text = name in TEXTS
    classes = " ".join(filter(None, [kind, "" if text else "number"])) or None
    sort = "text" if text else "number"
    return element("th", shorten(name), scope="col", class_=classes, data_key=key, data_sort=sort, data_first=first)


def _better(column: str) -> str:
    return "ascending" if column.endswith(LATENESS) else "descending"


def _label(row: Row, number: int, notes: Footnotes) -> Markup:
    training, manifest = row.training, row.manifest
    about = _about(manifest.backbone, manifest.image_size, training.gradient, training.h)
    return _name(row.label, row_key(number), notes.prefix, notes.link(*row.notes), about)


def _published_label(row: PublishedRow, number: int, notes: Footnotes, *marks: Markup) -> Markup:
    badge = element("span", "published", class_="badge")
    about = _about(row.backbone, row.image_size, row.gradient, row.h)
    return _name(row.name, published_key(number), notes.prefix, badge, *marks, about)


def _about(backbone: str, size: int | None, gradient: str, h: int | str | None) -> Markup:
    """Say in a few words what else tells a row from others of its name."""
    side = "" if size is None else f"{size} px"
    of_gradient = f"{gradient} H={h}" if h else gradient
    parts = map(shorten, filter(None, [backbone, side, of_gradient]))
    return element("span", ", ".join(parts), class_="about")


def _name(text: str, key: str, prefix: str, *after: Markup) -> Markup:
    """Make the cell that names a row and leads to its details."""
    link = element("a", element("bdi", shorten(text)), href=f"#{prefix}-{key}", class_="open")
    parts = (join(" ", each) for each in after if each)
    return element("th", link, *parts, scope="row", class_="name", data_value=shorten(text))


def _score(cell: Cell, column: str, table: Table, notes: Footnotes) -> Markup:
    """Make a score's cell: bold if best among several rows, marked if tied with it, or a dash with its footnote."""
    text = score_text(cell, table.interval)
    if cell.estimate is None:
        return element("td", text, " ", notes.link(cell.missing), class_="number missing", data_column=column)
    shown = _two_parts(text)
    if len(table.rows) > 1:
        shown = element("strong", shown) if cell.best else join(shown, _tie(cell)) if cell.tied else shown
    return element("td", shown, class_="number score", data_value=repr(cell.estimate.mean), data_column=column)


def _published_score(row: PublishedRow, column: str, notes: Footnotes) -> Markup:
    figure = row.figures.get(column)
    value = None if figure is None else repr(figure.value)
    mark = Markup() if figure is None else notes.link(figure.note)
    text = _two_parts(published_text(figure))
    return element("td", text, mark, class_="number score", data_value=value, data_column=column)


def _two_parts(text: str) -> Markup:
    """Set a score's interval apart from its mean."""
    mean, gap, interval = text.partition(" ")
    return join(mean, gap, element("span", interval, class_="interval")) if interval else join(mean)


def _tie(cell: Cell) -> Markup:
    versus = cell.versus_best
    why = "" if versus is None else f"Not told from the best: {versus.kind}, p = {p_text(versus.p)}"
    return element("abbr", TIED, title=why, class_="tie")


def _search(row: Row) -> str:
    training, manifest = row.training, row.manifest
    names = (row.label, manifest.learner, manifest.backbone, training.pretraining, training.gradient)
    return " ".join(map(shorten, names))


def _published_search(row: PublishedRow) -> str:
    return " ".join(map(shorten, (row.name, row.learner, row.backbone, row.pretraining, row.gradient, "published")))


def _value_cells(names: Sequence[str], texts: Sequence[str], values: Sequence[Value]) -> list[Markup]:
    return [
        value_cell(text, value, number=name not in TEXTS)
        for name, text, value in zip(names, texts, values, strict=True)
    ]


def _published_setup_values(row: PublishedRow) -> list[Value]:
    text = published_setup_texts(row)
    return [text[0], row.image_size, text[2], text[3], int(row.h) if row.h.isdecimal() else None, None, None]


def _published_cost_values(row: PublishedRow) -> list[Value]:
    return [row.passes, None, row.macs, row.seconds, None, row.parameters, None, None, None]


def _median(times: Spread | None) -> float | None:
    return None if times is None else times.median


def _sort_value(value: Value, text: str) -> str | None:
    if value is None or text == DASH:
        return None
    return shorten(value) if isinstance(value, str) else repr(value)
