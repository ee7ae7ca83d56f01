"""``folder:PATH``: few-shot tasks from any tree of images with one folder per class.

The classes (never the images) are split into training, validation and test, by top folders named so or by a
seed. Way and shot vary from task to task as in Meta-Dataset, or are fixed by options.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lite_bench.datasets.episodes import build_episode, check_image_size, check_task, check_tasks, suite_id
from lite_bench.datasets.folder_index import (
    ClassSplits,
    FolderIndex,
    describe,
    holds_classes,
    list_folder,
    split_by_folders,
    split_by_seed,
    unlikely_images,
    without_bad_images,
)
from lite_bench.datasets.images import ImageCache, read_image
from lite_bench.datasets.sampling import Row, Rule, check_classes, check_sizes, draw_plan, task_generator
from lite_bench.datasets.workers import for_each
from lite_bench.harness.core import Episode, Split, Task
from lite_bench.harness.errors import UsageError

VERSION = 1
DEFAULT_IMAGE_SIZE = 224
VALIDATION_TASKS = 100
BAD_IMAGE_REMEDY = "replace or delete it, or leave out all such files with -S skip_bad_images=true"


class Folder:
    """A suite of one source, named as its folder."""

    embedded = False

    def __init__(
        self,
        image_size: int | None,
        data_dir: Path | None,
        *,
        way: int | None = None,
        shot: int | None = None,
        query: int | None = None,
        max_way: int = 50,
        max_support: int = 500,
        tasks: int = 600,
        train_fraction: float = 0.64,
        validation_fraction: float = 0.16,
        split_seed: int = 0,
        skip_bad_images: bool = False,
    ) -> None:
        """List the folder.

        Args:
            image_size: side of the images in pixels; by default 224.
            data_dir: the folder.
            way: classes per task; by default 5 to ``max_way``, varying.
            shot: support images per class; by default varying and unbalanced.
            query: query images per class; by default up to 10.
            max_way: largest varying way.
            max_support: largest varying support set.
            tasks: number of test tasks; validation has 100 at most.
            train_fraction: share of the classes to train on, where no sub-folders say so.
            validation_fraction: share of the classes to validate on; the rest is for testing.
            split_seed: which classes go where.
            skip_bad_images: leave out unreadable images and count them in ``notes``; reads all at the start.

        Raises:
            UsageError: no folder was named, or a number is out of range.
            DataError: the folder is missing or empty, a class is empty or too small, or a file is no image.
        """
        self._image_size = check_image_size(image_size, DEFAULT_IMAGE_SIZE)
        self._n_tasks = check_tasks(tasks)
        self._rule = Rule(way, shot, query, max_way, max_support)
        if data_dir is None:
            raise UsageError("The folder suite needs a folder; write --suite folder:PATH or give --data-dir PATH.")
        root = data_dir.expanduser().resolve()
        self._source = re.sub(r"[^A-Za-z0-9._-]+", "-", root.name).strip(".-") or "images"
        decisive = {
            "way": way,
            "shot": shot,
            "query": query,
            "max_way": max_way,
            "max_support": max_support,
            "tasks": tasks,
            "train_fraction": train_fraction,
            "validation_fraction": validation_fraction,
            "split_seed": split_seed,
            "skip_bad_images": skip_bad_images,
        }
        self._id = suite_id(f"folder-{self._source}", VERSION, Folder, decisive)
        self._cache = ImageCache()
        self._index = self._checked(list_folder(root), skip_bad_images)
        self._splits = split_by_folders(self._index) or split_by_seed(
            list(self._index.classes), train_fraction, validation_fraction, split_seed
        )

    def _checked(self, index: FolderIndex, skip_bad_images: bool) -> FolderIndex:
        """Check the sizes of all classes, and the files not named like images or, to skip, all files."""
        self._root = index.root
        if skip_bad_images:
            index = without_bad_images(index, self._image)
        else:
            for path in unlikely_images(index):
                self._image(path)
        left = f" (after {len(index.skipped)} bad images were skipped)" if index.skipped else ""
        check_sizes(index.counts(list(index.classes)), self._rule, f"{index.root}{left}")
        return index

    @staticmethod
    def configured(data_dir: Path | None) -> str | None:
        """Say which folder was named, if it looks like a tree of images."""
        return str(data_dir) if data_dir is not None and holds_classes(data_dir.expanduser()) else None

    @property
    def id(self) -> str:
        """``folder-``, the folder's name, the version and the options that differ from the defaults."""
        return self._id

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self._image_size

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the names and sizes of all images."""
        lines = [f"{name}/{file} {size}" for name, files in self._index.classes.items() for file, size in files]
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """None; there is one source."""
        return {}

    @property
    def notes(self) -> list[str]:
        """What was found, passed over and skipped, for the record of a run."""
        return describe(self._index, self._splits)

    def class_splits(self) -> ClassSplits:
        """List the classes of each split."""
        return {split: list(names) for split, names in self._splits.items()}

    def train_task(self, index: int, seed: int) -> Task:
        """Name a training task.

        Raises:
            DataError: there are fewer training classes than the way.
        """
        self._require("train")
        return Task(self._id, self._source, "train", index, seed)

    def tasks(self, split: Split, seed: int = 0) -> Mapping[str, Sequence[Task]]:
        """List the tasks of ``validation`` (empty without validation classes) or ``test``.

        Raises:
            DataError: there are fewer classes than the way.
        """
        if split == "validation" and not self._splits[split]:
            return {}
        self._require(split)
        n = self._n_tasks if split == "test" else min(VALIDATION_TASKS, self._n_tasks)
        return {self._source: [Task(self._id, self._source, split, index, seed) for index in range(n)]}

    def _require(self, split: Split) -> None:
        check_classes(len(self._splits[split]), self._rule, f"the {split} split of {self._root}")

    def episode(self, task: Task) -> Episode:
        """Make the episode of ``task``.

        Raises:
            UsageError: the task is of another suite.
            DataError: a file is not an image or is corrupt.
        """
        check_task(task, self._id, [self._source])
        self._require(task.split)
        names = self._splits[task.split]
        counts = list(self._index.counts(names).values())
        plan = draw_plan(counts, self._rule, task_generator(task, "plan"))
        return build_episode(task, plan, lambda rows: self._load(names, rows))

    def _load(self, names: Sequence[str], rows: Sequence[Row]) -> np.ndarray:
        """Decode the images of ``rows`` in parallel, uint8 [N, 3, S, S]."""
        images = np.empty((len(rows), 3, self._image_size, self._image_size), np.uint8)

        def load(number: int, row: Row) -> None:
            name = names[row.class_index]
            images[number] = self._image(f"{name}/{self._index.classes[name][row.item][0]}")

        for_each(load, rows)
        return images

    def _image(self, path: str) -> np.ndarray:
        """Give the image at ``path`` below the folder, uint8 [3, S, S]."""

        def decode() -> np.ndarray:
            pixels = read_image(self._root / path, self._image_size, BAD_IMAGE_REMEDY)
            return np.ascontiguousarray(pixels.transpose(2, 0, 1))

        return self._cache.get(path, decode)
