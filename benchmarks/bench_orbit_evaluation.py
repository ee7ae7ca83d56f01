"""Evaluating on ORBIT's videos: a moving mean over features beside the literal windows, and memory on long videos.

Time: a test task of a user with five objects, in made-up clutter videos. The protocol classifies a frame from the mean
feature of the 8 frames that end at it. Ours runs the network once a frame; the literal loop runs it on all 8 frames of
every window. Both must predict the same. Memory: what reading and classifying one video takes at the most, beside the
size of all its frames.

    python benchmarks/bench_orbit_evaluation.py [--image-size 84] [--backbone resnet18] [--device auto]
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from isolated import THREADS, run_cases, table

from lite_bench.datasets.orbit.episodes import FrameStream
from lite_bench.datasets.orbit.frames import read_frames
from lite_bench.datasets.orbit.published import published_users
from lite_bench.datasets.orbit.sampling import Clip
from lite_bench.datasets.orbit.standin import back_and_forth, write_object
from lite_bench.datasets.orbit.standin_images import draw_ground, draw_look, draw_picture, draw_scene
from lite_bench.datasets.orbit.suite import Orbit
from lite_bench.datasets.orbit.videos import Video
from lite_bench.harness.answers import Setting, score_task
from lite_bench.harness.assembly import Assembly, assemble, precision_context
from lite_bench.harness.clips import ItemEncode, feature_learner, per_item, started_task
from lite_bench.harness.core import Episode, Support
from lite_bench.harness.measurement.peak import measure_peak, resident_bytes
from lite_bench.harness.measurement.stopwatch import clock
from lite_bench.harness.settings import validate
from lite_bench.harness.step import move_support

USER = "P554"
BATCH = 64
"""Images in the network at a time."""
LONG_SIDE, LENGTHS, DISTINCT = 224, (100, 1000), 10
SAMPLES_PER_SECOND = 500


def assembled(size: int, backbone: str, device: str) -> Assembly:
    """Build an untrained learner whose features are of single frames."""
    torch.set_num_threads(THREADS)
    options = {"learner": "protonets", "backbone": backbone, "pretrained": False, "image_size": size, "device": device}
    built = assemble(validate(options), size)
    built.module.eval()
    built.estimator.chunk = BATCH
    return built


def moving(built: Assembly, episode: Episode) -> dict[str, Any]:
    """Evaluate as `lite-bench eval` does."""
    precision = precision_context("fp32", built.device)
    score = score_task(Setting(built.learner, built.estimator, BATCH, built.device, precision), episode)
    predictions = [predicted for name in episode.groups for predicted in score.predictions[name]]
    return {"adapt": score.adapt_seconds, "classify": score.classify_seconds, "predictions": predictions}


@torch.no_grad()
def literal(built: Assembly, episode: Episode) -> dict[str, Any]:
    """Run the network on all frames of every window."""
    learner, support = feature_learner(built.learner), move_support(episode.support, built.device)
    start = clock(built.device)
    with started_task(built.estimator, support, torch.Generator()) as draw:
        state = learner.adapt(support, ItemEncode(draw.encode()))
    adapted = clock(built.device)
    predictions: list[int] = []
    for frames in videos(episode):
        place = torch.arange(len(frames))[:, None] - torch.arange(episode.window - 1, -1, -1)
        for windows in torch.split(place.clamp(min=0), BATCH // episode.window):
            clips = frames[windows].to(built.device)
            logits = learner.logits(state, per_item(partial(learner.features, state), clips))
            predictions += logits.argmax(1).tolist()
    return {"adapt": adapted - start, "classify": clock(built.device) - adapted, "predictions": predictions}


def videos(episode: Episode) -> Iterator[torch.Tensor]:
    """Give all frames of each target video, uint8 [P, 3, S, S]."""
    batches = list(episode.query)
    images = torch.cat([batch.images for batch in batches])
    groups = torch.cat([batch.groups for batch in batches if batch.groups is not None])
    for number in range(len(episode.groups)):
        yield images[groups == number]


def timing(way: str, root: str, size: int, backbone: str, device: str) -> dict[str, Any]:
    """Time one task; a small one before it loads kernels and fills caches."""
    suite = Orbit(size, Path(root), mode="clutter")
    built = assembled(size, backbone, device)
    evaluate: Callable[[Assembly, Episode], dict[str, Any]] = {"moving": moving, "literal": literal}[way]
    first, second = suite.tasks("test")["clutter"][:2]
    evaluate(built, shortened(suite.episode(first)))
    measured = evaluate(built, suite.episode(second))
    predictions = np.array(measured.pop("predictions"), np.int64)
    return {**measured, "frames": len(predictions), "device_used": str(built.device),
            "predicted": hashlib.sha256(predictions.tobytes()).hexdigest()}  # fmt: skip


def shortened(episode: Episode) -> Episode:
    """Keep the first batch of queries, and what videos are in it."""
    batch = next(iter(episode.query))
    assert batch.groups is not None
    names = episode.groups[: int(batch.groups.max()) + 1]
    return dataclasses.replace(episode, query=(batch,), n_query=len(batch.labels), groups=names, query_id="")


def memory(root: str, folder: str, n_frames: int, backbone: str, device: str) -> dict[str, Any]:
    """Measure the memory that reading one video of ``n_frames`` takes at the most, and that of torch in classifying it.

    The first is of the whole process, and the second of tensors, because the C library keeps freed memory.
    """
    suite = Orbit(LONG_SIDE, Path(root), mode="clutter")
    built = assembled(LONG_SIDE, backbone, device)
    video = Video(Path(folder).name, "clutter", Path(folder), n_frames)
    positions = [*range(n_frames), *[n_frames - 1] * (8 - n_frames % 8)]
    stream = FrameStream([Clip(video, tuple(positions), 0)], partial(read_frames, size=LONG_SIDE))
    episode = suite.episode(suite.tasks("test")["clutter"][0])
    given = episode.support
    first = [given.labels.tolist().index(label) for label in range(given.way)]
    episode = dataclasses.replace(
        episode,
        support=Support(given.images[first], given.labels[first], given.way),
        query=stream,
        n_query=len(positions),
        groups=(video.name,),
        query_id="",
    )
    del given
    with peak_of_process() as reading:
        for _ in stream:
            pass
    tensors = measure_peak(lambda: moving(built, episode), built.device).tensors
    return {"reading": reading[0], "tensors": tensors, "decoded": len(positions) * 3 * LONG_SIDE**2}


@contextmanager
def peak_of_process() -> Iterator[list[int]]:
    """Look every 2 ms how much memory is in use; gives a list of one number, the most above that at the start."""
    before, peak, done = resident_bytes(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(1 / SAMPLES_PER_SECOND):
            peak[0] = max(peak[0], resident_bytes() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def write_user(root: Path, size: int) -> str:
    """Write the made-up videos of one user."""
    for number in range(len(published_users()["test"][USER])):
        write_object(root, "test", USER, number, size, 0)
    return str(root)


def write_long_video(folder: Path) -> str:
    """Write a video of the most frames that count, few of which are distinct."""
    folder.mkdir(parents=True)
    generator = np.random.Generator(np.random.Philox(0))
    scene = draw_scene("clutter", draw_look(generator), [draw_look(generator)], generator)
    ground = draw_ground(scene, LONG_SIDE)
    noise = generator.integers(0, 256, (LONG_SIDE, LONG_SIDE, 3), np.uint8)
    pictures = [draw_picture(scene, step / DISTINCT, ground, noise, shown=True).jpeg for step in range(DISTINCT)]
    for number in range(max(LENGTHS)):
        (folder / f"{folder.name}-{number + 1:05d}.jpg").write_bytes(pictures[back_and_forth(number, DISTINCT)])
    return str(folder)


CASES: dict[str, Callable[..., dict[str, Any]]] = {"timing": timing, "memory": memory}


def time_table(results: list[dict[str, Any]]) -> str:
    """Lay out times, and check that both ways predict the same."""
    by_way = {result["way"]: result for result in results}
    same = len({result["predicted"] for result in results}) == 1
    ours = by_way["moving"]
    rows = []
    for way, name in (("moving", "moving mean over features"), ("literal", "network on every window")):
        seconds = by_way[way]["classify"]
        cells = [f"{seconds:.2f}", f"{seconds / ours['classify']:.2f}", f"{by_way[way]['adapt']:.2f}"]
        rows.append([name, by_way[way]["frames"], *cells])
    title = f"{ours['backbone']} at {ours['size']} pixels on {ours['device_used']}; predictions are "
    columns = ["classifying", "frames", "seconds", "ratio", "seconds to adapt"]
    return f"{title}{'the same' if same else 'DIFFERENT'}\n\n{table(columns, rows)}"


def memory_table(results: list[dict[str, Any]]) -> str:
    """Lay out memory."""
    rows = [
        [result["n_frames"], *(f"{result[name] / 1e6:.0f}" for name in ("decoded", "reading", "tensors"))]
        for result in results
    ]
    columns = [
        f"frames of {LONG_SIDE} pixels",
        "all decoded, MB",
        "at the most in reading, MB",
        "tensors in evaluation, MB",
    ]
    return table(columns, rows)


def main() -> None:
    """Measure and print, or be the process that measures one case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", type=int, default=84)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, help="also write the measurements to this file, as JSON")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        case = json.loads(given.case)
        print(json.dumps(CASES[case.pop("what")](**case)))
        return
    with tempfile.TemporaryDirectory() as place:
        os.environ["LITE_BENCH_HOME"] = str(Path(place) / "home")
        used = {"backbone": given.backbone, "device": given.device}
        root = write_user(Path(place) / "small", given.image_size)
        times = [
            {"what": "timing", "way": way, "root": root, "size": given.image_size, **used}
            for way in ("moving", "literal")
        ]
        root, folder = write_user(Path(place) / "large", LONG_SIDE), write_long_video(Path(place) / "long")
        memories = [
            {"what": "memory", "root": root, "folder": folder, "n_frames": n_frames, **used} for n_frames in LENGTHS
        ]
        results = run_cases(__file__, [*times, *memories])
    print(time_table(results[: len(times)]), memory_table(results[len(times) :]), sep="\n\n")
    if given.output:
        given.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
