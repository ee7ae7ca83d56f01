"""Tables as Markdown that also reads well as plain text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from lite_bench.leaderboard.labels import visible
from lite_bench.leaderboard.layout import Block, blocks
from lite_bench.leaderboard.pairs import HEAD as PAIR_HEAD
from lite_bench.leaderboard.pairs import Pair, pair_caption, pair_rows, pair_title
from lite_bench.leaderboard.published import PublishedRow
from lite_bench.leaderboard.rows import Cell, Row
from lite_bench.leaderboard.tables import Table
from lite_bench.leaderboard.text import (
    COMMAND,
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

LEFT = ("Learner", "Backbone", "Pre-training", "Gradient", "Trained with", "Device", "Column", "Test")
HEAD = ("Rank", "Learner")
SPECIAL = {letter: f"\\{letter}" for letter in "\\|*_`[]~$"} | {"<": "&lt;", ">": "&gt;"}
"""Letters that would be markup, ``~`` and ``$`` where it knows deleted text and formulas, and how they are spelled."""
ENTITY = re.compile(r"&(?=#?\w+;)")


def markdown(tables: Sequence[Table]) -> str:
    """Render tables as Markdown."""
    return "\n\n".join(_table(table) for table in tables) + "\n"


def markdown_pairs(pairs: Sequence[Pair]) -> str:
    """Render comparisons of two learners as Markdown."""
    parts = []
    for pair in pairs:
        grid = [PAIR_HEAD, *([escape(text) for text in line] for line in pair_rows(pair))]
        parts += [f"## {escape(pair_title(pair))}", escape(pair_caption(pair)), "\n".join(grid_lines(grid))]
        parts.append(_footer(pair.table))
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    """Render heading, caption, grids, footnotes and what the table rests on."""
    notes = Notes()
    parts = [f"## {escape(title(table))}", " ".join(caption(table))]
    for block in blocks(table):
        parts += [f"### {escape(block.title)}"] * bool(block.title) + [_scores(table, block, notes)]
    parts += ["### Setup", _setup(table, notes)]
    parts += ["### Cost of a task", _costs(table, notes)] if table.with_costs else []
    parts.append("\n".join(f"- [{number}] {escape(text)}" for number, text in enumerate(notes.texts, start=1)))
    parts.append(_footer(table))
    return "\n\n".join(filter(None, parts))


def _footer(table: Table) -> str:
    """Say what a table rests on."""
    return "\n".join(f"- {name}: {_code(name, text)}" for name, text in footer(table))


def _scores(table: Table, block: Block, notes: Notes) -> str:
    """Render one block of columns."""
    grid = [[*HEAD, *map(escape, block.columns)]]
    for row in table.rows:
        cells = [row.cells[column] for column in block.columns]
        scores = [_score(cell, table, notes) for cell in cells]
        grid.append([rank_text(row.rank), _label(row, notes), *scores])
    for published in table.published:
        if any(column in published.figures for column in block.columns):
            texts = [published_text(published.figures.get(column)) for column in block.columns]
            marks = [_figure_note(published, column, notes) for column in block.columns]
            scores = [_italic(text) + mark for text, mark in zip(texts, marks, strict=True)]
            grid.append(["", _italic(escape(published.name)), *scores])
    return "\n".join(grid_lines(grid))


def _setup(table: Table, notes: Notes) -> str:
    """Render how each learner was made."""
    lines = [[_label(row, notes), *map(escape, setup_texts(row))] for row in table.rows]
    others = [[_published_label(row, notes), *_italics(published_setup_texts(row))] for row in table.published]
    return "\n".join(grid_lines([["Learner", *SETUP], *lines, *others]))


def _costs(table: Table, notes: Notes) -> str:
    """Render what a task costs each learner."""
    lines = [[_label(row, notes), *map(escape, cost_texts(row.costs))] for row in table.rows]
    rows = [(row, published_cost_texts(row)) for row in table.published]
    others = [[_published_label(row, notes), *_italics(texts)] for row, texts in rows if set(texts) != {DASH}]
    return "\n".join(grid_lines([["Learner", *COSTS], *lines, *others]))


def _italics(texts: Sequence[str]) -> list[str]:
    return [_italic(escape(text)) for text in texts]


def _label(row: Row, notes: Notes) -> str:
    marks = "".join(notes.mark(text) for text in row.notes)
    return " ".join(filter(None, [escape(row.label), marks]))


def _published_label(row: PublishedRow, notes: Notes) -> str:
    marks = "".join(notes.mark(text) for text in published_notes(row))
    return f"{_italic(escape(row.name))} {marks}".rstrip()


def _figure_note(row: PublishedRow, column: str, notes: Notes) -> str:
    figure = row.figures.get(column)
    return f" {notes.mark(figure.note)}" if figure is not None and figure.note else ""


def _score(cell: Cell, table: Table, notes: Notes) -> str:
    """Render ``98.7 ± 0.3``, bold if best among several rows, or a dash with its footnote."""
    text = score_text(cell, table.interval)
    if cell.estimate is None:
        return f"{text} {notes.mark(cell.missing)}".rstrip()
    if len(table.rows) == 1:
        return text
    return f"**{text}**" if cell.best else f"{text} {TIED}" if cell.tied else text


def grid_lines(grid: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lay out a pipe table, padded so that it lines up in a terminal."""
    widths = [max(3, *(len(line[column]) for line in grid)) for column in range(len(grid[0]))]
    left = [name in LEFT for name in grid[0]]
    for number, line in enumerate(grid):
        cells = [
            text.ljust(width) if is_left else text.rjust(width)
            for text, width, is_left in zip(line, widths, left, strict=True)
        ]
        yield f"| {' | '.join(cells)} |"
        if number == 0:
            rules = ["-" * w if is_left else "-" * (w - 1) + ":" for w, is_left in zip(widths, left, strict=True)]
            yield f"| {' | '.join(rules)} |"


def escape(text: str) -> str:
    """Keep a name from breaking the table or becoming markup."""
    plain = " ".join(visible(text).split())
    return "".join(SPECIAL.get(letter, letter) for letter in ENTITY.sub("&amp;", plain))


def _italic(text: str) -> str:
    return text if text in {"", DASH} else f"*{text}*"


def _code(name: str, text: str) -> str:
    """Write a command as code, between more backticks than it has in a row, all else as it is."""
    if name != COMMAND:
        return escape(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{visible(text)}{fence}" if len(fence) == 1 else f"{fence} {visible(text)} {fence}"
