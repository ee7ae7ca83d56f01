"""Meta-Dataset episodes from photographs: images per second on one core and on all, memory, and waiting for data.

Beside the episodes stands plain sequential reading: the same records from the start of each file, decoded and resized
one after the other. Records are written from a folder of photographs (one sub-folder per class), or made up at
500 x 375 pixels, as the source ``aircraft``. Files lie in the page cache, so the figures are of the code.

    python benchmarks/bench_vtab_md_episodes.py [--photographs DIR] [--image-size 224] [--episodes 8]
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from isolated import table
from PIL import Image

from lite_bench.datasets.conversion.jpeg import original_or_jpeg
from lite_bench.datasets.meta_dataset.specification import FlatSpecification
from lite_bench.datasets.meta_dataset.specification_files import FILE_PATTERN, write_specification
from lite_bench.datasets.tfrecords.examples import encode_example, parse_example
from lite_bench.datasets.tfrecords.framing import frame
from lite_bench.datasets.vtab_md.pixels import decode_jpeg, resize_aligned
from lite_bench.datasets.vtab_md.standins import write_source
from lite_bench.datasets.vtab_md.suite import VtabMd
from lite_bench.harness.assembly import assemble
from lite_bench.harness.core import Task
from lite_bench.harness.loading import EpisodeStream
from lite_bench.harness.settings import validate
from lite_bench.harness.step import accumulate_task_gradient

SOURCE = "aircraft"
MADE_UP_CLASSES, MADE_UP_IMAGES, MADE_UP_SIZE = 60, 30, (500, 375)
WARM_UP, SEQUENTIAL_IMAGES = 100, 1000
STEP_TASKS = 4


def photographs(folder: Path | None) -> Iterator[tuple[str, list[bytes]]]:
    """Give classes with the JPEG bytes of their photographs; smooth noise where there is no folder."""
    if folder is not None:
        for place in sorted(path for path in folder.iterdir() if path.is_dir()):
            files = sorted(path for path in place.iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
            if len(files) > 1:
                yield place.name, [original_or_jpeg(path.read_bytes(), str(path)) for path in files]
        return
    rng = np.random.default_rng(0)
    for number in range(MADE_UP_CLASSES):
        images = []
        for _ in range(MADE_UP_IMAGES):
            rough = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
            stream = io.BytesIO()
            rough.resize(MADE_UP_SIZE, Image.Resampling.BICUBIC).save(stream, "JPEG")
            images.append(stream.getvalue())
        yield f"class {number}", images


def write_records(folder: Path, source: Path | None) -> int:
    """Write the photographs as the records of one source, all classes for testing; gives the number of images."""
    folder.mkdir(parents=True)
    names, counts = [], []
    for class_id, (name, images) in enumerate(photographs(source)):
        records = (frame(encode_example({"image": image, "label": class_id})) for image in images)
        (folder / FILE_PATTERN.format(class_id)).write_bytes(b"".join(records))
        names.append(name)
        counts.append(len(images))
    write_specification(FlatSpecification(SOURCE, tuple(names), tuple(counts), {"test": len(names)}), folder)
    return sum(counts)


def payloads(folder: Path) -> Iterator[bytes]:
    """Read all records from the start of each file."""
    for path in sorted(folder.glob("*.tfrecords")):
        with path.open("rb") as stream:
            while header := stream.read(12):
                yield stream.read(struct.unpack_from("<Q", header)[0])
                stream.read(4)


def sequential(data: Path, size: int) -> dict[str, Any]:
    """Time decoding and resizing in file order on one thread."""
    start = 0.0
    for count, payload in enumerate(itertools.islice(payloads(data / SOURCE), WARM_UP + SEQUENTIAL_IMAGES)):
        if count == WARM_UP:
            start = time.perf_counter()
        resize_aligned(decode_jpeg(parse_example(payload)["image"][0], "a record"), size)
    return {"images": count + 1 - WARM_UP, "seconds": time.perf_counter() - start}


def episodes(data: Path, size: int, n: int, cores: int) -> dict[str, Any]:
    """Time test episodes, one after the other, on ``cores`` cores; the first pass builds the indexes."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    suite = VtabMd(size, data)
    tasks = suite.tasks("test")[SOURCE][: n + 1]
    suite.episode(tasks[0])
    for task in tasks[1:]:
        suite.plan(task)
    start, images = time.perf_counter(), 0
    for task in tasks[1:]:
        episode = suite.episode(task)
        images += len(episode.support.labels) + episode.n_query
    return {"images": images, "seconds": time.perf_counter() - start}


def own_bytes() -> int:
    """Memory of this process that it shares with no file."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def memory(data: Path) -> dict[str, Any]:
    """Measure what stays allocated after episodes of 8 sources."""
    suite = VtabMd(32, data)
    names = suite.groups["MD-v2"]
    suite.episode(Task(suite.id, names[0], "test", 0))
    before = own_bytes()
    for name in names:
        for index in range(20):
            suite.episode(Task(suite.id, name, "test", index))
    handles = len(list(Path("/proc/self/fd").iterdir()))
    return {"mb": (own_bytes() - before) / 1e6, "files": handles}


def waiting(data: Path, size: int, backbone: str) -> dict[str, Any]:
    """Measure the share of training time spent waiting for episodes that are prepared ahead."""
    settings = validate(
        {
            "learner": "protonets",
            "backbone": backbone,
            "pretrained": False,
            "image_size": size,
            "device": "auto",
            "pixel_range": "signed",
        }
    )
    assembly = assemble(settings, size)
    suite = VtabMd(size, data)
    stream = EpisodeStream(suite, suite.tasks("test")[SOURCE][: STEP_TASKS + 1], settings.workers)
    start = 0.0
    for number, episode in enumerate(stream):
        if number == 0:
            start, waited = time.perf_counter(), stream.waited
            continue
        generator = torch.Generator().manual_seed(number)
        accumulate_task_gradient(
            assembly.learner, episode, assembly.estimator, settings.query_batch, generator, assembly.device
        )
    seconds = time.perf_counter() - start
    return {"share": (stream.waited - waited) / seconds, "seconds": seconds, "device": str(assembly.device)}


CASES: dict[str, Callable[..., dict[str, Any]]] = {
    "sequential": sequential,
    "episodes": episodes,
    "memory": memory,
    "waiting": waiting,
}


def isolated(case: str, **arguments: Any) -> dict[str, Any]:
    """Run a case in a process of its own."""
    command = [sys.executable, __file__, "--case", json.dumps([case, arguments])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        name, arguments = json.loads(given.case)
        print(json.dumps(CASES[name](Path(arguments.pop("data")), **arguments)))
        return
    with tempfile.TemporaryDirectory() as place:
        os.environ["LITE_BENCH_HOME"] = str(Path(place) / "home")
        data, size = Path(place) / "photographs", given.image_size
        count = write_records(data / SOURCE, given.photographs)
        print(f"{count} photographs, resized to {size} pixels")
        cores = len(os.sched_getaffinity(0))
        plain = isolated("sequential", data=str(data), size=size)
        rows: list[tuple[str, dict[str, Any]]] = [("sequential reading, 1 thread", plain)]
        for used in sorted({1, cores}):
            measured = isolated("episodes", data=str(data), size=size, n=given.episodes, cores=used)
            rows.append((f"episodes, {used} core{'s' if used > 1 else ''}", measured))
        rate = plain["images"] / plain["seconds"]
        lines = [
            [name, f"{m['images']}", f"{m['images'] / m['seconds']:.0f}", f"{m['images'] / m['seconds'] / rate:.2f}"]
            for name, m in rows
        ]
        print(table(["", "images", "images/s", "ratio"], lines))
        for backbone in ("resnet18", "efficientnet_b0"):
            waited = isolated("waiting", data=str(data), size=size, backbone=backbone)
            place_of_work = f"{backbone} on {waited['device']}"
            print(f"waiting for data, {place_of_work}: {waited['share']:.1%} of {waited['seconds']:.1f} s")
        for name in VtabMd(32, None).groups["MD-v2"]:
            write_source(name, Path(place) / "standin" / name, 0)
        kept = isolated("memory", data=str(Path(place) / "standin"))
        print(f"8 sources, 160 episodes: {kept['mb']:.1f} MB more kept, {kept['files']} files open")


if __name__ == "__main__":
    main()
