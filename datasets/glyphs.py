"""``glyphs``: recognise letters of scripts never seen in training, rendered from fonts at any size.

Classes are letters, splits are scripts. No download: the fonts are the twelve DejaVu faces that matplotlib
ships. A task takes its letters from one script; every image is drawn anew, so no image comes twice.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lite_bench.datasets import glyph_rendering
from lite_bench.datasets.episodes import build_episode, check_image_size, check_task, check_tasks, suite_id
from lite_bench.datasets.glyph_rendering import N_UNIFORMS, PATCH, Renderer
from lite_bench.datasets.glyph_table import FACES, Letter, font_path, read_table
from lite_bench.datasets.sampling import Rule, check_rule, draw_plan, task_generator
from lite_bench.datasets.workers import for_each
from lite_bench.harness.core import Episode, Split, Task, stable_key

VERSION = 1
DEFAULT_IMAGE_SIZE = 64
VALIDATION_TASKS = 50
PARALLEL_FROM = 128
"""Smaller images are drawn faster by one thread than by several."""


class Glyphs:
    """The embedded suite: fixed way and shot, one source per script."""

    embedded = True

    def __init__(
        self,
        image_size: int | None = None,
        data_dir: Path | None = None,
        *,
        way: int = 10,
        shot: int = 5,
        query: int = 5,
        tasks: int = 100,
    ) -> None:
        """Open the suite.

        Args:
            image_size: side of the images in pixels; by default 64.
            data_dir: not used; the suite needs no data.
            way: classes per task, in training and evaluation.
            shot: support images per class.
            query: query images per class.
            tasks: test tasks per script; validation has half as many.

        Raises:
            UsageError: a number is too small.
            DataError: a validation or test script has fewer letters than ``way``.
        """
        del data_dir
        self._rule = Rule(way, shot, query)
        self._n_tasks = check_tasks(tasks)
        self._image_size = check_image_size(image_size, DEFAULT_IMAGE_SIZE)
        options = {"way": way, "shot": shot, "query": query, "tasks": tasks}
        self._id = suite_id("glyphs", VERSION, Glyphs, options)
        self._scripts = read_table().scripts
        for split in ("validation", "test"):
            for name, letters in self._scripts[split].items():
                check_rule(_counts(letters, self._rule), self._rule, f"the {split} script {name!r} of glyphs")
        self._renderer = Renderer(self._image_size)

    @staticmethod
    def configured(data_dir: Path | None) -> str | None:
        """Give None: the suite is embedded, so no data is looked for."""
        del data_dir
        return None

    @property
    def id(self) -> str:
        """Name, version and the options that differ from the defaults."""
        return self._id

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self._image_size

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the font files, the letter table and the version of the drawing."""
        return _fingerprint()

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """One group: the mean over the test scripts."""
        return {"unseen scripts": tuple(self._scripts["test"])}

    @property
    def notes(self) -> list[str]:
        """Remarks on the data; none."""
        return []

    def class_splits(self) -> dict[Split, list[str]]:
        """List the classes of each split as ``script/U+0041``."""
        return {
            split: [f"{name}/U+{ord(x.character):04X}" for name, letters in scripts.items() for x in letters]
            for split, scripts in self._scripts.items()
        }

    def train_task(self, index: int, seed: int) -> Task:
        """Name a training task; its script is drawn in proportion to its letters.

        Raises:
            DataError: every training script has fewer letters than the way.
        """
        scripts = self._scripts["train"]
        largest = max(scripts, key=lambda name: len(scripts[name]))
        check_rule(_counts(scripts[largest], self._rule), self._rule, "the largest training script of glyphs")
        names = [name for name, letters in scripts.items() if len(letters) >= (self._rule.way or 0)]
        ends = np.cumsum([len(scripts[name]) for name in names])
        letter = stable_key(self._id, "train", index, seed) % int(ends[-1])
        return Task(self._id, names[int(np.searchsorted(ends, letter, side="right"))], "train", index, seed)

    def tasks(self, split: Split, seed: int = 0) -> Mapping[str, Sequence[Task]]:
        """List the tasks of ``validation`` or ``test`` by script."""
        n = self._n_tasks if split == "test" else min(VALIDATION_TASKS, self._n_tasks)
        return {name: [Task(self._id, name, split, index, seed) for index in range(n)] for name in self._scripts[split]}

    def episode(self, task: Task) -> Episode:
        """Draw the images of ``task``: the same pixels on every call, in any order, on any thread.

        Raises:
            UsageError: the task is of another suite, or its script is not in its split.
        """
        check_task(task, self._id, list(self._scripts[task.split]))
        letters = self._scripts[task.split][task.source]
        counts = list(_counts(letters, self._rule).values())
        plan = draw_plan(counts, self._rule, task_generator(task, "plan"))
        return build_episode(task, plan, lambda rows: self._draw(task, [letters[r.class_index] for r in rows]))

    def _draw(self, task: Task, letters: Sequence[Letter]) -> np.ndarray:
        """Draw one image per letter, uint8 [N, 3, S, S]."""
        generator = task_generator(task, "images")
        uniforms = generator.random((len(letters), N_UNIFORMS))
        grids = generator.random((len(letters), PATCH, PATCH, 3))
        size = self._image_size
        images = np.empty((len(letters), 3, size, size), np.uint8)

        def draw(number: int, letter: Letter) -> None:
            images[number] = self._renderer.draw(letter, uniforms[number], grids[number]).transpose(2, 0, 1)

        for_each(draw, letters, parallel=size >= PARALLEL_FROM)
        return images


def _counts(letters: Sequence[Letter], rule: Rule) -> dict[str, int]:
    """Count the drawings of each letter: as many as a task needs, because each is made anew."""
    return {letter.character: rule.min_images for letter in letters}


@functools.cache
def _fingerprint() -> str:
    digest = hashlib.sha256(f"{read_table().fingerprint} {glyph_rendering.VERSION}".encode())
    for face in range(len(FACES)):
        digest.update(hashlib.sha256(font_path(face).read_bytes()).digest())
    return digest.hexdigest()
