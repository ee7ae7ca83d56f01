"""Tables drawn for a terminal keep every name and number, whatever the width."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from lite_bench.harness.records import read_results
from lite_bench.leaderboard import terminal
from lite_bench.leaderboard.tables import make_tables
from tests.leaderboard.samples import make_manifest, write_run

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


def test_plain_text_has_no_colours_and_no_trailing_spaces(tmp_path: Path) -> None:
    run = write_run(tmp_path, make_manifest(), {"Latin": [0.5] * 4, "Old Italic": [0.25] * 4})
    text = terminal.terminal_text(make_tables(read_results(run)))
    assert "\x1b" not in text
    assert all(line == line.rstrip() for line in text.splitlines())
