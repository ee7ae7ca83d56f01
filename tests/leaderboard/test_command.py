"""The command: what it finds, prints, writes and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lite_bench.harness.errors import DataError, IncompatibleError, RunError, UnknownNameError
from lite_bench.harness.records import records_path
from lite_bench.leaderboard.command import Format, choose_format, find_results, leaderboard, select_suite
from tests.leaderboard.samples import make_manifest, write_run

FULL = {"Latin": [0.5] * 4, "Old Italic": [0.5] * 4}


def make_app() -> typer.Typer:
    app = typer.Typer()
    app.command()(leaderboard)
    return app


def test_it_prints_the_runs_of_the_default_folder(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/protonets-conv4-84/10-00", make_manifest(), FULL)
    result = CliRunner().invoke(make_app(), [])
    assert result.exit_code == 0
    assert result.stdout.startswith("## letters@1\n")


def test_output_is_written_and_stdout_stays_empty(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/10-00", make_manifest(), FULL)
    result = CliRunner().invoke(make_app(), ["runs", "--output", "out/table.json"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert json.loads((tmp_path / "out/table.json").read_text())["tables"][0]["suite"] == "letters@1"


def test_help_shows_an_example() -> None:
    assert "lite-bench leaderboard runs" in CliRunner().invoke(make_app(), ["--help"]).stdout


def test_a_run_named_twice_is_one_row(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs/a/10-00", make_manifest(), FULL)
    assert len(find_results([tmp_path / "runs", run, Path("runs/a")])) == 1


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


def test_the_form_follows_flag_then_ending() -> None:
    assert choose_format(None, False, None) is Format.markdown
    assert choose_format(None, False, Path("a.CSV")) is Format.csv
    assert choose_format(Format.markdown, False, Path("a.csv")) is Format.markdown
    assert choose_format(None, True, Path("a.csv")) is Format.json
    assert choose_format(Format.json, True, None) is Format.json
    with pytest.raises(IncompatibleError):
        choose_format(Format.csv, True, None)


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = ["torch", "pandas", "scipy", "numpy", "matplotlib"]
    code = f"import sys, lite_bench.leaderboard.command; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
