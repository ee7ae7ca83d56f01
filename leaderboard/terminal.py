"""Tables drawn for a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TypeVar

from rich import box
from rich.console import Console
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
LEFT = ("Learner", "Column", "Test")
NAME_WIDTH = 12
"""Least width of a column of names, in characters."""
WITHOUT_TERMINAL = 160
"""Width of a table that is not printed to a terminal, in characters."""


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
        grid = _grid(pair_title(pair), PAIR_HEAD)
        for line in pair_rows(pair):
            grid.add_row(*map(_text, line))
        console.print(grid)
        console.print(_text(pair_caption(pair), style="dim"))


def _draw(console: Console, tables: Sequence[Table]) -> None:
    for table in tables:
        notes = Notes()
        for block in blocks(table):
            console.print(_scores(table, block, notes))
        console.print(_setup(table, notes))
        if table.with_costs:
            console.print(_costs(table))
        for number, text in enumerate(notes.texts, start=1):
            console.print(_text(f"[{number}] {text}"))
        for text in caption(table):
            console.print(_text(text, style="dim"))
        for name, text in footer(table):
            console.print(Text.assemble((f"{name}: ", "bold"), visible(text)))
        console.print()


def _scores(table: Table, block: Block, notes: Notes) -> Grid:
    heading = " – ".join(filter(None, [title(table), block.title]))
    grid = _grid(heading, ["Rank", "Learner", *block.columns])
    for row in table.rows:
        label = " ".join(filter(None, [row.label, "".join(notes.mark(text) for text in row.notes)]))
        cells = [_score(row.cells[column], table, notes) for column in block.columns]
        grid.add_row(_text(rank_text(row.rank)), _text(label), *cells)
    for published in table.published:
        figures = [published.figures.get(column) for column in block.columns]
        if any(figures):
            texts = [
                published_text(each) + (f" {notes.mark(each.note)}" if each and each.note else "") for each in figures
            ]
            cells = [_text(text, style=PUBLISHED) for text in texts]
            grid.add_row(_text(""), _text(published.name, style=PUBLISHED), *cells)
    return grid


def _setup(table: Table, notes: Notes) -> Grid:
    grid = _grid("Setup", ["Learner", *SETUP])
    for row in table.rows:
        grid.add_row(*map(_text, [row.label, *setup_texts(row)]))
    for published in table.published:
        marks = "".join(notes.mark(text) for text in published_notes(published))
        texts = [f"{published.name} {marks}", *published_setup_texts(published)]
        grid.add_row(*(_text(text, style=PUBLISHED) for text in texts))
    return grid


def _costs(table: Table) -> Grid:
    grid = _grid("Cost of a task", ["Learner", *COSTS])
    for row in table.rows:
        grid.add_row(*map(_text, [row.label, *cost_texts(row.costs)]))
    for published in table.published:
        texts = published_cost_texts(published)
        if set(texts) != {DASH}:
            own = [published.name, *texts]
            grid.add_row(*(_text(text, style=PUBLISHED) for text in own))
    return grid


def _grid(heading: str, columns: Sequence[str]) -> Grid:
    """Start a grid; learners and tests stand to the left, numbers to the right."""
    grid = Grid(title=_text(heading, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        left = name in LEFT
        width = NAME_WIDTH if left else None
        grid.add_column(_text(name), justify="left" if left else "right", overflow="fold", min_width=width)
    return grid


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
