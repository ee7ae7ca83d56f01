"""Two learners of one table, compared column by column on the same tasks."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lite_bench.harness.core import LATENESS
from lite_bench.harness.errors import IncompatibleError, UnknownNameError
from lite_bench.leaderboard.comparison import Comparison
from lite_bench.leaderboard.data_formats import comparison_values
from lite_bench.leaderboard.rows import Row
from lite_bench.leaderboard.tables import Table, compare_rows
from lite_bench.leaderboard.text import DASH, RECOGNITION, signed_percent, title

HEAD = ("Column", "Difference", "95 % interval", "p", "Pairs", "Test")
HEAD_VALUES = ("suite", "split", "seed", "synthetic", "preview")
CAPTION = (
    "Scores of {ours} less those of {theirs} on the same tasks, in percentage points; p is two-sided and of each "
    "column by itself."
)


@dataclass(frozen=True)
class Pair:
    """Two rows of one table.

    Attributes:
        table: that holds both.
        ours: label of the first.
        theirs: label of the second.
        columns: their comparison by column; None where one of the two has no score.
    """

    table: Table
    ours: str
    theirs: str
    columns: dict[str, Comparison | None]


def find_pairs(tables: Sequence[Table], ours: str, theirs: str) -> list[Pair]:
    """Compare two learners in every table that holds both.

    Args:
        tables: to look in.
        ours: label of a row, or its learner if only one row of a table has that.
        theirs: likewise.

    Raises:
        UnknownNameError: no table has such a row.
        IncompatibleError: a name fits several rows, both names fit the same one, or no table holds both.
    """
    found = []
    for table in tables:
        one, other = _row_of(table, ours), _row_of(table, theirs)
        if one is not None and one is other:
            raise IncompatibleError(f"--compare {ours!r} and {theirs!r} are the same row; name two different ones.")
        if one is not None and other is not None:
            found.append(Pair(table, one.label, other.label, compare_rows(one, other, table)))
    if found:
        return found
    labels = dict.fromkeys(row.label for table in tables for row in table.rows)
    for name in (ours, theirs):
        if all(_row_of(table, name) is None for table in tables):
            raise UnknownNameError("row of a learner called", name, labels)
    raise IncompatibleError(
        f"--compare {ours!r} and {theirs!r} never stand in one table: they were evaluated on different suite versions, "
        "tasks or data; evaluate both on the same."
    )


def _row_of(table: Table, name: str) -> Row | None:
    """Find a row by its label, or by its learner.

    Raises:
        IncompatibleError: several rows fit.
    """
    rows = [row for row in table.rows if row.label == name]
    rows = rows or [row for row in table.rows if row.manifest.learner == name or row.manifest.label == name]
    if len(rows) > 1:
        labels = ", ".join(repr(row.label) for row in rows)
        alike = len({row.label for row in rows}) < len(rows)
        remedy = "name just the runs of the two" if alike else f"give one of their labels: {labels}"
        raise IncompatibleError(f"--compare {name!r} fits {len(rows)} rows of {table.suite}; {remedy}.")
    return rows[0] if rows else None


def pair_rows(pair: Pair) -> list[list[str]]:
    """Write a pair for people: the columns `HEAD`, a line per column that both have."""
    return [[column, *_texts(found)] for column, found in pair.columns.items() if found is not None]


def pair_title(pair: Pair) -> str:
    """Head a pair."""
    return f"{title(pair.table)}: {pair.ours} less {pair.theirs}"


def pair_caption(pair: Pair) -> str:
    """Say how to read a pair, and which columns are left out."""
    left = [column for column, found in pair.columns.items() if found is None]
    text = CAPTION.format(ours=pair.ours, theirs=pair.theirs)
    if any(name.endswith(LATENESS) for name in pair.columns):
        text += f" {RECOGNITION}"
    return f"{text} One of the two has no score in {', '.join(left)}." if left else text


def pairs_json(pairs: Sequence[Pair]) -> str:
    """Render pairs as JSON; differences are fractions of full precision."""
    return json.dumps({"comparisons": [_values(pair) for pair in pairs]}, indent=2, ensure_ascii=False) + "\n"


def pairs_csv(pairs: Sequence[Pair]) -> str:
    """Render pairs as CSV with a line per column."""
    stream = io.StringIO()
    scores = ("ours", "theirs", "column", "difference", "low", "high", "p", "n", "test")
    names = (*HEAD_VALUES, *scores, "task_digest", "command")
    writer = csv.DictWriter(stream, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    for pair in pairs:
        for column, found in pair.columns.items():
            head = {**_head(pair), "ours": pair.ours, "theirs": pair.theirs, "column": column}
            rests_on = {"task_digest": pair.table.provenance.digest, "command": pair.table.provenance.command}
            writer.writerow({**head, **(comparison_values(found) or {}), **rests_on})
    return stream.getvalue()


def _values(pair: Pair) -> dict[str, Any]:
    columns = {column: comparison_values(found) for column, found in pair.columns.items()}
    names = {"ours": pair.ours, "theirs": pair.theirs}
    return {**_head(pair), **names, "columns": columns, "provenance": asdict(pair.table.provenance)}


def _head(pair: Pair) -> dict[str, Any]:
    return {name: getattr(pair.table, name) for name in HEAD_VALUES}


def _texts(found: Comparison) -> list[str]:
    ends = found.interval
    interval = DASH if ends is None else f"{signed_percent(ends[0])} to {signed_percent(ends[1])}"
    return [signed_percent(found.difference), interval, p_text(found.p), str(found.n), found.kind]


def p_text(p: float | None) -> str:
    """Write a p with two significant digits, none below 0.0001."""
    if p is None:
        return DASH
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"
