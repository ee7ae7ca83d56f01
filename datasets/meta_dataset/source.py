"""The images of one source of Meta-Dataset, read from its converted records by class and number."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from lite_bench.datasets.meta_dataset.specification import Specification
from lite_bench.datasets.meta_dataset.specification_files import FILE_PATTERN, as_json, read_specification
from lite_bench.datasets.tfrecords.examples import Value, parse_example
from lite_bench.datasets.tfrecords.framing import survey, unframe, unreadable
from lite_bench.datasets.tfrecords.reading import RecordReader
from lite_bench.harness.errors import DataError

MOST_PROBLEMS = 20
"""Listed of one file; of the others it is said only that there are more."""


class RecordSource:
    """One source's folder: ``dataset_spec.json`` and a file of records per class.

    Records are read by number, in no order of their own: whoever draws must draw at random, because the files of
    some sources hold near-duplicates in a row.

    Attributes:
        folder: of the source.
        specification: its classes and counts.
    """

    def __init__(
        self, folder: Path, reader: RecordReader | None = None, specification: Specification | None = None
    ) -> None:
        """Open a source; no class file is opened yet.

        Args:
            folder: of the source.
            reader: shared with other sources, so that they keep few files open together.
            specification: used instead of the folder's ``dataset_spec.json``.

        Raises:
            DataError: there is no valid specification.
        """
        self.folder = folder
        self.specification = specification or read_specification(folder)
        self._reader = reader or RecordReader()

    def path(self, class_id: int) -> Path:
        """Name the file of a class."""
        return self.folder / FILE_PATTERN.format(class_id)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the specification and the sizes of all class files.

        It does not depend on where the folder is or when it was written.

        Raises:
            DataError: a class file is missing.
        """
        sizes = self._sizes()
        text = json.dumps([as_json(self.specification), sizes], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def check_files(self) -> None:
        """Look for the file of every class; none is opened.

        Raises:
            DataError: some are missing or may not be seen.
        """
        self._sizes()

    def _sizes(self) -> list[int]:
        sizes: list[int] = []
        missing: list[Path] = []
        for class_id in range(len(self.specification.images)):
            path = self.path(class_id)
            try:
                sizes.append(path.stat().st_size)
            except FileNotFoundError:
                missing.append(path)
            except OSError as error:
                raise unreadable(path, error) from error
        if missing:
            raise DataError(
                f"The record file {missing[0]} is missing ({len(missing)} of the {len(self.specification.images)} "
                f"class files of {self.specification.name} are); convert the source again."
            )
        return sizes

    def images(self, class_id: int, items: Sequence[int]) -> list[bytes]:
        """Read encoded images of a class.

        Args:
            class_id: id of the class.
            items: record numbers, each from 0 to the class's number of images - 1.

        Returns:
            the files' bytes (JPEG), in the order of ``items``.

        Raises:
            DataError: the file is missing, damaged, holds another number of records than the specification says,
                or a record that is not an image of this class.
            IndexError: there is no record of that number.
        """
        path = self.path(class_id)
        if problem := self._count_problem(class_id, self._reader.count(path)):
            raise DataError(f"The record file {path} {problem}; convert the source again.")
        payloads = self._reader.records(path, items)
        return [self._image(path, class_id, item, payload) for item, payload in zip(items, payloads, strict=True)]

    def _count_problem(self, class_id: int, count: int) -> str:
        promised = self.specification.images[class_id]
        if count == promised:
            return ""
        name = self.specification.class_names[class_id]
        return f"holds {count} records, but the specification says {promised} for class {class_id} ({name})"

    def _image(self, path: Path, class_id: int, item: int, payload: bytes) -> bytes:
        try:
            return labelled_image(payload, class_id)
        except ValueError as error:
            raise DataError(f"Record {item} of {path} {error}; convert the source again.") from error

    def verify(self, class_id: int, *, decode: bool = True) -> list[str]:
        """Check one class file completely: framing, checksums, content, labels and number of records.

        Args:
            class_id: id of the class.
            decode: decode every image too, which takes most of the time.

        Returns:
            every problem with file and byte offset, at most 20 and a line that says so; none if all is well.
        """
        problems = list(islice(self._problems(class_id, decode), MOST_PROBLEMS + 1))
        if len(problems) > MOST_PROBLEMS:
            problems[MOST_PROBLEMS] = f"{self.path(class_id)}: and more, which are not listed"
        return problems

    def _problems(self, class_id: int, decode: bool) -> Iterator[str]:
        path = self.path(class_id)
        try:
            starts, damage = survey(path)
            yield from _record_problems(path, starts, class_id, decode)
        except DataError as error:
            yield str(error)
            return
        except OSError as error:
            yield str(unreadable(path, error))
            return
        if damage:
            yield f"{path}, byte {starts[-1]}: {damage}"
        if problem := self._count_problem(class_id, len(starts) - 1):
            yield f"{path}, byte {starts[-1]}: {problem}"


def _record_problems(path: Path, starts: np.ndarray, class_id: int, decode: bool) -> Iterator[str]:
    with path.open("rb") as stream:
        for start, stop in pairwise(starts):
            try:
                image = labelled_image(unframe(stream.read(int(stop - start))), class_id)
                if decode:
                    check_image(image)
            except ValueError as error:
                yield f"{path}, byte {start}: {error}"


def labelled_image(payload: bytes, class_id: int) -> bytes:
    """Take the encoded image out of a record.

    Args:
        payload: a ``tf.train.Example`` with one ``image`` and one ``label``.
        class_id: the label it must have.

    Raises:
        ValueError: it is none, or has another label.
    """
    try:
        features = parse_example(payload)
    except ValueError as error:
        raise ValueError(f"is not a tf.train.Example ({error})") from error
    label = _single(features, "label")
    image = _single(features, "image")
    if not isinstance(image, bytes):
        raise ValueError("has an image that is not stored as bytes")  # noqa: TRY004  # bad data, not a bad call
    if not isinstance(label, np.int64):
        raise ValueError("has a label that is not stored as an integer")  # noqa: TRY004  # bad data, not a bad call
    if label != class_id:
        raise ValueError(f"has label {label} in the file of class {class_id}")
    return image


def _single(features: dict[str, Value], name: str) -> bytes | np.generic:
    values = features.get(name, [])
    if len(values) != 1:
        raise ValueError(f"has {len(values)} values of {name!r} instead of one")
    value: bytes | np.generic = values[0]
    return value


def check_image(encoded: bytes) -> None:
    """Decode an image completely.

    Raises:
        ValueError: Pillow cannot decode it.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image.load()
    except Exception as error:
        raise ValueError(f"has an image that does not decode ({error})") from error
