"""Parts of one entry are joined from wherever they lie; what repeats or contradicts itself names both files."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from lite_bench.harness.errors import DataError
from lite_bench.harness.records import append_record, records_path
from lite_bench.leaderboard.entries import Entry
from lite_bench.leaderboard.evaluations import find_results
from lite_bench.leaderboard.gathering import gather
from tests.leaderboard.samples import make_manifest, make_record, write_run

HALF = [0.5] * 4
BETTER = [0.75] * 4


def entries(*paths: Path) -> list[list[Entry]]:
    return gather(find_results(paths))


def test_sources_of_two_machines_become_one_entry(tmp_path: Path) -> None:
    one = write_run(tmp_path / "here/run", make_manifest(missing={"Old Italic": "no data"}), {"Latin": HALF})
    other = write_run(tmp_path / "there/run", make_manifest(missing={"Latin": "no data"}), {"Old Italic": HALF})
    ((entry,),) = entries(one, other)
    assert {source: len(records) for source, records in entry.records.items()} == {"Latin": 4, "Old Italic": 4}
    assert entry.manifest.missing == {}
    assert entry.runs == (one, other)


def test_tasks_of_one_source_may_be_divided(tmp_path: Path) -> None:
    manifest = make_manifest(sources={"Latin": 4}, groups={})
    one = write_run(tmp_path / "a", manifest, {"Latin": HALF})
    path = next(one.rglob("*.jsonl"))
    lines = path.read_text().splitlines(keepends=True)
    other = write_run(tmp_path / "b", manifest, {})
    path.write_text("".join(lines[:1]))
    (next(other.rglob("suite.json")).parent / path.name).write_text("".join(lines[1:]))
    ((entry,),) = entries(one, other)
    assert [record.task[-1] for record in entry.records["Latin"]] == ["0", "1", "2", "3"]


def test_modes_evaluated_apart_become_one_row(tmp_path: Path) -> None:
    clean = write_run(tmp_path / "a", make_manifest(sources={"clean": 4}, groups={}), {"clean": HALF})
    clutter = write_run(tmp_path / "b", make_manifest(sources={"clutter": 4}, groups={}), {"clutter": HALF})
    ((entry,),) = entries(clean, clutter)
    assert list(entry.manifest.sources) == ["clean", "clutter"]


@pytest.mark.parametrize(
    ("accuracy", "words"), [(0.5, r"\); name just one"), (0.75, r"\), and they disagree; name just one")]
)
def test_a_task_in_two_files_names_both(tmp_path: Path, accuracy: float, words: str) -> None:
    for name, value in (("a", 0.5), ("b", accuracy), ("c", 0.5)):
        values = [value] * 4
        write_run(tmp_path / name, make_manifest(), {"Latin" if name != "c" else "Old Italic": values})
    with pytest.raises(DataError, match=rf"/a/.*Latin\.jsonl and .*/b/.*Latin\.jsonl hold the same task.*{words}"):
        entries(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"learner": "other"},
        {"backbone": "resnet18"},
        {"image_size": 224},
        {"checkpoint": "abc"},
        {"precision": "bf16"},
        {"label": "mine"},
    ],
)
def test_what_differs_is_another_entry(tmp_path: Path, change: dict[str, Any]) -> None:
    one = write_run(tmp_path / "a", make_manifest(), {"Latin": HALF})
    other = write_run(tmp_path / "b", make_manifest(**change), {"Latin": BETTER})
    assert [len(table) for table in entries(one, other)] == [2]


@pytest.mark.parametrize("line", ["[params]\nsteps = 5", "seed = 3", 'weights = "w.pt"', 'pixel_range = "signed"'])
def test_settings_that_change_the_outcome_make_another_entry(tmp_path: Path, line: str) -> None:
    one = write_run(tmp_path / "a", make_manifest(), {"Latin": HALF})
    other = write_run(tmp_path / "b", make_manifest(), {"Latin": BETTER})
    (other / "config.toml").write_text(line)
    assert [len(table) for table in entries(one, other)] == [2]


def test_manifests_that_disagree_about_a_list_of_tasks_name_both_runs(tmp_path: Path) -> None:
    write_run(tmp_path / "a", make_manifest(digests={"Latin": "1" * 64}), {})
    write_run(tmp_path / "b", make_manifest(learner="other", digests={"Latin": "2" * 64}), {})
    with pytest.raises(DataError, match=r"/a and .*/b disagree about the tasks of Latin in letters@1 \(digests: 1"):
        entries(tmp_path)
    write_run(tmp_path / "c", make_manifest(learner="third", sources={"Latin": 9}, groups={}), {})
    with pytest.raises(DataError, match=r"sources: 4 and 9"):
        entries(tmp_path / "b", tmp_path / "c")


def test_a_file_that_was_cut_short_is_told(tmp_path: Path) -> None:
    run = write_run(tmp_path, make_manifest(), {"Latin": HALF})
    path = next(run.rglob("Latin.jsonl"))
    path.write_text(path.read_text()[:-20])
    ((entry,),) = entries(run)
    assert entry.unfinished == (path,)
    assert len(entry.records["Latin"]) == 3


def test_data_of_a_source_is_compared_where_sources_have_their_own(tmp_path: Path) -> None:
    data = {"one": {"Latin": "x"}, "two": {"Latin": "x", "Old Italic": "y"}, "three": {"Latin": "z"}}
    for name, own in data.items():
        manifest = make_manifest(learner=name, source_data=own)
        write_run(tmp_path / name, manifest, {})
    assert sorted(len(table) for table in entries(tmp_path)) == [1, 2]


def test_a_limit_that_cuts_none_of_one_parts_sources_cuts_none_of_anothers(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", make_manifest(sources={"Latin": 1}, groups={}, limit=2), {"Latin": HALF[:1]})
    other = write_run(tmp_path / "b", make_manifest(sources={"Old Italic": 4}, groups={}), {"Old Italic": HALF[:2]})
    ((entry,),) = entries(one, other)
    assert entry.manifest.limit is None
    assert entry.manifest.expected("Old Italic") == 4


def test_a_group_divided_over_machines_averages_over_all_its_sources(tmp_path: Path) -> None:
    for name, source in (("a", "Latin"), ("b", "Old Italic")):
        manifest = make_manifest(sources={source: 4}, groups={"all": [source]})
        write_run(tmp_path / name, manifest, {source: HALF})
    ((entry,),) = entries(tmp_path)
    assert entry.manifest.groups == {"all": ["Latin", "Old Italic"]}


def test_real_sources_of_an_evaluation_that_had_stand_ins_too_meet_other_real_ones(tmp_path: Path) -> None:
    mixed = make_manifest(source_data={"Latin": "x", "Old Italic": "stand-in"})
    run = write_run(tmp_path / "a", mixed, {})
    append_record(records_path(run, "letters@1", "Latin"), make_record(mixed, "Latin", 0, 0.5, data="x"))
    record = make_record(mixed, "Old Italic", 0, 0.5, data="stand-in", synthetic=True)
    append_record(records_path(run, "letters@1", "Old Italic"), record)
    write_run(tmp_path / "b", make_manifest(learner="other", source_data={"Latin": "x", "Old Italic": "y"}), {})
    real, standin = entries(tmp_path)
    assert [(entry.manifest.learner, entry.synthetic) for entry in real] == [("protonets", False), ("other", False)]
    assert list(real[0].manifest.missing) == ["Old Italic"]
    assert [list(entry.manifest.missing) for entry in standin] == [["Latin"]]


def test_sources_without_data_of_their_own_are_compared_by_that_of_the_suite(tmp_path: Path) -> None:
    for name in ("one", "two"):
        manifest = make_manifest(learner=name, data=name, source_data={"Latin": "x"})
        run = write_run(tmp_path / name, manifest, {})
        append_record(records_path(run, "letters@1", "Old Italic"), make_record(manifest, "Old Italic", 0, 0.5))
    assert [len(table) for table in entries(tmp_path)] == [1, 1]


def test_versions_of_all_parts_are_kept(tmp_path: Path) -> None:
    said = write_run(tmp_path / "a", make_manifest(versions={"torch": ["3"]}), {"Latin": HALF})
    for name, source, version in (("b", "Old Italic", "2"), ("c", "Greek", "1")):
        run = write_run(tmp_path / name, make_manifest(sources={source: 4}, groups={}), {source: HALF})
        (run / "environment.json").write_text(json.dumps({"versions": {"torch": version}}))
    ((entry,),) = entries(tmp_path)
    assert entry.runs[0] == said
    assert sorted(entry.versions["torch"]) == ["1", "2", "3"]


def test_a_copy_without_its_settings_is_no_other_entry(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", make_manifest(checkpoint="abc"), {"Latin": HALF})
    copytree(run, tmp_path / "b")
    (run / "config.toml").write_text('gradient = "full"')
    with pytest.raises(DataError, match=r"/a/.*Latin\.jsonl and .*/b/.*Latin\.jsonl hold .* one is a copy; name"):
        entries(tmp_path)


def write_model(run: Path, source: str, **changes: Any) -> Path:
    """Write a run whose model is for one source alone, as ORBIT's are for one mode."""
    values: dict[str, Any] = {
        "label": "ours",
        "checkpoint": run.name,
        "groups": {},
        "sources": {"clean": 4, "clutter": 4},
    }
    write_run(run, make_manifest(**(values | changes)), {source: HALF})
    (run / "config.toml").write_text(f'gradient = "lite"\nlite_h = 8\ntasks = 9\n[suite_options]\nmode = "{source}"\n')
    return run


def test_models_of_one_label_for_a_source_each_are_one_row(tmp_path: Path) -> None:
    ((entry,),) = entries(write_model(tmp_path / "a", "clean"), write_model(tmp_path / "b", "clutter"))
    assert {source: len(found) for source, found in entry.records.items()} == {"clean": 4, "clutter": 4}
    assert entry.manifest.checkpoint == "a + b"
    assert entry.training.text == "mode=clean, lite H=8, 9 tasks; mode=clutter, lite H=8, 9 tasks"
    assert (entry.training.h, [run.name for run in entry.runs]) == (8, ["a", "b"])


@pytest.mark.parametrize("change", [{"label": ""}, {"label": "theirs"}, {"backbone": "other"}, {"precision": "bf16"}])
def test_models_that_differ_otherwise_are_rows_of_their_own(tmp_path: Path, change: dict[str, Any]) -> None:
    one, other = write_model(tmp_path / "a", "clean"), write_model(tmp_path / "b", "clutter", **change)
    assert [len(table) for table in entries(one, other)] == [2]


def test_two_models_of_one_label_for_the_same_source_are_two_rows(tmp_path: Path) -> None:
    runs = [write_model(tmp_path / name, source) for name, source in (("a", "clean"), ("b", "clean"), ("c", "clutter"))]
    ((first, second),) = entries(*runs)
    assert [run.name for run in first.runs] == ["a", "c"]
    assert [run.name for run in second.runs] == ["b"]
