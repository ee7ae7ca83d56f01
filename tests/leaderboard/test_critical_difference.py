"""Friedman's test and Nemenyi's difference against scipy, Demsar's table and enumeration; blocks of made-up tables."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from lite_bench.harness.records import append_record, read_results, records_path, results_folder, write_manifest
from lite_bench.leaderboard.critical_difference import (
    CriticalDifference,
    alike,
    block_ranks,
    critical_difference,
    friedman,
    nemenyi,
    rank_blocks,
)
from lite_bench.leaderboard.tables import Table, make_tables
from tests.leaderboard.samples import make_manifest, make_record

scores = st.integers(2, 6).flatmap(
    lambda k: st.lists(st.lists(st.integers(0, 5), min_size=k, max_size=k), min_size=2, max_size=12)
)
Q = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}
"""q at 0.05 by number of classifiers, as printed in Demsar's table 5a."""


def by_row(blocks: list[list[int]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(blocks, dtype=np.float64).T / 10


class TestFriedman:
    @given(scores)
    def test_ranks_are_scipys(self, blocks: list[list[int]]) -> None:
        wanted = [stats.rankdata([-value for value in block]) for block in blocks]
        assert block_ranks(by_row(blocks)).T.tolist() == np.asarray(wanted).tolist()

    def test_rounding_is_a_tie(self) -> None:
        assert block_ranks(np.asarray([[0.1 + 0.2], [0.3]])).tolist() == [[1.5], [1.5]]

    @given(scores)
    def test_chi_square_is_scipys_and_p_that_of_iman_and_davenport(self, blocks: list[list[int]]) -> None:
        ranks = block_ranks(by_row(blocks))
        k, n = ranks.shape
        assume(k > 2)  # scipy refuses two
        assume(not (ranks == ranks[:, :1]).all())
        wanted = stats.friedmanchisquare(*by_row(blocks)).statistic
        chi_square, p = friedman(ranks)
        assert chi_square == pytest.approx(wanted, abs=1e-9)
        f = (n - 1) * wanted / (n * (k - 1) - wanted)
        assert p == pytest.approx(stats.f.sf(f, k - 1, (k - 1) * (n - 1)), abs=1e-9)

    def test_without_ties_chi_square_is_as_printed(self) -> None:
        """12 N / (k (k + 1)) (sum R_j^2 - k (k + 1)^2 / 4)."""
        generator = np.random.default_rng(0)
        ranks = block_ranks(generator.random((5, 9)))
        average = ranks.mean(axis=1)
        wanted = 12 * 9 / (5 * 6) * ((average**2).sum() - 5 * 36 / 4)
        assert friedman(ranks)[0] == pytest.approx(wanted)

    @pytest.mark.parametrize("first", [(1.0, 2.0, 3.0), (1.5, 1.5, 3.0)])
    def test_agreement_of_all_blocks_by_enumeration(self, first: tuple[float, ...]) -> None:
        """Of all ways to deal the ranks of three blocks, as many as p says give the largest chi square."""
        ranks = np.asarray([first] * 3).T
        chi_square, p = friedman(ranks)
        ways = list(itertools.product(itertools.permutations(first), repeat=3))
        reached = [friedman(np.asarray(blocks).T)[0] >= chi_square - 1e-9 for blocks in ways]
        assert p == pytest.approx(np.mean(reached))
        assert chi_square == pytest.approx(3 * 2)

    def test_rows_tied_everywhere_do_not_differ(self) -> None:
        assert friedman(np.full((4, 7), 2.5)) == (0.0, 1.0)

    def test_five_of_a_hundred_are_found_uneven_by_chance(self) -> None:
        generator = np.random.default_rng(4)
        p = [friedman(block_ranks(generator.random((5, 10))))[1] for _ in range(1500)]
        assert np.mean(np.asarray(p) < 0.05) == pytest.approx(0.05, abs=0.015)


class TestNemenyi:
    @pytest.mark.parametrize(("k", "q"), Q.items())
    def test_it_is_demsars(self, k: int, q: float) -> None:
        assert nemenyi(k, 14) == pytest.approx(q * math.sqrt(k * (k + 1) / (6 * 14)), abs=0.0006)

    def test_among_equal_rows_one_pair_in_twenty_tables_is_that_far_apart(self) -> None:
        """The level is that of the whole table, not of each of its 45 pairs."""
        generator = np.random.default_rng(5)
        averages = [block_ranks(generator.random((10, 60))).mean(axis=1) for _ in range(1500)]
        difference = nemenyi(10, 60)
        assert np.mean([np.ptp(average) >= difference for average in averages]) == pytest.approx(0.05, abs=0.015)

    @given(st.lists(st.integers(0, 20), min_size=1, max_size=9), st.integers(1, 12))
    def test_bars_are_all_groups_that_cannot_grow(self, tenths: list[int], difference: int) -> None:
        ranks = sorted(each / 4 for each in tenths)
        span = (difference - 0.5) / 4
        runs = [(first, end) for first in range(len(ranks)) for end in range(first + 2, len(ranks) + 1)]
        within = [(first, end) for first, end in runs if ranks[end - 1] - ranks[first] < span]
        wanted = [
            (first, end)
            for first, end in within
            if not any(a <= first and end <= b and (a, b) != (first, end) for a, b in within)
        ]
        assert alike(ranks, span) == wanted

    def test_a_difference_as_large_as_the_critical_one_is_significant(self) -> None:
        assert alike([1.0, 2.0, 2.5], 1.0) == [(1, 3)]


def test_ranked_rows_come_best_first() -> None:
    """The middle row is last everywhere; the others share the first place, 20 of 40 blocks each."""
    found = rank_blocks(["a", "b", "c"], [[0.9, 0.8] * 20, [0.1] * 40, [0.8, 0.9] * 20], "40 sources", ("d",))
    assert (found.labels, found.ranks) == (("a", "c", "b"), (1.5, 1.5, 3.0))
    assert found.bars == (("a", "c"),)
    assert (found.n_blocks, found.blocks, found.left_out) == (40, "40 sources", ("d",))
    assert found.difference == pytest.approx(2.343 * math.sqrt(12 / 240), abs=0.001)
    assert found.p < 1e-12


def write(run: Path, accuracies: Mapping[str, Sequence[float]], cluster_size: int = 0, **changes: Any) -> Path:
    """Write a run of sources with four tasks each, or as many as most have; tasks in clusters of ``cluster_size``."""
    sizes = {name: max(len(values), 4) for name, values in accuracies.items()}
    manifest = make_manifest(**({"sources": sizes, "groups": {}} | changes))
    write_manifest(results_folder(run, manifest.suite), manifest)
    for source, values in accuracies.items():
        for index, value in enumerate(values):
            cluster = f"user {index // cluster_size}" if cluster_size else ""
            record = make_record(manifest, source, index, value, cluster=cluster)
            append_record(records_path(run, manifest.suite, source), record)
    return run


def table_of(*runs: Path) -> Table:
    (table,) = make_tables([results for run in runs for results in read_results(run)])
    return table


def found_in(table: Table) -> CriticalDifference:
    found = critical_difference(table)
    assert found is not None
    return found


class TestBlocks:
    def test_five_sources_are_the_blocks(self, tmp_path: Path) -> None:
        """Means by source: high wins four, low one."""
        low = write(tmp_path / "a", {name: [0.5, 0.5, 0.6, 0.6] for name in "vwxyz"}, learner="low")
        high = {name: [0.9, 0.5, 0.6, 0.6] for name in "vwxy"} | {"z": [0.1] * 4}
        found = found_in(table_of(low, write(tmp_path / "b", high, learner="high")))
        assert (found.n_blocks, found.blocks) == (5, "5 sources")
        assert found.labels == ("high", "low")
        assert found.ranks == pytest.approx((1.2, 1.8))
        assert found.left_out == ()

    def test_with_fewer_sources_tasks_are(self, tmp_path: Path) -> None:
        """Of the eight tasks of both sources, high wins three, low one, and four are ties."""
        low = write(tmp_path / "a", {"x": [0.5] * 4, "y": [0.5] * 4}, learner="low")
        high = write(tmp_path / "b", {"x": [0.6, 0.6, 0.6, 0.5], "y": [0.4, 0.5, 0.5, 0.5]}, learner="high")
        found = found_in(table_of(low, high))
        assert (found.n_blocks, found.blocks) == (8, "8 tasks")
        assert (found.labels, found.ranks) == (("high", "low"), ((3 + 2 + 6) / 8, (6 + 1 + 6) / 8))
        assert found.bars == (("high", "low"),)

    def test_where_tasks_come_in_clusters_these_are(self, tmp_path: Path) -> None:
        """Means by user: low 0.5 0.5, high 0.55 0.45, although high wins three of four tasks."""
        low = write(tmp_path / "a", {"x": [0.5] * 4}, 2, learner="low")
        high = write(tmp_path / "b", {"x": [0.55, 0.55, 0.8, 0.1]}, 2, learner="high")
        found = found_in(table_of(low, high))
        assert (found.n_blocks, found.blocks, found.ranks) == (2, "2 clusters", (1.5, 1.5))

    def test_the_same_clusters_in_two_sources_are_one_block_each(self, tmp_path: Path) -> None:
        runs = [
            write(tmp_path / name, {"x": [score] * 4, "y": [0.5] * 4}, 2, learner=name)
            for name, score in (("low", 0.1), ("high", 0.9))
        ]
        found = found_in(table_of(*runs))
        assert (found.n_blocks, found.blocks, found.labels) == (2, "2 clusters", ("high", "low"))

    def test_rows_that_lack_a_block_are_left_out(self, tmp_path: Path) -> None:
        whole = {name: [0.5] * 4 for name in "vwxyz"}
        runs = [write(tmp_path / name, whole, learner=name) for name in ("one", "two")]
        gap = {**whole, "z": [0.9]}
        found = found_in(table_of(*runs, write(tmp_path / "gap", gap, learner="gap")))
        assert (found.blocks, found.labels, found.left_out) == ("5 sources", ("one", "two"), ("gap",))

    def test_a_source_that_only_one_row_has_is_no_block(self, tmp_path: Path) -> None:
        most = {name: [0.5] * 4 for name in "uvwxy"}
        gap = [write(tmp_path / name, {**most, "z": [0.9]}, learner=name) for name in ("one", "two")]
        whole = write(tmp_path / "whole", {**most, "z": [0.9] * 4}, learner="whole")
        found = found_in(table_of(*gap, whole))
        assert (found.blocks, len(found.labels), found.left_out) == ("5 sources", 3, ())

    @pytest.mark.parametrize(
        "other",
        [
            {"x": [0.5], "y": [0.5] * 4},  # no source in common
            {"x": [0.5], "y": [0.5]},
        ],
    )
    def test_without_two_rows_on_two_blocks_there_is_none(self, tmp_path: Path, other: dict[str, list[float]]) -> None:
        one = write(tmp_path / "a", {"x": [0.5] * 4, "y": [0.5]}, learner="one")
        assert critical_difference(table_of(one)) is None
        assert critical_difference(table_of(one, write(tmp_path / "b", other, learner="other"))) is None

    def test_one_task_is_too_few(self, tmp_path: Path) -> None:
        runs = [
            write(tmp_path / name, {"x": [score]}, learner=name, sources={"x": 1})
            for name, score in (("one", 0.1), ("two", 0.2))
        ]
        assert critical_difference(table_of(*runs)) is None
