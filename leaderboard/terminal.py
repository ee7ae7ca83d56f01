"""Tables drawn for a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich import box
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table as Grid
from rich.text import Text

from lite_bench.leaderboard.labels import visible
from lite_bench.leaderboard.layout import Block, blocks
from lite_bench.leaderboard.pairs import HEAD as PAIR_HEAD
from lite_bench.leaderboard.pairs import Pair, pair_caption, pair_rows, pair_title
from lite_bench.leaderboard.rows import Cell
from lite_bench.leaderboard.tables import Table
from lite_bench.leaderboard.text import (
    COSTS,
    DASH,
    SETUP,
    TIED,
    Notes,
    caption,
    cost_texts,
    footer,
    published_cost_texts,
    published_notes,
    published_setup_texts,
    published_text,
    rank_text,
    score_text,
    setup_texts,
    title,
)

T = TypeVar("T")
PUBLISHED = "italic dim"
OTHERS = "Published:"
LEFT = ("Learner", "Column", "Test")
NAME_WIDTH = 12
"""Width that a column of names may always take, in characters; in a wide terminal it may take a quarter."""
WIDEST = 24
"""Width that another column is given before it is wrapped, in characters."""
BETWEEN = 3
"""Characters between columns."""
WITHOUT_TERMINAL = 160
"""Width of a table that is not printed to a terminal, in characters."""


@dataclass(frozen=True)
class Line:
    """A line of a grid: the cells that every part of it repeats, the others, and whether others published it."""

    names: tuple[Text, ...]
    cells: tuple[Text, ...]
    published: bool = False


def print_tables(tables: Sequence[Table]) -> None:
    """Draw tables on stdout, as wide as the terminal."""
    _draw(Console(highlight=False), tables)


def terminal_text(tables: Sequence[Table]) -> str:
    """Draw tables as plain text, without colours."""
    return _as_text(_draw, tables)


def print_pairs(pairs: Sequence[Pair]) -> None:
    """Draw comparisons of two learners on stdout."""
    _draw_pairs(Console(highlight=False), pairs)


def terminal_pairs(pairs: Sequence[Pair]) -> str:
    """Draw comparisons of two learners as plain text."""
    return _as_text(_draw_pairs, pairs)


def _as_text(draw: Callable[[Console, Sequence[T]], None], things: Sequence[T]) -> str:
    stream = io.StringIO()
    draw(Console(file=stream, width=WITHOUT_TERMINAL, no_color=True, highlight=False), things)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def _draw_pairs(console: Console, pairs: Sequence[Pair]) -> None:
    for pair in pairs:
        lines = [Line((_text(column),), tuple(map(_text, cells))) for column, *cells in pair_rows(pair)]
        _print(console, pair_title(pair), PAIR_HEAD[:1], PAIR_HEAD[1:], lines)
        console.print(_text(pair_caption(pair), style="dim"))
        _draw_footer(console, pair.table)


def _draw(console: Console, tables: Sequence[Table]) -> None:
    for table in tables:
        notes = Notes()
        for block in blocks(table):
            heading = " – ".join(filter(None, [title(table), block.title]))
            _print(console, heading, ["Rank", "Learner"], block.columns, _scores(table, block, notes))
        _print(console, "Setup", ["Learner"], SETUP, _setup(table, notes))
        if table.with_costs:
            _print(console, "Cost of a task", ["Learner"], COSTS, _costs(table))
        for number, text in enumerate(notes.texts, start=1):
            console.print(_text(f"[{number}] {text}"))
        for text in caption(table):
            console.print(_text(text, style="dim"))
        _draw_footer(console, table)
        console.print()


def _draw_footer(console: Console, table: Table) -> None:
    """Say what a table rests on."""
    for name, text in footer(table):
        console.print(Text.assemble((f"{name}: ", "bold"), visible(text)))


def _scores(table: Table, block: Block, notes: Notes) -> list[Line]:
    lines = []
    for row in table.rows:
        label = " ".join(filter(None, [row.label, "".join(notes.mark(text) for text in row.notes)]))
        cells = [_score(row.cells[column], table, notes) for column in block.columns]
        lines.append(Line((_text(rank_text(row.rank)), _text(label)), tuple(cells)))
    for published in table.published:
        figures = [published.figures.get(column) for column in block.columns]
        if any(figures):
            texts = [
                published_text(each) + (f" {notes.mark(each.note)}" if each and each.note else "") for each in figures
            ]
            lines.append(_published_line(["", published.name], texts))
    return lines


def _setup(table: Table, notes: Notes) -> list[Line]:
    lines = [Line((_text(row.label),), tuple(map(_text, setup_texts(row)))) for row in table.rows]
    for published in table.published:
        marks = "".join(notes.mark(text) for text in published_notes(published))
        lines.append(_published_line([f"{published.name} {marks}"], published_setup_texts(published)))
    return lines


def _costs(table: Table) -> list[Line]:
    lines = [Line((_text(row.label),), tuple(map(_text, cost_texts(row.costs)))) for row in table.rows]
    for published in table.published:
        texts = published_cost_texts(published)
        if set(texts) != {DASH}:
            lines.append(_published_line([published.name], texts))
    return lines


def _published_line(names: Sequence[str], texts: Sequence[str]) -> Line:
    name, cells = (tuple(_text(text, style=PUBLISHED) for text in each) for each in (names, texts))
    return Line(name, cells, published=True)


def _print(console: Console, heading: str, names: Sequence[str], head: Sequence[str], lines: Sequence[Line]) -> None:
    """Print a grid, in several parts where it is wider than the terminal, which would cut off its last columns."""
    of_names = max(NAME_WIDTH, console.width // 4)
    fixed = [
        min(of_names, max(map(cell_len, [visible(name), *(line.names[n].plain for line in lines)])))
        for n, name in enumerate(names)
    ]
    fixed[-1] = max(fixed[-1], cell_len(OTHERS))
    room = console.width - sum(fixed) - BETWEEN * len(fixed)
    widths = _widths(room, head, lines)
    for part in _parts(room, widths):
        grid = Grid(title=_text(heading, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for name, width in [*zip(names, fixed, strict=True), *((head[n], widths[n]) for n in part)]:
            side: JustifyMethod = "left" if name in LEFT else "right"
            grid.add_column(_text(name), justify=side, overflow="fold", width=width)
        for line in (line for line in lines if not line.published):
            grid.add_row(*line.names, *(line.cells[n] for n in part))
        others = [line for line in lines if line.published and any(line.cells[n].plain != DASH for n in part)]
        if others:  # said in words, as a file has no styles
            grid.add_section()
            grid.add_row(*[""] * (len(names) - 1), _text(OTHERS, style=PUBLISHED))
        for line in others:
            grid.add_row(*line.names, *(line.cells[n] for n in part))
        console.print(grid)


def _widths(room: int, head: Sequence[str], lines: Sequence[Line]) -> list[int]:
    """Give each column the width of its texts, or if that is too much for one grid, of what should not be wrapped."""
    cells = [max((cell_len(line.cells[n].plain) for line in lines), default=0) for n in range(len(head))]
    whole = [max(width, cell_len(visible(name))) for width, name in zip(cells, head, strict=True)]
    if sum(whole) + BETWEEN * len(whole) <= room:
        return whole
    words = [max(map(cell_len, visible(name).split()), default=1) for name in head]
    return [min(WIDEST, room - BETWEEN, max(pair)) for pair in zip(cells, words, strict=True)]


def _parts(room: int, widths: Sequence[int]) -> list[list[int]]:
    """Divide columns into parts that find room."""
    parts: list[list[int]] = []
    left = 0
    for column, width in enumerate(widths):
        if not parts or width + BETWEEN > left:
            parts.append([])
            left = room
        parts[-1].append(column)
        left -= width + BETWEEN
    return parts


def _text(text: str, style: str = "") -> Text:
    """Make a text without markup, in which no name can command the terminal."""
    return Text(visible(text), style=style)


def _score(cell: Cell, table: Table, notes: Notes) -> Text:
    text = score_text(cell, table.interval)
    if cell.estimate is None:
        return _text(f"{text} {notes.mark(cell.missing)}".rstrip())
    if len(table.rows) == 1:
        return _text(text)
    return _text(text, style="bold") if cell.best else _text(f"{text} {TIED}" if cell.tied else text)
