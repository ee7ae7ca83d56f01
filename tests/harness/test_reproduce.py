"""``lite-bench reproduce``: what is compared, what is printed, and how the command ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lite_bench.harness.cli.reproduce import as_table
from lite_bench.harness.data import Notify
from lite_bench.harness.registry import REPRODUCTIONS, Registry
from lite_bench.harness.reproduction import Figure, Row, verdict
from tests.harness.small import Shell


def row(method: str, size: str, clean: float, macs: tuple[float, float], steps: str) -> Row:
    figures = Figure("clean", clean), Figure("MACs", *macs, 0.005), Figure("steps", steps, steps)
    return Row({"method": method, "size": size}, figures)


ROWS = (row("A", "84", 1.23456, (2.004, 2.0), "1F"), row("B", "224", 7.0, (2.4961, 2.5), "2FB"))


def changed(number: int, place: int, **changes: Any) -> tuple[Row, ...]:
    rows = list(ROWS)
    figures = list(rows[number].figures)
    figures[place] = replace(figures[place], **changes)
    rows[number] = replace(rows[number], figures=tuple(figures))
    return tuple(rows)


class Toy:
    """A table of two rows."""

    source = "Nobody, Table 0"
    made: Sequence[Row] = ROWS
    data: Path | None = None

    def __init__(self, data_dir: Path | None) -> None:
        type(self).data = data_dir

    def rows(self, notify: Notify) -> Sequence[Row]:
        notify("rows", 2, 2, "B")
        return self.made


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    load = Registry.load
    monkeypatch.setattr(Registry, "load", lambda self, name: Toy if name == "toy" else load(self, name))
    monkeypatch.setattr(Toy, "made", ROWS)
    return Shell(monkeypatch, capsys)


# --- figures


@pytest.mark.parametrize(
    ("figure", "difference", "agrees"),
    [
        (Figure("x", 2.5, 2.0, 0.5), 0.5, True),
        (Figure("x", 1.5, 2.0, 0.5), -0.5, True),
        (Figure("x", 1.25, 2.0, 0.5), -0.75, False),
        (Figure("x", float("nan"), 2.0, 0.5), None, False),
        (Figure("x", 1.25), None, True),
        (Figure("x", "1F", "1F"), None, True),
        (Figure("x", "1F", "2F"), None, False),
        (Figure("x", "", "2F"), None, False),
    ],
)
def test_a_figure_agrees_within_its_tolerance_or_to_the_letter(
    figure: Figure, difference: float | None, agrees: bool
) -> None:
    if figure.ours == figure.ours:
        assert figure.difference == difference
    assert figure.agrees is agrees


def test_a_row_agrees_if_all_of_it_does() -> None:
    assert [each.agrees for each in ROWS] == [True, True]
    assert [each.agrees for each in changed(1, 2, ours="3FB")] == [True, False]


def test_the_verdict_names_what_does_not_agree() -> None:
    assert verdict(ROWS) == "2 of 2 rows agree with what is published: MACs within 0.005, steps exactly."
    assert verdict(changed(1, 1, ours=2.6)) == (
        "1 of 2 rows agree with what is published: MACs within 0.005, steps exactly. Not so: B 224 (MACs 2.6000, not "
        "2.50)."
    )
    assert "MACs within 0.005 (0.5 in 1 row)," in verdict(changed(1, 1, tolerance=0.5))


# --- the table


def test_a_published_figure_and_the_difference_follow_ours() -> None:
    columns, cells = as_table(ROWS)
    assert columns == [
        *("method", "size", "clean", "MACs", "MACs, published", "MACs, difference"),
        *("steps", "steps, published", "agrees"),
    ]
    assert cells == [
        ["A", "84", "1.2346", "2.0040", "2.00", "+0.0040", "1F", "1F", "yes"],
        ["B", "224", "7.0000", "2.4961", "2.50", "-0.0039", "2FB", "2FB", "yes"],
    ]


def test_columns_stay_in_line_where_a_figure_is_not_published() -> None:
    columns, cells = as_table(changed(0, 1, published=None))
    assert [len(line) for line in cells] == [len(columns)] * 2
    assert cells[0][3:6] == ["2.0040", "", ""]
    assert cells[1][3:6] == ["2.4961", "2.50", "-0.0039"]
    _, cells = as_table(changed(0, 2, ours=""))
    assert cells[0][6:] == ["", "1F", "no"]


# --- the command


def test_it_prints_the_table_and_the_verdict(shell: Shell) -> None:
    out, err = shell("reproduce", "toy")
    lines = out.splitlines()
    columns, cells = as_table(ROWS)
    assert [line.split("\t") for line in lines[:-1]] == [columns, *cells]
    assert lines[-1] == verdict(ROWS)
    assert "rows 2/2  B" in err
    assert Toy.data is None


def test_it_hands_on_where_the_data_is(shell: Shell) -> None:
    shell("reproduce", "toy", "--data-dir", "here")
    assert Toy.data == Path("here")


def test_it_ends_with_1_if_a_row_does_not_agree(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "made", changed(0, 2, ours="9F"))
    out, _ = shell("reproduce", "toy", code=1)
    assert out.splitlines()[-1].endswith("Not so: A 84 (steps 9F, not 1F).")
    assert out.splitlines()[1].endswith("\tno")
    content = json.loads(shell("reproduce", "toy", "--json", code=1)[0])
    assert [row["agrees"] for row in content["rows"]] == [False, True]


def test_json_holds_full_precision(shell: Shell) -> None:
    content = json.loads(shell("reproduce", "toy", "--json")[0])
    assert (content["reproduction"], content["source"], content["verdict"]) == ("toy", Toy.source, verdict(ROWS))
    first = content["rows"][0]
    assert (first["method"], first["size"], first["agrees"]) == ("A", "84", True)
    assert first["figures"]["clean"]["ours"] == 1.23456
    assert first["figures"]["MACs"] == {
        "ours": 2.004,
        "published": 2.0,
        "difference": 2.004 - 2.0,
        "tolerance": 0.005,
        "agrees": True,
    }


def test_list_shows_what_there_is_in_a_line_each(shell: Shell) -> None:
    header, *lines = shell("reproduce", "list")[0].splitlines()
    assert header == "name\tdescription"
    assert [line.split("\t")[0] for line in lines] == REPRODUCTIONS.names()
    assert "orbit-table1-costs" in REPRODUCTIONS.names()
    assert all(len(line.split("\t")[1]) > 20 for line in lines)
    listed = json.loads(shell("reproduce", "list", "--json")[0])
    assert [row["name"] for row in listed] == REPRODUCTIONS.names()


def test_listing_needs_no_torch() -> None:
    code = (
        "import sys; from lite_bench.harness.cli.reproduce import reproduce\n"
        "reproduce('list', json=True)\nprint('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False"


def test_an_unknown_name_is_refused_with_the_nearest(shell: Shell) -> None:
    line = shell.fails("reproduce", "orbit-table1")
    assert "There is no reproduction 'orbit-table1'. Did you mean orbit-table1-costs?" in line


def test_data_for_what_needs_none_is_refused(shell: Shell) -> None:
    assert "--data-dir x plays no part" in shell.fails("reproduce", "orbit-table1-costs", "--data-dir", "x")


@pytest.mark.slow  # half a minute of building networks
def test_the_costs_of_table_1_as_a_user_gets_them() -> None:
    command = [
        sys.executable,
        "-c",
        "from lite_bench.harness.cli import main; main()",
        "reproduce",
        "orbit-table1-costs",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].startswith("15 of 15 rows agree with what is published")
