"""Tables as JSON and CSV, for programs: every number in full precision, what is missing as null or an empty cell."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from lite_bench.harness.cost_statistics import CostSummary
from lite_bench.leaderboard.comparison import Comparison
from lite_bench.leaderboard.published import PublishedRow
from lite_bench.leaderboard.rows import Cell, Row
from lite_bench.leaderboard.tables import Table

SCHEMA = 1
"""Version of the layout of the JSON; raised when a program that reads it must change."""
COST_COLUMNS = (
    "passes",
    "macs",
    "macs_per_query",
    "published_macs",
    "parameters",
    "trainable",
    "adapted",
    "peak_bytes",
)


def json_text(tables: Sequence[Table]) -> str:
    """Render tables as JSON; accuracies are fractions of full precision, None is a missing score."""
    content = {"schema": SCHEMA, "tables": [table_values(table) for table in tables]}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def csv_text(tables: Sequence[Table]) -> str:
    """Render tables as one CSV with a line per score, so that suites with other columns fit in one file."""
    lines = [line for table in tables for line in _score_lines(table)]
    names = list(dict.fromkeys(name for line in lines for name in line))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def table_values(table: Table) -> dict[str, Any]:
    """Give all of a table in values that JSON can hold."""
    return {
        **_head(table),
        "sources": list(table.sources),
        "groups": {name: list(members) for name, members in table.groups.items()},
        "metrics": list(table.metrics),
        "provenance": asdict(table.provenance),
        "rows": [_row_values(row) | {"scores": list(_score_values(row))} for row in table.rows],
        "published": [_published_values(row) for row in table.published],
    }


def _head(table: Table) -> dict[str, Any]:
    return {
        "suite": table.suite,
        "split": table.split,
        "seed": table.seed,
        "data": table.data,
        "synthetic": table.synthetic,
        "preview": table.preview,
        "interval_kind": str(table.interval),
    }


def _row_values(row: Row) -> dict[str, Any]:
    manifest, training = row.manifest, row.training
    return {
        "origin": "measured",
        "rank": row.rank,
        "label": row.label,
        "learner": manifest.learner,
        "options": dict(training.options),
        "backbone": manifest.backbone,
        "image_size": manifest.image_size,
        "pretraining": training.pretraining or None,
        "training": training.text,
        "gradient": training.gradient or None,
        "h": training.h,
        "train_tasks": training.tasks,
        "trained_with": training.on or None,
        "precision": manifest.precision,
        "checkpoint": manifest.checkpoint,
        "limit": manifest.limit,
        "runs": list(row.runs),
        "notes": list(row.notes),
        "records": row.records,
        "failed": row.failed,
        "mean_support": row.support,
        "costs": None if row.costs is None else asdict(row.costs),
        "versions": row.versions,
        "command": training.command or None,
        "eval_commands": list(manifest.commands),
    }


def _score_values(row: Row) -> Iterator[dict[str, Any]]:
    for kind, cells in (("source", row.sources), ("group", row.groups), ("metric", row.metrics)):
        for column, cell in cells.items():
            yield {
                "column": column,
                "kind": kind,
                **_numbers(cell),
                "column_rank": cell.rank,
                "best": cell.best,
                "tied_with_best": cell.tied,
                "versus_best": comparison_values(cell.versus_best),
                "done": cell.done,
                "failed": cell.failed,
                "survivors_mean": cell.survivors and cell.survivors.mean,
                "expected": cell.expected,
                "missing": cell.missing,
            }


def comparison_values(comparison: Comparison | None) -> dict[str, Any] | None:
    """Give a comparison in values that JSON can hold."""
    if comparison is None:
        return None
    low, high = comparison.interval or (None, None)
    return {
        "difference": comparison.difference,
        "low": low,
        "high": high,
        "p": comparison.p,
        "n": comparison.n,
        "test": comparison.kind,
    }


def _numbers(cell: Cell) -> dict[str, float | int | None]:
    """Spell out a cell's estimate; each interval by its two ends, the protocol's by its half width."""
    names = ("mean", "half_width", "n", "low", "high", "clustered_low", "clustered_high")
    value = cell.estimate
    if value is None:
        return dict.fromkeys(names)
    low, high = (None, None) if cell.interval is None else (cell.interval.low, cell.interval.high)
    ends = value.clustered or (None, None)
    return dict(zip(names, (value.mean, value.half_width, value.n, low, high, *ends), strict=True))


def _published_values(row: PublishedRow) -> dict[str, Any]:
    return {"origin": "published", **asdict(row)}


def _score_lines(table: Table) -> Iterator[dict[str, Any]]:
    """Give a line per score: ours, then the published ones, which have no rank."""
    head, digest = _head(table), table.provenance.digest
    for row in table.rows:
        values = _row_values(row) | {"notes": " ".join(row.notes), "runs": " ".join(row.runs)}
        values["options"] = " ".join(f"{name}={value}" for name, value in row.training.options.items())
        values["versions"] = " ".join(f"{name}={'|'.join(each)}" for name, each in row.versions.items())
        values["eval_commands"] = "; ".join(row.manifest.commands)
        del values["costs"]
        values |= _flat_costs(row.costs)
        for score in _score_values(row):
            versus = score.pop("versus_best") or {}
            score |= {f"versus_best_{name}": versus.get(name) for name in ("difference", "low", "high", "p", "test")}
            yield {**head, "task_digest": digest, "again": table.provenance.command, **values, **score}
    for published in table.published:
        yield from _published_lines(head, published)


def _published_lines(head: dict[str, Any], row: PublishedRow) -> Iterator[dict[str, Any]]:
    for column, figure in row.figures.items():
        yield {
            **head,
            "interval_kind": row.interval,
            "origin": "published",
            "label": row.name,
            "learner": row.learner,
            "backbone": row.backbone,
            "image_size": row.image_size,
            "pretraining": row.pretraining,
            "gradient": row.gradient,
            "h": row.h,
            "notes": " ".join([*row.differences, figure.note]).strip(),
            "passes": row.passes,
            "published_macs": row.macs,
            "parameters": row.parameters,
            "adapt_seconds_mean": row.seconds,
            "column": column,
            "mean": figure.value,
            "half_width": figure.half_width,
            "source": figure.source.citation,
            "locator": figure.source.locator,
            "source_kind": figure.source.kind,
        }


def _flat_costs(costs: CostSummary | None) -> dict[str, Any]:
    """Spell out costs one number a column; an empty cell is unknown."""
    flat = {name: None if costs is None else getattr(costs, name) for name in COST_COLUMNS}
    for name in ("adapt_seconds", "query_seconds"):
        spread = None if costs is None else getattr(costs, name)
        flat |= {f"{name}_median": spread and spread.median, f"{name}_p95": spread and spread.p95}
    words = (
        {"uncounted": (), "devices": ()} if costs is None else {"uncounted": costs.uncounted, "devices": costs.devices}
    )
    return {**flat, **{name: "; ".join(each) for name, each in words.items()}}
