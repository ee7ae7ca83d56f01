"""Rows that may be compared stand in one table: same suite version, split, list of tasks and data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lite_bench.harness.core import LATENESS
from lite_bench.harness.records import Results
from lite_bench.leaderboard.comparison import Comparison, compare, compare_groups
from lite_bench.leaderboard.entries import Entry, all_members, in_order, preview
from lite_bench.leaderboard.gathering import gather
from lite_bench.leaderboard.intervals import Kind
from lite_bench.leaderboard.provenance import Provenance, provenance
from lite_bench.leaderboard.published import PublishedRow, published_rows
from lite_bench.leaderboard.ranks import average_rank, column_ranks
from lite_bench.leaderboard.rows import NO_MEAN, NOT_EVALUATED, Cell, Row, make_row, with_own_labels

Compare = Callable[[Row, Row], Comparison | None]


@dataclass(frozen=True)
class Table:
    """All rows of one suite version, best first.

    Attributes:
        suite: suite and version.
        split: ``validation`` or ``test``.
        seed: seed of the list of tasks.
        data: fingerprint of the data; of several data sets, SHA-256 of the lines ``source fingerprint``.
        synthetic: whether the rows come from stand-in data.
        preview: tasks per source if they were cut to fewer than the protocol's, else None.
        sources: columns, in reporting order.
        groups: columns of means, in reporting order, and the sources that each averages over.
        metrics: columns of what else is reported of sources.
        rows: by average rank, those without one last.
        interval: kind of the cells' intervals.
        provenance: what the table rests on.
        published: rows that others measured, if they were asked for; apart from ours, without ranks.
    """

    suite: str
    split: str
    seed: int
    data: str
    synthetic: bool
    preview: int | None
    sources: tuple[str, ...]
    groups: dict[str, tuple[str, ...]]
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    interval: Kind
    provenance: Provenance
    published: tuple[PublishedRow, ...] = ()

    @property
    def means(self) -> tuple[str, ...]:
        """Groups of several sources; the mean of a group of one is that source's score."""
        return tuple(group for group, members in self.groups.items() if len(members) > 1)

    @property
    def with_costs(self) -> bool:
        """Whether the costs of any row were measured."""
        return any(row.costs is not None for row in self.rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns of scores: sources, means of several sources, and metrics."""
        return (*self.sources, *self.means, *self.metrics)

    @property
    def clustered(self) -> bool:
        """Whether some score has an interval that resamples clusters."""
        cells = (cell for row in self.rows for cell in (*row.sources.values(), *row.metrics.values()))
        return any(cell.estimate is not None and cell.estimate.clustered is not None for cell in cells)


def make_tables(
    results: Iterable[Results], *, interval: Kind = Kind.protocol, published: bool = False, command: str = ""
) -> list[Table]:
    """Compute all tables, ordered by suite.

    Results of different versions, splits, task lists or data never share one, nor do stand-ins and real data.

    Args:
        results: of any number of runs.
        interval: kind of the intervals.
        published: add the published rows of each suite; never to a table of stand-ins, of a part of the tasks or of
            those to validate on.
        command: that makes these tables again.

    Raises:
        DataError: two files contradict or repeat each other, or a run's own files are damaged.
    """
    return [_make_table(entries, interval, published=published, command=command) for entries in gather(results)]


def _make_table(entries: Sequence[Entry], interval: Kind, *, published: bool, command: str) -> Table:
    """Rank the rows of one table and put the best first."""
    rows = with_own_labels([make_row(entry, interval) for entry in entries])
    sources = tuple(in_order([list(row.sources) for row in rows]))
    groups = all_members([row.manifest for row in rows])
    metrics = tuple(in_order([list(row.metrics) for row in rows]))
    source_cells = _rank_columns(rows, sources, lambda row: row.sources, _compare_column)
    group_cells = _rank_columns(rows, tuple(groups), lambda row: _means(row, groups), _compare_group)
    metric_cells = _rank_columns(rows, metrics, lambda row: row.metrics, _compare_column)
    ranked = [
        replace(
            row,
            sources=scores,
            groups=means,
            metrics={name: replace(cell, rank=None) for name, cell in also.items()},
            rank=average_rank([cell.rank for cell in scores.values()]),
        )
        for row, scores, means, also in zip(rows, source_cells, group_cells, metric_cells, strict=True)
    ]
    first, synthetic = rows[0].manifest, entries[0].synthetic
    cut = preview(first)
    with_published = published and not synthetic and cut is None and first.split == "test"
    return Table(
        suite=first.suite,
        split=first.split,
        seed=first.seed,
        data=_fingerprint(rows, sources),
        synthetic=synthetic,
        preview=cut,
        sources=sources,
        groups=groups,
        metrics=metrics,
        rows=tuple(sorted(ranked, key=_order)),
        interval=interval,
        provenance=provenance(rows, sources, command),
        published=tuple(published_rows(first.suite)) if with_published else (),
    )


def _fingerprint(rows: Sequence[Row], sources: Sequence[str]) -> str:
    """Give the fingerprint of all data together; that of the suite where sources have none of their own."""
    own = {name: data for row in rows for name, data in row.manifest.source_data.items()}
    text = "".join(f"{source} {own[source]}\n" for source in sources if source in own)
    return hashlib.sha256(text.encode()).hexdigest() if own else rows[0].manifest.data


def _means(row: Row, groups: Mapping[str, Sequence[str]]) -> dict[str, Cell]:
    """Give a row's means over ``groups``; none that averages over other sources than those of the table."""
    own = row.manifest.groups
    return {
        name: cell if set(own[name]) == set(groups[name]) else Cell(None, NO_MEAN) for name, cell in row.groups.items()
    }


def _rank_columns(
    rows: Sequence[Row],
    columns: Sequence[str],
    cells_of: Callable[[Row], dict[str, Cell]],
    comparison: Callable[[Row, Row, str], Comparison | None],
) -> list[dict[str, Cell]]:
    """Give every row a ranked cell in every column, and say which are the best and which cannot be told from it."""
    ranked: list[dict[str, Cell]] = [{} for _ in rows]
    for column in columns:
        cells = [cells_of(row).get(column, Cell(None, NOT_EVALUATED)) for row in rows]
        ranks = column_ranks([cell.estimate for cell in cells])
        means = [cell.estimate.mean for cell in cells if cell.estimate is not None]
        best_mean = (min if column.endswith(LATENESS) else max)(means, default=0.0)
        leaders = [
            row for row, cell in zip(rows, cells, strict=True) if cell.estimate and cell.estimate.mean == best_mean
        ]
        for own, row, cell, rank in zip(ranked, rows, cells, ranks, strict=True):
            if cell.estimate is None:
                own[column] = cell
                continue
            best = any(leader is row for leader in leaders)
            versus = None if best else comparison(row, leaders[0], column)
            tied = versus is not None and versus.significant is False
            own[column] = replace(cell, rank=rank, best=best, tied=tied, versus_best=versus)
    return ranked


def _compare_column(row: Row, other: Row, column: str) -> Comparison | None:
    """Compare two rows in a source's column."""
    return compare(row.scores[column], other.scores[column])


def _compare_group(row: Row, other: Row, group: str) -> Comparison | None:
    """Compare two rows in a group's column."""
    members = [_compare_column(row, other, source) for source in row.manifest.groups[group]]
    present = [member for member in members if member is not None]
    return compare_groups(present) if len(present) == len(members) else None


def compare_rows(row: Row, other: Row, table: Table) -> dict[str, Comparison | None]:
    """Compare two rows of ``table`` in every column that both have, by column; None elsewhere."""
    found: dict[str, Comparison | None] = {}
    for column in table.columns:
        mine, theirs = row.cells.get(column), other.cells.get(column)
        if mine is None or theirs is None or mine.estimate is None or theirs.estimate is None:
            found[column] = None
        elif column in table.groups:
            found[column] = _compare_group(row, other, column)
        else:
            found[column] = _compare_column(row, other, column)
    return found


def _order(row: Row) -> tuple[bool, float, float, str, str]:
    """Sort by rank, then by mean over the sources there are, then by name."""
    means = [cell.estimate.mean for cell in row.sources.values() if cell.estimate]
    return row.rank is None, row.rank or 0.0, -sum(means) / max(len(means), 1), row.label, row.runs[0]
