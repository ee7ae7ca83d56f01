"""TFRecord framing: published vectors, round trips, and that no damage goes unseen."""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite_bench.datasets.tfrecords import framing
from lite_bench.datasets.tfrecords.framing import crc32c, frame, masked, scan, survey, unframe
from lite_bench.harness.errors import DataError

PAYLOADS = (b"", b"abc", bytes(range(40)), b"\xff" * 5)


def write(path: Path, payloads: Sequence[bytes]) -> Path:
    path.write_bytes(b"".join(map(frame, payloads)))
    return path


def slow_crc32c(data: bytes) -> int:
    """Divide bit by bit by the reflected Castagnoli polynomial."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_checksum_has_the_published_values() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert masked(0xE3069283) == 0xC78AB0E5


@given(st.binary(max_size=100))
@settings(deadline=None)
def test_checksum_is_a_division_by_the_polynomial(data: bytes) -> None:
    assert crc32c(data) == slow_crc32c(data)


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_mask_can_be_undone(crc: int) -> None:
    rotated = (masked(crc) - 0xA282EAD8) % 2**32
    assert (rotated << 15 | rotated >> 17) % 2**32 == crc


def test_empty_record_has_the_published_bytes() -> None:
    assert frame(b"").hex() == "0000000000000000" + "29039807" + "d8ea82a2"


def test_example_record_has_the_published_bytes() -> None:
    payload = bytes.fromhex("0a230a100a05696d61676512070a050a036162630a0f0a056c6162656c12061a040a02ac02")
    assert frame(payload).hex() == "2500000000000000eabc36f3" + payload.hex() + "944544dc"


@given(payloads=st.lists(st.binary(max_size=60), max_size=12), window=st.integers(12, 200), long=st.integers(0, 80))
@settings(max_examples=60, deadline=None)
def test_scan_finds_what_was_framed(
    payloads: list[bytes], window: int, long: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(tmp_path_factory.mktemp("scan") / "0.tfrecords", payloads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(framing, "WINDOW_BYTES", window)
        patch.setattr(framing, "LONG_RECORD_BYTES", long)
        patch.setattr(framing, "HEADER_WINDOW_BYTES", 12)
        starts = scan(path, check=True)
    assert starts.dtype == np.int64
    assert starts[0] == 0
    assert starts[-1] == path.stat().st_size
    data = path.read_bytes()
    assert [unframe(data[a:b]) for a, b in pairwise(starts)] == payloads


def test_records_larger_than_a_window_are_found(tmp_path: Path) -> None:
    sizes = (3, framing.WINDOW_BYTES + 7, framing.LONG_RECORD_BYTES + 1, 5, 2 * framing.WINDOW_BYTES, 1)
    path = write(tmp_path / "0.tfrecords", [bytes(size) for size in sizes])
    assert np.diff(scan(path, check=True)).tolist() == [size + 16 for size in sizes]


def test_empty_file_has_no_records(tmp_path: Path) -> None:
    assert scan(write(tmp_path / "0.tfrecords", [])).tolist() == [0]


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "0.tfrecords", PAYLOADS)
    good = path.read_bytes()
    for position in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[position] ^= 1 << bit
            path.write_bytes(bad)
            with pytest.raises(DataError, match=r"0\.tfrecords .* at byte \d+; copy or convert it again"):
                scan(path, check=True)


def test_flipped_length_is_found_without_reading_payloads(tmp_path: Path) -> None:
    path = write(tmp_path / "0.tfrecords", PAYLOADS)
    good, starts = path.read_bytes(), scan(path).tolist()
    for start in starts[:-1]:
        for position in range(start, start + framing.HEADER_BYTES):
            bad = bytearray(good)
            bad[position] ^= 0x10
            path.write_bytes(bad)
            with pytest.raises(DataError, match=f"length that fails its checksum at byte {start};"):
                scan(path)


def test_every_truncation_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "0.tfrecords", PAYLOADS)
    good, starts = path.read_bytes(), scan(path).tolist()
    for size in range(len(good)):
        path.write_bytes(good[:size])
        if size in starts:  # whole records, just fewer: the number of records tells (see test_source)
            assert len(scan(path)) == starts.index(size) + 1
            continue
        start = max(s for s in starts if s <= size)
        with pytest.raises(DataError, match=rf"ends in the middle of a record.* at byte {start};"):
            scan(path)


def test_truncated_record_says_how_much_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "0.tfrecords", [bytes(100)])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"30 of its 116 bytes are missing\) at byte 0"):
        scan(path)


def test_a_length_beyond_the_file_with_a_right_checksum_is_found(tmp_path: Path) -> None:
    length = struct.pack("<Q", 2**64 - 1)
    path = tmp_path / "0.tfrecords"
    path.write_bytes(frame(b"ok") + length + struct.pack("<I", masked(crc32c(length))) + bytes(50))
    with pytest.raises(DataError, match=r"ends in the middle of a record .* at byte 18;"):
        scan(path)


def test_other_files_are_not_taken_for_records(tmp_path: Path) -> None:
    path = tmp_path / "0.tfrecords"
    path.write_bytes(b"\x1f\x8b\x08\x00 a gzip file, say")
    with pytest.raises(DataError, match="fails its checksum at byte 0"):
        scan(path)


def test_survey_keeps_the_records_before_the_damage(tmp_path: Path) -> None:
    path = write(tmp_path / "0.tfrecords", PAYLOADS)
    starts = scan(path)
    path.write_bytes(path.read_bytes()[:-1])
    intact, problem = survey(path)
    assert intact.tolist() == starts[:-1].tolist()
    assert "1 of its 21 bytes" in problem


def test_missing_and_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.tfrecords is missing"):
        scan(tmp_path / "nothing.tfrecords")
    with pytest.raises(DataError, match="cannot be read"):
        scan(tmp_path)


@pytest.mark.parametrize("record", [b"", frame(b"abc")[:-1], frame(b"abc") + b"\0", frame(b"abc")[:11]])
def test_only_one_whole_record_is_unframed(record: bytes) -> None:
    with pytest.raises(ValueError, match="record"):
        unframe(record)


def test_payload_checksum_may_be_left_out() -> None:
    bad = frame(b"abc")[:-1] + b"\0"
    assert unframe(bad, check=False) == b"abc"
    with pytest.raises(ValueError, match="content fails its checksum"):
        unframe(bad)


def test_a_failing_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "0.tfrecords", PAYLOADS)

    def fail(_: bytes) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(framing, "unframe", fail)
    with pytest.raises(DataError, match=r"cannot be read \(Input/output error\); check the disk"):
        scan(path, check=True)
