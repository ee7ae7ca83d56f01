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

from lite_bench.harness.cli.reproduce import RATE, as_drawn, as_table, three_digits
from lite_bench.harness.data import Notify
from lite_bench.harness.errors import RunError
from lite_bench.harness.registry import REPRODUCTIONS, Registry
from lite_bench.harness.reproduction import Claim, Figure, Outcome, PlannedReproduction, Row, Step, Work, verdict
from tests.harness.small import Shell, small_settings


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


SETTINGS = small_settings(backbone="conv4+gn", image_size=32)
WORK = Work("evaluation", SETTINGS, tasks=1000, way=3, support=12, query=6)
TRAINING = Work("training", SETTINGS, tasks=2000, way=3, support=12, query=6)
THERE = Step("a", SETTINGS, "there", "4 of 4 test tasks", ("runs/a",), ("runs/b would do.",), (), ())
MISSING = Step("b", SETTINGS, "missing", "", (), (), ("lite-bench train x", "lite-bench eval y"), (TRAINING, WORK))
OPEN_ROW = Row({"method": "B", "size": "224"}, (Figure("acc (%)", None, 70.0, 1.5, 1, None, 2.0),))
FULL_ROW = Row({"method": "A", "size": "84"}, (Figure("acc (%)", 61.234, 60.0, 2.5, 1, 1.5, 2.0),))
CLAIMS = (Claim("A is above B.", True, "2 and 1"), Claim("B is above C.", None, "C is not there"))
OUTCOME = Outcome((THERE, MISSING), (FULL_ROW, OPEN_ROW), CLAIMS, "By this rule.", "a week")


class PlannedToy:
    """A table of two rows, of which one is there."""

    source = "Nobody, Table 1"
    made: Outcome = OUTCOME
    paths: Sequence[Path] | None = ()

    def __init__(self, data_dir: Path | None) -> None:
        del data_dir

    def outcome(self, paths: Sequence[Path] | None) -> Outcome:
        type(self).paths = paths
        if paths == [Path("nowhere")]:
            raise RunError("There is no folder nowhere.")
        return self.made


KINDS = {"toy": Toy, "planned": PlannedToy}


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    load = Registry.load
    monkeypatch.setattr(Registry, "load", lambda self, name: KINDS.get(name) or load(self, name))
    monkeypatch.setattr(Toy, "made", ROWS)
    monkeypatch.setattr(PlannedToy, "made", OUTCOME)
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
        (Figure("x", None, 2.0, 0.5), None, True),
        (Figure("x", None, "2F"), None, True),
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


def test_what_is_missing_is_counted_apart() -> None:
    assert verdict((OPEN_ROW,)) == "0 of 1 rows are there, so there is nothing to compare yet."
    assert verdict((FULL_ROW, OPEN_ROW)) == (
        "1 of 2 rows are there; 1 of 1 rows agree with what is published: acc (%) within 2.5."
    )
    assert verdict((FULL_ROW, OPEN_ROW), CLAIMS, "By this rule.") == (
        "1 of 2 rows are there; 1 of 1 rows agree with what is published. 1 of 2 statements can be checked, 1 of them "
        "holds."
    )
    assert verdict((FULL_ROW,), CLAIMS[1:], "r").endswith("published. 0 of 1 statements can be checked.")


def test_a_row_that_nobody_published_is_not_counted() -> None:
    bare = Row({"method": "C", "size": "84"}, (Figure("acc (%)", 50.0),))
    assert verdict((FULL_ROW, bare)).startswith("1 of 1 rows agree")


def test_an_outcome_agrees_unless_something_that_is_there_does_not() -> None:
    assert OUTCOME.agrees
    assert not replace(OUTCOME, claims=(Claim("x", False, ""),)).agrees
    wrong = replace(FULL_ROW, figures=(replace(FULL_ROW.figures[0], tolerance=1.0),))
    assert not replace(OUTCOME, rows=(wrong, OPEN_ROW)).agrees


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


def test_intervals_are_shown_and_what_is_missing_is_left_empty() -> None:
    columns, cells = as_table((FULL_ROW, OPEN_ROW))
    assert columns == ["method", "size", "acc (%)", "acc (%), published", "acc (%), difference", "agrees"]
    assert cells == [
        ["A", "84", "61.234 ± 1.500", "60.0 ± 2.0", "+1.234", "yes"],
        ["B", "224", "", "70.0 ± 2.0", "", ""],
    ]


def test_on_a_terminal_a_figure_takes_one_column() -> None:
    columns, cells = as_drawn((FULL_ROW, OPEN_ROW))
    assert columns == ["method", "size", "acc (%)", "agrees"]
    assert cells == [
        ["A", "84", "61.234 ± 1.500 (60.0 ± 2.0, +1.234)", "yes"],
        ["B", "224", "(70.0 ± 2.0)", ""],
    ]
    _, cells = as_drawn(ROWS)
    assert cells[0] == ["A", "84", "1.2346", "2.0040 (2.00, +0.0040)", "1F (1F)", "yes"]


@pytest.mark.parametrize(
    ("value", "text"), [(44551.8, "44,600"), (999.6, "1,000"), (9.327, "9.33"), (0.0021234, "0.00212"), (100.4, "100")]
)
def test_costs_have_three_digits_and_no_exponent(value: float, text: str) -> None:
    assert three_digits(value) == text


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


# --- plans


def test_a_planned_reproduction_is_told_from_a_computed_one() -> None:
    assert isinstance(PlannedToy(None), PlannedReproduction)
    assert not isinstance(Toy(None), PlannedReproduction)


def test_it_prints_plan_table_statements_rule_and_verdict(shell: Shell) -> None:
    out, err = shell("reproduce", "planned")
    plan, first, second, note, left, reported, typing, *rest = out.splitlines()
    assert plan.split("\t") == ["run", "state", "done", "where", "P MACs left", "GPU hours"]
    assert first.split("\t") == ["a", "there", "4 of 4 test tasks", "runs/a", "", ""]
    cells = second.split("\t")
    assert cells[:4] == ["b", "missing", "", ""]
    assert note == "a: runs/b would do."
    assert left.startswith(f"1 of 2 runs are to be done or finished: about {cells[4]} P MACs, {cells[5]} GPU hours at")
    assert f"at {RATE:g} T MACs/s, which is an assumption (--rate)" in left
    assert reported == "Reported by the authors: a week."
    assert typing == "What to type for what is missing, in order:"
    assert rest[:3] == ["# b", "lite-bench train x", "lite-bench eval y"]
    rest = rest[3:]
    columns, table = as_table(OUTCOME.rows)
    assert [line.split("\t") for line in rest[:3]] == [columns, *table]
    assert rest[3:6] == ["statement\tholds\tours", "A is above B.\tyes\t2 and 1", "B is above C.\t\tC is not there"]
    assert rest[6:] == ["By this rule.", verdict(OUTCOME.rows, CLAIMS, "By this rule.")]
    assert "costs 2/2  b" in err
    assert PlannedToy.paths is None


def test_commands_say_what_their_placeholders_stand_for(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    step = replace(MISSING, commands=("lite-bench eval -P extractors=FILE --data-dir DATA",))
    monkeypatch.setattr(PlannedToy, "made", replace(OUTCOME, steps=(step,)))
    lines = shell("reproduce", "planned", "--no-cost")[0].splitlines()
    said = "What to type for what is missing, in order (DATA is the folder with the data, FILE is a file of weights):"
    assert lines[lines.index(said) + 2] == step.commands[0]
    monkeypatch.setattr(PlannedToy, "made", replace(OUTCOME, steps=(THERE,)))
    assert "What to type" not in shell("reproduce", "planned", "--no-cost")[0]


def test_costs_are_those_of_the_estimate_at_the_rate_that_is_given(shell: Shell) -> None:
    from lite_bench.harness.measurement.expense import Appraiser

    expense = Appraiser().expense((TRAINING, WORK))
    for arguments, rate in (((), RATE), (("--rate", "0.5"), 0.5)):
        _, step = json.loads(shell("reproduce", "planned", "--json", *arguments)[0])["plan"]
        assert (step["training_macs"], step["evaluation_macs"]) == (expense.training, expense.evaluation)
        assert step["gpu_hours"] == pytest.approx(expense.macs / (rate * 1e12) / 3600)


def test_paths_reach_the_plan(shell: Shell) -> None:
    shell("reproduce", "planned", "one", "two", "--no-cost")
    assert PlannedToy.paths == [Path("one"), Path("two")]
    assert shell.fails("reproduce", "planned", "nowhere", code=1) == "Error: There is no folder nowhere."


def test_without_costs_nothing_is_counted_and_torch_is_not_needed(shell: Shell, tmp_path: Path) -> None:
    out, _ = shell("reproduce", "planned", "--no-cost")
    assert out.splitlines()[2].split("\t")[4:6] == ["", ""]
    assert "1 of 2 runs are to be done or finished.\n" in out
    code = (
        "import sys\nfrom lite_bench.harness.registry import Registry\n"
        "from lite_bench.leaderboard.plans import OrbitTable1\nRegistry.load = lambda self, name: OrbitTable1\n"
        "from lite_bench.harness.cli.reproduce import reproduce\n"
        "reproduce('x', cost=False, rate=None, json=True)\nprint('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr.strip() == "False"
    assert len(json.loads(done.stdout)["rows"]) == 15


def test_what_cannot_be_estimated_is_said(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    works = (WORK, replace(TRAINING, settings=SETTINGS.changed(learner="finetuner", params={"pretrain_classes": 7})))
    monkeypatch.setattr(PlannedToy, "made", replace(OUTCOME, steps=(THERE, replace(MISSING, work=works))))
    out, _ = shell("reproduce", "planned")
    assert out.splitlines()[2].split("\t")[4:6] == ["unknown", "unknown"]
    assert "Not in the estimate: training of finetuner is not counted: " in out
    step = json.loads(shell("reproduce", "planned", "--json")[0])["plan"][1]
    assert (step["training_macs"], step["evaluation_macs"], step["gpu_hours"]) == (None, None, None)
    assert step["not_estimated"].startswith("training of finetuner")


@pytest.mark.parametrize(
    "change",
    [
        {"claims": (Claim("x", False, ""),)},
        {"rows": (replace(FULL_ROW, figures=(replace(FULL_ROW.figures[0], tolerance=1.0),)), OPEN_ROW)},
    ],
)
def test_a_plan_ends_with_1_only_if_what_is_there_disagrees(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    shell("reproduce", "planned", "--no-cost")
    monkeypatch.setattr(PlannedToy, "made", replace(OUTCOME, **change))
    shell("reproduce", "planned", "--no-cost", code=1)
    shell("reproduce", "planned", "--no-cost", "--json", code=1)


def test_json_of_a_plan(shell: Shell) -> None:
    content = json.loads(shell("reproduce", "planned", "--json", "--no-cost")[0])
    assert {key: content[key] for key in ("reproduction", "source", "rule", "reported_cost", "rate")} == {
        "reproduction": "planned",
        "source": PlannedToy.source,
        "rule": "By this rule.",
        "reported_cost": "a week",
        "rate": RATE * 1e12,
    }
    first, second = content["plan"]
    assert (first["run"], first["state"], first["where"], first["notes"]) == (
        "a",
        "there",
        ["runs/a"],
        list(THERE.notes),
    )
    assert second["commands"] == list(MISSING.commands)
    assert second["settings"]["learner"] == SETTINGS.learner
    assert second["gpu_hours"] is None
    full, empty = (row["figures"]["acc (%)"] for row in content["rows"])
    assert (full["half_width"], full["published_half_width"], full["agrees"]) == (1.5, 2.0, True)
    assert (empty["ours"], empty["agrees"], content["rows"][1]["agrees"]) == (None, None, None)
    assert content["claims"][1] == {"statement": "B is above C.", "holds": None, "ours": "C is not there"}


@pytest.mark.parametrize("rate", ["0", "-1", "nan"])
def test_a_rate_that_is_none_is_refused(shell: Shell, rate: str) -> None:
    line = shell.fails("reproduce", "planned", "--rate", rate)
    assert "is not usable: give the T MACs per second of your GPU" in line


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("toy", "runs"), "Reproduction toy needs no runs, so the path runs plays no part; leave it out."),
        (("toy", "--rate", "2"), "Reproduction toy needs no runs, so --rate 2 plays no part; leave it out."),
        (("list", "runs"), "`reproduce list` needs no runs, so the path runs plays no part; leave it out."),
    ],
)
def test_runs_are_refused_where_none_are_needed(shell: Shell, arguments: tuple[str, ...], text: str) -> None:
    assert shell.fails("reproduce", *arguments) == f"Error: {text}"


# --- the list


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
    line = shell.fails("reproduce", "orbit-table1-cost")
    assert "There is no reproduction 'orbit-table1-cost'. Did you mean orbit-table1-costs" in line


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
