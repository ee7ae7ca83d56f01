"""Which runs count as those of a plan, how far they are, and what is said of the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lite_bench.harness.assembly import build_learner
from lite_bench.harness.errors import DataError
from lite_bench.harness.records import records_path
from lite_bench.harness.settings import resolve
from lite_bench.leaderboard.plans import OrbitTable1, content
from tests.leaderboard.planned import (
    FINETUNER,
    ORBIT_METRICS,
    SIMPLE_CNAPS,
    WEIGHTS,
    step_of,
    wanted_settings,
    write,
)


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where there are neither runs nor recipes, as users do."""
    monkeypatch.chdir(tmp_path)


def test_a_run_by_the_recipe_is_there(tmp_path: Path) -> None:
    plan = OrbitTable1()
    settings = wanted_settings(plan, SIMPLE_CNAPS)
    run = write(tmp_path / "a" / "b", settings, scores={"clean": [0.827] * 85}, **ORBIT_METRICS)
    outcome = plan.outcome([tmp_path])
    step = step_of(outcome, SIMPLE_CNAPS)
    assert (step.state, step.done, step.where) == ("there", "trained, 85 of 85 test tasks", (str(run),))
    assert (step.commands, step.work) == ((), ())
    assert [each.name for each in outcome.steps if each.state != "missing"] == [SIMPLE_CNAPS]
    assert step_of(outcome, SIMPLE_CNAPS.replace("clean", "clutter")).notes == (
        f"{run} matches but for -S mode: clean, not clutter.",
    )


def test_runs_is_where_runs_are_by_default() -> None:
    plan = OrbitTable1()
    write(Path("runs") / "x" / "y", wanted_settings(plan, SIMPLE_CNAPS), scores={"clean": [0.5] * 85}, **ORBIT_METRICS)
    assert step_of(plan.outcome(None), SIMPLE_CNAPS).state == "there"


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "h": ({"lite_h": 20}, "lite_h: 20, not 8"),
    "gradient": ({"gradient": "exact"}, "gradient: exact, not lite-importance"),
    "backbone": ({"backbone": "resnet18"}, "backbone: resnet18, not efficientnet_b0"),
    "image size": ({"image_size": 84}, "image_size: 84, not 224"),
    "option": ({"params": {"gate_penalty": "0.001"}}, "-P gate_penalty: 0.001, not 0.016"),
    "further option": ({"params": {"gate_penalty": 0.016, "beta": 2.0}}, "-P beta: 2, which the plan does not set"),
    "option of the suite": ({"suite_options": {"mode": "clean", "caps": "84"}}, "-S caps: 84, not lite"),
    "weights": ({"weights": WEIGHTS}, "weights: imagenet84.safetensors, which the plan does not set"),
    "from scratch": ({"pretrained": False}, "pretrained: false, not true"),
    "tasks": ({"tasks": 200}, "tasks: 200, not 22000"),
    "rate": ({"lr": 0.01}, "lr: 0.01, not 0.0001"),
    "suite": ({"suite": "glyphs"}, "suite: glyphs, not orbit"),
}


@pytest.mark.parametrize(("changes", "text"), CHANGES.values(), ids=CHANGES)
def test_a_run_that_nearly_is_the_one_meant_is_named_with_what_differs(
    tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    plan = OrbitTable1()
    settings = wanted_settings(plan, SIMPLE_CNAPS).changed(**changes)
    run = write(tmp_path / "near", settings, scores={"clean": [0.5] * 85}, **ORBIT_METRICS)
    step = step_of(plan.outcome([tmp_path]), SIMPLE_CNAPS)
    assert (step.state, step.where) == ("missing", ())
    assert step.notes == (f"{run} matches but for {text}.",)


def test_a_run_that_differs_in_much_or_is_of_another_learner_is_not_named(tmp_path: Path) -> None:
    plan = OrbitTable1()
    settings = wanted_settings(plan, SIMPLE_CNAPS)
    for name, changes in (("far", {"lite_h": 1, "tasks": 5, "lr": 0.5}), ("other", {"learner": "protonets"})):
        write(tmp_path / name, settings.changed(**changes), scores={"clean": [0.5] * 85}, **ORBIT_METRICS)
    assert step_of(plan.outcome([tmp_path]), SIMPLE_CNAPS).notes == ()


def test_what_changes_no_result_does_not_matter(tmp_path: Path) -> None:
    plan = OrbitTable1()
    settings = wanted_settings(plan, SIMPLE_CNAPS)
    same = {"suite": "orbit@2021", "suite_options": {"mode": "clean"}, "params": {"gate_penalty": "0.0160"}}
    other = settings.changed(
        **same, seed=3, device="cpu", batch_size=8, precision="bf16", validate_every=0, pixel_range="backbone"
    )
    write(tmp_path / "same", other, scores={"clean": [0.5] * 85}, **ORBIT_METRICS)
    assert step_of(plan.outcome([tmp_path]), SIMPLE_CNAPS).state == "there"


def test_an_estimator_of_the_same_gradient_counts_and_is_named(tmp_path: Path) -> None:
    plan = OrbitTable1()
    settings = wanted_settings(plan, SIMPLE_CNAPS).changed(gradient="lite")
    run = write(tmp_path / "lite", settings, scores={"clean": [0.5] * 85}, **ORBIT_METRICS)
    step = step_of(plan.outcome([tmp_path]), SIMPLE_CNAPS)
    assert step.state == "there"
    assert step.notes == (f"{run} has --gradient lite, which stands for lite-importance.",)


def test_h_plays_no_part_where_all_carry_a_gradient(tmp_path: Path) -> None:
    plan, name = OrbitTable1(), "orbit_cnaps_resnet18_84-clutter"
    settings = wanted_settings(plan, name).changed(lite_h=3)
    write(tmp_path / "full", settings, scores={"clutter": [0.5] * 85}, **ORBIT_METRICS)
    assert step_of(plan.outcome([tmp_path]), name).state == "there"


def test_the_batch_size_decides_where_results_depend_on_it(tmp_path: Path) -> None:
    plan, name = OrbitTable1(), "orbit_fomaml_efficientnet_b0_224-clean"
    settings = wanted_settings(plan, name).changed(batch_size=64)
    run = write(tmp_path / "small", settings, scores={"clean": [0.5] * 85}, **ORBIT_METRICS)
    assert step_of(plan.outcome([tmp_path]), name).notes == (f"{run} matches but for batch_size: 64, not 128.",)


def test_batches_are_fixed_where_the_learner_says_that_its_results_depend_on_them() -> None:
    for run in content()["plans"]["orbit-table1"]["runs"]:
        small = {"pretrained": False, "backbone": "conv4", "image_size": 32}
        learner: Any = build_learner(resolve(small, Path(f"recipes/{run['recipe']}.toml")), 32)[0]
        assert run.get("fixed_batches", False) is bool(getattr(learner, "fixed_batches", False)), run


def test_a_file_that_is_not_to_be_had_must_be_given_all_the_same(tmp_path: Path) -> None:
    plan, name = OrbitTable1(), "orbit_cnaps_resnet18_84-clutter"
    settings = wanted_settings(plan, name).changed(weights=None)
    run = write(tmp_path / "bare", settings, scores={"clutter": [0.5] * 85}, **ORBIT_METRICS)
    assert step_of(plan.outcome([tmp_path]), name).notes == (
        f"{run} matches but for weights: not set, where one must be given.",
    )


UNCOUNTED: dict[str, tuple[dict[str, Any], str]] = {
    "stand-in": ({"synthetic": True}, "its results are of stand-in data, which say nothing about the real benchmark"),
    "preview": ({"limit": 10}, "its results are a preview of 10 tasks per source (--limit)"),
    "seed": ({"seed": 1}, "it was evaluated on the test tasks of seed 1, not the test tasks of seed 0"),
    "split": ({"split": "validation"}, "it was evaluated on the validation tasks of seed 0, not the test tasks"),
    "untrained": ({"checkpoint": "untrained"}, "it was evaluated without being meta-trained"),
    "data": ({"suite": "orbit@2021+data=other"}, "it was evaluated on orbit@2021+data=other, not orbit@2021"),
    "version": ({"suite": "orbit@2022"}, "it was evaluated on orbit@2022, not orbit@2021"),
}


@pytest.mark.parametrize(("changes", "reason"), UNCOUNTED.values(), ids=UNCOUNTED)
def test_results_that_say_nothing_about_the_table_never_count(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    plan = OrbitTable1()
    settings = wanted_settings(plan, SIMPLE_CNAPS)
    run = write(tmp_path / "run", settings, **{"scores": {"clean": [0.1] * 85}, **ORBIT_METRICS, **changes})
    outcome = plan.outcome([tmp_path])
    step = step_of(outcome, SIMPLE_CNAPS)
    trained = ("missing", "") if "synthetic" in changes else ("partial", "trained, 0 of 85 test tasks")
    assert (step.state, step.done) == trained  # what was trained on stand-ins is of no use either
    assert len(step.notes) == 1
    assert step.notes[0].startswith(f"{run} does not count: {reason}")
    assert not any(row.compared for row in outcome.rows)
    assert outcome.agrees


def test_an_evaluation_with_other_weights_than_none_is_not_that_of_an_untrained_learner(tmp_path: Path) -> None:
    plan = OrbitTable1()
    scores = {"clean": [0.7] * 85, "clutter": [0.6] * 85}
    settings = wanted_settings(plan, FINETUNER)
    write(tmp_path / "run", settings, scores=scores, **ORBIT_METRICS)
    step = step_of(plan.outcome([tmp_path]), FINETUNER)
    assert step.notes == (f"{tmp_path / 'run'} does not count: it was evaluated with trained weights.",)
    assert step.state == "missing"
    assert "--run-name" in step.commands[0]
    write(tmp_path / "plain", settings, scores=scores, checkpoint="untrained", **ORBIT_METRICS)
    step = step_of(plan.outcome([tmp_path]), FINETUNER)
    assert (step.state, step.done) == ("there", "170 of 170 test tasks")


def test_results_without_settings_are_not_taken_for_anything(tmp_path: Path) -> None:
    plan = OrbitTable1()
    run = write(tmp_path / "r", wanted_settings(plan, SIMPLE_CNAPS), scores={"clean": [0.5] * 85}, **ORBIT_METRICS)
    (run / "config.toml").unlink()
    assert {step.state for step in plan.outcome([tmp_path]).steps} == {"missing"}


def test_of_several_runs_the_one_that_comes_furthest_is_taken(tmp_path: Path) -> None:
    plan = OrbitTable1()
    settings = wanted_settings(plan, SIMPLE_CNAPS)
    write(tmp_path / "1", settings, trained=100)
    few = write(tmp_path / "2", settings, scores={"clean": [0.5] * 9}, **ORBIT_METRICS)
    most = write(tmp_path / "3", settings, scores={"clean": [0.6] * 85}, checkpoint="1" * 64, **ORBIT_METRICS)
    step = step_of(plan.outcome([tmp_path]), SIMPLE_CNAPS)
    assert step.where == (str(most),)
    assert step.notes == (
        f"{tmp_path / '1'}, {few} would do as well; the one that comes furthest is taken, of equal ones the first.",
    )


def test_one_evaluation_in_parts_on_two_machines_is_whole_and_both_folders_are_named(tmp_path: Path) -> None:
    plan = OrbitTable1()
    settings = wanted_settings(plan, SIMPLE_CNAPS)
    scores = {"clean": [0.6] * 85}
    here, there = (write(tmp_path / name, settings, scores=scores, **ORBIT_METRICS) for name in ("1", "2"))
    for run, part in ((here, slice(0, 40)), (there, slice(40, 85))):
        path = records_path(run, "orbit@2021", "clean")
        path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[part]), encoding="utf-8")
    step = step_of(plan.outcome([tmp_path]), SIMPLE_CNAPS)
    assert (step.state, step.where, step.notes) == ("there", (str(here), str(there)), ())


def test_what_was_trained_on_stand_ins_does_not_count_on_whatever_it_was_evaluated(tmp_path: Path) -> None:
    plan = OrbitTable1()
    settings = wanted_settings(plan, SIMPLE_CNAPS)
    run = write(tmp_path / "run", settings, scores={"clean": [0.827] * 85}, **ORBIT_METRICS)
    (run / "environment.json").write_text('{"synthetic": true}', encoding="utf-8")
    outcome = plan.outcome([tmp_path])
    step = step_of(outcome, SIMPLE_CNAPS)
    assert (step.state, step.notes) == ("missing", (f"{run} does not count: it was trained on stand-in data.",))
    assert not any(row.compared for row in outcome.rows)


def test_a_run_that_only_evaluates_is_no_training_to_go_on_with(tmp_path: Path) -> None:
    """``train --resume`` refuses such a folder."""
    plan = OrbitTable1()
    scores = {"clean": [0.5] * 85}
    settings = wanted_settings(plan, SIMPLE_CNAPS)
    run = write(tmp_path / "run", settings, scores=scores, checkpoint="untrained", **ORBIT_METRICS)
    (run / "run.json").write_text('{"status": "finished", "kind": "eval"}', encoding="utf-8")
    step = step_of(plan.outcome([tmp_path]), SIMPLE_CNAPS)
    assert step.notes == (f"{run} does not count: it was evaluated without being meta-trained.",)
    assert step.state == "missing"
    assert not any("--resume" in command for command in step.commands)


def test_a_damaged_account_of_progress_is_not_taken_for_a_finished_training(tmp_path: Path) -> None:
    plan = OrbitTable1()
    run = write(tmp_path / "run", wanted_settings(plan, SIMPLE_CNAPS))
    (run / "run.json").write_text('{"tasks": ', encoding="utf-8")
    with pytest.raises(DataError, match=r"run\.json is damaged: .*; restore it or remove it\."):
        plan.outcome([tmp_path])


def test_another_number_of_tasks_is_another_list_of_tasks(tmp_path: Path) -> None:
    plan = OrbitTable1()
    settings = wanted_settings(plan, SIMPLE_CNAPS)
    run = write(tmp_path / "run", settings, scores={"clean": [0.8] * 90}, sources={"clean": 90}, **ORBIT_METRICS)
    outcome = plan.outcome([tmp_path])
    assert step_of(outcome, SIMPLE_CNAPS).notes == (
        f"{run} does not count: it has 90 tasks of clean, where the suite has 85.",
    )
    assert not any(row.compared for row in outcome.rows)


def test_a_run_in_training_goes_on(tmp_path: Path) -> None:
    plan = OrbitTable1()
    run = write(tmp_path / "run", wanted_settings(plan, SIMPLE_CNAPS), trained=2200)
    step = step_of(plan.outcome([tmp_path]), SIMPLE_CNAPS)
    assert (step.state, step.done, step.where) == ("partial", "trained on 2200 of 22000 tasks", (str(run),))
    assert step.commands == (
        f"lite-bench train --resume {run} --data-dir DATA",
        f"lite-bench eval --checkpoint {run} --data-dir DATA",
    )
    assert [(work.kind, work.tasks) for work in step.work] == [("training", 19800), ("evaluation", 85)]


def test_an_evaluation_in_mid_training_does_not_count(tmp_path: Path) -> None:
    plan = OrbitTable1()
    settings = wanted_settings(plan, SIMPLE_CNAPS)
    run = write(tmp_path / "run", settings, trained=10, scores={"clean": [0.5] * 85}, **ORBIT_METRICS)
    outcome = plan.outcome([tmp_path])
    assert step_of(outcome, SIMPLE_CNAPS).notes == (
        f"{run} does not count: it was evaluated before its training was finished.",
    )
    assert not any(row.compared for row in outcome.rows)


def test_an_evaluation_goes_on_where_it_is(tmp_path: Path) -> None:
    plan = OrbitTable1()
    run = write(tmp_path / "run", wanted_settings(plan, SIMPLE_CNAPS), scores={"clean": [0.5] * 40}, **ORBIT_METRICS)
    outcome = plan.outcome([tmp_path])
    step = step_of(outcome, SIMPLE_CNAPS)
    assert (step.state, step.done) == ("partial", "trained, 40 of 85 test tasks")
    assert step.commands == (f"lite-bench eval --checkpoint {run} --data-dir DATA",)
    assert [(work.kind, work.tasks) for work in step.work] == [("evaluation", 45)]
    assert not any(row.compared for row in outcome.rows)  # never a mean over a part


def test_a_task_that_failed_leaves_its_figure_missing(tmp_path: Path) -> None:
    plan = OrbitTable1()
    run = write(tmp_path / "run", wanted_settings(plan, SIMPLE_CNAPS), scores={"clean": [0.5] * 84}, **ORBIT_METRICS)
    path = records_path(run, "orbit@2021", "clean")
    last = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    last |= {"task": last["task"].replace("/83", "/84"), "accuracy": None, "failed": "Its logits are not finite."}
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(last) + "\n")
    outcome = plan.outcome([tmp_path])
    step = step_of(outcome, SIMPLE_CNAPS)
    assert (step.state, step.done) == ("partial", "trained, 84 of 85 test tasks")
    assert step.notes == (f"{run} has 1 failed tasks, so that a figure is missing; its records say why.",)
    assert not any(row.compared for row in outcome.rows)


def test_a_model_of_one_mode_says_nothing_about_the_other(tmp_path: Path) -> None:
    plan = OrbitTable1()
    scores = {"clean": [0.8] * 85, "clutter": [0.1] * 85}
    write(tmp_path / "run", wanted_settings(plan, SIMPLE_CNAPS), scores=scores, **ORBIT_METRICS)
    outcome = plan.outcome([tmp_path])
    assert [figure.compared for figure in outcome.rows[14].figures] == [True, True, False, False]
    assert step_of(outcome, SIMPLE_CNAPS).done == "trained, 85 of 85 test tasks"


def test_one_of_two_modes_is_shown_while_the_other_is_missing(tmp_path: Path) -> None:
    plan = OrbitTable1()
    scores = {"clean": [0.781] * 85, "clutter": [0.6] * 3}
    write(tmp_path / "run", wanted_settings(plan, FINETUNER), scores=scores, checkpoint="untrained", **ORBIT_METRICS)
    outcome = plan.outcome([tmp_path])
    assert step_of(outcome, FINETUNER).done == "88 of 170 test tasks"
    row = outcome.rows[2]
    assert [figure.compared for figure in row.figures] == [True, True, False, False]
    assert row.compared
