"""Tables as Markdown for people, CSV and JSON for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from lite_bench.harness.core import LATENESS
from lite_bench.harness.cost_statistics import CostSummary
from lite_bench.harness.units import UNKNOWN, scaled, seconds
from lite_bench.leaderboard.rows import Cell, Row
from lite_bench.leaderboard.tables import Table

DASH = "–"
HEAD = ("Rank", "Learner", "Backbone", "Size", "Training")
COSTS = ("Passes", "MACs", "Published MACs", "Adapt", "Per image", "Params")
LEFT = ("Learner", "Backbone", "Training")
CAPTION = (
    "Accuracy in % ± 95 % interval over {scores}. Rank: mean over the sources of the rank in each, where scores "
    "that do not differ significantly share theirs. **Bold**: best, or not significantly worse."
)

COST_CAPTION = (
    "Costs are of one task: passes over the support set (F forward, B backward), multiply-accumulates to adapt, true "
    "and as published tables count, median time to adapt and to classify an image, and parameters of the learner."
)
RECOGNITION = "Frames to recognition: % of a video's frames before the first that is recognised; lower is better."
CLUSTERED = (
    "Scores of one user are not independent, which ± takes them to be; in brackets the 95 % interval that resamples "
    "users."
)


class Notes:
    """The footnotes of one table, each text once."""

    def __init__(self) -> None:
        """Start without any."""
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        """Give the mark that refers to ``text``; empty for an empty text."""
        if not text:
            return ""
        if text not in self.texts:
            self.texts.append(text)
        return f"[{self.texts.index(text) + 1}]"


def markdown(tables: Sequence[Table]) -> str:
    """Render tables as Markdown that also reads well as plain text."""
    return "\n\n".join(_markdown_table(table) for table in tables) + "\n"


def json_text(tables: Sequence[Table]) -> str:
    """Render tables as JSON; accuracies are fractions of full precision, None is a missing score."""
    return json.dumps({"tables": [_table_values(table) for table in tables]}, indent=2, ensure_ascii=False) + "\n"


def csv_text(tables: Sequence[Table]) -> str:
    """Render tables as one CSV with a line per score, so that suites with other columns fit in one file."""
    lines = [line for table in tables for line in _score_lines(table)]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _markdown_table(table: Table) -> str:
    """Render heading, caption, grid and footnotes."""
    notes = Notes()
    with_costs = any(row.costs is not None for row in table.rows)
    header = [*HEAD, *table.sources, *table.groups, *table.metrics, *(COSTS if with_costs else ())]
    grid = [
        [_escape(name) for name in header],
        *(
            [*_markdown_row(row, len(table.rows), notes), *(cost_cells(row.costs) if with_costs else [])]
            for row in table.rows
        ),
    ]
    title = f"## {table.suite}{' (synthetic)' if table.synthetic else ''}"
    caption = CAPTION.format(scores="(task, video) scores" if table.metrics else "tasks")
    caption = f"{caption} {CLUSTERED}" if table.clustered else caption
    caption = f"{caption} {RECOGNITION}" if any(name.endswith(LATENESS) for name in table.metrics) else caption
    caption = f"{caption} {COST_CAPTION}" if with_costs else caption
    facts = f"Split {table.split}, task seed {table.seed}, data {table.data[:12]}. {caption}"
    listing = [f"- [{number}] {text}" for number, text in enumerate(notes.texts, start=1)]
    blocks = [title, facts, "\n".join(_grid_lines(grid)), "\n".join(listing)]
    return "\n\n".join(filter(None, blocks))


def _markdown_row(row: Row, n_rows: int, notes: Notes) -> list[str]:
    """Render one row's cells."""
    marks = "".join(notes.mark(text) for text in row.notes)
    rank = DASH if row.rank is None else f"{row.rank:.2f}"
    label = " ".join(filter(None, [_escape(row.label), marks]))
    cells = [*row.sources.values(), *row.groups.values(), *row.metrics.values()]
    scores = [_score(cell, n_rows, notes) for cell in cells]
    size = str(row.manifest.image_size)
    return [rank, label, _escape(row.manifest.backbone), size, _escape(row.training), *scores]


def cost_cells(costs: CostSummary | None) -> list[str]:
    """Render the columns `COSTS`; what is not known is a dash."""
    if costs is None:
        return [DASH] * len(COSTS)
    figures = [costs.passes, scaled(costs.macs), scaled(costs.published_macs)]
    figures += [seconds(None if each is None else each.median) for each in (costs.adapt_seconds, costs.query_seconds)]
    figures.append(scaled(costs.parameters))
    return [DASH if text in {"", UNKNOWN} else text for text in figures]


def _score(cell: Cell, n_rows: int, notes: Notes) -> str:
    """Render ``98.7 ± 0.3``, bold if best among several rows, or a dash with its footnote."""
    if cell.estimate is None:
        return f"{DASH} {notes.mark(cell.missing)}"
    width = cell.estimate.half_width
    text = f"{100 * cell.estimate.mean:.1f}" + ("" if width is None else f" ± {100 * width:.1f}")
    text = f"**{text}**" if cell.best and n_rows > 1 else text
    if cell.estimate.clustered is None:
        return text
    low, high = cell.estimate.clustered
    return f"{text} ({100 * low:.1f} to {100 * high:.1f})"


def _grid_lines(grid: Sequence[Sequence[str]]) -> Iterator[str]:
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


def _escape(text: str) -> str:
    """Keep a name from breaking the table."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*")


def _table_values(table: Table) -> dict[str, Any]:
    return {
        "suite": table.suite,
        "split": table.split,
        "seed": table.seed,
        "data": table.data,
        "synthetic": table.synthetic,
        "sources": list(table.sources),
        "groups": list(table.groups),
        "metrics": list(table.metrics),
        "rows": [_row_values(row) | {"scores": list(_score_values(row))} for row in table.rows],
    }


def _row_values(row: Row) -> dict[str, Any]:
    manifest = row.manifest
    return {
        "rank": row.rank,
        "label": row.label,
        "learner": manifest.learner,
        "backbone": manifest.backbone,
        "image_size": manifest.image_size,
        "training": row.training,
        "precision": manifest.precision,
        "checkpoint": manifest.checkpoint,
        "limit": manifest.limit,
        "run": row.run,
        "notes": list(row.notes),
        "costs": None if row.costs is None else asdict(row.costs),
    }


def _score_values(row: Row) -> Iterator[dict[str, Any]]:
    for kind, cells in (("source", row.sources), ("group", row.groups), ("metric", row.metrics)):
        for column, cell in cells.items():
            yield {
                "column": column,
                "kind": kind,
                **_numbers(cell),
                "column_rank": cell.rank,
                "done": cell.done,
                "failed": cell.failed,
                "survivors_mean": cell.survivors and cell.survivors.mean,
                "expected": cell.expected,
                "missing": cell.missing,
            }


def _numbers(cell: Cell) -> dict[str, float | int | None]:
    """Spell out a cell's estimate; the interval that resamples clusters by its two ends."""
    names = ("mean", "half_width", "n", "clustered_low", "clustered_high")
    value = cell.estimate
    if value is None:
        return dict.fromkeys(names)
    low, high = value.clustered or (None, None)
    return dict(zip(names, (value.mean, value.half_width, value.n, low, high), strict=True))


def _score_lines(table: Table) -> Iterator[dict[str, Any]]:
    head = {
        name: value
        for name, value in _table_values(table).items()
        if name not in {"sources", "groups", "metrics", "rows"}
    }
    for row in table.rows:
        values = _row_values(row) | {"notes": " ".join(row.notes)}
        del values["costs"]
        values |= _flat_costs(row.costs)
        for score in _score_values(row):
            yield {**head, **values, **score}


def _flat_costs(costs: CostSummary | None) -> dict[str, Any]:
    """Spell out costs one number a column; an empty cell is unknown."""
    names = ("passes", "macs", "macs_per_query", "published_macs", "parameters", "trainable", "adapted", "peak_bytes")
    flat = {name: None if costs is None else getattr(costs, name) for name in names}
    for name in ("adapt_seconds", "query_seconds"):
        spread = None if costs is None else getattr(costs, name)
        flat |= {f"{name}_median": spread and spread.median, f"{name}_p95": spread and spread.p95}
    return {**flat, "uncounted": "" if costs is None else "; ".join(costs.uncounted)}
