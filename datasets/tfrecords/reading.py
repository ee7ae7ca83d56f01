"""Records by number, from any file, without keeping more than a few files open."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lite_bench.datasets.tfrecords.framing import damaged, unframe, unreadable
from lite_bench.datasets.tfrecords.index import load_index

DESCRIPTORS_PER_FILE = 2
"""One to read records by, one that holds the mapped index."""

Key = tuple[Path, int, int, int]


@dataclass
class _OpenFile:
    descriptor: int
    offsets: np.ndarray
    users: int = 0


class RecordReader:
    """Reads records at random from any number of files.

    The least recently used files are closed so that no more than ``max_open`` descriptors are open at any time.
    A file that was replaced since it was opened is opened anew. Safe to use from many threads; after a fork the
    child starts with no open files, and a pickled reader arrives that way too.
    """

    def __init__(self, max_open: int = 32, *, check: bool = True) -> None:
        """Start with no open files.

        Args:
            max_open: number of descriptors, at least 2 (a file takes two).
            check: verify the checksum of every payload that is read.
        """
        if max_open < DESCRIPTORS_PER_FILE:
            raise ValueError(f"max_open is {max_open}; an open file takes {DESCRIPTORS_PER_FILE} descriptors")
        self.max_open = max_open
        self.check = check
        self._renew()
        _readers.add(self)

    def _renew(self) -> None:
        self._files: OrderedDict[Key, _OpenFile] = OrderedDict()
        self._changed = threading.Condition()

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the settings alone."""
        return _make, (type(self), self.max_open, self.check)

    def __enter__(self) -> RecordReader:
        """Use as a context manager that closes all files."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all files."""
        self.close()

    def count(self, path: Path) -> int:
        """Count the records of a file.

        Raises:
            DataError: the file is missing, truncated or damaged.
        """
        with self._opened(path) as file:
            return len(file.offsets) - 1

    def read(self, path: Path, number: int) -> bytes:
        """Read the payload of one record; see `records`."""
        return self.records(path, (number,))[0]

    def records(self, path: Path, numbers: Sequence[int]) -> list[bytes]:
        """Read the payloads of records, in the order asked.

        Args:
            path: a TFRecord file.
            numbers: of the records, each from 0 to the file's number of records - 1.

        Raises:
            DataError: the file is missing, truncated or damaged.
            IndexError: there is no record of that number.
        """
        with self._opened(path) as file:
            return [self._record(path, file, int(number)) for number in numbers]

    def _record(self, path: Path, file: _OpenFile, number: int) -> bytes:
        if not 0 <= number < len(file.offsets) - 1:
            raise IndexError(f"{path} has records 0 to {len(file.offsets) - 2}, not {number}")
        start, stop = int(file.offsets[number]), int(file.offsets[number + 1])
        try:
            data = os.pread(file.descriptor, stop - start, start)
        except OSError as error:
            raise unreadable(path, error) from error
        try:
            return unframe(data, check=self.check)
        except ValueError as error:
            raise damaged(path, start, str(error)) from error

    @contextlib.contextmanager
    def _opened(self, path: Path) -> Iterator[_OpenFile]:
        """Hold a file open while its records are read."""
        try:
            state = path.stat()
        except OSError as error:
            raise unreadable(path, error) from error
        key = (path, state.st_ino, state.st_size, state.st_mtime_ns)
        with self._changed:
            file = self._hold(key)
        try:
            yield file
        finally:
            with self._changed:
                file.users -= 1
                self._changed.notify_all()

    def _hold(self, key: Key) -> _OpenFile:
        """Find or open a file and count its user; waits while all open files are in use."""
        while key not in self._files and len(self._files) >= self.max_open // DESCRIPTORS_PER_FILE:
            idle = next((other for other, file in self._files.items() if not file.users), None)
            if idle is None:
                self._changed.wait()
            else:
                os.close(self._files.pop(idle).descriptor)
        if key not in self._files:
            self._files[key] = _open(key[0])
        self._files.move_to_end(key)
        self._files[key].users += 1
        return self._files[key]

    def close(self) -> None:
        """Close all files, once no thread reads any more; the reader may be used again."""
        with self._changed:
            self._changed.wait_for(lambda: not any(file.users for file in self._files.values()))
            while self._files:
                os.close(self._files.popitem()[1].descriptor)

    def __del__(self) -> None:
        """Close what is open."""
        for file in getattr(self, "_files", {}).values():
            os.close(file.descriptor)

    def _start_anew(self) -> None:
        for file in self._files.values():
            os.close(file.descriptor)
        self._renew()


def _open(path: Path) -> _OpenFile:
    # The index first: while it is loaded, a second descriptor is open already.
    offsets = load_index(path)
    try:
        return _OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC), offsets)
    except OSError as error:
        raise unreadable(path, error) from error


_readers: weakref.WeakSet[RecordReader] = weakref.WeakSet()


def _renew_all() -> None:
    """Give the readers of a forked child locks that nobody holds and no half-used files."""
    for reader in list(_readers):
        reader._start_anew()  # noqa: SLF001  # the module's own class


os.register_at_fork(after_in_child=_renew_all)


def _make(kind: type[RecordReader], max_open: int, check: bool) -> RecordReader:
    return kind(max_open, check=check)
