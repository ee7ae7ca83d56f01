"""The table of VTAB's tasks, ``tasks.toml``, and the language in which it cuts support and test sets.

A slice names a split of TFDS, or a sum of them: ``train[:800] + train[90%:][:200]``. Bounds are numbers of
examples in storage order, or per cent of the part that is cut, rounded down; several cuts follow each other.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal, get_args

from lite_bench.harness.errors import DataError, UnknownNameError, UsageError

Profile = Literal["lite", "official"]
Group = Literal["natural", "specialized", "structured"]

PROFILES: tuple[Profile, ...] = get_args(Profile)
GROUPS: tuple[Group, ...] = get_args(Group)

TERM = re.compile(r"\s*([a-z]+)((?:\[\d*%?:\d*%?\])*)\s*")
CUT = re.compile(r"\[(\d*)(%?):(\d*)(%?)\]")


@dataclass(frozen=True)
class Selection:
    """What a task takes from its dataset in one profile.

    Attributes:
        config: of the TFDS dataset, or None for those that have only one.
        support: slice of the support set.
        test: slice of the test set.
        resize: name of a rule of ``pixels.py``.
        folder: the data is an image folder instead of a TFDS copy (SUN397 of the ``lite`` profile).
    """

    config: str | None
    support: str
    test: str
    resize: str
    folder: bool


@dataclass(frozen=True)
class VtabDataset:
    """A dataset of TFDS.

    Attributes:
        name: its name in TFDS.
        versions: those whose examples have the same keys, oldest first.
        splits: the numbers of examples that a split may have; the first is that of a perfect copy.
    """

    name: str
    versions: tuple[str, ...]
    splits: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class VtabTask:
    """One of the 18 tasks.

    Attributes:
        name: as it is logged, and fit for a file name.
        group: natural, specialized or structured.
        dataset: where its images are.
        classes: number K of labels, 0..K-1.
        label: name of a rule of ``labels.py``.
        selections: what it takes in each profile.
    """

    name: str
    group: Group
    dataset: VtabDataset
    classes: int
    label: str
    selections: Mapping[Profile, Selection]


@functools.cache
def tasks() -> tuple[VtabTask, ...]:
    """List the 18 tasks in the order of the published tables."""
    table = tomllib.loads(files(__package__).joinpath("tasks.toml").read_text(encoding="utf-8"))
    datasets = {
        name: VtabDataset(name, tuple(row["versions"]), {split: tuple(n) for split, n in row["splits"].items()})
        for name, row in table["datasets"].items()
    }
    return tuple(_task(row, datasets[row.get("dataset", row["name"])], table["resize"]) for row in table["tasks"])


def _task(row: dict[str, Any], dataset: VtabDataset, resize: dict[Profile, str]) -> VtabTask:
    selections = {
        profile: Selection(
            config=row[profile].get("config"),
            support=row[profile]["support"],
            test=row[profile]["test"],
            resize=row[profile].get("resize", resize[profile]),
            folder=row[profile].get("folder", False),
        )
        for profile in PROFILES
    }
    return VtabTask(row["name"], row["group"], dataset, row["classes"], row["label"], selections)


def used_splits(dataset: VtabDataset, config: str | None) -> list[str]:
    """List the splits that the tasks of both profiles read of ``dataset`` in ``config``."""
    sizes = {split: n[0] for split, n in dataset.splits.items()}
    every = (s for task in tasks() if task.dataset.name == dataset.name for s in task.selections.values())
    own = [s for s in every if s.config == config and not s.folder]
    slices = (cut(text, sizes) for s in own for text in (s.support, s.test))
    return list(dict.fromkeys(part.split for parts in slices for part in parts))


def task_named(name: str) -> VtabTask:
    """Give the task called ``name``.

    Raises:
        UnknownNameError: there is none.
    """
    for task in tasks():
        if task.name == name:
            return task
    raise UnknownNameError("VTAB task called", name, [task.name for task in tasks()])


def dataset_named(name: str) -> VtabDataset:
    """Give the dataset that TFDS calls ``name``.

    Raises:
        UnknownNameError: no task uses it.
    """
    datasets = {task.dataset.name: task.dataset for task in tasks()}
    if name not in datasets:
        raise UnknownNameError("VTAB dataset called", name, datasets)
    return datasets[name]


@dataclass(frozen=True)
class Part:
    """Consecutive examples of a split, in storage order."""

    split: str
    positions: range


def cut(text: str, sizes: Mapping[str, int]) -> tuple[Part, ...]:
    """Find the examples that a slice stands for.

    Args:
        text: such as ``train[:800] + train[90%:][:200]``.
        sizes: number of examples of every split.

    Raises:
        UsageError: ``text`` is not a slice.
        DataError: it names a split that is not among ``sizes``.
    """
    return tuple(_term(term, text, sizes) for term in text.split("+"))


def _term(term: str, text: str, sizes: Mapping[str, int]) -> Part:
    match = TERM.fullmatch(term)
    if match is None:
        raise UsageError(f"The slice {text!r} cannot be read; write one like 'train[:800] + train[90%:][:200]'.")
    split, cuts = match.groups()
    if split not in sizes:
        raise DataError(
            f"The slice {text!r} needs the split {split!r}, and the data has {', '.join(sizes) or 'none'}; "
            "prepare the dataset again."
        )
    positions = range(sizes[split])
    for start, start_unit, stop, stop_unit in CUT.findall(cuts):
        n = len(positions)
        positions = positions[_bound(start, start_unit, n, 0) : _bound(stop, stop_unit, n, n)]
    return Part(split, positions)


def _bound(number: str, unit: str, n: int, default: int) -> int:
    if not number:
        return default
    return n * int(number) // 100 if unit else int(number)
