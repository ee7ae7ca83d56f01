"""Words of tables: what a column alone is called, and how published figures are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from lite_bench.leaderboard.evaluations import find_results
from lite_bench.leaderboard.published import PublishedFigure, PublishedRow, Source
from lite_bench.leaderboard.tables import make_tables
from lite_bench.leaderboard.text import caption, column_title, published_notes, published_text, signed_percent
from tests.leaderboard.samples import make_manifest, write_run

SOURCE = Source("Someone 2020", "Table 3", "primary")


@pytest.mark.parametrize(
    ("value", "width", "text"),
    [
        (0.827, None, "82.7"),
        (0.695, 0.022, "69.5 ± 2.2"),
        (0.9887, 0.0002, "98.87 ± 0.02"),
        (0.995, 0.0015, "99.50 ± 0.15"),
        (0.999, 0.001, "99.9 ± 0.1"),
    ],
)
def test_published_figures_are_written_as_precisely_as_they_were_printed(
    value: float, width: float | None, text: str
) -> None:
    assert published_text(PublishedFigure(value, width, SOURCE)) == text
    assert published_text(None) == "–"


def test_a_note_says_whose_figure_it_is() -> None:
    other = Source("Somebody's repository", "README", "reproduction")
    figures = {"a": PublishedFigure(0.5, 0.1, SOURCE), "b": PublishedFigure(0.5, None, other)}
    row = PublishedRow("X", "", "", None, "", "", "", figures, interval="95 %", differences=("It differs.",))
    assert published_notes(row) == [
        "Published: Someone 2020, Table 3.",
        "Reproduced by others: Somebody's repository, README.",
        "± as published: 95 %.",
        "It differs.",
    ]


def test_a_source_of_several_figures_is_named_with_its_own_where_it_stands_alone(tmp_path: Path) -> None:
    metrics = ["frame accuracy", "video accuracy"]
    write_run(tmp_path / "a", make_manifest(metrics=metrics), {})
    write_run(tmp_path / "b", make_manifest(suite="numbers@1"), {})
    videos, plain = make_tables(find_results([tmp_path]))
    assert column_title(videos, "Latin") == "Latin: frame accuracy"
    assert column_title(videos, "Latin: video accuracy") == "Latin: video accuracy"
    assert column_title(plain, "Latin") == "Latin"
    assert "A source's own column is its frame accuracy; only that is ranked." in caption(videos)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123, "+1.23"), (-0.4, "−40.00"), (-0.0003, "−0.03"), (-0.00001, "0.00"), (0.0, "0.00")]
)
def test_differences_have_a_sign_unless_they_are_nothing(value: float, text: str) -> None:
    assert signed_percent(value) == text
