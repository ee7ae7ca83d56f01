"""Which rows stand in one table, in what order, and what a cell may say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from lite_bench.harness.records import append_record, read_results, records_path
from lite_bench.leaderboard.evaluations import find_results
from lite_bench.leaderboard.published import PublishedRow
from lite_bench.leaderboard.rows import NO_MEAN, NOT_EVALUATED
from lite_bench.leaderboard.tables import Table, make_tables
from tests.leaderboard.samples import make_manifest, make_record, write_run

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


def test_a_preview_does_not_stand_beside_whole_results(tmp_path: Path) -> None:
    whole = write_run(tmp_path / "a", make_manifest(), FULL)
    some = write_run(
        tmp_path / "b", make_manifest(learner="other", limit=2), {"Latin": [1.0] * 2, "Old Italic": [1.0] * 2}
    )
    assert [(table.preview, len(table.rows)) for table in tables(whole, some)] == [(None, 1), (2, 1)]


def test_stand_ins_do_not_stand_beside_real_results_even_of_one_evaluation(tmp_path: Path) -> None:
    run = write_run(tmp_path, make_manifest(), {"Latin": [0.5] * 4})
    path = records_path(run, "letters@1", "Old Italic")
    for index in range(4):
        append_record(path, make_record(make_manifest(), "Old Italic", index, 0.5, synthetic=True))
    real, stand_in = tables(run)
    assert (real.synthetic, stand_in.synthetic) == (False, True)
    assert (real.rows[0].sources["Old Italic"].done, stand_in.rows[0].sources["Latin"].done) == (0, 0)
    assert not any(row.groups["all"].estimate for table in (real, stand_in) for row in table.rows)


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


def test_the_same_label_is_told_apart_by_options(tmp_path: Path) -> None:
    for steps in (5, 15):
        run = write_run(tmp_path / str(steps), make_manifest(), FULL)
        (run / "config.toml").write_text(f"[params]\nsteps = {steps}\n")
    (table,) = tables(tmp_path / "5", tmp_path / "15")
    assert {row.label for row in table.rows} == {"protonets (steps=5)", "protonets (steps=15)"}


def test_the_same_label_and_options_are_told_apart_by_time_stamp(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, make_manifest(checkpoint=name), FULL) for name in ("10-00", "11-00")]
    assert {row.label for row in tables(*runs)[0].rows} == {"protonets (10-00)", "protonets (11-00)"}


def test_the_same_time_stamp_is_told_apart_by_path(tmp_path: Path) -> None:
    names = ("a/10-00", "b/10-00")
    runs = [write_run(tmp_path / name, make_manifest(checkpoint=name), FULL) for name in names]
    (table,) = tables(*runs)
    assert {row.label for row in table.rows} == {f"protonets ({tmp_path}/{name})" for name in names}


def test_different_settings_need_no_time_stamp(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(size), make_manifest(image_size=size), FULL) for size in (84, 224)]
    assert {row.label for row in tables(*runs)[0].rows} == {"protonets (84 px)", "protonets (224 px)"}


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


def test_the_best_is_marked_and_who_a_paired_test_does_not_tell_from_it(tmp_path: Path) -> None:
    """Latin: ours less theirs is -0.1, 0.1, 0.1, 0.1 (mean 0.05, t = 1 of 3 degrees of freedom: p = 0.39); the third is
    0.3, 0.3, 0.3, 0.31 lower (t = 121)."""
    manifest = make_manifest(sources={"Latin": 4}, groups={})
    scores = {"high": [0.5, 0.7, 0.7, 0.7], "near": [0.6, 0.6, 0.6, 0.6], "far": [0.2, 0.4, 0.4, 0.39]}
    runs = []
    for name, values in scores.items():
        own = make_manifest(learner=name, sources=manifest.sources, groups={})
        runs.append(write_run(tmp_path / name, own, {"Latin": values}))
    (table,) = tables(*runs)
    cells = {row.label: row.sources["Latin"] for row in table.rows}
    assert [(name, cell.best, cell.tied) for name, cell in cells.items()] == [
        ("high", True, False),
        ("near", False, True),
        ("far", False, False),
    ]
    versus = cells["near"].versus_best
    assert versus is not None
    assert versus.difference == pytest.approx(-0.05)
    assert versus.p == pytest.approx(0.391002218956)
    assert cells["high"].versus_best is None


def test_equal_bests_are_both_best(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, make_manifest(learner=name), FULL) for name in ("one", "two")]
    cells = [row.sources["Latin"] for row in tables(*runs)[0].rows]
    assert [(cell.best, cell.tied) for cell in cells] == [(True, False), (True, False)]


def test_one_task_tells_nothing_apart(tmp_path: Path) -> None:
    runs = []
    for name, value in (("one", 0.5), ("two", 0.4)):
        manifest = make_manifest(learner=name, sources={"Latin": 1}, groups={})
        runs.append(write_run(tmp_path / name, manifest, {"Latin": [value]}))
    cells = {row.label: row.sources["Latin"] for row in tables(*runs)[0].rows}
    assert (cells["two"].best, cells["two"].tied) == (False, False)
    assert cells["two"].versus_best is not None
    assert cells["two"].versus_best.p is None


def test_the_table_says_what_it_rests_on(tmp_path: Path) -> None:
    digests = {"Latin": "1" * 64, "Old Italic": "2" * 64}
    for name, torch in (("one", "2.9.0"), ("two", "2.10.0")):
        run = write_run(tmp_path / name, make_manifest(learner=name, digests=digests), FULL)
        versions = {"lite-bench": "0.1.0", "torch": torch, "absent": None}
        (run / "environment.json").write_text(json.dumps({"versions": versions, "command": "lite-bench eval"}))
    (table,) = make_tables(find_results([tmp_path]), command="lite-bench leaderboard runs")
    found = table.provenance
    assert (found.n_tasks, found.records, found.failed, found.installed) == (8, 16, 0, False)
    assert found.versions == {"lite-bench": ("0.1.0",), "torch": ("2.9.0", "2.10.0")}
    lines = f"Latin {digests['Latin']}\nOld Italic {digests['Old Italic']}\n"
    assert found.digest == hashlib.sha256(lines.encode()).hexdigest()
    assert found.command == "lite-bench leaderboard runs"


def test_without_every_digest_there_is_none_of_the_list(tmp_path: Path) -> None:
    run = write_run(tmp_path, make_manifest(digests={"Latin": "1" * 64}), FULL)
    assert tables(run)[0].provenance.digest == ""


def test_published_rows_are_only_added_to_whole_real_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = PublishedRow("theirs", "", "", None, "", "", "", {})
    monkeypatch.setattr(
        "lite_bench.leaderboard.tables.published_rows", lambda suite: [row] if suite == "letters@1" else []
    )
    real = write_run(tmp_path / "a", make_manifest(), FULL)
    standin = write_run(tmp_path / "b", make_manifest(data="other"), FULL, synthetic=True)
    some = write_run(tmp_path / "c", make_manifest(limit=2), {"Latin": [0.5] * 2, "Old Italic": [0.5] * 2})
    found = make_tables(find_results([real, standin, some]), published=True)
    assert {(table.synthetic, table.preview): len(table.published) for table in found} == {
        (False, None): 1,
        (True, None): 0,
        (False, 2): 0,
    }
    assert not any(table.published for table in make_tables(find_results([real])))
