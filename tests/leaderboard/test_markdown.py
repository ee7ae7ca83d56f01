"""Markdown: what is bold, marked or noted, and names that would break the table."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from lite_bench.harness.records import append_record, read_results, records_path
from lite_bench.leaderboard.markdown import escape, markdown
from lite_bench.leaderboard.tables import make_tables
from tests.leaderboard.samples import make_manifest, make_record, write_run


def grids(text: str) -> list[list[str]]:
    """The pipe tables of a Markdown text, each as its lines."""
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [grid for grid in found if grid]


def test_a_single_row_is_not_bold_and_one_task_has_no_interval(tmp_path: Path) -> None:
    manifest = make_manifest(sources={"Latin": 1}, groups={})
    text = markdown(make_tables(read_results(write_run(tmp_path, manifest, {"Latin": [0.75]}))))
    assert "| 75.0 |" in text.replace("  ", " ")


def test_names_cannot_break_the_table_or_become_markup(tmp_path: Path) -> None:
    name = "a|b*c\nd <img src=x> [x](javascript:y) `z`"
    run = write_run(tmp_path, make_manifest(label=name), {"Latin": [0.5] * 4, "Old Italic": [0.5] * 4})
    text = markdown(make_tables(read_results(run)))
    for grid in grids(text):
        assert len({line.replace("\\|", "").count("|") for line in grid}) == 1
        assert len({len(line) for line in grid}) == 1
    assert "a\\|b\\*c d &lt;img src=x&gt; \\[x\\](javascript:y) \\`z\\`" in text
    assert "<img" not in text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("5-way", "5-way"),
        ("a_b", "a\\_b"),
        ("a & <b>", "a & &lt;b&gt;"),
        (" a\t b ", "a b"),
        ("\x1b", "\\[U+001B\\]"),
        ("~~a~~ $b$ &lt;", "\\~\\~a\\~\\~ \\$b\\$ &amp;lt;"),
    ],
)
def test_text_is_escaped(name: str, text: str) -> None:
    assert escape(name) == text


def test_a_command_stays_one_line_of_code_as_it_is(tmp_path: Path) -> None:
    run = write_run(tmp_path, make_manifest(), {"Latin": [0.5] * 4})
    text = markdown(make_tables(read_results(run), command="lite-bench leaderboard 'a `b`\n# c'"))
    assert "- Again: `` lite-bench leaderboard 'a `b` # c' ``\n" in text


def test_failed_tasks_are_counted_and_have_no_mean(tmp_path: Path) -> None:
    manifest = make_manifest(sources={"Latin": 2}, groups={})
    run = write_run(tmp_path, manifest, {"Latin": [0.5]})
    sound = make_record(manifest, "Latin", 1, 0.5)
    record = dataclasses.replace(sound, accuracy=None, failed="The loss is not finite.")
    append_record(records_path(run, manifest.suite, "Latin"), record)
    text = markdown(make_tables(read_results(run)))
    assert "1 of 2 tasks failed (see their records); a mean over the others would flatter." in text
    assert "2 records, of which 1 failed" in text
    assert "50.0" not in text
