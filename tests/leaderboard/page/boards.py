"""Made-up tables of the kinds that the page must show: small, wide, of clustered scores, and hostile."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lite_bench.harness.core import Cost, GroupScore
from lite_bench.harness.records import append_record, read_results, records_path, results_folder, write_manifest
from lite_bench.leaderboard.published import PublishedFigure, PublishedRow, Source
from lite_bench.leaderboard.tables import Table, make_tables
from tests.leaderboard.samples import make_manifest, make_record, write_run

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(2)>",
    "</style></title></textarea><iframe src=javascript:alert(3)>",
    "javascript:alert(4)",
    "a\u202etxt.exe\u2066b\u2028c\x00d",
    "{{constructor.constructor('alert(5)')()}}${alert(6)}",
    "x" * 10_000,
)
MD = ("omniglot", "aircraft", "cu_birds", "dtd", "quickdraw", "fungi", "traffic_sign", "mscoco")
NATURAL = ("caltech101", "cifar100", "flowers102", "pets", "sun397", "svhn")
SPECIALIZED = ("eurosat", "resisc45", "patch_camelyon", "retinopathy")
STRUCTURED = (
    "clevr-count", "clevr-distance", "dsprites-location", "dsprites-orientation", "smallnorb-azimuth",
    "smallnorb-elevation", "dmlab", "kitti-distance",
)  # fmt: skip
GROUPS = {
    "MD-v2": MD,
    "VTAB": (*NATURAL, *SPECIALIZED, *STRUCTURED),
    "natural": NATURAL,
    "specialized": SPECIALIZED,
    "structured": STRUCTURED,
}
SOURCE = Source("Somebody and others, A paper, 2021", "Table 2", "primary")


def published(system: str, values: dict[str, float], **changes: Any) -> PublishedRow:
    """A published row with an interval of one point."""
    figures = {column: PublishedFigure(value, 0.01, SOURCE) for column, value in values.items()}
    settings: dict[str, Any] = {
        "learner": "simple",
        "backbone": "EfficientNet-B0",
        "image_size": 224,
        "gradient": "lite",
        "h": "40",
        "pretraining": "ImageNet",
        "passes": "1F",
        "macs": 1.2e12,
        "parameters": 4_000_000,
        "interval": "half width of a 95 % interval over tasks",
        "differences": ("Another split.", "Other images."),
    }
    return PublishedRow(system=system, figures=figures, **(settings | changes))


def small_board(folder: Path, labels: Sequence[str] = ("alpha", "beta", "gamma", "delta")) -> Table:
    """Four rows on three sources; the third row lacks a source, and a task of the fourth failed.

    Means of source b: 0.85, 0.825, missing, missing; of a: 0.5, 0.9, 0.7, 0.1; of c: 0.2, 0.1, 0.3, 0.4.
    """
    means = {
        labels[0]: {"a": 0.5, "b": 0.85, "c": 0.2},
        labels[1]: {"a": 0.9, "b": 0.825, "c": 0.1},
        labels[2]: {"a": 0.7, "c": 0.3},
        labels[3]: {"a": 0.1, "b": 0.6, "c": 0.4},
    }
    for number, (label, values) in enumerate(means.items()):
        manifest = make_manifest(
            label=label,
            sources={"a": 4, "b": 4, "c": 4},
            groups={"all": ["a", "b", "c"]},
            learner=f"learner{number}",
            backbone=("conv4", "resnet18", "conv4", "efficientnet_b0")[number],
            image_size=(84, 224, 84, 96)[number],
            checkpoint="0123456789abcdef" * 4,
        )
        run = folder / f"run {number}"
        write_manifest(results_folder(run, manifest.suite), manifest)
        for source, mean in values.items():
            for index in range(4):
                change: dict[str, Any] = {"adapt_seconds": 10.0 ** (number - 2)}
                if number == 3 and source == "b" and index == 1:
                    change |= {"failed": "RuntimeError: it broke", "accuracy": None}
                elif number < 3:
                    change["cost"] = Cost(passes="1F", macs=(9, 80, 700)[number] * 10**9, parameters=100 + number)
                score = mean + (0.05 if index % 2 else -0.05)
                record = make_record(manifest, source, index, **({"accuracy": score} | change))
                append_record(records_path(run, manifest.suite, source), record)
        settings = {"params": {"scale": str(number)}, "gradient": "lite", "lite_h": 10 * (number + 1), "tasks": 100}
        lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items() if name != "params"]
        (run / "config.toml").write_text("\n".join([*lines, "[params]", f'scale = "{number}"']), encoding="utf-8")
        environment = {"command": f"lite-bench train learner{number} 'x'", "versions": {"torch": "2.0"}}
        (run / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    (table,) = make_tables(read_folder(folder), command="lite-bench leaderboard runs --output board.html")
    theirs = (published("Theirs", {"a": 0.6, "all": 0.55}), published("Others", {"a": 0.95}, h="all"))
    return replace(table, published=theirs)


def wide_board(folder: Path, rows: int = 5, tasks: int = 4) -> Table:
    """Rows on the 26 sources and 5 groups of a suite like VTAB+MD; every fifth lacks a source."""
    chance = random.Random(0)
    for number in range(rows):
        sources = dict.fromkeys([source for group in ("MD-v2", "VTAB") for source in GROUPS[group]], tasks)
        manifest = make_manifest(
            suite="vtab_md@lite",
            sources=sources,
            groups={name: list(members) for name, members in GROUPS.items()},
            learner=f"learner{number}",
            backbone="efficientnet_b0",
            image_size=224,
        )
        skill = chance.uniform(-0.1, 0.15)
        scores = {
            source: [min(1.0, max(0.0, chance.gauss(0.6 + skill, 0.08))) for _ in range(tasks)]
            for source in list(sources)[number % 5 == 4 :]
        }
        write_run(folder / f"wide{number}", manifest, scores)
    (table,) = make_tables(read_folder(folder))
    return replace(table, published=(published("Theirs", {"MD-v2": 0.7, "VTAB": 0.6}, differences=()),))


def video_board(folder: Path) -> Table:
    """Rows on the two sources of a suite like ORBIT, whose scores come in clusters."""
    chance = random.Random(1)
    for number in range(4):
        manifest = make_manifest(
            suite="orbit@2021",
            sources={"clean": 8, "clutter": 8},
            groups={},
            learner=f"learner{number}",
            metrics=["frame accuracy", "video accuracy", "frames to recognition"],
        )
        run = folder / f"video{number}"
        write_manifest(results_folder(run, manifest.suite), manifest)
        for source in manifest.sources:
            for index in range(8):
                values = [chance.uniform(0.3, 0.9) for _ in range(3)]
                groups = tuple(GroupScore(f"v{n}", 10, v, float(v > 0.5), 1 - v) for n, v in enumerate(values))
                record = make_record(
                    manifest, source, index, sum(values) / 3, groups=groups, cluster=f"user{index // 2}", n_query=30
                )
                append_record(records_path(run, manifest.suite, source), record)
    (table,) = make_tables(read_folder(folder))
    return table


def hostile_board(folder: Path) -> Table:
    """A table every text of which tries to break the page."""
    text = " ".join(HOSTILE[:-1])
    suite = f"x{HOSTILE[0]}@1+{HOSTILE[1]}"
    for number, name in enumerate(HOSTILE):
        manifest = make_manifest(
            suite="s@1",
            sources={name[:60]: 4, "plain": 4},
            groups={HOSTILE[(number + 1) % len(HOSTILE)]: [name[:60], "plain"]},
            label=name,
            learner=name,
            backbone=text,
            checkpoint=text,
        )
        run = folder / f"javascript:alert({number})" / "#?&\"'<b>"
        write_manifest(results_folder(run, manifest.suite), manifest)
        for index in range(4):
            append_record(
                records_path(run, manifest.suite, "plain"),
                make_record(manifest, "plain", index, 0.5, cost=Cost(device=text, passes=text, uncounted=(text,))),
            )
        environment = {"command": f"{text}\nrm -rf", "pretraining": text, "versions": {text: text}}
        (run / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    (table,) = make_tables(read_folder(folder), command=text)
    theirs = published(text, {"plain": 0.5}, backbone=text, h=text, gradient=text, interval=text, differences=(text,))
    figure = PublishedFigure(0.4, None, Source(text, text, text), text)
    return replace(table, suite=suite, published=(replace(theirs, figures={"plain": figure}),))


def read_folder(folder: Path) -> list[Any]:
    """Read the results of every run below ``folder``."""
    runs = sorted({path.parents[2] for path in folder.rglob("suite.json")})
    return [found for run in runs for found in read_results(run)]
