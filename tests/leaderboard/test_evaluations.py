"""What paths may be, and what is said of those that hold no results."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lite_bench.harness.errors import DataError, RunError, UnknownNameError
from lite_bench.harness.records import records_path
from lite_bench.leaderboard.evaluations import find_results, select_suite
from tests.leaderboard.samples import make_manifest, write_run

FULL = {"Latin": [0.5] * 4, "Old Italic": [0.5] * 4}


def test_a_run_named_twice_is_one_row(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs/a/10-00", make_manifest(), FULL)
    assert len(find_results([tmp_path / "runs", run, Path("runs/a")])) == 1


def test_a_file_of_records_is_read_with_the_manifest_beside_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs/a/10-00", make_manifest(), FULL)
    (results,) = find_results([records_path(run, "letters@1", "Latin")])
    assert (results.run, {source: len(found) for source, found in results.records.items()}) == (
        run,
        {"Latin": 4, "Old Italic": 0},
    )


def test_a_file_of_a_run_that_is_named_too_counts_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_manifest(), FULL)
    assert len(find_results([records_path(run, "letters@1", "Latin"), run])) == 1


def test_a_file_without_its_manifest_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_manifest(), FULL)
    path = records_path(run, "letters@1", "Latin")
    alone = tmp_path / path.name
    alone.write_text(path.read_text())
    with pytest.raises(DataError, match=r"suite\.json is missing"):
        find_results([alone])


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("a,b\n")
    with pytest.raises(RunError, match=r"table\.csv is not a file of records \(\*\.jsonl\)"):
        find_results([tmp_path / "table.csv"])


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_path_without_results_is_named_with_the_remedy(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=f"{name}.*lite-bench eval"):
        find_results([Path(name)])


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_manifest(), FULL)
    path = records_path(run, "letters@1", "Old Italic")
    path.write_text("oops\n" + path.read_text())
    with pytest.raises(DataError, match=r"Old%20Italic\.jsonl, line 1 is damaged"):
        find_results([run])


def test_suites_are_chosen_with_or_without_version(tmp_path: Path) -> None:
    for suite in ("letters@1", "letters@2", "numbers@1"):
        write_run(tmp_path / suite, make_manifest(suite=suite), {})
    results = find_results([tmp_path])
    assert [each.manifest.suite for each in select_suite(results, "letters")] == ["letters@1", "letters@2"]
    assert [each.manifest.suite for each in select_suite(results, "letters@2")] == ["letters@2"]
    assert len(select_suite(results, None)) == 3
    with pytest.raises(UnknownNameError, match="Did you mean letters@"):
        select_suite(results, "leters@1")


def test_links_are_followed_and_each_run_is_found_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "elsewhere/10-00", make_manifest(), FULL)
    (tmp_path / "board").mkdir()
    (tmp_path / "board/mine").symlink_to(run)
    (tmp_path / "board/again").symlink_to(tmp_path / "board")
    assert [found.run for found in find_results([tmp_path / "board", run])] == [tmp_path / "board/mine"]


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "a/10-00", make_manifest(), FULL)
    (tmp_path / "b").mkdir()
    scandir = os.scandir

    def locked(path: str) -> object:
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", locked)
    with pytest.raises(RunError, match=r"Could not read .*/b: Permission denied; check its permissions"):
        find_results([tmp_path])
