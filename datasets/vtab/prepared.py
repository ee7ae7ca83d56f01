"""Datasets that TensorFlow Datasets (TFDS) has prepared, read without TensorFlow and without TFDS.

A prepared dataset is a folder ``<root>/<name>/[<config>/]<version>`` with ``dataset_info.json``, which lists the
splits and their files, and the files themselves, whose records are serialised ``tf.train.Example`` in every format.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from lite_bench.datasets.tfrecords.examples import Value, parse_example
from lite_bench.datasets.vtab.shards import FORMATS, Format, Shard, damaged, open_shard
from lite_bench.datasets.vtab.tasks import VtabDataset
from lite_bench.harness.errors import DataError

INFO, MARKER = "dataset_info.json", "synthetic.json"
VERSION = re.compile(r"(?:incomplete\.\w+_)?(\d+\.\d+\.\d+)")
"""A folder of a version; a half-written one is named `incomplete.X_2.0.0`, by older TFDS `2.0.0.incompleteX`."""
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
OPEN_FILES = 64


@dataclass(frozen=True)
class NotPrepared:
    """There is no usable copy of a dataset.

    Attributes:
        reason: one sentence: what is there and what to do.
        present: something of the dataset is there, of another version or incomplete.
    """

    reason: str
    present: bool


@dataclass(frozen=True)
class _Split:
    """Attributes: files and the number of examples in each, first example of each file and the end, bytes."""

    paths: tuple[Path, ...]
    lengths: tuple[int, ...]
    starts: tuple[int, ...]
    n_bytes: int


def search_roots(data_dir: Path | None) -> list[Path]:
    """List where prepared datasets are looked for: ``data_dir``, its ``tfds``, TFDS_DATA_DIR, TFDS's own folder."""
    roots = [data_dir, data_dir / "tfds"] if data_dir else []
    if variable := os.environ.get("TFDS_DATA_DIR"):
        roots.append(Path(variable))
    roots.append(Path.home() / "tensorflow_datasets")
    return [root.expanduser() for root in roots]


def find_prepared(roots: Sequence[Path], name: str, config: str | None, versions: Sequence[str]) -> Path | NotPrepared:
    """Find the folder of a prepared dataset, or say why there is none.

    Args:
        roots: where to look, the first hit counts.
        name: of the dataset in TFDS.
        config: of the dataset, or None if it has only one.
        versions: those accepted, oldest first; the newest found in a root is taken.
    """
    dataset = f"{name}/{config}" if config else name
    remedy = f"prepare it with `{build_command(dataset)}`"
    others: list[Path] = []
    for root in roots:
        base = root / dataset
        try:
            for version in reversed(versions):
                if stat.S_ISREG(_mode(base / version / INFO)):
                    return base / version
            others += sorted(path for path in base.glob("*") if path.is_dir() and VERSION.match(path.name))
        except PermissionError as error:
            return NotPrepared(
                f"The folder {base} cannot be looked into ({error.strerror}); change its permissions.", present=True
            )
    for path in others:
        found = VERSION.match(path.name)
        if found and found[1] in versions:
            state = "is what an interrupted preparation left" if "incomplete" in path.name else f"has no {INFO}"
            return NotPrepared(f"The copy of {dataset} in {path} {state}; delete it and {remedy}.", present=True)
    if others:
        present = ", ".join(str(path) for path in others)
        accepted = " or ".join(versions)
        return NotPrepared(
            f"Of {dataset} only {present} was found, and the version must be {accepted}; {remedy}.", present=True
        )
    looked = ", ".join(str(root) for root in roots)
    return NotPrepared(
        f"{dataset} was not found in {looked}; {remedy}, or give its folder as --data-dir.", present=False
    )


def _mode(path: Path) -> int:
    """Give a file's mode, 0 if it does not exist; unlike `Path.is_file`, the same in every version of Python."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def build_command(dataset: str) -> str:
    """Give the command that prepares a dataset, named with its config."""
    return f"lite-bench data prepare {dataset} --output-dir DATA"


class PreparedDataset:
    """A prepared dataset with random access; may be used from several threads at once.

    Attributes:
        folder: where it is.
        name: of the dataset in TFDS.
        config: of the dataset, or None.
        version: of the dataset.
        format: what the files are written in.
        synthetic: it is a stand-in, and results on it mean nothing.
        fingerprint: SHA-256 over version and splits with their examples and bytes; the same in every format.
        sizes: number of examples of each split.
    """

    def __init__(self, folder: Path) -> None:
        """Read what the dataset consists of; the files of examples are opened when they are used.

        Raises:
            DataError: ``dataset_info.json`` is missing or is not one, or the format has no random access.
        """
        self.folder = folder
        info = _read_info(folder / INFO)
        try:
            self.name = str(info["name"])
            self.version = str(info["version"])
            self.config = None if folder.parent.name == self.name else folder.parent.name
            self.format = _known_format(folder, info.get("fileFormat", "tfrecord"))
            self._splits = {str(split["name"]): self._split(split) for split in info["splits"]}
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"The file {folder / INFO} does not describe a dataset ({error!r}); copy the dataset again, or delete "
                "its folder and prepare it."
            ) from error
        self.sizes = {name: split.starts[-1] for name, split in self._splits.items()}
        self.synthetic = (folder / MARKER).is_file()
        self.fingerprint = self._digest()
        self._open: OrderedDict[Path, Shard] = OrderedDict()
        self._lock = threading.Lock()

    def _split(self, split: dict[str, Any]) -> _Split:
        lengths = tuple(int(length) for length in split.get("shardLengths", ()))
        template = split.get("filepathTemplate") or TEMPLATE
        paths = tuple(
            self.folder / _file_name(template, self.name, split["name"], self.format, shard, len(lengths))
            for shard in range(len(lengths))
        )
        return _Split(paths, lengths, (0, *accumulate(lengths)), int(split.get("numBytes", 0)))

    def _digest(self) -> str:
        splits = sorted((name, split.starts[-1], split.n_bytes) for name, split in self._splits.items())
        content = json.dumps([self.name, self.config, self.version, splits])
        return hashlib.sha256(content.encode()).hexdigest()

    def n_examples(self, split: str) -> int:
        """Count the examples of ``split``.

        Raises:
            DataError: there is no such split.
        """
        return self._part(split).starts[-1]

    def _part(self, split: str) -> _Split:
        if split not in self._splits:
            known = ", ".join(self._splits) or "none"
            raise DataError(
                f"The copy in {self.folder} has no split {split!r} but {known}; delete it and prepare the dataset "
                "again."
            )
        return self._splits[split]

    def file_paths(self, splits: Iterable[str] | None = None) -> list[Path]:
        """List the files of examples of ``splits``, or of all, whether they exist or not."""
        return [path for split in (self._splits if splits is None else splits) for path in self._part(split).paths]

    def check_files(self, splits: Iterable[str]) -> None:
        """Check that the files of ``splits`` are there.

        Raises:
            DataError: some are missing.
        """
        paths = self.file_paths(splits)
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise DataError(
                f"The copy in {self.folder} is incomplete: {len(missing)} of {len(paths)} files are missing, such as "
                f"{missing[0].name}; copy it again, or delete it and prepare the dataset."
            )

    def example(self, split: str, position: int, features: Sequence[str]) -> dict[str, bytes | np.ndarray]:
        """Read one example.

        Args:
            split: name of a split.
            position: in storage order, from 0.
            features: names of those wanted, as ``image`` or ``objects/location``.

        Returns:
            by name, the encoded bytes of an image or text, and numbers as an int64 or float32 array [n].

        Raises:
            IndexError: the split has no such position.
            DataError: a file is missing or damaged, or the example lacks a feature.
        """
        part = self._part(split)
        if not 0 <= position < part.starts[-1]:
            raise IndexError(f"position {position} is not in 0..{part.starts[-1] - 1}")
        file = bisect_right(part.starts, position) - 1
        path = part.paths[file]
        shard = self._shard(path, part.lengths[file])
        try:
            parsed = parse_example(shard.read(position - part.starts[file]))
        except DataError:
            raise
        except Exception as error:
            raise damaged(path, error) from error
        try:
            return {name: _value(parsed[name]) for name in features}
        except KeyError as error:
            raise DataError(
                f"Example {position} of {self.name}, split {split!r}, in {path} has no feature {error}; "
                "delete its folder and prepare the dataset again."
            ) from error

    def _shard(self, path: Path, n_records: int) -> Shard:
        with self._lock:
            if path in self._open:
                self._open.move_to_end(path)
                return self._open[path]
        shard = open_shard(path, self.format, n_records)
        with self._lock:
            self._open[path] = shard
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)
        return shard


def check_sizes(prepared: PreparedDataset, dataset: VtabDataset, splits: Sequence[str]) -> None:
    """Check that ``splits`` have the sizes of the real dataset, unless it is a stand-in.

    Raises:
        DataError: one has not.
    """
    for split in splits:
        size, right = prepared.n_examples(split), dataset.splits[split]
        if size not in right and not prepared.synthetic:
            raise DataError(
                f"The copy in {prepared.folder} has {size} examples in {split!r}, and {dataset.name} has "
                f"{' or '.join(map(str, right))}; delete its folder and prepare the dataset again."
            )


def _read_info(path: Path) -> dict[str, Any]:
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"The file {path} cannot be read ({error}); copy the dataset again, or delete its folder and prepare it."
        ) from error
    if not isinstance(info, dict):
        raise DataError(
            f"The file {path} does not describe a dataset; copy the dataset again, or delete its folder and prepare it."
        )
    return info


def _known_format(folder: Path, name: str) -> Format:
    for known in FORMATS:
        if name == known:
            return known
    raise DataError(
        f"The copy in {folder} is in {name} format, and {', '.join(FORMATS)} can be read; "
        "delete it and prepare the dataset in array_record format."
    )


def _file_name(template: str, name: str, split: str, file_format: str, shard: int, n_shards: int) -> str:
    return template.format(
        DATASET=name,
        SPLIT=split,
        FILEFORMAT=file_format,
        SHARD_INDEX=f"{shard:05d}",
        NUM_SHARDS=f"{n_shards:05d}",
        SHARD_X_OF_Y=f"{shard:05d}-of-{n_shards:05d}",
    )


def _value(value: Value) -> bytes | np.ndarray:
    """Give a single text or image as bytes; a list that is empty, and so of no kind, as an array of no numbers."""
    if isinstance(value, np.ndarray):
        return value
    return value[0] if len(value) == 1 else np.array(value)
