"""Tables drawn for a terminal keep every name and number, whatever the width."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from lite_bench.harness.core import GroupScore
from lite_bench.harness.records import append_record, read_results, records_path, results_folder, write_manifest
from lite_bench.leaderboard import terminal
from lite_bench.leaderboard.tables import make_tables
from tests.leaderboard.pictured import make_published
from tests.leaderboard.samples import make_manifest, make_record, write_run

LABEL = "[red]not markup[/red] \x1b[31m"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_nothing_is_cut_off_at_any_width(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    run = write_run(tmp_path, make_manifest(label=LABEL), {"Latin": [0.5] * 4, "Old Italic": [0.25, 0.5, 0.25, 0.5]})
    stream = io.StringIO()
    monkeypatch.setattr(terminal, "Console", lambda **_: Console(file=stream, width=width, highlight=False))
    terminal.print_tables(make_tables(read_results(run)))
    text = "".join(stream.getvalue().split())
    assert "…" not in text
    assert all(piece in text for piece in ("37.5", "50.0", "letters@1"))
    assert "[red]" in text
    assert "\x1b[31m" not in stream.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 160])
def test_a_grid_that_is_too_wide_comes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    sources = {f"source_{number}": 4 for number in range(8)}
    manifest = make_manifest(sources=sources, groups={}, label="a learner with a long name")
    run = write_run(tmp_path, manifest, {name: [0.01 * n, 0.5] * 2 for n, name in enumerate(sources)})
    stream = io.StringIO()
    monkeypatch.setattr(terminal, "Console", lambda **_: Console(file=stream, width=width, highlight=False))
    terminal.print_tables(make_tables(read_results(run)))
    lines = stream.getvalue().splitlines()
    assert all(any(name in line for line in lines) for name in sources)
    assert all(any(f"{25 + n / 2:.1f} ± " in line for line in lines) for n in range(8))
    assert max(map(len, lines)) <= width


def test_published_rows_are_named_as_such_without_styles(tmp_path: Path) -> None:
    tables = make_tables(read_results(write_run(tmp_path, make_manifest(), {"Latin": [0.5] * 4})))
    published = make_published("Theirs", {"Latin": 0.5})
    text = terminal.terminal_text([dataclasses.replace(each, published=(published,)) for each in tables])
    first, _, after = text.partition("Published:")
    assert "Theirs" not in first
    assert "Theirs" in after


def test_of_grouped_queries_the_caption_says_which_score_is_ranked(tmp_path: Path) -> None:
    manifest = make_manifest(metrics=["frame accuracy", "video accuracy"], sources={"clean": 2}, groups={})
    write_manifest(results_folder(tmp_path, manifest.suite), manifest)
    for index in range(2):
        record = make_record(manifest, "clean", index, 0.5, groups=(GroupScore("v", 2, 0.5, 1.0, 0.0),), cluster="u")
        append_record(records_path(tmp_path, manifest.suite, "clean"), record)
    text = " ".join(terminal.terminal_text(make_tables(read_results(tmp_path))).split())
    assert "A source's own column is its frame accuracy; only that is ranked" in text


def test_plain_text_has_no_colours_and_no_trailing_spaces(tmp_path: Path) -> None:
    run = write_run(tmp_path, make_manifest(), {"Latin": [0.5] * 4, "Old Italic": [0.25] * 4})
    text = terminal.terminal_text(make_tables(read_results(run)))
    assert "\x1b" not in text
    assert all(line == line.rstrip() for line in text.splitlines())
