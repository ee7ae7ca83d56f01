"""Where the records of Meta-Dataset's sources are found, and the one set of readers that a suite keeps."""

from __future__ import annotations

import dataclasses
import os
import stat
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

from lite_bench.datasets.meta_dataset.catalogue import IMAGENET, IMAGENET_LITE, published
from lite_bench.datasets.meta_dataset.source import RecordSource
from lite_bench.datasets.meta_dataset.specification import FlatSpecification, Specification
from lite_bench.datasets.meta_dataset.specification_files import SPECIFICATION, is_checkout, read_specification
from lite_bench.datasets.tfrecords.reading import RecordReader
from lite_bench.datasets.vtab.prepared import MARKER
from lite_bench.harness.errors import DataError

RECORDS = "RECORDS"
CHECKOUT = "META_DATASET_ROOT"
FOLDER = "records"


def search_folders(data_dir: Path | None) -> list[Path]:
    """List where folders of sources are looked for: ``data_dir``, its ``records``, then RECORDS."""
    folders = [data_dir, data_dir / FOLDER] if data_dir else []
    if root := os.environ.get(RECORDS):
        folders.append(Path(root))
    return [folder.expanduser() for folder in folders]


def find_source(source: str, data_dir: Path | None) -> Path | None:
    """Find the first folder of ``source`` that has a specification, or may not be looked into."""
    folders = (folder / source for folder in search_folders(data_dir))
    return next((folder for folder in folders if _has_specification(folder)), None)


def _has_specification(folder: Path) -> bool:
    try:
        return stat.S_ISREG((folder / SPECIFICATION).stat().st_mode)
    except PermissionError:
        return True  # whoever reads it says what is wrong, which is better than to call the source missing
    except OSError:
        return False


def begun_source(source: str, data_dir: Path | None) -> Path | None:
    """Find the first folder with records of ``source``, complete or not."""
    folders = (folder / source for folder in search_folders(data_dir))
    return next((folder for folder in folders if any(folder.glob("*.tfrecords"))), None)


def missing_source(source: str, data_dir: Path | None) -> str:
    """Say why ``source`` was not found, and what to do."""
    folders = search_folders(data_dir)
    if (begun := begun_source(source, data_dir)) is not None:
        return (
            f"The conversion of {source} in {begun} is not finished (no {SPECIFICATION}); repeat `lite-bench data "
            f"prepare {source}` to go on with it."
        )
    if problem := misnamed_place(data_dir):
        return problem
    looked = ", ".join(str(folder) for folder in folders) or f"no place: neither --data-dir nor {RECORDS} is given"
    return f"The records of {source} were not found (looked in {looked}); see `lite-bench data status`."


def misnamed_place(data_dir: Path | None) -> str:
    """Say so if something else is named where records are meant, or give nothing.

    It may be a checkout of Meta-Dataset's source code or the folder of a single source.
    """
    for variable in (RECORDS, CHECKOUT):
        root = os.environ.get(variable)
        if root and is_checkout(Path(root).expanduser()):
            return (
                f"{variable} names {root}, a checkout of Meta-Dataset's source code, which holds no data; "
                f"set {RECORDS} to the folder of converted records, which has a sub-folder per source."
            )
    for folder in search_folders(data_dir):
        if os.access(folder / SPECIFICATION, os.R_OK):
            return f"{folder} is the folder of a single source; name the folder above it as --data-dir or {RECORDS}."
    return ""


class RecordFolders:
    """The sources of Meta-Dataset that a suite reads, opened when they are first used; safe with several threads."""

    def __init__(self, data_dir: Path | None, flat: Collection[str] = ()) -> None:
        """Look for sources in ``data_dir`` and RECORDS.

        Args:
            data_dir: looked in first.
            flat: sources whose structure and splits are passed over: all their classes are for training.
        """
        self._data_dir = data_dir
        self._flat = flat
        self._reader = RecordReader()
        self._open: dict[str, RecordSource] = {}
        self._lock = threading.Lock()

    def __getitem__(self, source: str) -> RecordSource:
        """Open ``source``.

        Raises:
            DataError: it is missing or its specification is damaged.
        """
        with self._lock:
            if source not in self._open:
                self._open[source] = self._opened(source)
            return self._open[source]

    def _opened(self, source: str) -> RecordSource:
        folder = find_source(source, self._data_dir)
        if folder is None:
            raise DataError(missing_source(source, self._data_dir))
        specification = dataclasses.replace(read_specification(folder), name=source)
        if source in self._flat:
            specification = all_for_training(specification)
        return RecordSource(folder, self._reader, specification)

    def unpublished(self, source: str) -> str:
        """Name the first difference of ``source``, unless a stand-in, from what is published, or give nothing."""
        return "" if self.synthetic(source) else next(iter(differences(self[source])), "")

    def synthetic(self, source: str) -> bool:
        """Tell whether ``source`` is a stand-in."""
        return (self[source].folder / MARKER).is_file()


def all_for_training(specification: Specification) -> FlatSpecification:
    """Pass over a source's splits and structure: all classes are for training, under the ids they have."""
    names = specification.class_names
    return FlatSpecification(specification.name, names, specification.images, {"train": len(names)})


def differences(records: RecordSource) -> list[str]:
    """Compare classes and counts with the published ones; ImageNet may also be in the LITE authors' flat form."""
    found, name = records.specification, records.folder.name
    forms = [published(name), *([published(IMAGENET_LITE)] if name == IMAGENET else [])]
    if any(_same(found, form) for form in forms):
        return []
    return [f"{records.folder}: {text}" for text in _first_differences(found, forms[0])]


def _same(found: Specification, wanted: Specification) -> bool:
    return not list(_first_differences(found, wanted))


def _first_differences(found: Specification, wanted: Specification) -> Iterator[str]:
    if found.splits != wanted.splits:
        sizes = [" / ".join(str(len(ids)) for ids in each.splits.values()) for each in (found, wanted)]
        yield f"has {sizes[0]} classes for train / validation / test; {wanted.name} has {sizes[1]}."
        return
    pairs = enumerate(zip(found.class_names, wanted.class_names, found.images, wanted.images, strict=True))
    for class_id, (name, right_name, count, right_count) in pairs:
        if name != right_name:
            yield f"class {class_id} is {name!r} and should be {right_name!r}."
            return
        if count != right_count:
            yield f"class {class_id} ({name}) has {count} images and should have {right_count}."
