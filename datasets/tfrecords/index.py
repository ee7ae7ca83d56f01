"""Where every record of a file starts, found once and kept in a cache folder.

A file of the cache is a header (magic, size and modification time of the record file, number of offsets, CRC-32
of the offsets) and the offsets, int64. It is mapped into memory, so that all processes share one copy.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import secrets
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np

from lite_bench.datasets.caches import cache_folder
from lite_bench.datasets.tfrecords import framing

MAGIC = b"LBINDEX1"
HEADER = struct.Struct("<8sqqqI4x")
OFFSET = np.dtype("<i8")
SHARD_LETTERS = 2

_held: dict[Path, tuple[tuple[int, int], np.ndarray]] = {}
"""Offsets of files whose index could not be stored, with the size and time they hold for."""


def index_folder() -> Path:
    """Name the folder that the offsets are kept in; see `cache_folder`."""
    return cache_folder("index")


def index_path(path: Path) -> Path:
    """Name the cache file of a record file, by a digest of its resolved path."""
    digest = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    return index_folder() / digest[:SHARD_LETTERS] / f"{digest}.offsets"


def load_index(path: Path, *, rebuild: bool = False) -> np.ndarray:
    """Give the offsets of all records of a file, from the cache if they are there and fresh.

    They are fresh while size and modification time of the record file are the same. A missing, stale or damaged
    cache file is written anew in one step, so that any number of processes may do so at once. Where the cache
    folder cannot be written, the offsets are kept in memory and a warning says so once.

    Args:
        path: a TFRecord file.
        rebuild: scan the file even if the cache is fresh.

    Returns:
        read-only int64 [n + 1], the start of each of the n records and, last, the size of the file.

    Raises:
        DataError: the file is missing, truncated or damaged.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise framing.unreadable(path, error) from error
    stamp = (state.st_size, state.st_mtime_ns)
    cached = index_path(path)
    if not rebuild:
        if (offsets := _stored(cached, stamp)) is not None:
            return offsets
        if path in _held and _held[path][0] == stamp:
            return _held[path][1]
    offsets = framing.scan(path).astype(OFFSET, copy=False)
    offsets.flags.writeable = False
    if _store(cached, stamp, offsets) and (stored := _stored(cached, stamp)) is not None:
        _held.pop(path, None)
        return stored
    _held[path] = stamp, offsets
    return offsets


def _stored(cached: Path, stamp: tuple[int, int]) -> np.ndarray | None:
    """Map the offsets in a cache file, or give None if it is missing, stale or damaged."""
    try:
        with cached.open("rb") as stream:
            magic, size, time, count, checksum = HEADER.unpack(stream.read(HEADER.size))
            if magic != MAGIC or (size, time) != stamp or count < 1:
                return None
            if os.fstat(stream.fileno()).st_size != HEADER.size + count * OFFSET.itemsize:
                return None
            offsets = np.memmap(stream, OFFSET, "r", HEADER.size, (count,))
    except (OSError, ValueError, struct.error):
        return None
    if zlib.crc32(offsets.data) != checksum or offsets[0] != 0 or offsets[-1] != size:
        return None
    return offsets


def _store(cached: Path, stamp: tuple[int, int], offsets: np.ndarray) -> bool:
    # A file that grew while it was scanned gets no index: the stamp would vouch for offsets of another state.
    if offsets[-1] != stamp[0]:
        return False
    header = HEADER.pack(MAGIC, *stamp, len(offsets), zlib.crc32(offsets.data))
    temporary = cached.with_name(f".{cached.name}.{secrets.token_hex(6)}.tmp")
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        # Not forced to the disk as results are: the checksum tells if a crash left a part, and there are thousands.
        temporary.write_bytes(header + offsets.tobytes())
        temporary.replace(cached)
    except OSError as error:
        _warn_once(index_folder(), error.strerror or str(error))
        return False
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return True


@functools.cache
def _warn_once(folder: Path, reason: str) -> None:
    warnings.warn(
        f"The record index cannot be kept in {folder}, so every process scans the records anew ({reason}); "
        "set LITE_BENCH_HOME to a folder that can be written.",
        RuntimeWarning,
        stacklevel=4,
    )
