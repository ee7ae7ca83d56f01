"""The TFRecord file format: how records follow each other in a file, and the checksums that guard them.

A record is uint64 length N, uint32 masked CRC of those 8 bytes, N bytes of payload, uint32 masked CRC of the
payload, all little-endian. A file is records and nothing else: no header, no index, no compression.
"""

from __future__ import annotations

import functools
import os
import struct
from array import array
from itertools import pairwise
from pathlib import Path

import google_crc32c
import numpy as np

from lite_bench.harness.errors import DataError

HEADER_BYTES, FOOTER_BYTES = 12, 4
FRAME_BYTES = HEADER_BYTES + FOOTER_BYTES
MASK_DELTA = 0xA282EAD8
LENGTH, CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")
WINDOW_BYTES = 1 << 20
"""Read at once while records are short."""
LONG_RECORD_BYTES, HEADER_WINDOW_BYTES = 1 << 15, 1 << 12
"""Behind a long record only the next header is read, because the rest of a window would be thrown away."""
REMEDY = "copy or convert it again"


def crc32c(data: bytes) -> int:
    """Compute the CRC-32C (Castagnoli) of ``data``."""
    return int(google_crc32c.value(data))


def masked(crc: int) -> int:
    """Mask a CRC as TFRecord files store it: rotated right by 15 bits, plus a constant, in 32 bits."""
    return (((crc >> 15) | (crc << 17)) + MASK_DELTA) & 0xFFFFFFFF


def frame(payload: bytes) -> bytes:
    """Write one whole record: length, its checksum, payload, its checksum."""
    length = LENGTH.pack(len(payload))
    return b"".join((length, CHECKSUM.pack(masked(crc32c(length))), payload, CHECKSUM.pack(masked(crc32c(payload)))))


@functools.lru_cache(maxsize=1 << 16)
def record_bytes(header: bytes) -> int:
    """Read the bytes that a whole record takes from its 12-byte header.

    Remembered, because lengths repeat in files of small images: the checksum of the length is then for free.

    Raises:
        ValueError: the header is cut short or its checksum is wrong.
    """
    if len(header) < HEADER_BYTES:
        raise ValueError("ends in the middle of a record's header")
    if CHECKSUM.unpack_from(header, LENGTH.size)[0] != masked(crc32c(header[: LENGTH.size])):
        raise ValueError("has a record length that fails its checksum")
    return int(LENGTH.unpack_from(header)[0]) + FRAME_BYTES


def unframe(record: bytes, *, check: bool = True) -> bytes:
    """Take the payload out of one whole record.

    Args:
        record: the bytes from a record's start to the next one's.
        check: verify the checksum of the payload too.

    Raises:
        ValueError: it is not one whole, undamaged record.
    """
    if record_bytes(record[:HEADER_BYTES]) != len(record):
        raise ValueError("has a record of another length than its index says")
    payload = record[HEADER_BYTES:-FOOTER_BYTES]
    if check and CHECKSUM.unpack_from(record, len(record) - FOOTER_BYTES)[0] != masked(crc32c(payload)):
        raise ValueError("has a record whose content fails its checksum")
    return payload


def survey(path: Path) -> tuple[np.ndarray, str]:
    """Find the record starts of a file as far as it is intact.

    Args:
        path: a TFRecord file.

    Returns:
        int64 [n + 1], the start of each of the n intact records and the end of the last; and what is wrong at
        that end, or nothing if it is the end of the file.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    starts = array("q")
    try:
        with path.open("rb", buffering=0) as stream:
            size = os.fstat(stream.fileno()).st_size
            problem = _walk(stream.fileno(), size, starts)
    except OSError as error:
        raise unreadable(path, error) from error
    return np.frombuffer(starts, np.int64), problem


def _walk(descriptor: int, size: int, starts: array[int]) -> str:
    """Append the starts of all intact records and the end of the last; say what is wrong there."""
    position, length, next_start = 0, 0, starts.append
    next_start(0)
    try:
        while position < size:
            window = os.pread(descriptor, HEADER_WINDOW_BYTES if length > LONG_RECORD_BYTES else WINDOW_BYTES, position)
            here, last_header = 0, max(len(window) - HEADER_BYTES, 0)
            while here <= last_header:
                length = record_bytes(window[here : here + HEADER_BYTES])
                here += length
                if position + here > size:
                    missing = position + here - size
                    return f"ends in the middle of a record ({missing} of its {length} bytes are missing)"
                next_start(position + here)
            position += here
    except ValueError as error:
        return str(error)
    return ""


def scan(path: Path, *, check: bool = False) -> np.ndarray:
    """Find where every record of a file starts.

    The lengths and their checksums are always verified, so that a truncated or overwritten file is found.

    Args:
        path: a TFRecord file.
        check: read all payloads too and verify their checksums.

    Returns:
        int64 [n + 1], the start of each of the n records and, last, the size of the file.

    Raises:
        DataError: the file is missing, truncated or damaged.
    """
    starts, problem = survey(path)
    if problem:
        raise damaged(path, int(starts[-1]), problem)
    if check:
        _check_records(path, starts)
    return starts


def _check_records(path: Path, starts: np.ndarray) -> None:
    try:
        with path.open("rb", buffering=WINDOW_BYTES) as stream:
            for start, stop in pairwise(starts.tolist()):
                unframe(stream.read(stop - start))
    except ValueError as error:
        raise damaged(path, start, str(error)) from error
    except OSError as error:
        raise unreadable(path, error) from error


def damaged(path: Path, start: int, problem: str) -> DataError:
    """Word the error of a file that is damaged at a record's start."""
    return DataError(f"The record file {path} {problem} at byte {start}; {REMEDY}.")


def unreadable(path: Path, error: OSError) -> DataError:
    """Word the error of a file that cannot be opened or read."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"The record file {path} is missing; {REMEDY}.")

    reason = error.strerror or str(error)
    return DataError(f"The record file {path} cannot be read ({reason}); check the disk and permissions.")
