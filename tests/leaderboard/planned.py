"""Made-up runs of plans on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lite_bench.datasets.orbit.suite import Orbit
from lite_bench.datasets.vtab_md.suite import VtabMd
from lite_bench.harness.core import GroupScore
from lite_bench.harness.records import Manifest, append_record, records_path, results_folder, write_manifest
from lite_bench.harness.reproduction import Outcome, Step
from lite_bench.harness.settings import Settings, dump
from lite_bench.leaderboard.plans import OrbitTable1, Plan, VtabMdFigure3, VtabMdTable2
from lite_bench.leaderboard.studies import GradientsFigure4
from tests.leaderboard.samples import make_manifest, make_record

PLANS = (OrbitTable1, VtabMdTable2, VtabMdFigure3)
EVERY = (*PLANS, GradientsFigure4)
SUITES: dict[str, Any] = {"orbit@2021": Orbit, "vtab_md@lite": VtabMd}
SIMPLE_CNAPS = "orbit_simple_cnaps_efficientnet_b0_224-clean"
FINETUNER = "orbit_finetuner_efficientnet_b0_224"
WEIGHTS = Path("imagenet84.safetensors")


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
