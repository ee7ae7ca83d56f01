"""Plans of published tables: their data, which runs count, what is said of the others, and the table beside ours."""

from __future__ import annotations

import copy
import functools
import json
import math
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from lite_bench.datasets.orbit.suite import Orbit
from lite_bench.datasets.orbit.table1 import Table1Costs
from lite_bench.datasets.orbit.videos import KINDS
from lite_bench.datasets.vtab.tasks import tasks as vtab_tasks
from lite_bench.datasets.vtab_md.protocol import protocol
from lite_bench.datasets.vtab_md.suite import VtabMd
from lite_bench.harness.assembly import build_learner
from lite_bench.harness.cli.app import build_app
from lite_bench.harness.core import GroupScore
from lite_bench.harness.errors import DataError, RunError
from lite_bench.harness.options import option_parameters
from lite_bench.harness.records import Manifest, append_record, records_path, results_folder, write_manifest
from lite_bench.harness.registry import ESTIMATORS, LEARNERS
from lite_bench.harness.reproduction import Outcome, PlannedReproduction, Step, verdict
from lite_bench.harness.settings import Settings, dump, resolve
from lite_bench.harness.statistics import Estimate
from lite_bench.leaderboard import plans
from lite_bench.leaderboard.matching import DECIDING, DECIDING_TRAINING
from lite_bench.leaderboard.plans import OrbitTable1, Plan, VtabMdFigure3, VtabMdTable2, content, flags_of
from lite_bench.leaderboard.published import PublishedFigure, Source, published_table
from lite_bench.leaderboard.studies import GradientsFigure4
from tests.leaderboard.samples import make_manifest, make_record

PLANS = (OrbitTable1, VtabMdTable2, VtabMdFigure3)
EVERY = (*PLANS, GradientsFigure4)
SUITES: dict[str, Any] = {"orbit@2021": Orbit, "vtab_md@lite": VtabMd}
SIMPLE_CNAPS = "orbit_simple_cnaps_efficientnet_b0_224-clean"
FINETUNER = "orbit_finetuner_efficientnet_b0_224"
WEIGHTS = Path("imagenet84.safetensors")


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where there are neither runs nor recipes, as users do."""
    monkeypatch.chdir(tmp_path)


def step_of(outcome: Outcome, name: str) -> Step:
    (step,) = (step for step in outcome.steps if step.name == name)
    return step


def write(
    run: Path,
    settings: Settings,
    *,
    suite: str = "orbit@2021",
    scores: dict[str, list[float]] | None = None,
    trained: int | None = None,
    checkpoint: str = "0" * 64,
    synthetic: bool = False,
    **changes: Any,
) -> Path:
    """Write a run folder: settings, how far it came, and of each source the accuracies of its first tasks."""
    run.mkdir(parents=True)
    (run / "config.toml").write_text(dump(settings), encoding="utf-8")
    progress = {"status": "finished", "kind": "train", "tasks": settings.tasks if trained is None else trained}
    (run / "run.json").write_text(json.dumps(progress), encoding="utf-8")
    if scores is None:
        return run
    manifest = make_manifest(
        suite=suite, learner=settings.learner, backbone=settings.backbone, image_size=settings.image_size,
        checkpoint=checkpoint, groups={}, **{"sources": dict.fromkeys(scores, 85), **changes},
    )  # fmt: skip
    write_manifest(results_folder(run, suite), manifest)
    for source, values in scores.items():
        write_records(run, manifest, source, values, synthetic=synthetic)
    return run


def write_records(run: Path, manifest: Manifest, source: str, values: list[float], **changes: Any) -> None:
    """Write a record per accuracy; of ORBIT, of two videos each, which vote wrongly where less than half is right."""
    for index, value in enumerate(values):
        groups = tuple(GroupScore(name, 8, value, float(value >= 0.5), 0.0) for name in ("a", "b"))
        own = {"groups": groups, "cluster": f"P{index // 5}"} if manifest.metrics else {}
        append_record(
            records_path(run, manifest.suite, source), make_record(manifest, source, index, value, **own, **changes)
        )


def wanted_settings(plan: Plan, name: str) -> Settings:
    settings = step_of(plan.outcome(None), name).settings
    return settings.changed(weights=WEIGHTS) if settings.weights else settings


ORBIT_METRICS: dict[str, Any] = {"metrics": ["frame accuracy", "video accuracy", "frames to recognition"]}


# --- the data of the plans


@pytest.mark.parametrize("kind", EVERY)
def test_a_plan_is_a_planned_reproduction_with_nothing_there(kind: type[Plan]) -> None:
    plan = kind()
    assert isinstance(plan, PlannedReproduction)
    outcome = plan.outcome(None)
    assert {step.state for step in outcome.steps} == {"missing"}
    assert all(step.commands and step.work and not step.where and not step.notes for step in outcome.steps)
    assert outcome.agrees
    assert not any(row.compared for row in outcome.rows)
    assert verdict(outcome.rows, outcome.claims, outcome.rule).startswith("0 of ")
    assert outcome.rule
    assert len({step.name for step in outcome.steps}) == len(outcome.steps)
    assert all(step.settings.learner in LEARNERS.names() for step in outcome.steps)
    columns = {tuple(row.labels) + tuple(figure.name for figure in row.figures) for row in outcome.rows}
    assert len(columns) == 1


def test_the_plans_have_the_runs_of_their_tables() -> None:
    orbit, table2, figure3 = (kind().outcome(None) for kind in PLANS)
    assert (len(orbit.rows), len(orbit.steps)) == (15, 28)  # two networks without training are tested in both modes
    assert (len(table2.rows), len(table2.steps)) == (13, 13)
    assert (len(figure3.rows), len(figure3.steps), len(figure3.claims)) == (8, 8, 5)


@pytest.mark.parametrize(("kind", "table"), [(OrbitTable1, "orbit_table1"), (VtabMdTable2, "vtab_md_table2")])
def test_every_published_row_stands_in_its_plan_once_with_its_figures(kind: type[Plan], table: str) -> None:
    columns = content()["plans"][kind.name]["columns"].values()
    shown = [[figure.published for figure in row.figures] for row in kind().outcome(None).rows]
    printed = [[round(100 * row.figures[column].value, 6) for column in columns] for row in published_table(table)]
    assert sorted(shown) == sorted(printed)
    widths = [figure.published_half_width for row in kind().outcome(None).rows for figure in row.figures]
    assert sum(width is not None for width in widths) == (59 if kind is OrbitTable1 else 0)


def test_the_bars_with_numbers_are_columns_of_table_2() -> None:
    rows = VtabMdFigure3().outcome(None).rows
    published = {tuple(f.published for f in row.figures) for row in VtabMdTable2().outcome(None).rows}
    with_numbers = [row for row in rows if row.published]
    assert [row.labels["size"] for row in with_numbers] == ["224", "84"]
    assert all(tuple(figure.published for figure in row.figures) in published for row in with_numbers)


def test_orbit_recipes_stand_beside_the_row_that_their_name_says() -> None:
    names = {"RN-18": "resnet18", "EN-B0": "efficientnet_b0"}
    for row, run in zip(OrbitTable1().outcome(None).rows, content()["plans"]["orbit-table1"]["runs"], strict=True):
        method = row.labels["method"].removesuffix(" + LITE").lower().replace(" ", "_").replace("maml", "fomaml")
        assert run["recipe"] == f"orbit_{method}_{names[row.labels['backbone']]}_{row.labels['size']}"


def test_sizes_of_orbit_tasks_are_those_of_the_published_rules() -> None:
    for mode, sizes in Table1Costs().task_sizes().items():
        data = content()["evaluation"]["orbit@2021"][mode]
        assert data["tasks"] == len(sizes)
        assert data["support"] == pytest.approx(sum(each.items for each in sizes) / len(sizes), abs=0.5)
        assert data["way"] == pytest.approx(sum(each.way for each in sizes) / len(sizes), abs=0.5)
        assert {each.frames for each in sizes} == {data["frames"]}
    assert set(content()["evaluation"]["orbit@2021"]) == set(KINDS)


def test_training_on_clusters_classifies_the_clips_of_both_sets() -> None:
    for mode in KINDS:
        plain, clusters = (content()["training"][f"orbit_{mode}_{name}"] for name in ("84", "clusters"))
        assert clusters["query"] == plain["support"] + plain["query"]


def test_sources_of_vtab_md_are_those_of_the_suite() -> None:
    data = content()["evaluation"]["vtab_md@lite"]
    own = {task.name: task for task in vtab_tasks()}
    assert list(data) == [*protocol()["test"], *own]
    assert {data[name]["tasks"] for name in protocol()["test"]} == {protocol()["test_tasks"]}
    for name, task in own.items():
        assert (data[name]["tasks"], data[name]["support"]) == (1, 1000)
        assert data[name]["way"] == round(sum(each.classes for each in own.values()) / len(own)), task


def test_defaults_estimators_and_sizes_are_real() -> None:
    for plan in content()["plans"].values():
        parameters = option_parameters(SUITES[plan["suite"]])
        assert {name: parameters[name].default for name in plan["option_defaults"]} == plan["option_defaults"]
    assert {name for alike in content()["gradients"].values() for name in alike} <= set(ESTIMATORS.names())
    for step in (step for kind in PLANS for step in kind().outcome(None).steps):
        training = [work for work in step.work if work.kind == "training"]
        assert len(training) == int("--run-name" in step.commands[0] and " train " in step.commands[0])
        assert all(work.tasks == step.settings.tasks for work in training)


def test_that_competitors_are_not_the_published_ones_is_said_beside_the_statements() -> None:
    figure3, table2 = (kind().outcome(None).rule for kind in (VtabMdFigure3, VtabMdTable2))
    assert "contradicted if ours are in the other order by more than that. The competitors here are" in figure3
    assert "the published bars are of the official version" in figure3
    assert table2.endswith("has no interval.")


def test_statements_name_runs_and_columns() -> None:
    plan = content()["plans"]["vtab-md-figure3"]
    names = {run["name"] for run in plan["runs"]}
    known = {*content()["evaluation"]["vtab_md@lite"], *plan["columns"].values()}
    for claim in plan["claims"]:
        assert {claim["higher"], *claim["lower"]} <= names
        assert set(claim["columns"]) <= known


def test_every_setting_is_deciding_or_is_known_not_to_be() -> None:
    """A new setting makes this fail until somebody has said whether it decides what a run is."""
    free = {"data_dir", "batch_size", "query_batch_size", "memory_budget", "precision", "device", "workers", "seed"}
    free |= {"limit", "checkpoint_seconds", "validate_every", "validate_from", "validation_tasks", "validate_at_end"}
    assert {*DECIDING, *DECIDING_TRAINING, *free} == set(Settings.model_fields)
    assert not free & {*DECIDING, *DECIDING_TRAINING}


# --- commands


@functools.cache
def known_flags(command: str) -> set[str]:
    group = typer.main.get_command(build_app())
    found: Any = group
    own = found.commands[command]
    return {flag for parameter in own.params for flag in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("kind", EVERY)
def test_commands_have_flags_that_exist_and_recipes_that_are_installed(kind: type[Plan]) -> None:
    for step in kind(Path("my data")).outcome(None).steps:
        for text in step.commands:
            program, command, *words = shlex.split(text)
            assert program == "lite-bench"
            assert {word for word in words if word.startswith("-")} <= known_flags(command), text
            assert words[words.index("--data-dir") + 1] == "my data"
            for word in words:
                if word.startswith("recipes/"):
                    assert files("lite_bench.recipes").joinpath(Path(word).name).is_file()


def test_a_training_is_followed_by_its_evaluation_in_the_folder_it_makes() -> None:
    first, second = step_of(OrbitTable1().outcome(None), SIMPLE_CNAPS).commands
    assert first == (
        "lite-bench train --config recipes/orbit_simple_cnaps_efficientnet_b0_224.toml -S mode=clean "
        f"--run-name {SIMPLE_CNAPS} --data-dir DATA"
    )
    assert second == (
        f"lite-bench eval --checkpoint runs/simple_cnaps-efficientnet_b0-224/{SIMPLE_CNAPS} --data-dir DATA"
    )
    (only,) = step_of(OrbitTable1().outcome(None), FINETUNER).commands
    assert only == (f"lite-bench eval --config recipes/{FINETUNER}.toml --run-name {FINETUNER} --data-dir DATA")


def test_settings_are_written_as_flags() -> None:
    changes = {"lite_h": 10, "pretrained": False, "params": {"a": 1, "b": "x y"}, "suite_options": {"way": 5}}
    assert flags_of(changes) == "--lite-h 10 --no-pretrained -P a=1 -P 'b=x y' -S way=5"
    assert flags_of({"pretrained": True}) == "--pretrained"
    assert flags_of({}) == ""


# --- which runs count


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


# --- how far a run is


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


# --- the table


def test_figures_stand_beside_the_published_ones(tmp_path: Path) -> None:
    plan = OrbitTable1()
    settings = wanted_settings(plan, "orbit_protonets_efficientnet_b0_224-clutter")
    values = [0.4] * 30 + [0.8] * 55
    write(tmp_path / "run", settings, scores={"clutter": values}, **ORBIT_METRICS)
    outcome = plan.outcome([tmp_path])
    (row,) = (row for row in outcome.rows if row.compared)
    assert row.labels == {"method": "ProtoNets + LITE", "backbone": "EN-B0", "size": "224"}
    missing, _, frames, videos = row.figures
    assert (missing.ours, missing.agrees) == (None, True)
    mean, n = sum(values) / 85, 170
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / 85)
    assert frames.ours == pytest.approx(100 * mean)
    assert frames.half_width == pytest.approx(100 * 1.96 * spread / math.sqrt(n))
    assert (frames.published, frames.published_half_width) == (66.3, 1.8)
    assert frames.tolerance == pytest.approx(math.hypot(frames.half_width or 0, 1.8))
    assert frames.agrees
    assert videos.ours == pytest.approx(100 * 55 / 85)
    assert not videos.agrees
    assert verdict(outcome.rows, outcome.claims, outcome.rule) == (
        "1 of 15 rows are there; 0 of 1 rows agree with what is published. Not so: ProtoNets + LITE EN-B0 224 "
        f"(clutter, videos (%) {videos.ours:.3f} ± {videos.half_width:.3f}, not 72.9 ± 2.3)."
    )
    assert not outcome.agrees


source = Source("somebody", "somewhere", "primary")
fractions = st.floats(0, 1)
widths = st.none() | st.floats(0.0001, 0.1)


@given(fractions, widths, fractions, widths)
def test_agreement_by_the_rule_spelt_out(one: float, width: float | None, other: float, printed: float | None) -> None:
    plan: Any = OrbitTable1()
    row = replace(published_table("orbit_table1")[0], figures={"c": PublishedFigure(other, printed, source)})
    figure = plan._figure("x", Estimate(one, width, 10), row, "c")
    gap = abs(100 * one - 100 * other)
    limit = 2.0 if width is None or printed is None else 100 * (width**2 + printed**2) ** 0.5
    if abs(gap - limit) > 1e-6:
        assert figure.agrees is (gap < limit)


def test_the_one_figure_without_an_interval_has_the_tolerance_of_the_plan(tmp_path: Path) -> None:
    plan = OrbitTable1()
    for run, value, agrees in (("a", 0.810, True), ("b", 0.800, False)):
        settings = wanted_settings(plan, SIMPLE_CNAPS)
        write(tmp_path / run / run, settings, scores={"clean": [value] * 85}, **ORBIT_METRICS)
        frames = plan.outcome([tmp_path / run]).rows[14].figures[0]
        assert (frames.published, frames.published_half_width, frames.tolerance) == (82.7, None, 2.0)
        assert frames.agrees is agrees
    assert "2 points where one of them has no interval" in plan.outcome(None).rule


# --- VTAB+MD, with three tasks of each Meta-Dataset source


@pytest.fixture
def small_vtab(monkeypatch: pytest.MonkeyPatch) -> None:
    small = copy.deepcopy(content())
    for size in small["evaluation"]["vtab_md@lite"].values():
        size["tasks"] = min(size["tasks"], 3)
    monkeypatch.setattr(plans, "content", lambda: small)


GROUPS: dict[str, list[str]] = {
    "MD-v2": list(protocol()["test"]),
    "VTAB": [task.name for task in vtab_tasks()],
    **{group: [t.name for t in vtab_tasks() if t.group == group] for group in ("natural", "specialized", "structured")},
}


def write_vtab(run: Path, settings: Settings, accuracy: Callable[[str], float], checkpoint: str = "0" * 64) -> Path:
    sources = dict.fromkeys(GROUPS["MD-v2"], 3) | dict.fromkeys(GROUPS["VTAB"], 1)
    write(run, settings)
    manifest = make_manifest(
        suite="vtab_md@lite", learner=settings.learner, backbone=settings.backbone, image_size=settings.image_size,
        checkpoint=checkpoint, groups=GROUPS, sources=sources,
    )  # fmt: skip
    write_manifest(results_folder(run, manifest.suite), manifest)
    for name, n in sources.items():
        write_records(run, manifest, name, [accuracy(name)] * n)
    return run


@pytest.mark.usefixtures("small_vtab")
def test_each_h_of_table_2_is_a_run_of_its_own(tmp_path: Path) -> None:
    plan = VtabMdTable2()
    for h, value in ((10, 0.737), (100, 0.5)):
        settings = wanted_settings(plan, f"vtab_md_simple_cnaps_224-h{h}")
        assert settings.lite_h == h
        write_vtab(tmp_path / str(h), settings, lambda name, value=value: value, f"{h:064d}")  # type: ignore[misc]  # bound now
    outcome = plan.outcome([tmp_path])
    compared = {row.labels["H"]: row for row in outcome.rows if row.compared}
    assert set(compared) == {"10", "100"}
    md = compared["10"].figures[0]
    assert md.ours == pytest.approx(73.7)
    assert (md.published, md.tolerance) == (73.7, 1.5)
    assert [figure.agrees for figure in compared["10"].figures] == [True, False, False, False, False]
    assert not compared["100"].agrees


@pytest.mark.usefixtures("small_vtab")
def test_statements_are_checked_as_far_as_their_runs_are_there(tmp_path: Path) -> None:
    plan = VtabMdFigure3()
    runs = {name: wanted_settings(plan, name) for name in (step.name for step in plan.outcome(None).steps)}
    ours, ctx, proto = "vtab_md_simple_cnaps_224-h40", "vtab_md_ctx_resnet34_224", "vtab_md_proto_maml_126"
    structured = set(GROUPS["structured"])
    write_vtab(tmp_path / "1", runs[ours], lambda name: 0.70)
    write_vtab(tmp_path / "2", runs[ctx], lambda name: 0.80 if name in structured else 0.60)
    best, bit, meta, falls_short, sizes = plan.outcome([tmp_path]).claims
    assert (best.holds, best.evidence) == (
        None,
        f"MD-v2: 70.0 and 60.0 ({ctx}); 5 of 6 comparisons are not there",
    )
    assert (bit.holds, sizes.holds, falls_short.holds) == (None, None, True)
    assert falls_short.evidence == f"structured: 80.0 and 70.0 ({ours})"
    assert meta.holds is None
    write_vtab(tmp_path / "3", runs[proto], lambda name: 0.99)
    outcome = plan.outcome([tmp_path])
    best, _, meta, *_ = outcome.claims
    assert best.holds is meta.holds is False  # one that is above is enough
    assert not outcome.agrees
    assert verdict(outcome.rows, outcome.claims, outcome.rule).endswith(
        "3 of 5 statements can be checked, 1 of them holds."
    )


@pytest.mark.usefixtures("small_vtab")
@pytest.mark.parametrize(("ours", "holds"), [(0.601, True), (0.60, None), (0.586, None), (0.584, False)])
def test_an_order_within_the_tolerance_is_no_contradiction(tmp_path: Path, ours: float, holds: bool | None) -> None:
    plan = VtabMdFigure3()
    write_vtab(tmp_path / "1", wanted_settings(plan, "vtab_md_simple_cnaps_224-h40"), lambda name: 0.60)
    write_vtab(tmp_path / "2", wanted_settings(plan, "vtab_md_ctx_resnet34_224"), lambda name: ours)
    assert plan.outcome([tmp_path]).claims[3].holds is holds


# --- gradients


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


# --- wrong input


@pytest.mark.parametrize("kind", EVERY)
def test_a_path_that_is_not_there_is_refused(kind: type[Plan]) -> None:
    with pytest.raises(RunError, match="There is no folder nowhere"):
        kind().outcome([Path("nowhere")])


def test_a_folder_without_runs_is_empty(tmp_path: Path) -> None:
    assert {step.state for step in OrbitTable1().outcome([tmp_path]).steps} == {"missing"}


def test_damaged_settings_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("learner = [", encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'config.toml'} is damaged")):
        OrbitTable1().outcome([tmp_path])


def test_runs_of_other_suites_are_not_read(tmp_path: Path) -> None:
    """Two runs of another suite that do not belong together are no reason to fail."""
    settings = wanted_settings(OrbitTable1(), SIMPLE_CNAPS)
    for name in ("1", "2"):
        write(tmp_path / name, settings, suite="letters@1", scores={"clean": [0.5] * 3})
    assert step_of(OrbitTable1().outcome([tmp_path]), SIMPLE_CNAPS).done == "trained, 0 of 85 test tasks"


def test_the_data_holds_no_published_accuracy() -> None:
    """They are in one place only, so that they cannot differ."""
    text = files("lite_bench.leaderboard").joinpath("plans.toml").read_text(encoding="utf-8")

    def numbers(value: Any) -> Iterator[float]:
        if isinstance(value, dict | list):
            for each in value.values() if isinstance(value, dict) else value:
                yield from numbers(each)
        elif isinstance(value, float):
            yield value

    assert set(numbers(tomllib.loads(text))) == {0.5, 1.5, 2.0}
