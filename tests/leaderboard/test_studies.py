"""Figure 4, from studies of gradients."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lite_bench.datasets.vtab_md.protocol import protocol
from lite_bench.harness.errors import DataError
from lite_bench.harness.reproduction import verdict
from lite_bench.leaderboard.plans import content
from lite_bench.leaderboard.studies import GradientsFigure4


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where there are neither runs nor recipes, as users do."""
    monkeypatch.chdir(tmp_path)


def write_study(folder: Path, errors: dict[str, dict[int, float]], **changes: Any) -> Path:
    findings = [
        {
            "case": {"estimator": name, "h": h, "precision": "fp32"},
            "parts": {"all": {"rmse": error}, "film": {"rmse": 9}},
        }
        for name, own in errors.items()
        for h, error in own.items()
    ]
    findings.append({"case": {"estimator": "exact", "h": None, "precision": "fp32"}, "parts": {"all": {"rmse": 0.0}}})
    report = {"learner": "protonets", "suite": "omniglot@1", "image_size": 84, "way": 10, "n_support": 100}
    folder.mkdir(parents=True)
    text = json.dumps({**report, "findings": findings, **changes})
    (folder / "gradients.json").write_text(text, encoding="utf-8")
    return folder


def test_a_study_agrees_where_lite_is_below_up_to_half_of_the_support_set(tmp_path: Path) -> None:
    folder = write_study(
        tmp_path / "a", {"lite": {1: 9, 10: 3.9, 50: 2.2, 80: 1.1}, "subsample": {10: 12.1, 50: 3.4, 80: 1.0}}
    )
    outcome = GradientsFigure4().outcome([tmp_path])
    (step,) = outcome.steps
    assert (step.state, step.done, step.where, step.work) == ("there", "1 study", (str(folder),), ())
    assert [(row.labels["H"], row.figures[2].ours, row.figures[2].published) for row in outcome.rows] == [
        ("10", "yes", "yes"),
        ("50", "yes", "yes"),
        ("80", "no", None),
    ]
    assert [figure.ours for figure in outcome.rows[0].figures[:2]] == [3.9, 12.1]
    assert outcome.agrees
    assert verdict(outcome.rows, (), outcome.rule) == "2 of 2 rows are there; 2 of 2 rows agree with what is published."


def test_a_study_in_which_lite_is_not_below_disagrees(tmp_path: Path) -> None:
    write_study(tmp_path / "a", {"lite": {10: 3.0, 40: 2.4}, "subsample": {10: 4.0, 40: 2.3}})
    outcome = GradientsFigure4().outcome([tmp_path])
    assert [row.agrees for row in outcome.rows] == [True, False]
    assert not outcome.agrees


def test_studies_are_looked_for_where_they_are_written() -> None:
    write_study(Path("gradients") / "x", {"lite": {10: 3.0}, "subsample": {10: 4.0}})
    assert GradientsFigure4().outcome(None).steps[0].where == ("gradients/x",)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image_size": 28}, "image_size: 28, not 84"),
        ({"way": 5, "n_support": 25}, "way: 5, not 10 and n_support: 25, not 100"),
        ({"synthetic": True}, "it is of stand-in data"),
        ({"findings": []}, "it does not compare lite and subsample at the same H"),
    ],
)
def test_other_studies_are_named_with_what_differs(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    write_study(tmp_path / "a", {"lite": {10: 3.0}, "subsample": {10: 4.0}}, **changes)
    (step,) = GradientsFigure4().outcome([tmp_path]).steps
    assert step.state == "missing"
    assert step.notes == (f"{tmp_path / 'a' / 'gradients.json'} does not count: {reason}.",)


def test_draws_in_other_precisions_and_single_parts_are_told_apart(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "a", {"lite": {10: 3.0}, "subsample": {10: 4.0}})
    report = json.loads((folder / "gradients.json").read_text(encoding="utf-8"))
    report["findings"].append(
        {"case": {"estimator": "lite", "h": 10, "precision": "bf16"}, "parts": {"all": {"rmse": 99}}}
    )
    report["findings"][0]["parts"] = {"backbone": {"rmse": 2.5}}  # the only part is the whole gradient
    (folder / "gradients.json").write_text(json.dumps(report), encoding="utf-8")
    assert GradientsFigure4().outcome([tmp_path]).rows[0].figures[0].ours == 2.5


def test_the_study_leaves_out_the_source_whose_classes_are_too_small_for_its_tasks() -> None:
    """Fungi has classes of 6 images, and a source that cannot give a task of 10 shots is an error."""
    options = GradientsFigure4().outcome(None).steps[0].settings.suite_options
    assert set(options["train_sources"].split(",")) == set(protocol()["versions"]["lite"]["train"]) - {"fungi"}


def test_work_of_a_study_is_every_draw_and_the_exact_gradient_twice() -> None:
    (step,) = GradientsFigure4().outcome(None).steps
    draws = content()["studies"]["gradients-figure4"]["draws"]
    assert [(work.settings.gradient, work.settings.lite_h, work.tasks) for work in step.work] == [
        ("exact", 0, 2),
        *((name, h, draws) for name in ("lite", "subsample") for h in (10, 20, 40, 80)),
    ]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"findings": [{}]}'])
def test_a_damaged_report_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gradients.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(f"{path} is no report of `lite-bench gradients`")):
        GradientsFigure4().outcome([tmp_path])
