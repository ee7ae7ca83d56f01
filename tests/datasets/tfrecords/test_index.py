"""The cache of record offsets: used while fresh, and never in the way."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lite_bench.datasets.tfrecords import framing, index
from lite_bench.datasets.tfrecords.framing import frame
from lite_bench.datasets.tfrecords.index import index_folder, index_path, load_index
from lite_bench.harness.errors import DataError

OFFSETS = [0, 19, 35, 61]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "0.tfrecords"
    file.write_bytes(b"".join(map(frame, (b"abc", b"", b"0123456789"))))
    return file


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("LITE_BENCH_HOME", str(tmp_path / "home"))
    yield tmp_path / "home"
    index._held.clear()
    index._warn_once.cache_clear()


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file that is scanned from now on."""
    seen: list[Path] = []
    scan = framing.scan

    def counted(path: Path) -> np.ndarray:
        seen.append(path)
        return scan(path)

    monkeypatch.setattr(framing, "scan", counted)
    return seen


def test_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, home: Path, tmp_path: Path) -> None:
    assert index_folder() == home / "index"
    monkeypatch.delenv("LITE_BENCH_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert index_folder() == tmp_path / ".cache" / "lite-bench" / "index"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert index_folder() == tmp_path / "xdg" / "lite-bench" / "index"


def test_second_load_scans_nothing_and_is_mapped(path: Path, scans: list[Path]) -> None:
    first, second = load_index(path), load_index(path)
    assert len(scans) == 1
    for offsets in (first, second):
        assert isinstance(offsets, np.memmap)
        assert offsets.dtype == np.int64
        assert offsets.tolist() == OFFSETS
        assert not offsets.flags.writeable


def test_empty_file_has_an_index(path: Path, scans: list[Path]) -> None:
    path.write_bytes(b"")
    assert load_index(path).tolist() == load_index(path).tolist() == [0]
    assert len(scans) == 1


def test_two_names_of_a_file_share_an_index(path: Path, scans: list[Path], tmp_path: Path) -> None:
    link = tmp_path / "link.tfrecords"
    link.symlink_to(path)
    load_index(path)
    assert load_index(link).tolist() == OFFSETS
    assert len(scans) == 1


def test_other_size_or_time_or_a_wish_rebuilds(path: Path, scans: list[Path]) -> None:
    load_index(path)
    with path.open("ab") as stream:
        stream.write(frame(b"more"))
    assert load_index(path).tolist() == [*OFFSETS, 81]
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert load_index(path).tolist() == [*OFFSETS, 81]
    load_index(path, rebuild=True)
    assert len(scans) == 4
    load_index(path)
    assert len(scans) == 4


def test_every_damaged_byte_of_the_cache_is_found(path: Path, scans: list[Path]) -> None:
    load_index(path)
    cached = index_path(path)
    good = cached.read_bytes()
    padding = range(index.HEADER.size - 4, index.HEADER.size)
    for position in sorted(set(range(len(good))) - set(padding)):
        bad = bytearray(good)
        bad[position] ^= 0x40
        cached.write_bytes(bad)
        before = len(scans)
        assert load_index(path).tolist() == OFFSETS
        assert len(scans) == before + 1
        assert cached.read_bytes() == good


def test_truncated_and_foreign_cache_files_are_rebuilt(path: Path, scans: list[Path]) -> None:
    load_index(path)
    cached = index_path(path)
    good = cached.read_bytes()
    for bad in (b"", good[:10], good[: index.HEADER.size], good[:-1], good + b"\0", b"text", bytes(len(good))):
        cached.write_bytes(bad)
        before = len(scans)
        assert load_index(path).tolist() == OFFSETS
        assert len(scans) == before + 1
        assert cached.read_bytes() == good


def test_unwritable_cache_keeps_offsets_in_memory_and_says_so_once(path: Path, scans: list[Path], home: Path) -> None:
    home.write_text("a file where a folder belongs")
    with pytest.warns(RuntimeWarning, match="set LITE_BENCH_HOME to a folder that can be written"):
        assert load_index(path).tolist() == OFFSETS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_index(path).tolist() == OFFSETS
        assert len(scans) == 1
        with path.open("ab") as stream:
            stream.write(frame(b"more"))
        assert load_index(path).tolist() == [*OFFSETS, 81]
    assert len(scans) == 2
    home.unlink()
    assert isinstance(load_index(path, rebuild=True), np.memmap)
    assert not index._held


def test_file_that_grows_while_it_is_scanned_gets_no_index(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = framing.scan

    def slow(path: Path) -> np.ndarray:
        with path.open("ab") as stream:
            stream.write(frame(b"more"))
        return scan(path)

    monkeypatch.setattr(framing, "scan", slow)
    assert load_index(path).tolist() == [*OFFSETS, 81]
    assert not index_path(path).exists()
    monkeypatch.setattr(framing, "scan", scan)
    assert load_index(path).tolist() == [*OFFSETS, 81]
    assert index_path(path).exists()


def test_damaged_records_get_no_index(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="in the middle of a record"):
        load_index(path)
    assert not index_path(path).exists()
    with pytest.raises(DataError, match=r"absent\.tfrecords is missing"):
        load_index(path.with_name("absent.tfrecords"))


def build(path: Path, start: object, results: object) -> None:
    """Rebuild an index many times, in a process of its own."""
    start.wait()  # type: ignore[attr-defined]  # a multiprocessing.Barrier, a method of the context
    sums = {int(load_index(path, rebuild=i % 2 == 0).sum()) for i in range(60)}
    results.put(sums)  # type: ignore[attr-defined]  # a multiprocessing.Queue, a method of the context


def test_processes_that_build_at_once_all_get_it(tmp_path: Path) -> None:
    path = tmp_path / "big.tfrecords"
    path.write_bytes(frame(b"abc") * 3000)
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(3), context.Queue()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*multi-threaded.*", category=DeprecationWarning)
        processes = [context.Process(target=build, args=(path, start, results)) for _ in range(3)]
        for process in processes:
            process.start()
    expected = 19 * 3000 * 3001 // 2
    assert [results.get(timeout=60) for _ in processes] == [{expected}] * 3
    for process in processes:
        process.join()
    assert [p.name for p in index_path(path).parent.iterdir()] == [index_path(path).name]
