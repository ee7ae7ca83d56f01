"""Exact tables: Markdown against a golden file, CSV and JSON against the numbers they came from."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest

from lite_bench.harness.records import read_results
from lite_bench.leaderboard.command import find_results
from lite_bench.leaderboard.render import csv_text, json_text, markdown
from lite_bench.leaderboard.tables import make_tables
from tests.leaderboard.samples import make_manifest, write_run

GOLDEN = Path(__file__).parent / "golden"
REWRITE = "REWRITE_GOLDEN"


def test_golden(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of ``letters@1``, from the records in ``golden/evaluations`` (4 tasks per source).

    simple     Latin 0.9 0.8 0.9 0.8: mean 0.85, s 0.05, half width 1.96 * 0.05 / 2 = 0.049.
               Old Italic 0.7 0.6 0.7 0.6: 0.65 +- 0.049. All: 0.75 +- sqrt(2) * 0.049 / 2 = 0.0346.
    protonets  Latin 0.9 0.8 0.8 0.8: mean 0.825, s sqrt((3 * 0.025^2 + 0.075^2) / 4) = 0.0433, half
               width 0.0424; 0.85 - 0.825 = 0.025 < sqrt(0.049^2 + 0.0424^2) = 0.065: tied, both rank 1.5.
               Old Italic 0.5 four times: 0.5 +- 0; 0.65 - 0.5 > 0.049: rank 2. Average (1.5 + 2) / 2 = 1.75.
               All: 0.6625 +- 0.0424 / 2 = 0.0212.
    killed     Latin 0.4 four times: rank 3. Old Italic: 1 of 4 tasks, so no score, no mean and no rank.
    """
    monkeypatch.chdir(GOLDEN)
    text = markdown(make_tables(find_results([Path("evaluations")])))
    path = GOLDEN / "leaderboard.md"
    if os.environ.get(REWRITE):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"if this is meant, rewrite it with {REWRITE}=1"


def test_json_has_full_precision_and_null_for_missing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_manifest(), {"Latin": [0.5, 0.6, 0.5, 0.6]})
    (table,) = json.loads(json_text(make_tables(read_results(run))))["tables"]
    assert (table["suite"], table["sources"], table["groups"]) == (
        "letters@1",
        ["Latin", "Old Italic"],
        ["all"],
    )
    latin, italic, everything = table["rows"][0]["scores"]
    assert latin["mean"] == pytest.approx(0.55, abs=1e-15)
    assert latin["half_width"] == pytest.approx(1.96 * 0.05 / 2, abs=1e-15)
    assert (italic["mean"], italic["done"], italic["expected"]) == (None, 0, 4)
    assert (everything["kind"], everything["mean"]) == ("group", None)


def test_csv_holds_every_suite_with_one_line_per_score(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", make_manifest(), {"Latin": [0.5] * 4, "Old Italic": [0.25] * 4})
    other = make_manifest(suite="numbers@1", sources={"even, odd": 1}, groups={}, data="other")
    two = write_run(tmp_path / "b", other, {"even, odd": [0.75]})
    text = csv_text(make_tables([*read_results(one), *read_results(two)]))
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [(line["suite"], line["column"], line["mean"]) for line in lines] == [
        ("letters@1", "Latin", "0.5"),
        ("letters@1", "Old Italic", "0.25"),
        ("letters@1", "all", "0.375"),
        ("numbers@1", "even, odd", "0.75"),
    ]
    assert lines[3]["half_width"] == ""


def test_a_single_row_is_not_bold_and_one_task_has_no_interval(tmp_path: Path) -> None:
    manifest = make_manifest(sources={"Latin": 1}, groups={})
    text = markdown(make_tables(read_results(write_run(tmp_path, manifest, {"Latin": [0.75]}))))
    assert "| 75.0 |" in text.replace("  ", " ")


def test_names_cannot_break_the_table(tmp_path: Path) -> None:
    manifest = make_manifest(label="a|b*c\nd")
    run = write_run(tmp_path, manifest, {"Latin": [0.5] * 4, "Old Italic": [0.5] * 4})
    grid = [line for line in markdown(make_tables(read_results(run))).splitlines() if line.startswith("|")]
    assert "a\\|b\\*c d" in grid[2]
    assert len({line.replace("\\|", "").count("|") for line in grid}) == 1
