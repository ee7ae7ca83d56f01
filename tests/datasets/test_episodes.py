"""Ids and small checks that the suites share."""

from __future__ import annotations

import numpy as np
import pytest

from lite_bench.datasets.episodes import build_episode, check_image_size, check_task, check_tasks, suite_id
from lite_bench.datasets.sampling import Plan, Row
from lite_bench.harness.core import Task
from lite_bench.harness.errors import UnknownNameError, UsageError


def factory(*, way: int = 5, shot: int | None = None, rotate: bool = True, share: float = 0.5) -> None:
    del way, shot, rotate, share


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "toy@2"),
        ({"way": 5, "shot": None, "rotate": True}, "toy@2"),
        ({"way": 3, "shot": 1}, "toy@2+shot=1+way=3"),
        ({"share": 0.25, "rotate": False}, "toy@2+rotate=false+share=0.25"),
    ],
)
def test_ids_hold_what_is_not_the_default(options: dict[str, object], expected: str) -> None:
    assert suite_id("toy", 2, factory, options) == expected


def test_images_follow_their_labels() -> None:
    def load(rows: list[Row]) -> np.ndarray:
        values = [10 * row.class_index + row.item for row in rows]
        return np.array(values, np.uint8).reshape(-1, 1, 1, 1).repeat(3, 1)

    plan = Plan((4, 2), ((0, 1, 2), (3,)), ((5,), (6,)))
    episode = build_episode(Task("toy@1", "a", "test", 0), plan, load)  # type: ignore[arg-type]
    pairs = sorted(zip(episode.support.images[:, 0, 0, 0].tolist(), episode.support.labels.tolist(), strict=True))
    assert pairs == [(23, 1), (40, 0), (41, 0), (42, 0)]
    (batch,) = episode.query
    assert sorted(zip(batch.images[:, 0, 0, 0].tolist(), batch.labels.tolist(), strict=True)) == [
        (26, 1),
        (45, 0),
    ]


def test_strange_tasks_are_refused() -> None:
    with pytest.raises(UsageError, match=r"toy@1/a/test/0 is not of suite toy@2"):
        check_task(Task("toy@1", "a", "test", 0), "toy@2", ["a"])
    with pytest.raises(UnknownNameError, match=r"test source of toy@1 called 'arabik'.*Did you mean arabic"):
        check_task(Task("toy@1", "arabik", "test", 0), "toy@1", ["arabic"])


def test_strange_numbers_are_refused() -> None:
    assert check_image_size(None, 28) == 28
    with pytest.raises(UsageError, match="--image-size 4 is too small; give 8"):
        check_image_size(4, 28)
    with pytest.raises(UsageError, match="tasks=0 leaves nothing"):
        check_tasks(0)
