"""Reading records by number: right bytes, few descriptors, threads, forks, and files that change."""

from __future__ import annotations

import errno
import os
import pickle
import random
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lite_bench.datasets.tfrecords.framing import frame, scan
from lite_bench.datasets.tfrecords.index import load_index
from lite_bench.datasets.tfrecords.reading import RecordReader
from lite_bench.harness.errors import DataError

FILES, RECORDS = 200, 5


def payload(file: int, number: int) -> bytes:
    return f"{file}/{number}".encode() * (1 + (file + number) % 7)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv("LITE_BENCH_HOME", str(tmp_path / "home"))
    paths = [tmp_path / f"{file}.tfrecords" for file in range(FILES)]
    for file, path in enumerate(paths):
        path.write_bytes(b"".join(frame(payload(file, number)) for number in range(RECORDS)))
    return paths


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_records_come_in_the_order_asked(files: list[Path]) -> None:
    with RecordReader() as reader:
        assert reader.count(files[3]) == RECORDS
        assert reader.records(files[3], [4, 0, 4]) == [payload(3, 4), payload(3, 0), payload(3, 4)]
        assert reader.read(files[2], 1) == payload(2, 1)
        assert reader.records(files[3], []) == []


@pytest.mark.parametrize("number", [-1, RECORDS])
def test_numbers_outside_the_file_are_refused(files: list[Path], number: int) -> None:
    with RecordReader() as reader, pytest.raises(IndexError, match=f"0 to 4, not {number}"):
        reader.read(files[0], number)


@pytest.mark.parametrize("max_open", [2, 3, 8, 32])
def test_few_descriptors_are_open(files: list[Path], max_open: int) -> None:
    before = descriptors()
    with RecordReader(max_open) as reader:
        for file in [*range(FILES), *range(FILES)]:
            assert reader.read(files[file], file % RECORDS) == payload(file, file % RECORDS)
            assert descriptors() - before <= max_open
        assert descriptors() - before == max_open // 2 * 2
    assert descriptors() == before


def test_two_descriptors_are_needed() -> None:
    with pytest.raises(ValueError, match="max_open is 1"):
        RecordReader(1)


def test_forgotten_readers_close_their_files(files: list[Path]) -> None:
    before = descriptors()
    reader = RecordReader()
    reader.read(files[0], 0)
    del reader
    assert descriptors() == before


@pytest.mark.parametrize("max_open", [2, 6, 400])
def test_threads_get_the_same_bytes(files: list[Path], max_open: int) -> None:
    before = descriptors()
    most = 0

    def work(seed: int) -> bool:
        nonlocal most
        draw = random.Random(seed)
        for _ in range(150):
            file, numbers = draw.randrange(FILES), draw.choices(range(RECORDS), k=3)
            if reader.records(files[file], numbers) != [payload(file, number) for number in numbers]:
                return False
            most = max(most, descriptors() - before)
        return True

    with RecordReader(max_open) as reader:
        for path in files:
            reader.count(path)
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(work, range(8)))
    # The threads that count hold a descriptor each while they count.
    assert most <= max_open + 8


def test_a_forked_child_reads_on_its_own(files: list[Path]) -> None:
    reader = RecordReader(4)
    reader.read(files[0], 0)
    entered, leave = threading.Event(), threading.Event()

    def hold_the_lock() -> None:
        with reader._changed:
            entered.set()
            leave.wait()

    thread = threading.Thread(target=hold_the_lock)
    thread.start()
    entered.wait()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*multi-threaded.*", category=DeprecationWarning)
        child = os.fork()
    if not child:
        right = all(reader.read(files[file], 1) == payload(file, 1) for file in range(10))
        os._exit(0 if right else 1)
    leave.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
    assert reader.read(files[0], 0) == payload(0, 0)
    reader.close()


def test_pickled_reader_keeps_its_settings(files: list[Path]) -> None:
    with RecordReader(6, check=False) as reader:
        reader.read(files[0], 0)
        copy = pickle.loads(pickle.dumps(reader))
    assert (copy.max_open, copy.check) == (6, False)
    assert copy.read(files[1], 1) == payload(1, 1)
    copy.close()


def test_reader_can_be_used_after_closing(files: list[Path]) -> None:
    reader = RecordReader()
    reader.close()
    assert reader.read(files[0], 0) == payload(0, 0)
    reader.close()


def test_a_replaced_file_is_read_anew(files: list[Path]) -> None:
    with RecordReader() as reader:
        reader.read(files[0], 0)
        other = files[0].with_suffix(".new")
        other.write_bytes(frame(b"new") + frame(b"content"))
        other.replace(files[0])
        assert reader.count(files[0]) == 2
        assert reader.read(files[0], 1) == b"content"


def test_damage_is_named_with_its_place(files: list[Path]) -> None:
    start = int(scan(files[0])[2])
    data = bytearray(files[0].read_bytes())
    data[start + 13] ^= 1
    files[0].write_bytes(data)
    with RecordReader() as reader:
        assert reader.read(files[0], 1) == payload(0, 1)
        with pytest.raises(DataError, match=rf"0\.tfrecords has a record whose content .* at byte {start};"):
            reader.read(files[0], 2)
    with RecordReader(check=False) as reader:
        assert reader.read(files[0], 2) != payload(0, 2)


def test_a_file_overwritten_in_place_is_found(files: list[Path]) -> None:
    with RecordReader() as reader:
        reader.read(files[0], 0)
        state = files[0].stat()
        size = state.st_size
        files[0].write_bytes(frame(bytes(size - 16)))
        os.utime(files[0], ns=(state.st_atime_ns, state.st_mtime_ns))
        with pytest.raises(DataError, match="another length than its index says"):
            reader.read(files[0], 0)


def test_missing_and_unreadable_files_are_named(files: list[Path], tmp_path: Path) -> None:
    with RecordReader() as reader:
        with pytest.raises(DataError, match=r"none\.tfrecords is missing"):
            reader.read(tmp_path / "none.tfrecords", 0)
        (tmp_path / "folder.tfrecords").mkdir()
        with pytest.raises(DataError, match=r"folder\.tfrecords cannot be read"):
            reader.count(tmp_path / "folder.tfrecords")
        files[0].write_bytes(files[0].read_bytes()[:-1])
        with pytest.raises(DataError, match="in the middle of a record"):
            reader.count(files[0])


@pytest.mark.parametrize("call", ["open", "pread"])
def test_a_failing_disk_is_named(files: list[Path], call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with RecordReader() as reader:
        load_index(files[0])

        def fail(*_: object) -> int:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, call, fail)
        with pytest.raises(DataError, match=r"0\.tfrecords cannot be read \(Input/output error\); check the disk"):
            reader.read(files[0], 0)


def test_a_reader_left_open_at_exit_is_silent(files: list[Path]) -> None:
    code = (
        "import sys; from pathlib import Path; from lite_bench.datasets.tfrecords.reading import RecordReader\n"
        "reader = RecordReader(); print(reader.read(Path(sys.argv[1]), 0).decode())"
    )
    done = subprocess.run([sys.executable, "-c", code, files[0]], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (payload(0, 0).decode() + "\n", "")
