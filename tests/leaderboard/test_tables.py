"""Which rows stand in one table, in what order, and what a cell may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lite_bench.harness.records import read_results
from lite_bench.leaderboard.rows import NO_MEAN, NOT_EVALUATED
from lite_bench.leaderboard.tables import Table, make_tables
from tests.leaderboard.samples import make_manifest, write_run

FULL = {"Latin": [0.5, 0.5, 0.5, 0.5], "Old Italic": [0.5, 0.5, 0.5, 0.5]}
BETTER = {"Latin": [0.6, 0.6, 0.6, 0.6], "Old Italic": [0.6, 0.6, 0.6, 0.6]}


def tables(*runs: Path) -> list[Table]:
    return make_tables(results for run in runs for results in read_results(run))


def test_the_best_row_comes_first_and_a_row_with_a_gap_last(tmp_path: Path) -> None:
    low = write_run(tmp_path / "a", make_manifest(learner="low"), FULL)
    gap = write_run(tmp_path / "b", make_manifest(learner="gap"), {"Latin": [0.9] * 4})
    high = write_run(tmp_path / "c", make_manifest(learner="high"), BETTER)
    (table,) = tables(low, gap, high)
    # Latin: gap, high, low; Old Italic: high, low.
    assert [(row.label, row.rank) for row in table.rows] == [("high", 1.5), ("low", 2.5), ("gap", None)]


def test_an_incomplete_source_has_no_score_and_its_group_no_mean(tmp_path: Path) -> None:
    run = write_run(tmp_path, make_manifest(), {"Latin": [0.5] * 4, "Old Italic": [0.5]})
    row = tables(run)[0].rows[0]
    cell = row.sources["Old Italic"]
    assert (cell.estimate, cell.rank, cell.done, cell.expected) == (None, None, 1, 4)
    assert cell.missing == "3 of 4 tasks are missing; repeat `lite-bench eval` to finish them."
    assert (row.groups["all"].estimate, row.groups["all"].missing) == (None, NO_MEAN)
    assert row.rank is None


@pytest.mark.parametrize("change", [{"suite": "letters@2"}, {"split": "validation"}, {"seed": 1}, {"data": "other"}])
def test_what_cannot_be_compared_stands_apart(tmp_path: Path, change: dict[str, Any]) -> None:
    one = write_run(tmp_path / "a", make_manifest(), FULL)
    other = write_run(tmp_path / "b", make_manifest(**change), FULL)
    assert [len(table.rows) for table in tables(one, other)] == [1, 1]


def test_synthetic_results_are_flagged(tmp_path: Path) -> None:
    run = write_run(tmp_path, make_manifest(data="stand-in"), FULL, synthetic=True)
    (table,) = tables(run)
    assert table.synthetic
    assert any(note.startswith("Stand-in data") for note in table.rows[0].notes)


def test_a_limit_is_flagged(tmp_path: Path) -> None:
    run = write_run(tmp_path, make_manifest(limit=2), {"Latin": [0.5, 0.6], "Old Italic": [0.5, 0.6]})
    row = tables(run)[0].rows[0]
    assert row.rank == 1.0
    assert "Preview: at most 2 tasks per source (--limit); the protocol has 4." in row.notes


def test_a_limit_beyond_the_protocol_is_no_limit(tmp_path: Path) -> None:
    row = tables(write_run(tmp_path, make_manifest(limit=9, checkpoint="abc"), FULL))[0].rows[0]
    assert row.notes == ()


def test_the_same_label_is_told_apart_by_time_stamp_then_by_path(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, make_manifest(), FULL) for name in ("a/10-00", "a/11-00", "b/11-00")]
    (table,) = tables(*runs)
    paths = [f"protonets ({tmp_path}/{name}/11-00)" for name in ("a", "b")]
    assert sorted(row.label for row in table.rows) == sorted(["protonets (10-00)", *paths])


def test_different_settings_need_no_time_stamp(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(size), make_manifest(image_size=size), FULL) for size in (84, 224)]
    assert {row.label for row in tables(*runs)[0].rows} == {"protonets"}


def test_a_source_that_only_one_row_has_is_missing_in_the_other(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", make_manifest(), FULL)
    fewer = make_manifest(learner="other", sources={"Latin": 4}, groups={})
    other = write_run(tmp_path / "b", fewer, {"Latin": [0.5] * 4})
    (table,) = tables(one, other)
    row = next(row for row in table.rows if row.label == "other")
    assert row.sources["Old Italic"].missing == NOT_EVALUATED
    assert row.groups["all"].missing == NOT_EVALUATED
    assert row.rank is None


def test_the_users_label_replaces_the_learner(tmp_path: Path) -> None:
    assert tables(write_run(tmp_path, make_manifest(label="mine"), FULL))[0].rows[0].label == "mine"
