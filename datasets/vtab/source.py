"""One VTAB task as tensors: its support set at once, its test set as a stream of batches."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lite_bench.datasets.vtab.labels import label_rule
from lite_bench.datasets.vtab.pixels import resize_rule
from lite_bench.datasets.vtab.prepared import NotPrepared, PreparedDataset, check_sizes, find_prepared, search_roots
from lite_bench.datasets.vtab.sun397 import Random, Sun397Folder, find_folder
from lite_bench.datasets.vtab.tasks import Part, Profile, VtabTask, cut
from lite_bench.datasets.workers import for_each
from lite_bench.harness.errors import DataError, UsageError

N_SUPPORT = 1000
BATCHES_AHEAD = 2
MISSING = -1

Where = tuple[str, int]
"""An example: its split and its position in storage order."""


class Examples(Protocol):
    """Where a task's images and labels come from; used from several threads at once."""

    folder: Path
    synthetic: bool
    sizes: dict[str, int]

    @property
    def fingerprint(self) -> str:
        """Digest of what the data is."""

    def example(self, split: str, position: int) -> tuple[bytes, int]:
        """Read an encoded image and its label, 0..K-1."""


class LabelledDataset:
    """A prepared dataset seen through the label rule of a task."""

    def __init__(self, prepared: PreparedDataset, rule: str) -> None:
        """See ``prepared`` through the label rule of that name."""
        self.folder = prepared.folder
        self.synthetic = prepared.synthetic
        self.sizes = prepared.sizes
        self.fingerprint = prepared.fingerprint
        self._prepared = prepared
        self._rule = label_rule(rule)

    def example(self, split: str, position: int) -> tuple[bytes, int]:
        """Read an encoded image and its label.

        Raises:
            DataError: the example cannot be read or has no such label.
        """
        features = self._rule.features
        values = self._prepared.example(split, position, ("image", *features))
        try:
            return bytes(values["image"]), self._rule.function(*(values[name] for name in features))
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            raise DataError(
                f"Example {position} of {self._prepared.name}, split {split!r}, in {self.folder} has no usable "
                f"{' and '.join(features)} ({error}); delete its folder and prepare the dataset again."
            ) from error


def open_examples(task: VtabTask, profile: Profile, data_dir: Path | None, rng: Random | None = None) -> Examples:
    """Open the data of a task where it is found.

    Args:
        task: the task.
        profile: which protocol.
        data_dir: looked in first.
        rng: draws the support set of SUN397 in the ``lite`` profile; not used elsewhere.

    Raises:
        UsageError: ``rng`` is needed and not given.
        DataError: the data is missing, incomplete or of another size than the protocol's.
    """
    selection = task.selections[profile]
    if selection.folder:
        if rng is None:
            raise UsageError(f"The support set of {task.name} ({profile}) is drawn at random: give a generator.")
        return Sun397Folder(find_folder(data_dir), rng)
    found = find_prepared(search_roots(data_dir), task.dataset.name, selection.config, task.dataset.versions)
    if isinstance(found, NotPrepared):
        raise DataError(found.reason)
    prepared = PreparedDataset(found)
    splits = [part.split for part in (*cut(selection.support, prepared.sizes), *cut(selection.test, prepared.sizes))]
    check_sizes(prepared, task.dataset, splits)
    prepared.check_files(dict.fromkeys(splits))
    return LabelledDataset(prepared, task.label)


class VtabSource:
    """The episode of one task: 1000 support images, and a test set read in storage order.

    Labels are raw (0..K-1) as the dataset has them; ``positions`` maps them to those of the episode. Images
    are uint8 in the ``lite`` profile and float32 in ``official``, 0..255 in both.

    Attributes:
        task: which of the 18.
        profile: which protocol.
        image_size: side S in pixels.
        n_test: number of test images.
        examples: where the data comes from, with its ``fingerprint`` and ``synthetic``.
    """

    def __init__(
        self,
        task: VtabTask,
        profile: Profile,
        image_size: int,
        data_dir: Path | None = None,
        rng: Random | None = None,
    ) -> None:
        """Find the data; no example is read.

        Args:
            task: which of the 18.
            profile: which protocol.
            image_size: side S in pixels.
            data_dir: looked in first.
            rng: draws the support set of SUN397 in the ``lite`` profile; not used elsewhere.

        Raises:
            UsageError: ``rng`` is needed and not given.
            DataError: the data is missing, incomplete or of another size than the protocol's.
        """
        self.task, self.profile, self.image_size = task, profile, image_size
        self.examples = open_examples(task, profile, data_dir, rng)
        selection = task.selections[profile]
        self._resize = resize_rule(selection.resize)
        self._support = _Wheres(cut(selection.support, self.examples.sizes))
        self._test = _Wheres(cut(selection.test, self.examples.sizes))
        self.n_test = len(self._test)
        if len(self._support) != N_SUPPORT or not self.n_test:
            raise DataError(
                f"The data of {task.name} in {self.examples.folder} gives {len(self._support)} support and "
                f"{self.n_test} test images; {N_SUPPORT} and at least one are needed, so prepare it again."
            )
        self._classes: np.ndarray | None = None

    @property
    def classes(self) -> np.ndarray:
        """Sorted distinct raw labels of the support set, int64 [way]; read if ``support`` has not yet been.

        Raises:
            DataError: an example cannot be read.
        """
        if self._classes is None:
            self._classes = np.unique([self._read(where)[1] for where in self._support.all()]).astype(np.int64)
        return self._classes

    @property
    def way(self) -> int:
        """Number of classes in the support set."""
        return len(self.classes)

    def positions(self, labels: Tensor) -> Tensor:
        """Map raw labels to 0..way-1, by their rank among those of the support set.

        Args:
            labels: int64 [M], raw.

        Returns:
            int64 [M]; -1 for a class that the support set lacks, so that no prediction is right.
        """
        classes = torch.from_numpy(self.classes)
        ranks = torch.searchsorted(classes, labels).clamp(max=self.way - 1)
        return torch.where(classes[ranks] == labels, ranks, MISSING)

    def support(self) -> tuple[Tensor, Tensor]:
        """Decode the support set.

        Returns:
            images [1000, 3, S, S] and raw labels int64 [1000].

        Raises:
            DataError: an image does not decode.
        """
        images, labels = self.load(self._support.all())
        self._classes = np.unique(labels.numpy())
        return images, labels

    def test_batches(self, size: int) -> TestBatches:
        """Give the test set as batches of ``size``, the last one smaller; it may be gone through repeatedly.

        Raises:
            UsageError: ``size`` is not positive.
        """
        if size < 1:
            raise UsageError(f"A batch of test images has at least 1 image, not {size}.")
        return TestBatches(self, self._test, size)

    def load(self, wheres: Sequence[Where]) -> tuple[Tensor, Tensor]:
        """Read and decode examples on the worker threads.

        Returns:
            images [n, 3, S, S] and raw labels int64 [n].

        Raises:
            DataError: an example cannot be read or decoded.
        """
        dtype = np.uint8 if self.profile == "lite" else np.float32
        images = np.empty((len(wheres), 3, self.image_size, self.image_size), dtype)
        labels = np.empty(len(wheres), np.int64)

        def load_one(number: int, where: Where) -> None:
            data, labels[number] = self._read(where)
            try:
                images[number] = self._resize(data, self.image_size)
            except Exception as error:
                raise self._bad(where, f"does not decode ({' '.join(str(error).split())})") from error

        for_each(load_one, wheres)
        return torch.from_numpy(images), torch.from_numpy(labels)

    def _read(self, where: Where) -> tuple[bytes, int]:
        data, label = self.examples.example(*where)
        if not 0 <= label < self.task.classes:
            raise self._bad(where, f"has the label {label}, outside 0..{self.task.classes - 1}")
        return data, label

    def _bad(self, where: Where, state: str) -> DataError:
        split, position = where
        return DataError(
            f"The image of {self.task.name} at position {position} of {split!r} in {self.examples.folder} {state}; "
            "copy the dataset again, or delete its folder and prepare it."
        )


class _Wheres:
    """The examples of several parts of a dataset, one after the other, however many they are."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._starts = (0, *accumulate(len(part.positions) for part in parts))

    def __len__(self) -> int:
        return self._starts[-1]

    def between(self, start: int, stop: int) -> list[Where]:
        """List those from number ``start`` up to ``stop``, or to the end."""
        return [
            (part.split, position)
            for part, first in zip(self._parts, self._starts, strict=False)
            for position in part.positions[max(start - first, 0) : max(stop - first, 0)]
        ]

    def all(self) -> list[Where]:
        return self.between(0, len(self))


class TestBatches:
    """Batches of images and raw labels in storage order; each iteration starts anew and decodes ahead."""

    __test__ = False  # pytest would take it for a class of tests

    def __init__(self, source: VtabSource, wheres: _Wheres, size: int) -> None:
        """Cut ``wheres`` into batches of ``size``."""
        self._source, self._wheres, self.size = source, wheres, size

    def __len__(self) -> int:
        """Count the batches."""
        return (len(self._wheres) + self.size - 1) // self.size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Give each batch while the next two are made; besides them only the one given is held.

        Raises:
            DataError: an example cannot be read or decoded.
        """
        starts = iter(range(0, len(self._wheres), self.size))
        pending: deque[Future[tuple[Tensor, Tensor]]] = deque()
        # for_each blocks until its items are done, so that one more thread must wait for it.
        with contextlib.closing(_Producer()) as producer:
            for start in starts:
                pending.append(producer.submit(self._source.load, self._wheres.between(start, start + self.size)))
                if len(pending) > BATCHES_AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()


class _Producer(ThreadPoolExecutor):
    """One thread that drops what it has not begun when it is closed."""

    def __init__(self) -> None:
        super().__init__(1, thread_name_prefix="lite-bench-vtab")

    def close(self) -> None:
        self.shutdown(cancel_futures=True)
