"""Which rows stand in one table, in what order, and what a cell may say."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lite_bench.harness.core import GROUP_METRICS, GroupScore
from lite_bench.harness.records import append_record, read_results, records_path
from lite_bench.leaderboard.data_formats import json_text
from lite_bench.leaderboard.evaluations import find_results
from lite_bench.leaderboard.published import PublishedRow
from lite_bench.leaderboard.rows import NO_MEAN, NOT_EVALUATED
from lite_bench.leaderboard.tables import Table, make_tables
from lite_bench.leaderboard.text import UNTESTED, caption, footer, title
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
    for steps, scores in ((5, FULL), (15, BETTER)):
        run = write_run(tmp_path / str(steps), make_manifest(), scores)
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
    validation = write_run(tmp_path / "d", make_manifest(split="validation"), FULL)
    found = make_tables(find_results([real, standin, some, validation]), published=True)
    assert {(table.split, table.synthetic, table.preview): len(table.published) for table in found} == {
        ("test", False, None): 1,
        ("test", True, None): 0,
        ("test", False, 2): 0,
        ("validation", False, None): 0,
    }
    assert not any(table.published for table in make_tables(find_results([real])))


def test_columns_and_digest_do_not_depend_on_which_run_is_named_first(tmp_path: Path) -> None:
    parts = {"a": "Old Italic", "b": "Latin"}
    for name, source in parts.items():
        manifest = make_manifest(sources={source: 4}, groups={}, digests={source: source})
        write_run(tmp_path / name, manifest, {source: FULL[source]})
        write_run(tmp_path / f"other {name}", replace(manifest, learner="other"), {source: FULL[source]})
    runs = sorted(tmp_path.iterdir())
    tables_of = [json_text(make_tables(find_results(paths))) for paths in (runs, runs[::-1])]
    assert tables_of[0] == tables_of[1]
    assert tables(*runs)[0].sources == ("Latin", "Old Italic")


def test_a_mean_over_fewer_sources_than_other_rows_have_is_none(tmp_path: Path) -> None:
    whole = write_run(tmp_path / "a", make_manifest(), FULL)
    part = make_manifest(learner="part", sources={"Latin": 4}, groups={"all": ["Latin"]})
    (table,) = tables(whole, write_run(tmp_path / "b", part, {"Latin": [1.0] * 4}))
    cells = {row.label: row.groups["all"] for row in table.rows}
    assert table.groups == {"all": ("Latin", "Old Italic")}
    assert (cells["part"].estimate, cells["part"].missing) == (None, NO_MEAN)
    assert cells["protonets"].best


def test_what_else_is_reported_is_marked_too_but_has_no_rank(tmp_path: Path) -> None:
    manifest = make_manifest(sources={"clean": 4}, groups={}, metrics=list(GROUP_METRICS))
    for name, step in (("one", 0.0), ("two", 0.125)):
        own = replace(manifest, learner=name)
        run = write_run(tmp_path / name, own, {})
        for index in range(4):
            group = GroupScore("video", 30, 0.5 + step, 0.5, 0.25 + step + index / 64 * (name == "two"))
            record = make_record(own, "clean", index, group.frame_accuracy, groups=(group,), cluster=f"user {index}")
            append_record(records_path(run, own.suite, "clean"), record)
    (table,) = make_tables(find_results([tmp_path]))
    cells = {row.label: row.metrics for row in table.rows}
    late = "clean: frames to recognition"
    assert (cells["one"][late].best, cells["two"][late].best, cells["two"][late].tied) == (True, False, False)
    assert all(each["clean: video accuracy"].best for each in cells.values())
    assert {cell.rank for each in cells.values() for cell in each.values()} == {None}
    assert any("cluster-robust t-test" in line for line in caption(table))


def test_a_title_says_what_is_not_the_list_that_everybody_evaluates_on(tmp_path: Path) -> None:
    write_run(tmp_path / "a", make_manifest(split="validation"), FULL)
    write_run(tmp_path / "b", make_manifest(seed=3), FULL)
    write_run(tmp_path / "c", make_manifest(), FULL)
    titles = [title(table) for table in make_tables(find_results([tmp_path]))]
    assert titles == ["letters@1", "letters@1 (task seed 3)", "letters@1 (validation tasks)"]


def test_a_caption_says_that_one_task_has_no_test_and_what_scores_are(tmp_path: Path) -> None:
    for name, value in (("one", 0.5), ("two", 0.4)):
        manifest = make_manifest(learner=name, sources={"clean": 1}, groups={}, metrics=["frame accuracy"])
        record = make_record(manifest, "clean", 0, value, groups=(GroupScore("video", 9, value, 0.0, 0.0),))
        append_record(records_path(write_run(tmp_path / name, manifest, {}), "letters@1", "clean"), record)
    (table,) = make_tables(find_results([tmp_path]))
    assert UNTESTED in caption(table)
    assert "over (task, video) scores" in caption(table)[0]


def test_of_several_data_sets_the_fingerprint_is_that_of_all(tmp_path: Path) -> None:
    for name, data, source in (("a", "x", "Old Italic"), ("b", "y", "Latin")):
        write_run(tmp_path / name, make_manifest(learner=name, data=data, source_data={source: data}), {})
    (table,) = make_tables(find_results([tmp_path]))
    assert table.data == hashlib.sha256(b"Latin y\nOld Italic x\n").hexdigest()


def test_of_a_preview_the_list_is_only_begun(tmp_path: Path) -> None:
    manifest = make_manifest(limit=2, digests={"Latin": "1", "Old Italic": "2"})
    (table,) = tables(write_run(tmp_path, manifest, {"Latin": [0.5] * 2}))
    assert f"4 per row in 2 sources, the first of list {table.provenance.digest[:12]}" in dict(footer(table))["Tasks"]
