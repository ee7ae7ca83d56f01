"""``vtab_md``: VTAB+MD, one few-shot benchmark of two (Dumoulin et al., NeurIPS 2021 Datasets and Benchmarks).

One model, 26 test sources: 600 episodes each of 8 Meta-Dataset sources, and 18 VTAB tasks of 1000 support images
and their whole test sets. Two versions, because what the LITE authors ran (``lite``, the default, comparable with
Bronskill et al., NeurIPS 2021) differs from what the benchmark's authors published (``official``): see
``protocol.toml`` here and ``tasks.toml`` of `lite_bench.datasets.vtab`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from lite_bench.datasets.episodes import build_episode, check_image_size, check_task, check_tasks, suite_id
from lite_bench.datasets.meta_dataset.sampling import (
    check_source,
    describe_episode,
    draw_images,
    frozen_generator,
    generator_of,
)
from lite_bench.datasets.meta_dataset.source import RecordSource
from lite_bench.datasets.sampling import Plan, Row, Rule
from lite_bench.datasets.vtab.source import VtabSource, open_examples
from lite_bench.datasets.vtab.tasks import GROUPS, task_named
from lite_bench.datasets.vtab.tasks import tasks as vtab_tasks
from lite_bench.datasets.vtab_md.pixels import decode_jpeg, resize_aligned
from lite_bench.datasets.vtab_md.protocol import protocol
from lite_bench.datasets.vtab_md.records import RecordFolders, find_source
from lite_bench.datasets.workers import for_each
from lite_bench.harness.core import Episode, QueryBatch, SourceData, Split, Support, Task, stable_key
from lite_bench.harness.errors import DataError, UnknownNameError, UsageError

Version = Literal["lite", "official"]

DEFAULT_IMAGE_SIZE = 224
QUERY_BATCH = 200
"""VTAB test images decoded at once; the harness cuts them smaller."""
MD_GROUP, VTAB_GROUP = "MD-v2", "VTAB"
NAME = "vtab_md"


class VtabMd:
    """VTAB+MD as one suite."""

    embedded = False
    pixel_range = "signed"

    def __init__(
        self,
        image_size: int | None,
        data_dir: Path | None,
        *,
        version: Version = "lite",
        way: int | None = None,
        shot: int | None = None,
        query: int | None = None,
        tasks: int = 600,
        max_way_train: int = 50,
        max_support_train: int = 500,
        train_sources: str = "",
    ) -> None:
        """Look for the data; what is missing is passed over in an evaluation.

        Args:
            image_size: side of the images in pixels; by default 224.
            data_dir: folder with the records (itself, or its ``records``), the TFDS copies (itself, or its ``tfds``)
                and the image folder ``sun397``; the variables RECORDS, TFDS_DATA_DIR and SUN397_ROOT come after it.
            version: ``lite``, as the LITE authors ran it, or ``official``, as published.
            way: fixed number of classes of Meta-Dataset episodes; by default varying.
            shot: fixed support images per class of Meta-Dataset episodes; by default varying and unbalanced.
            query: fixed query images per class of Meta-Dataset episodes; by default up to 10.
            tasks: test episodes of each Meta-Dataset source; validation has 200 at most.
            max_way_train: largest varying way of training tasks.
            max_support_train: largest varying support set of training tasks.
            train_sources: comma-separated, instead of the protocol's training sources.

        Raises:
            UsageError: a number is out of range.
            UnknownNameError: a training source is not one of the protocol's.
        """
        self._image_size = check_image_size(image_size, DEFAULT_IMAGE_SIZE)
        self._n_tasks = check_tasks(tasks)
        self._version: Version = version
        self._data_dir = data_dir.expanduser() if data_dir else None
        self._rule = Rule(way, shot, query)
        if max_support_train < max_way_train:
            raise UsageError(
                f"-S max_support_train={max_support_train} is less than one image for each of "
                f"max_way_train={max_way_train} classes; raise it, or lower max_way_train."
            )
        self._train_rule = Rule(way, shot, query, max_way_train, max_support_train)
        self._protocol = protocol()
        own = self._protocol["versions"][version]
        self._train_sources = chosen_sources(train_sources, own["train"])
        self._records = RecordFolders(self._data_dir, own["flat"])
        self._train_suffix = train_suffix(self._train_rule)
        decisive = {"way": way, "shot": shot, "query": query, "tasks": tasks}
        self._test_sources = (*self._protocol["test"], *(task.name for task in vtab_tasks()))
        self._id = suite_id(NAME, version, VtabMd, decisive)

    @staticmethod
    def configured(data_dir: Path | None) -> str | None:
        """Say where records of a Meta-Dataset source were found."""
        tables = protocol()
        trained = {source for version in tables["versions"].values() for source in version["train"]}
        found = [folder for source in sorted({*tables["test"], *trained}) if (folder := find_source(source, data_dir))]
        return f"records of {len(found)} Meta-Dataset sources in {found[0].parent}" if found else None

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
        """SHA-256 of the suite's id and whether stand-ins are in it; each source has a hash of its own."""
        return hashlib.sha256(f"{self._id} synthetic={self.synthetic}".encode()).hexdigest()

    @property
    def synthetic(self) -> bool:
        """Whether any source found is a stand-in."""
        return any(data.synthetic for data in self.source_data.values())

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """MD-v2; VTAB, all 18 tasks and not its groups with equal weight; and its three groups."""
        by_group: dict[str, tuple[str, ...]]
        by_group = {group: tuple(task.name for task in vtab_tasks() if task.group == group) for group in GROUPS}
        every = tuple(task.name for task in vtab_tasks())
        return {MD_GROUP: tuple(self._protocol["test"]), VTAB_GROUP: every, **by_group}

    @cached_property
    def source_data(self) -> dict[str, SourceData]:
        """What was found of each of the 26 test sources."""
        return {source: self._found(source) for source in self._test_sources}

    def _found(self, source: str) -> SourceData:
        try:
            if source in self._protocol["test"]:
                records = self._records[source]
                if problem := self._records.unpublished(source):
                    return SourceData(missing=f"{problem} Results on it could not be compared; convert it again.")
                check_source(records.specification, "test", self._rule)
                return SourceData(records.fingerprint, self._records.synthetic(source))
            examples = open_examples(task_named(source), self._version, self._data_dir, np.random.RandomState(0))
            return SourceData(examples.fingerprint, examples.synthetic)
        except DataError as error:
            return SourceData(missing=str(error))

    @cached_property
    def train_data(self) -> dict[str, SourceData]:
        """What was found of each training source."""
        return {source: self._found_for_training(source) for source in self._train_sources}

    def _found_for_training(self, source: str) -> SourceData:
        try:
            return SourceData(self._records[source].fingerprint, self._records.synthetic(source))
        except DataError as error:
            return SourceData(missing=str(error))

    @property
    def notes(self) -> list[str]:
        """Which sources are missing or not as published, and whether there are stand-ins."""
        missing = [source for source, data in self.source_data.items() if data.missing]
        notes = []
        if missing:
            notes.append(
                f"{len(missing)} of {len(self.source_data)} test sources are missing ({', '.join(missing)}): "
                "`lite-bench data status` says where to get them. Nothing is averaged over a missing source."
            )
        validated = [source for source in self._protocol["validation"] if find_source(source, self._data_dir)]
        if len(validated) < len(self._protocol["validation"]):
            notes.append(
                f"Validation in training has {len(validated)} of its {len(self._protocol['validation'])} sources "
                f"({', '.join(validated) or 'none'}), so its choice of a model is not the protocol's."
            )
        there = [source for source in self._train_sources if find_source(source, self._data_dir)]
        if others := [problem for source in there if (problem := self._unpublished(source))]:
            notes.append(f"Not as published, so that what is trained on it cannot be compared: {' '.join(others)}")
        if self.synthetic:
            notes.append("Stand-in data: this shows that everything runs, and says nothing about the real benchmark.")
        return notes

    def _unpublished(self, source: str) -> str:
        """Name the first difference of ``source`` from what is published; none if it cannot even be read."""
        try:
            return self._records.unpublished(source)
        except DataError:
            return ""

    def train_task(self, index: int, seed: int) -> Task:
        """Name a training task; its source is drawn uniformly from the training sources.

        Raises:
            DataError: a training source is missing or too small.
        """
        names = self._training_sources
        draw = generator_of(stable_key(NAME, "train source", seed, index)).randint(len(names))
        return Task(self._id, names[draw] + self._train_suffix, "train", index, seed)

    @cached_property
    def _training_sources(self) -> tuple[str, ...]:
        """The training sources, all there and large enough."""
        problems: dict[str, str] = {}
        for source in self._train_sources:
            try:
                check_source(self._records[source].specification, "train", self._train_rule)
            except DataError as error:
                problems[source] = str(error)
        if problems:
            there = [source for source in self._train_sources if source not in problems]
            instead = (
                f" Or train on fewer sources, which is no longer the protocol: -S train_sources={','.join(there)}."
            )
            raise DataError(
                f"Training needs {len(self._train_sources)} sources, and {len(problems)} cannot be used "
                f"({', '.join(problems)}): {next(iter(problems.values()))}{instead if there else ''}"
            )
        return self._train_sources

    def tasks(self, split: Split, seed: int = 0) -> Mapping[str, Sequence[Task]]:
        """List the tasks of ``validation`` (the sources that are there) or ``test`` (all, also those missing)."""
        if split == "validation":
            n = min(self._n_tasks, self._protocol["validation_tasks"])
            return {source: self._list(source, split, n, seed) for source in self._validation_sources}
        episodes = {source: self._list(source, split, self._n_tasks, seed) for source in self._protocol["test"]}
        return episodes | {task.name: self._list(task.name, split, 1, seed) for task in vtab_tasks()}

    def _list(self, source: str, split: Split, n: int, seed: int) -> list[Task]:
        return [Task(self._id, source, split, index, seed) for index in range(n)]

    @cached_property
    def _validation_sources(self) -> tuple[str, ...]:
        present = [source for source in self._protocol["validation"] if find_source(source, self._data_dir)]
        for source in present:
            check_source(self._records[source].specification, "validation", self._rule)
        return tuple(present)

    @staticmethod
    def improves(candidate: Mapping[str, float], incumbent: Mapping[str, float] | None) -> bool:
        """Choose a model that is strictly better on at least half of the validation sources (4 of the 7).

        The first incumbent has accuracy 0 everywhere.
        """
        better = sum(accuracy > (incumbent or {}).get(source, 0.0) for source, accuracy in candidate.items())
        return better >= math.ceil(len(candidate) / 2)

    def episode(self, task: Task) -> Episode:
        """Make the episode of ``task``.

        Raises:
            UsageError: the task is of another suite, version or caps.
            DataError: its source is missing or damaged.
        """
        check_task(task, self._id, self._sources_of(task.split))
        if task.split == "test" and task.source not in self._protocol["test"]:
            return self._vtab_episode(task)
        records = self._records[task.source.removesuffix(self._train_suffix if task.split == "train" else "")]
        return build_episode(task, self.plan(task), lambda rows: self._load(records, rows))

    def _sources_of(self, split: Split) -> Sequence[str]:
        if split == "train":
            return [source + self._train_suffix for source in self._train_sources]
        if split == "validation":
            return tuple(self._protocol["validation"])
        return self._test_sources

    def plan(self, task: Task) -> Plan:
        """Draw the classes and images of a Meta-Dataset task; nothing is read but the source's specification."""
        train = task.split == "train"
        records = self._records[task.source.removesuffix(self._train_suffix if train else "")]
        rule = self._train_rule if train else self._rule
        check_source(records.specification, task.split, rule)
        generator = frozen_generator(task, "classes")
        description = describe_episode(records.specification, task.split, rule, generator)
        return draw_images(records.specification, description, frozen_generator(task, "images"))

    def _load(self, records: RecordSource, rows: Sequence[Row]) -> np.ndarray:
        """Read, decode and resize the images of ``rows`` in parallel, float32 [N, 3, S, S]."""
        images = np.empty((len(rows), 3, self._image_size, self._image_size), np.float32)
        encoded = read_rows(records, rows)

        def load(number: int, row: Row) -> None:
            name = f"record {row.item} of {records.path(row.class_index)}"
            resize_aligned(decode_jpeg(encoded[number], name), self._image_size, images[number])

        for_each(load, rows)
        return images

    def _vtab_episode(self, task: Task) -> Episode:
        # the generator draws the support set of SUN397 in the `lite` version, and nothing else
        rng = frozen_generator(task, "support")
        source = VtabSource(task_named(task.source), self._version, self._image_size, self._data_dir, rng)
        images, labels = source.support()
        support = Support(images, source.positions(labels), source.way)
        return Episode(task, support, VtabQueries(source), source.n_test)


def read_rows(records: RecordSource, rows: Sequence[Row]) -> list[bytes]:
    """Read the encoded images of ``rows``, class by class, so that each file is opened once."""
    members: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        members.setdefault(row.class_index, []).append(number)
    encoded = [b""] * len(rows)

    def read(_: int, class_id: int) -> None:
        numbers = members[class_id]
        for number, data in zip(numbers, records.images(class_id, [rows[n].item for n in numbers]), strict=True):
            encoded[number] = data

    for_each(read, list(members))
    return encoded


class VtabQueries:
    """The test set of a VTAB task as query batches; each iteration starts anew."""

    def __init__(self, source: VtabSource) -> None:
        """Take the test set of ``source``."""
        self._source = source

    def __iter__(self) -> Iterator[QueryBatch]:
        """Yield the test images in storage order."""
        for images, labels in self._source.test_batches(QUERY_BATCH):
            yield QueryBatch(images, self._source.positions(labels))


def chosen_sources(asked: str, known: Sequence[str]) -> tuple[str, ...]:
    """Read the option ``train_sources``; empty text means all.

    Raises:
        UnknownNameError: a name is not known.
        UsageError: a name is given twice.
    """
    names = [name.strip() for name in asked.split(",") if name.strip()] or list(known)
    for name in names:
        if name not in known:
            raise UnknownNameError("training source called", name, known)
    if len(set(names)) < len(names):
        raise UsageError(f"-S train_sources={asked} names a source twice; name each once.")
    return tuple(names)


def train_suffix(rule: Rule) -> str:
    """Say in the name of a training source what makes its tasks other than the standard ones."""
    standard = Rule(None, None, None)
    changed = {name: value for name, value in vars(rule).items() if value != getattr(standard, name)}
    return "".join(f"+{name}={value}" for name, value in changed.items())
