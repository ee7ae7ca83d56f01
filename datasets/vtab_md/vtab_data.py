"""VTAB's data sets for `lite-bench data`: copies prepared by TensorFlow Datasets (TFDS), and SUN397's image folder."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from lite_bench.datasets.tfrecords.index import load_index
from lite_bench.datasets.vtab.preparation import EXTRA, prepare, prepare_sun397_folder
from lite_bench.datasets.vtab.prepared import NotPrepared, PreparedDataset, check_sizes, find_prepared, search_roots
from lite_bench.datasets.vtab.sun397 import Sun397Folder, find_folder, search_places
from lite_bench.datasets.vtab.tasks import VtabDataset, used_splits
from lite_bench.harness.data import IndexedSource, Notify, SourceStatus
from lite_bench.harness.errors import DataError, UsageError

MOST_PROBLEMS = 20
CHUNK = 256
"""Examples that one thread checks at a time."""
TFDS_FOLDER, SUN397_FOLDER = "tfds", "sun397"


@dataclass(frozen=True)
class PreparedData:
    """A dataset of TFDS.

    Attributes:
        dataset: its name, versions and sizes.
        config: of the dataset, or None.
        used_for: what for.
    """

    dataset: VtabDataset
    config: str | None
    used_for: tuple[str, ...]

    @property
    def source(self) -> str:
        """Name and config, as TFDS joins them."""
        return f"{self.dataset.name}/{self.config}" if self.config else self.dataset.name

    @property
    def needs(self) -> str:
        """Say what a preparation needs."""
        page = f"https://www.tensorflow.org/datasets/catalog/{self.dataset.name}"
        return f"TensorFlow ({EXTRA}); TFDS downloads it, or reads what {page} asks for from --from"

    @property
    def _splits(self) -> list[str]:
        return used_splits(self.dataset, self.config)

    def _find(self, data_dir: Path | None) -> Path | NotPrepared:
        return find_prepared(search_roots(data_dir), self.dataset.name, self.config, self.dataset.versions)

    def status(self, data_dir: Path | None) -> SourceStatus:
        """Say where the dataset is."""
        looked = tuple(search_roots(data_dir))
        step = f"lite-bench data prepare {self.source} --output-dir DATA (needs {self.needs})"
        found = self._find(data_dir)
        if isinstance(found, NotPrepared):
            if found.present:
                return SourceStatus(self.source, self.used_for, "incomplete", None, looked, found.reason, step)
            return SourceStatus(self.source, self.used_for, "missing", None, looked, "", step)
        try:
            prepared = PreparedDataset(found)
            check_sizes(prepared, self.dataset, self._splits)
            prepared.check_files(self._splits)
        except DataError as error:
            return SourceStatus(self.source, self.used_for, "incomplete", found, looked, str(error), step)
        return SourceStatus(self.source, self.used_for, "stand-in" if prepared.synthetic else "found", found, looked)

    def prepare(self, originals: Path | None, output: Path, workers: int, notify: Notify) -> str:
        """Let TFDS download and prepare the dataset below ``output``.

        Raises:
            DataError: TensorFlow is not installed, or TFDS fails.
        """
        del workers
        notify(self.source, 0, 1, "TFDS is at work")
        prepare(self.source, manual=originals, output=output / TFDS_FOLDER)
        notify(self.source, 1, 1, "")
        return f"Prepared {self.source} in {output / TFDS_FOLDER}."

    def verify(self, data_dir: Path | None, *, decode: bool, workers: int, notify: Notify) -> list[str] | None:
        """Check sizes, and read (and decode) every example; None if the dataset is not there."""
        found = self._find(data_dir)
        if isinstance(found, NotPrepared):
            return None
        try:
            prepared = PreparedDataset(found)
            check_sizes(prepared, self.dataset, self._splits)
            prepared.check_files(self._splits)
        except DataError as error:
            return [str(error)]
        wheres = [(split, n) for split in self._splits for n in range(prepared.n_examples(split))]

        def read(where: tuple[str, int]) -> bytes:
            return bytes(prepared.example(*where, ("image",))["image"])

        def name(where: tuple[str, int]) -> str:
            return f"{found}: example {where[1]} of split {where[0]!r}"

        return check_all(self.source, wheres, read, name, decode=decode, workers=workers, notify=notify)

    def index(self, data_dir: Path | None, notify: Notify) -> IndexedSource | None:
        """Index the files of a TFRecord copy; None if there is none, as the other formats have their own index."""
        found = self._find(data_dir)
        if isinstance(found, NotPrepared):
            return None
        prepared = PreparedDataset(found)
        if prepared.format != "tfrecord":
            return None
        paths = prepared.file_paths()
        n_records = 0
        for number, path in enumerate(paths, start=1):
            n_records += len(load_index(path)) - 1
            notify(self.source, number, len(paths), f"files, {n_records} records")
        return IndexedSource(self.source, len(paths), n_records)


@dataclass(frozen=True)
class Sun397Data:
    """The image folder of SUN397, which the LITE authors' code reads.

    Attributes:
        used_for: what for.
    """

    used_for: tuple[str, ...]
    source: str = SUN397_FOLDER
    needs: str = "SUN397.tar.gz from https://vision.princeton.edu/projects/2010/SUN/"

    def status(self, data_dir: Path | None) -> SourceStatus:
        """Say where the folder is."""
        looked = tuple(search_places(data_dir))
        step = f"lite-bench data prepare {self.source} --from DOWNLOADS --output-dir DATA ({self.needs})"
        try:
            folder = find_folder(data_dir)
            opened = Sun397Folder(folder, np.random.RandomState(0))
        except DataError as error:
            begun = next((place for place in looked if place.is_dir()), None)
            problem = str(error) if begun else ""
            return SourceStatus(
                self.source, self.used_for, "incomplete" if begun else "missing", begun, looked, problem, step
            )
        return SourceStatus(self.source, self.used_for, "stand-in" if opened.synthetic else "found", folder, looked)

    def prepare(self, originals: Path | None, output: Path, workers: int, notify: Notify) -> str:
        """Bring the archive's images into one folder per class, ``output/sun397``.

        Raises:
            UsageError: ``originals`` is not given.
            DataError: the archive is missing, damaged or incomplete.
        """
        del workers
        if originals is None:
            raise UsageError(f"Preparing {self.source} needs --from FOLDER with {self.needs}.")
        archive = originals / "SUN397.tar.gz"
        notify(self.source, 0, 1, "copying images")
        images = prepare_sun397_folder(archive if archive.is_file() else originals, output / SUN397_FOLDER)
        notify(self.source, 1, 1, "")
        return f"{output / SUN397_FOLDER} holds {images} images, one folder per class."

    def verify(self, data_dir: Path | None, *, decode: bool, workers: int, notify: Notify) -> list[str] | None:
        """Read (and decode) every image; None if the folder is not there."""
        try:
            folder = find_folder(data_dir)
        except DataError:
            return None
        try:
            opened = Sun397Folder(folder, np.random.RandomState(0))
        except DataError as error:
            return [str(error)]
        wheres = [(split, n) for split in ("train", "validation", "test") for n in range(opened.sizes[split])]

        def name(where: tuple[str, int]) -> str:
            return str(opened.path(*where))

        def read(where: tuple[str, int]) -> bytes:
            return opened.example(*where)[0]

        return check_all(self.source, wheres, read, name, decode=decode, workers=workers, notify=notify)

    def index(self, data_dir: Path | None, notify: Notify) -> IndexedSource | None:
        """Give None: images in folders need no index."""
        del data_dir, notify
        return None


Where = tuple[str, int]


def check_all(
    source: str,
    wheres: list[Where],
    read: Callable[[Where], bytes],
    name: Callable[[Where], str],
    *,
    decode: bool,
    workers: int,
    notify: Notify,
) -> list[str]:
    """Read all examples in threads; gives the first 20 problems and a line that says if there are more."""

    def check(start: int) -> list[str]:
        return [
            problem
            for where in wheres[start : start + CHUNK]
            if (problem := _problem(where, read, name, decode=decode))
        ]

    def found() -> Iterator[str]:
        done = 0
        seen: set[str] = set()  # a broken file says the same of each of its examples
        with ThreadPoolExecutor(workers, thread_name_prefix="verify") as pool:
            for problems in pool.map(check, range(0, len(wheres), CHUNK)):
                done = min(done + CHUNK, len(wheres))
                yield from (problem for problem in dict.fromkeys(problems) if problem not in seen)
                seen.update(problems)
                notify(source, done, len(wheres), "examples")

    problems = list(islice(found(), MOST_PROBLEMS + 1))
    if len(problems) > MOST_PROBLEMS:
        problems[MOST_PROBLEMS] = f"{source}: and more, which are not listed"
    return problems


def _problem(where: Where, read: Callable[[Where], bytes], name: Callable[[Where], str], *, decode: bool) -> str | None:
    try:
        data = read(where)
    except DataError as error:
        return str(error)
    if not decode:
        return None
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except Exception as error:
        return f"{name(where)} does not decode ({' '.join(str(error).split())})"
    return None
