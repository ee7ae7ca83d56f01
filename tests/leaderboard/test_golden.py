"""Exact tables in every form for people, of the records in ``golden/evaluations``; the page has tests of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lite_bench.leaderboard.data_formats import csv_text, json_text
from lite_bench.leaderboard.evaluations import find_results
from lite_bench.leaderboard.latex import latex
from lite_bench.leaderboard.markdown import markdown
from lite_bench.leaderboard.published import PublishedFigure, PublishedRow, Source
from lite_bench.leaderboard.tables import Table, make_tables
from lite_bench.leaderboard.terminal import terminal_text

GOLDEN = Path(__file__).parent / "golden"
REWRITE = "REWRITE_GOLDEN"
SOURCE = Source("Someone 2020, Letters", "Table 3", "primary")
PUBLISHED = PublishedRow(
    system="Theirs",
    learner="",
    backbone="Conv-4",
    image_size=84,
    gradient="lite",
    h="8",
    pretraining="",
    figures={
        "Latin": PublishedFigure(0.875, 0.0125, SOURCE, "Printed with another value in the text."),
        "all": PublishedFigure(0.8, None, SOURCE),
    },
    macs=1.5e9,
    passes="1F",
    interval="half width of a 95 % interval over 1,000 tasks",
    differences=("It was tested on tasks of its own.",),
)


@pytest.mark.parametrize(
    ("ending", "render"),
    [("md", markdown), ("tex", latex), ("txt", terminal_text), ("csv", csv_text), ("json", json_text)],
)
def test_golden(monkeypatch: pytest.MonkeyPatch, ending: str, render: Callable[[Sequence[Table]], str]) -> None:
    """The numbers of ``letters@1``, from the records in ``golden/evaluations`` (4 tasks per source).

    simple     Latin 0.9 0.8 0.9 0.8: mean 0.85, s 0.05, half width 1.96 * 0.05 / 2 = 0.049.
               Old Italic 0.7 0.6 0.7 0.6: 0.65 +- 0.049. All: 0.75 +- sqrt(2) * 0.049 / 2 = 0.0346.
    protonets  Latin 0.9 0.8 0.8 0.8: mean 0.825, s sqrt((3 * 0.025^2 + 0.075^2) / 4) = 0.0433, half
               width 0.0424; 0.85 - 0.825 = 0.025 < sqrt(0.049^2 + 0.0424^2) = 0.065: both rank 1.5. On the same tasks
               it is 0, 0, 0.1, 0 lower: t = 1, p = 0.391, so it is marked as tied with the best.
               Old Italic 0.5 four times: 0.5 +- 0; 0.65 - 0.5 > 0.049: rank 2. Average (1.5 + 2) / 2 = 1.75. It is
               0.2, 0.1, 0.2, 0.1 lower: t = 5.196, p = 0.0138, not tied.
               All: 0.6625 +- 0.0424 / 2 = 0.0212; lower by 0.0875 with the error
               sqrt(0.025^2 + 0.02887^2) / 2 = 0.0191: t = 4.583 of 5.88 degrees of freedom, p = 0.0040.
    killed     Latin 0.4 four times: rank 3. Old Italic: 1 of 4 tasks, so no score, no mean and no rank; the last line
               of its file is cut short.
    """
    monkeypatch.chdir(GOLDEN)
    monkeypatch.setattr("lite_bench.leaderboard.tables.published_rows", lambda suite: [PUBLISHED])
    results = find_results([Path("evaluations")])
    text = render(make_tables(results, published=True, command="lite-bench leaderboard evaluations --published"))
    path = GOLDEN / f"leaderboard.{ending}"
    if os.environ.get(REWRITE):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"if this is meant, rewrite it with {REWRITE}=1"
