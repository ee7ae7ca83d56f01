"""From a plan to tensors, and from options to a suite's id: what the suites share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from lite_bench.datasets.sampling import Plan, Row, shuffled_rows, task_generator
from lite_bench.harness.core import Episode, QueryBatch, Support, Task
from lite_bench.harness.errors import UnknownNameError, UsageError

Load = Callable[[Sequence[Row]], np.ndarray]
"""Gives the images of rows as uint8 [N, 3, S, S]."""


def build_episode(task: Task, plan: Plan, load: Load) -> Episode:
    """Make the tensors of ``plan``, the support set and the query set each in random order.

    Args:
        task: the task, whose key decides the order.
        plan: the images to take.
        load: gives the images of rows, uint8 [N, 3, S, S].

    Returns:
        the episode, its queries in one batch.
    """
    generator = task_generator(task, "order")
    support = shuffled_rows(plan.classes, plan.support, generator)
    query = shuffled_rows(plan.classes, plan.query, generator)
    images = torch.from_numpy(load([*support, *query]))
    labels = torch.tensor([row.label for row in (*support, *query)], dtype=torch.int64)
    n = len(support)
    return Episode(
        task,
        Support(images[:n], labels[:n], len(plan.classes)),
        (QueryBatch(images[n:], labels[n:]),),
        len(query),
    )


def suite_id(name: str, version: int | str, factory: Callable[..., Any], options: Mapping[str, object]) -> str:
    """Name a suite so that two suites with different tasks never share a name.

    Args:
        name: the suite's own name.
        version: raised, or changed, whenever the same options give other tasks.
        factory: the suite's class, whose signature holds the defaults.
        options: the options that decide the tasks.

    Returns:
        ``name@version`` and every option that is not the default, sorted: ``glyphs@1+shot=1+way=5``.
    """
    parameters = inspect.signature(factory).parameters
    changed = [f"+{key}={_text(value)}" for key, value in options.items() if value != parameters[key].default]
    return f"{name}@{version}{''.join(sorted(changed))}"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_task(task: Task, suite: str, sources: Sequence[str]) -> None:
    """Check that ``task`` is one of ``suite`` and names one of ``sources``.

    Raises:
        UsageError: it belongs to another suite or version.
        UnknownNameError: its source is not in its split.
    """
    if task.suite != suite:
        raise UsageError(f"Task {task} is not of suite {suite}; open the suite with the options in its name.")
    if task.source not in sources:
        raise UnknownNameError(f"{task.split} source of {suite} called", task.source, sources)


def check_image_size(image_size: int | None, default: int) -> int:
    """Give the image side to use.

    Raises:
        UsageError: it is below 8 pixels.
    """
    if image_size is None:
        return default
    if image_size < 8:
        raise UsageError(f"--image-size {image_size} is too small; give 8 pixels or more.")
    return image_size


def check_tasks(tasks: int) -> int:
    """Check the number of test tasks per source.

    Raises:
        UsageError: it is below 1.
    """
    if tasks < 1:
        raise UsageError(f"-S tasks={tasks} leaves nothing to evaluate; give 1 or more.")
    return tasks
