"""``omniglot``: the classic few-shot task on handwritten characters (Lake et al., Science 2015).

N-way K-shot as in Vinyals et al. (2016) and Snell et al. (2017): 28 x 28 images, every character turned by 0,
90, 180 and 270 degrees as four classes, 1000 test tasks with 15 queries per class; training is 60-way 5-shot
with 5 queries. Two departures: the characters are split by alphabet, so that test alphabets are never seen
(the published list of 1,028 / 172 / 423 characters mixes alphabets; ``protocol=mixed`` draws lists of those
sizes), and ink stays dark on white as in the files (``invert=true`` gives the white on black of the original
codes). Drawings are brought from 105 pixels to S by Pillow's antialiased bilinear filter and then turned.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from lite_bench.datasets.episodes import build_episode, check_image_size, check_task, check_tasks, suite_id
from lite_bench.datasets.images import ImageCache, bad_image
from lite_bench.datasets.omniglot_sources import DOWNLOAD, Characters, find_copy, open_copy
from lite_bench.datasets.sampling import Row, Rule, check_rule, draw_plan, task_generator
from lite_bench.datasets.workers import for_each
from lite_bench.harness.core import Episode, Split, Task, stable_key

VERSION = 1
DEFAULT_IMAGE_SIZE = 28
WAYS = (5, 20)
SHOTS = (1, 5)
TEST_QUERY = 15
TRAIN_WAY, TRAIN_SHOT, TRAIN_QUERY = 60, 5, 5
VALIDATION_TASKS = 100
QUARTER_TURNS = 4

VALIDATION_ALPHABETS = (
    "Alphabet_of_the_Magi",
    "Blackfoot_(Canadian_Aboriginal_Syllabics)",
    "Inuktitut_(Canadian_Aboriginal_Syllabics)",
    "Ojibwe_(Canadian_Aboriginal_Syllabics)",
    "Tagalog",
)
"""Background alphabets kept for validation, the choice of Meta-Dataset (Triantafillou et al., ICLR 2020)."""

MIXED_TRAIN, MIXED_VALIDATION = 1028, 172
"""Characters of the split of Vinyals et al. before rotation; the other 423 are for testing."""


class Omniglot:
    """Classic Omniglot: one source per way and shot, ``5-way-1-shot`` to ``20-way-5-shot``."""

    embedded = False

    def __init__(
        self,
        image_size: int | None,
        data_dir: Path | None,
        *,
        way: int | None = None,
        shot: int | None = None,
        query: int | None = None,
        tasks: int = 1000,
        train_way: int | None = None,
        train_shot: int | None = None,
        train_query: int | None = None,
        protocol: Literal["background", "mixed"] = "background",
        split_seed: int = 0,
        rotations: bool = True,
        invert: bool = False,
    ) -> None:
        """Open a copy of Omniglot.

        Args:
            image_size: side of the images in pixels; by default 28.
            data_dir: folder of the two zips, of their unpacked folders, or of a TensorFlow Datasets copy.
            way: classes per task; by default 5 and 20, a source each, and 60 in training.
            shot: support images per class; by default 1 and 5, a source each, and 5 in training.
            query: query images per class; by default 15, and 5 in training.
            tasks: test tasks per source.
            train_way: classes of a training task, if not ``way``.
            train_shot: support images per class of a training task, if not ``shot``.
            train_query: query images per class of a training task, if not ``query``.
            protocol: ``background`` trains on 25 alphabets of the background set, validates on its other 5
                and tests on the 20 of the evaluation set; ``mixed`` draws 1,028 / 172 / 423 characters of any
                alphabet.
            split_seed: which characters ``mixed`` draws.
            rotations: turn every character by 0, 90, 180 and 270 degrees, as classes of their own.
            invert: white ink on black.

        Raises:
            UsageError: a number is too small.
            DataError: no copy is found, it is damaged, or it has fewer classes or drawings than a task needs.
        """
        self._image_size = check_image_size(image_size, DEFAULT_IMAGE_SIZE)
        self._n_tasks = check_tasks(tasks)
        self._invert = invert
        self._rules = evaluation_rules(way, shot, query)
        self._train_rule = Rule(
            _first(train_way, way, TRAIN_WAY),
            _first(train_shot, shot, TRAIN_SHOT),
            _first(train_query, query, TRAIN_QUERY),
        )
        self._train_source = "{}-way-{}-shot-{}-query".format(*dataclasses.astuple(self._train_rule)[:3])
        decisive = {
            "way": way,
            "shot": shot,
            "query": query,
            "tasks": tasks,
            "protocol": protocol,
            "split_seed": split_seed,
            "rotations": rotations,
            "invert": invert,
        }
        self._id = suite_id("omniglot", VERSION, Omniglot, decisive)
        self._characters = open_copy(data_dir)
        self._splits = split_characters(self._characters, protocol, split_seed)
        self._turns = QUARTER_TURNS if rotations else 1
        self._cache = ImageCache()
        self._counts = {split: self._count(names) for split, names in self._splits.items()}
        for split in ("validation", "test"):
            for rule in self._rules.values():
                check_rule(self._counts[split], rule, f"the {split} split of Omniglot")

    def _count(self, names: Sequence[str]) -> dict[str, int]:
        """Count the drawings of each class; class k is character k // turns, turned k % turns times."""
        return {
            f"{name}@{90 * turn}": len(self._characters[name].sizes) for name in names for turn in range(self._turns)
        }

    @staticmethod
    def configured(data_dir: Path | None) -> str | None:
        """Say where a copy was found."""
        found = find_copy(data_dir)
        return f"{found[0]} in {found[1]}" if found else None

    @property
    def id(self) -> str:
        """Name, version and the options that decide the evaluation tasks and differ from the defaults."""
        return self._id

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self._image_size

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the characters and the file sizes of their drawings, the same for any kind of copy."""
        text = "\n".join(f"{name} {drawings.part} {drawings.sizes}" for name, drawings in self._characters.items())
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """One group: the mean over the sources."""
        return {"omniglot": tuple(self._rules)}

    @property
    def notes(self) -> list[str]:
        """Remarks on the data; none."""
        return []

    def class_splits(self) -> dict[Split, list[str]]:
        """List the classes of each split as ``Alphabet/character07@90``, turned anticlockwise."""
        return {split: list(counts) for split, counts in self._counts.items()}

    def train_task(self, index: int, seed: int) -> Task:
        """Name a training task.

        Raises:
            DataError: there are fewer training classes than the way of training tasks.
        """
        check_rule(self._counts["train"], self._train_rule, "the train split of Omniglot")
        return Task(self._id, self._train_source, "train", index, seed)

    def tasks(self, split: Split, seed: int = 0) -> Mapping[str, Sequence[Task]]:
        """List the tasks of ``validation`` or ``test`` by way and shot."""
        n = self._n_tasks if split == "test" else min(VALIDATION_TASKS, self._n_tasks)
        return {name: [Task(self._id, name, split, index, seed) for index in range(n)] for name in self._rules}

    def episode(self, task: Task) -> Episode:
        """Make the episode of ``task``, the same from any kind of copy.

        Raises:
            UsageError: the task is of another suite or of a source this suite does not have.
            DataError: a drawing cannot be read.
        """
        rules = {self._train_source: self._train_rule} if task.split == "train" else self._rules
        check_task(task, self._id, list(rules))
        names = self._splits[task.split]
        counts = list(self._counts[task.split].values())
        plan = draw_plan(counts, rules[task.source], task_generator(task, "plan"))
        return build_episode(task, plan, lambda rows: self._load(names, rows))

    def _load(self, names: Sequence[str], rows: Sequence[Row]) -> np.ndarray:
        """Gather the images of ``rows``, uint8 [N, 3, S, S]."""
        wanted = sorted({names[row.class_index // self._turns] for row in rows})
        drawings: dict[str, np.ndarray] = {}

        def read(_: int, name: str) -> None:
            drawings[name] = self._cache.get(name, lambda: self._read(name))

        for_each(read, wanted, parallel=False)
        grey = np.empty((len(rows), 1, self._image_size, self._image_size), np.uint8)
        for number, row in enumerate(rows):
            character, turns = divmod(row.class_index, self._turns)
            grey[number, 0] = np.rot90(drawings[names[character]][row.item], turns)
        return np.ascontiguousarray(np.broadcast_to(grey, (len(rows), 3, *grey.shape[2:])))

    def _read(self, name: str) -> np.ndarray:
        """Decode a character's drawings, uint8 [n, S, S].

        They are put in the order of their pixels, so that the order of files in a copy does not matter.
        """
        drawings = [decode_drawing(png, name) for png in self._characters[name].read()]
        drawings.sort(key=lambda image: image.tobytes())
        size = (self._image_size, self._image_size)
        grey = np.stack([np.asarray(image.resize(size, Image.Resampling.BILINEAR)) for image in drawings])
        return 255 - grey if self._invert else grey


def evaluation_rules(way: int | None, shot: int | None, query: int | None) -> dict[str, Rule]:
    """List the sources of an evaluation: one per way and shot, or the one that is asked for."""
    ways = WAYS if way is None else (way,)
    shots = SHOTS if shot is None else (shot,)
    return {f"{w}-way-{s}-shot": Rule(w, s, _first(query, TEST_QUERY)) for w in ways for s in shots}


def _first(*values: int | None) -> int:
    """Give the first value that is set."""
    return next(value for value in values if value is not None)


def decode_drawing(png: bytes, name: str) -> Image.Image:
    """Decode one drawing to grey, 0 for ink and 255 for paper.

    Raises:
        DataError: the bytes are not an image.
    """
    try:
        with Image.open(io.BytesIO(png)) as image:
            return image.convert("L")
    except Exception as error:
        raise bad_image(
            f"of a drawing of Omniglot's {name}", error, f"download the zips again from {DOWNLOAD}"
        ) from error


def split_characters(
    characters: Characters, protocol: Literal["background", "mixed"], seed: int
) -> dict[Split, tuple[str, ...]]:
    """Divide the characters into train, validation and test, each in order of name.

    ``mixed`` puts all characters in the order of a hash of the seed and their name, and divides them into
    1,028, 172 and 423 (or those shares of a smaller copy).
    """
    if protocol == "background":
        return {split: tuple(_background(characters, split)) for split in ("train", "validation", "test")}
    order = sorted(characters, key=lambda name: stable_key("omniglot mixed", seed, name))
    n, whole = len(order), 1623
    first = round(n * MIXED_TRAIN / whole)
    second = round(n * (MIXED_TRAIN + MIXED_VALIDATION) / whole)
    return {
        "train": tuple(sorted(order[:first])),
        "validation": tuple(sorted(order[first:second])),
        "test": tuple(sorted(order[second:])),
    }


def _background(characters: Characters, split: Split) -> Iterator[str]:
    for name, drawings in characters.items():
        if drawings.part == "evaluation":
            home: Split = "test"
        else:
            home = "validation" if name.split("/")[0] in VALIDATION_ALPHABETS else "train"
        if home == split:
            yield name
