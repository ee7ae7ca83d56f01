"""Record files at the size of Quick, Draw!: building the index, reading at random, and the memory of many open classes.

Beside the index stands what readers of TFRecord files usually do: read the file record by record from the start.
Files lie in the page cache, so the figures are of the code and not of the disk.

    python benchmarks/bench_record_index.py [--records 200000] [--record-bytes 700] [--sources 8] [--classes 50]
"""

from __future__ import annotations

import argparse
import os
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from isolated import table

from lite_bench.datasets.tfrecords import framing, index
from lite_bench.datasets.tfrecords.examples import encode_example, parse_example
from lite_bench.datasets.tfrecords.reading import RecordReader

REPEATS = 3
DRAWS = 20_000
CLASS_RECORDS, CLASS_DRAWS = 150_000, 20


def best_seconds(work: Callable[[], object]) -> float:
    """Time the fastest of a few runs."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def write_records(path: Path, n_records: int, record_bytes: int) -> None:
    """Write labelled records of about a size, uniform within a third of it."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(record_bytes * 2 // 3, record_bytes * 4 // 3, n_records)
    with path.open("wb") as stream:
        for size in sizes.tolist():
            stream.write(framing.frame(encode_example({"image": rng.bytes(size), "label": 7})))


def read_in_order(path: Path) -> int:
    """Read every record from the start with plain file reads, checking nothing."""
    count = 0
    with path.open("rb") as stream:
        while header := stream.read(12):
            stream.read(struct.unpack_from("<Q", header)[0])
            stream.read(4)
            count += 1
    return count


def resident() -> tuple[float, float]:
    """Give this process's own and its file-backed resident memory, in MB."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    fields = dict(line.split(":", 1) for line in text.splitlines())
    return int(fields["RssAnon"].split()[0]) / 1e3, int(fields["RssFile"].split()[0]) / 1e3


def open_descriptors() -> int:
    """Count this process's open files."""
    return len(list(Path("/proc/self/fd").iterdir()))


def speeds(folder: Path, n_records: int, record_bytes: int) -> str:
    """Measure scanning, loading and reading of one file."""
    path = folder / "0.tfrecords"
    write_records(path, n_records, record_bytes)
    size = path.stat().st_size
    draws = np.random.default_rng(1).integers(0, n_records, DRAWS).tolist()
    passes: dict[str, Callable[[], object]] = {
        "read in order, unchecked": lambda: read_in_order(path),
        "scan (lengths checked)": lambda: framing.scan(path),
        "scan, payloads checked too": lambda: framing.scan(path, check=True),
        "build and store the index": lambda: index.load_index(path, rebuild=True),
    }
    rows: list[list[object]] = []
    for name, work in passes.items():
        seconds = best_seconds(work)
        rows.append([name, f"{seconds:.3f}", f"{n_records / seconds:,.0f}", f"{size / seconds / 1e6:,.0f}"])
    seconds = best_seconds(lambda: index.load_index(path))
    rows.append(["load the stored index", f"{seconds:.5f}", f"{n_records / seconds:,.0f}", ""])
    for check in (True, False):
        with RecordReader(check=check) as reader:
            seconds = best_seconds(lambda: reader.records(path, draws))  # called at once
            payloads = reader.records(path, draws)
        name = f"{DRAWS:,} random reads, {'checked' if check else 'unchecked'}"
        rows.append(
            [name, f"{seconds:.3f}", f"{DRAWS / seconds:,.0f}", f"{sum(map(len, payloads)) / seconds / 1e6:,.0f}"]
        )
    seconds = best_seconds(lambda: list(map(parse_example, payloads)))
    rows.append([f"{DRAWS:,} Examples parsed", f"{seconds:.3f}", f"{DRAWS / seconds:,.0f}", ""])
    title = f"{n_records:,} records, {size / 1e6:,.0f} MB\n\n"
    return title + table(["what", "seconds", "records/s", "MB/s"], rows)


def memory(folder: Path, n_sources: int, n_classes: int) -> str:
    """Measure what many classes of many records take; all are hard links to one file, each with its own index."""
    first = folder / "class.tfrecords"
    first.write_bytes(framing.frame(b"record") * CLASS_RECORDS)
    offsets = framing.scan(first)
    framing.scan = lambda _path, **_options: offsets  # the links have the same content
    paths = [folder / f"{number}.link" for number in range(n_sources * n_classes)]
    rng = np.random.default_rng(2)
    for path in paths:
        path.hardlink_to(first)
        index.load_index(path)
    own, shared = resident()
    before = open_descriptors()
    reader = RecordReader()
    start = time.perf_counter()
    for path in paths:
        reader.records(path, rng.integers(0, CLASS_RECORDS, CLASS_DRAWS).tolist())
    seconds = time.perf_counter() - start
    more_own, more_shared = (now - then for now, then in zip(resident(), (own, shared), strict=True))
    descriptors = open_descriptors() - before
    reader.close()
    rows: list[list[object]] = [
        ["classes x records", f"{len(paths)} x {CLASS_RECORDS:,}"],
        ["offsets, if held in memory (MB)", f"{len(paths) * offsets.nbytes / 1e6:,.0f}"],
        ["more memory of the process's own (MB)", f"{more_own:.1f}"],
        ["more memory shared with the page cache (MB)", f"{more_shared:.1f}"],
        ["open descriptors of the reader", descriptors],
        [f"opening a class and reading {CLASS_DRAWS} of its records (ms)", f"{seconds / len(paths) * 1e3:.2f}"],
    ]
    return table(["many classes through one reader", ""], rows)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--record-bytes", type=int, default=700)
    parser.add_argument("--sources", type=int, default=8)
    parser.add_argument("--classes", type=int, default=50)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LITE_BENCH_HOME"] = f"{folder}/home"
        print(speeds(Path(folder), arguments.records, arguments.record_bytes), end="\n\n", flush=True)
        print(memory(Path(folder), arguments.sources, arguments.classes))


if __name__ == "__main__":
    main()
