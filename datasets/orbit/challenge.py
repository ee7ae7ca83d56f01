"""The file of predictions that the ORBIT few-shot challenge asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lite_bench.datasets.orbit.sampling import Clip, Plan
from lite_bench.harness.core import Task
from lite_bench.harness.errors import DataError, UsageError

Predictions = Mapping[Task, Mapping[str, Sequence[int]]]
"""Predicted class of every frame in order, by video, by task."""
Macs = Mapping[Task, int | None]
"""Multiply-accumulates of adapting, as published costs count them, by task; None where they are not known."""
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K"))


def challenge_file(predictions: Predictions, macs: Macs, plan_of: Callable[[Task], tuple[str, Plan]]) -> dict[str, Any]:
    """Bring predictions into the challenge's form.

    Args:
        predictions: of tasks of one source.
        macs: of the same tasks; those that are left out are not known.
        plan_of: gives the user and the plan of a task.

    Returns:
        user -> one entry for each task, in order of the tasks: ``task_object_list``, the objects in order of their
        labels, ``task_videos``, video -> number of the frame as in its file's name -> predicted class, without padding,
        and ``task_macs_to_personalise``, a text such as ``2.65T``, or None.

    Raises:
        UsageError: the tasks are of several sources.
        DataError: the predictions of a task are not of the videos and frames that it has.
    """
    sources = sorted({task.source for task in predictions})
    if len(sources) > 1:
        raise UsageError(
            f"The challenge's file has room for one mode, not for {' and '.join(sources)}; make one of each."
        )
    users: dict[str, list[dict[str, Any]]] = {}
    for task in sorted(predictions):
        user, plan = plan_of(task)
        names = [each.name for each in plan.objects]
        videos = _videos(task, predictions[task], plan)
        cost = macs.get(task)
        entry = {"task_object_list": names, "task_videos": videos}
        users.setdefault(user, []).append({**entry, "task_macs_to_personalise": None if cost is None else short(cost)})
    return users


def short(number: int) -> str:
    """Write a count as the challenge's files do: two decimals and T, G, M or K, or B where it is smaller still."""
    for unit, letter in UNITS:
        if number > unit:
            return f"{number / unit:.2f}{letter}"
    return f"{number:.2f}B"


def _videos(task: Task, predicted: Mapping[str, Sequence[int]], plan: Plan) -> dict[str, dict[int, int]]:
    wanted = {each.video.name: each for each in plan.target}
    if unlike := sorted(wanted.keys() ^ predicted.keys()):
        problem = "lack" if unlike[0] in wanted else "hold"
        raise DataError(
            f"The predictions of {task} {problem} the video {unlike[0]}, unlike the task itself; evaluate it again."
        )
    return {name: _frames(task, each, predicted[name], len(plan.objects)) for name, each in wanted.items()}


def _frames(task: Task, each: Clip, predicted: Sequence[int], way: int) -> dict[int, int]:
    """Give the predicted class of each frame by its number, counted from 1; of a repeated one, the first."""
    if len(predicted) != len(each.positions):
        raise DataError(
            f"There are {len(predicted)} predictions for the video {each.video.name} of {task}, which has "
            f"{len(each.positions)} frames; evaluate it again."
        )
    if wrong := [label for label in predicted if not 0 <= label < way]:
        raise DataError(
            f"The predictions of {task} hold the class {wrong[0]}, but its classes are 0 to {way - 1}; "
            "evaluate it again."
        )
    numbers: dict[int, int] = {}
    for position, label in zip(each.positions, predicted, strict=True):
        numbers.setdefault(position + 1, int(label))
    return numbers
