"""Wide suites are shown in blocks that hold every column once."""

from __future__ import annotations

from pathlib import Path

import pytest

from lite_bench.leaderboard.evaluations import find_results
from lite_bench.leaderboard.layout import blocks
from lite_bench.leaderboard.tables import Table, make_tables
from tests.leaderboard.samples import make_manifest, write_run


def table_of(tmp_path: Path, sources: list[str], groups: dict[str, list[str]], metrics: tuple[str, ...] = ()) -> Table:
    manifest = make_manifest(sources=dict.fromkeys(sources, 1), groups=groups, metrics=list(metrics))
    (table,) = make_tables(find_results([write_run(tmp_path, manifest, {})]))
    return table


def test_a_narrow_suite_is_one_block(tmp_path: Path) -> None:
    table = table_of(tmp_path, ["a", "b"], {"both": ["a", "b"]})
    assert [(block.title, block.columns) for block in blocks(table)] == [("", ("a", "b", "both"))]


def test_the_mean_of_one_source_is_not_shown_again(tmp_path: Path) -> None:
    table = table_of(tmp_path, ["a"], {"all": ["a"]})
    assert [block.columns for block in blocks(table)] == [("a",)]


def test_a_wide_suite_shows_means_first_and_sources_with_their_smallest_group(tmp_path: Path) -> None:
    letters = list("abcdefghij")
    groups = {"all": letters[:9], "vowels": ["a", "e", "i"]}
    found = blocks(table_of(tmp_path, letters, groups))
    assert [(block.title, "".join(block.columns)) for block in found] == [
        ("Means", "allvowels"),
        ("all", "bcdfgh"),
        ("vowels", "aei"),
        ("Sources", "j"),
    ]


@pytest.mark.parametrize("n", [1, 8, 9, 20])
def test_every_column_is_shown_once(tmp_path: Path, n: int) -> None:
    sources = [f"s{number}" for number in range(n)]
    table = table_of(tmp_path, sources, {"some": sources[: n // 2]}, ("frame accuracy", "video accuracy"))
    shown = [column for block in blocks(table) for column in block.columns]
    assert sorted(shown) == sorted(table.columns)
    assert all(len(block.columns) <= 10 for block in blocks(table))
