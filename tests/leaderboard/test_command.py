"""The command: what it finds, prints, writes and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lite_bench.harness.errors import IncompatibleError
from lite_bench.harness.records import records_path
from lite_bench.leaderboard.command import Format, choose_format, leaderboard
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


def test_the_form_follows_flag_then_ending() -> None:
    assert choose_format(None, False, None) is Format.markdown
    assert choose_format(None, False, Path("a.CSV")) is Format.csv
    assert choose_format(None, False, Path("a.html")) is Format.html
    assert choose_format(None, False, Path("a.tex")) is Format.latex
    assert choose_format(None, False, Path("a.md")) is Format.markdown
    assert choose_format(Format.markdown, False, Path("a.csv")) is Format.markdown
    assert choose_format(None, True, Path("a.csv")) is Format.json
    assert choose_format(Format.json, True, None) is Format.json
    with pytest.raises(IncompatibleError):
        choose_format(Format.csv, True, None)


def test_a_terminal_is_drawn_on_and_a_pipe_gets_markdown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_format(None, False, None) is Format.markdown
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert choose_format(None, False, None) is Format.terminal


@pytest.mark.parametrize("form", sorted(set(Format)))
def test_every_form_is_written_and_holds_the_command_that_makes_it_again(tmp_path: Path, form: Format) -> None:
    write_run(tmp_path / "runs/my run", make_manifest(), FULL)
    output = tmp_path / "out"
    arguments = ["runs/my run", "--suite", "letters", "--format", form, "--interval", "student"]
    result = CliRunner().invoke(make_app(), [*arguments, "--output", str(output)])
    assert (result.exit_code, result.stdout) == (0, "")
    written = output.read_text().replace("&#x27;", "'").replace("\\textquotesingle{}", "'").replace("-{}-", "--")
    text = " ".join(written.split())
    command = f"lite-bench leaderboard 'runs/my run' --suite letters --interval student --format {form}"
    assert "letters@1" in text
    assert command in text


def test_the_command_gives_the_same_bytes_again(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/a", make_manifest(), FULL)
    first, second = (CliRunner().invoke(make_app(), ["runs", "--format", "json"]).stdout for _ in range(2))
    again = json.loads(first)["tables"][0]["provenance"]["command"]
    assert first == second == CliRunner().invoke(make_app(), again.split()[2:]).stdout


def test_an_unfinished_line_is_told_on_stderr_and_in_the_table(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs/a", make_manifest(), FULL)
    path = records_path(run, "letters@1", "Latin")
    path.write_text(path.read_text()[:-9])
    result = CliRunner().invoke(make_app(), [])
    assert "Latin.jsonl: the last line is cut short" in result.stderr
    assert "The last line of Latin.jsonl is cut short" in result.stdout
    assert "1 of 4 tasks are missing" in result.stdout


def test_two_rows_are_compared(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/a", make_manifest(), FULL)
    write_run(tmp_path / "runs/b", make_manifest(learner="other"), {**FULL, "Latin": [0.75, 0.5, 0.5, 0.75]})
    result = CliRunner().invoke(make_app(), ["--compare", "other", "protonets", "--json"])
    (pair,) = json.loads(result.stdout)["comparisons"]
    again = pair["provenance"]["command"]
    assert again == "lite-bench leaderboard runs --compare other protonets --format json"
    assert CliRunner().invoke(make_app(), again.split()[2:]).stdout == result.stdout
    assert (pair["ours"], pair["theirs"]) == ("other", "protonets")
    assert pair["columns"]["Latin"]["difference"] == pytest.approx(0.125)
    with pytest.raises(IncompatibleError, match="no form html; give --format terminal, markdown, csv, json, latex"):
        CliRunner().invoke(make_app(), ["--compare", "other", "protonets", "--format", "html"], catch_exceptions=False)


def test_pictures_are_written_beside_the_table(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/a", make_manifest(), FULL)
    result = CliRunner().invoke(make_app(), ["--plots", "pictures"])
    assert result.stdout.startswith("## letters@1")
    assert {path.suffix for path in (tmp_path / "pictures").rglob("*.*")} == {".svg", ".png"}
    assert "Wrote pictures" in result.stderr


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = ["torch", "pandas", "scipy", "numpy", "matplotlib"]
    code = f"import sys, lite_bench.leaderboard.command; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_path_that_is_not_utf_8_is_written(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/odd\udcff", make_manifest(), FULL)
    for form in ("json", "csv", "markdown", "latex", "terminal"):
        result = CliRunner().invoke(make_app(), ["runs", "--format", form, "--output", "out"], catch_exceptions=False)
        assert result.exit_code == 0
    CliRunner().invoke(make_app(), ["runs", "--format", "json", "--output", "out"])
    (table,) = json.loads((tmp_path / "out").read_text())["tables"]
    assert table["rows"][0]["runs"] == ["runs/odd\udcff"]
