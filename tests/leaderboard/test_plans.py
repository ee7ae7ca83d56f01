"""Plans of published tables: their data, their commands, and the table beside ours."""

from __future__ import annotations

import copy
import functools
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

from lite_bench.datasets.orbit.table1 import Table1Costs
from lite_bench.datasets.orbit.videos import KINDS
from lite_bench.datasets.vtab.tasks import tasks as vtab_tasks
from lite_bench.datasets.vtab_md.protocol import protocol
from lite_bench.harness.cli.app import build_app
from lite_bench.harness.errors import DataError, RunError
from lite_bench.harness.options import option_parameters
from lite_bench.harness.records import results_folder, write_manifest
from lite_bench.harness.registry import ESTIMATORS, LEARNERS
from lite_bench.harness.reproduction import PlannedReproduction, verdict
from lite_bench.harness.settings import Settings
from lite_bench.harness.statistics import Estimate
from lite_bench.leaderboard import plans
from lite_bench.leaderboard.matching import DECIDING, DECIDING_TRAINING
from lite_bench.leaderboard.plans import OrbitTable1, Plan, VtabMdFigure3, VtabMdTable2, content, flags_of
from lite_bench.leaderboard.published import PublishedFigure, Source, published_table
from tests.leaderboard.planned import (
    EVERY,
    FINETUNER,
    ORBIT_METRICS,
    PLANS,
    SIMPLE_CNAPS,
    SUITES,
    step_of,
    wanted_settings,
    write,
    write_records,
)
from tests.leaderboard.samples import make_manifest


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where there are neither runs nor recipes, as users do."""
    monkeypatch.chdir(tmp_path)


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
