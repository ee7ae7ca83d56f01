"""Rows that may be compared stand in one table: same suite version, split, list of tasks and data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lite_bench.harness.records import Results
from lite_bench.leaderboard.ranks import average_rank, column_ranks
from lite_bench.leaderboard.rows import NOT_EVALUATED, Cell, Row, make_row, tell_apart

Key = tuple[str, str, int, str]


@dataclass(frozen=True)
class Table:
    """All rows of one suite version, best first.

    Attributes:
        suite: suite and version.
        split: ``validation`` or ``test``.
        seed: seed of the list of tasks.
        data: fingerprint of the data.
        sources: columns, in reporting order.
        groups: columns of means, in reporting order.
        metrics: columns of what else is reported of sources.
        rows: by average rank, those without one last.
    """

    suite: str
    split: str
    seed: int
    data: str
    sources: tuple[str, ...]
    groups: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def clustered(self) -> bool:
        """Whether some score has an interval that resamples clusters."""
        cells = (cell for row in self.rows for cell in (*row.sources.values(), *row.metrics.values()))
        return any(cell.estimate is not None and cell.estimate.clustered is not None for cell in cells)

    @property
    def synthetic(self) -> bool:
        """Whether the rows come from stand-in data."""
        return any(row.synthetic for row in self.rows)


def make_tables(results: Iterable[Results]) -> list[Table]:
    """Compute all tables, ordered by suite.

    Results of different versions, splits, task lists or data never share one.

    Raises:
        DataError: a run's ``config.toml`` or ``run.json`` is damaged.
    """
    by_key: dict[Key, list[Results]] = {}
    for each in results:
        manifest = each.manifest
        key = (manifest.suite, manifest.split, manifest.seed, manifest.data)
        by_key.setdefault(key, []).append(each)
    return [
        _make_table(key, tell_apart([make_row(each) for each in together]))
        for key in sorted(by_key)
        for together in _on_the_same_data(by_key[key])
    ]


def _on_the_same_data(results: Sequence[Results]) -> list[list[Results]]:
    """Divide evaluations so that those together used the same data for every source that they share."""
    groups: list[tuple[dict[str, str], list[Results]]] = []
    for each in results:
        own = each.manifest.source_data
        for seen, members in groups:
            if all(seen.get(source, data) == data for source, data in own.items()):
                seen.update(own)
                members.append(each)
                break
        else:
            groups.append((dict(own), [each]))
    return [members for _, members in groups]


def _make_table(key: Key, rows: Sequence[Row]) -> Table:
    """Rank the rows of one table and put the best first."""
    sources = tuple(dict.fromkeys(name for row in rows for name in row.sources))
    groups = tuple(dict.fromkeys(name for row in rows for name in row.groups))
    metrics = tuple(dict.fromkeys(name for row in rows for name in row.metrics))
    source_cells = _rank_columns([row.sources for row in rows], sources)
    group_cells = _rank_columns([row.groups for row in rows], groups)
    ranked = [
        replace(
            row,
            sources=scores,
            groups=means,
            metrics={name: row.metrics.get(name, Cell(None, NOT_EVALUATED)) for name in metrics},
            rank=average_rank([cell.rank for cell in scores.values()]),
        )
        for row, scores, means in zip(rows, source_cells, group_cells, strict=True)
    ]
    return Table(*key, sources, groups, metrics, tuple(sorted(ranked, key=_order)))


def _rank_columns(rows: Sequence[dict[str, Cell]], columns: Sequence[str]) -> list[dict[str, Cell]]:
    """Give every row a ranked cell in every column."""
    ranked: list[dict[str, Cell]] = [{} for _ in rows]
    for column in columns:
        cells = [row.get(column, Cell(None, NOT_EVALUATED)) for row in rows]
        ranks = column_ranks([cell.estimate for cell in cells])
        best = min((rank for rank in ranks if rank is not None), default=None)
        for row, cell, rank in zip(ranked, cells, ranks, strict=True):
            row[column] = replace(cell, rank=rank, best=rank is not None and rank == best)
    return ranked


def _order(row: Row) -> tuple[bool, float, float, str, str]:
    """Sort by rank, then by mean over the sources there are, then by name."""
    means = [cell.estimate.mean for cell in row.sources.values() if cell.estimate]
    return row.rank is None, row.rank or 0.0, -sum(means) / max(len(means), 1), row.label, row.run
