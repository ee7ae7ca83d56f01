"""CSV and JSON against the numbers they came from."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from lite_bench.harness.records import read_results
from lite_bench.leaderboard.data_formats import csv_text, json_text
from lite_bench.leaderboard.intervals import Kind
from lite_bench.leaderboard.tables import make_tables
from tests.leaderboard.samples import make_manifest, write_run


def test_json_has_full_precision_and_null_for_missing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_manifest(), {"Latin": [0.5, 0.6, 0.5, 0.6]})
    content = json.loads(json_text(make_tables(read_results(run))))
    (table,) = content["tables"]
    assert (content["schema"], table["suite"], table["sources"]) == (1, "letters@1", ["Latin", "Old Italic"])
    assert table["groups"] == {"all": ["Latin", "Old Italic"]}
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


def test_the_kind_of_an_interval_is_named_with_its_ends(tmp_path: Path) -> None:
    """Student's t of four values, 3.1824 of 3 degrees of freedom, with the standard deviation of a sample."""
    run = write_run(tmp_path, make_manifest(sources={"Latin": 4}, groups={}), {"Latin": [0.5, 0.6, 0.5, 0.6]})
    tables = make_tables(read_results(run), interval=Kind.student)
    (line,) = csv.DictReader(io.StringIO(csv_text(tables)))
    width = 3.182446305284263 * (0.01 / 3) ** 0.5 / 2
    assert line["interval_kind"] == "student"
    assert float(line["high"]) == pytest.approx(0.55 + width, abs=1e-12)
    assert float(line["half_width"]) == pytest.approx(1.96 * 0.05 / 2, abs=1e-15)


def test_nothing_to_write_is_an_empty_table() -> None:
    assert csv_text([]) == "\n"
    assert json.loads(json_text([]))["tables"] == []
