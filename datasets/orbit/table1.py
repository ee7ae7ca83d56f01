"""The costs in Table 1 of the LITE paper, computed again from the sizes of the published test tasks."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from lite_bench.datasets.orbit.protocol import rules
from lite_bench.datasets.orbit.published import PublishedObject, published_users
from lite_bench.datasets.orbit.sampling import Plan, candidates, evaluation_plan
from lite_bench.datasets.orbit.videos import KINDS, Kind, UserObject, Video
from lite_bench.harness.assembly import build_learner
from lite_bench.harness.core import TaskSizes
from lite_bench.harness.data import Notify
from lite_bench.harness.errors import UsageError
from lite_bench.harness.measurement.published import mean_task_macs, network_counter
from lite_bench.harness.reproduction import Figure, Row
from lite_bench.harness.settings import resolve

TERA, MEGA = 1e12, 1e6
UNKNOWN_FRAMES = 1
"""Of a clean video: how many there are is not published, and of any number the same number of clips is drawn."""


@dataclass(frozen=True)
class PublishedRow:
    """A row of ``table1.json``.

    Attributes:
        method: as it is called there.
        backbone: likewise.
        image_size: side of the frames in pixels.
        macs: printed multiply-accumulates to personalise, in units of 1e12.
        steps: printed passes over the context set.
        parameters: printed number of parameters, in millions.
        recipe: name of the recipe that the row is computed by.
        params: options of the learner that go over the recipe's.
        tolerance: of ``macs``, if it is not the usual one.
    """

    method: str
    backbone: str
    image_size: int
    macs: float
    steps: str
    parameters: float
    recipe: str
    params: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float | None = None


@functools.cache
def _table() -> dict[str, Any]:
    """Read ``table1.json``; do not write to what is given."""
    content: dict[str, Any] = json.loads(files(__package__).joinpath("table1.json").read_text(encoding="utf-8"))
    return content


def published_rows() -> list[PublishedRow]:
    """List the rows of the table."""
    return [PublishedRow(**row) for row in _table()["rows"]]


class Table1Costs:
    """What adapting costs in Table 1 of the LITE paper: MACs, steps and parameters of 15 rows; needs no data.

    The learners are those of the recipes of ORBIT, and the sizes of the test tasks follow from the published numbers of
    users, objects and videos. The table's MACs are the mean of those of both modes.
    """

    def __init__(self, data_dir: Path | None = None) -> None:
        """Read the table.

        Raises:
            UsageError: a folder of data is named.
        """
        if data_dir is not None:
            raise UsageError(f"--data-dir {data_dir} plays no part: these costs need no data; leave it out.")
        self.source: str = _table()["source"]

    def task_sizes(self) -> dict[Kind, tuple[TaskSizes, ...]]:
        """Draw every test task of both modes, 17 users and 5 tasks of each, as the suite does, and give its size."""
        own = rules("2021")
        sizes: dict[Kind, tuple[TaskSizes, ...]] = {}
        for mode in KINDS:
            found = [candidates(_objects(user), mode, own) for user in published_users()["test"]]
            tasks = [each for each in found for _ in range(own.tasks_per_user["test"])]
            # Which windows of a video are drawn is random, and how many are is not.
            plans = [evaluation_plan(each, own, np.random.default_rng(0), np.random.default_rng(0)) for each in tasks]
            sizes[mode] = tuple(_size(plan) for plan in plans)
        return sizes

    def rows(self, notify: Notify) -> Sequence[Row]:
        """Compute the rows in the table's order."""
        sizes, published, computed = self.task_sizes(), published_rows(), []
        for number, row in enumerate(published, start=1):
            computed.append(self._row(row, sizes))
            notify("rows", number, len(published), f"{row.method} {row.backbone} {row.image_size}")
        return computed

    def _row(self, row: PublishedRow, sizes: Mapping[Kind, Sequence[TaskSizes]]) -> Row:
        settings = resolve({"params": row.params, "pretrained": False}, Path(f"recipes/{row.recipe}.toml"))
        learner, module = build_learner(settings, row.image_size)
        network_macs = network_counter(row.image_size)
        macs = {mode: mean_task_macs(learner, tasks, network_macs) / TERA for mode, tasks in sizes.items()}
        parameters = sum(parameter.numel() for parameter in module.parameters()) / MEGA
        usual = _table()["tolerances"]
        tolerance = usual["macs"] if row.tolerance is None else row.tolerance
        figures = [Figure(f"{mode} MACs (T)", value) for mode, value in macs.items()]
        figures += [
            Figure("MACs (T)", sum(macs.values()) / len(macs), row.macs, tolerance),
            Figure("steps", str(getattr(learner, "passes", "")), row.steps),
            Figure("parameters (M)", parameters, row.parameters, usual["parameters"]),
        ]
        labels = {"method": row.method, "backbone": row.backbone, "size": str(row.image_size)}
        return Row(labels, tuple(figures))


def _objects(user: str) -> list[UserObject]:
    return [_object(user, each) for each in published_users()["test"][user]]


def _object(user: str, each: PublishedObject) -> UserObject:
    """Give an object with as many videos as are published; their names are made up and in order."""

    def video(kind: Kind, number: int, n_frames: int) -> Video:
        name = f"{user}--{each.token}--{kind}--{number:03d}"
        return Video(name, kind, Path(name), n_frames)

    clean = [video("clean", number, UNKNOWN_FRAMES) for number in range(each.clean)]
    clutter = [video("clutter", number, n_frames) for number, (n_frames, _) in enumerate(each.clutter)]
    return UserObject(each.token, tuple(clean), tuple(clutter))


def _size(plan: Plan) -> TaskSizes:
    counts = Counter(clip.label for clip in plan.context)
    return TaskSizes(tuple(counts[label] for label in range(len(plan.objects))), len(plan.context[0].positions))
