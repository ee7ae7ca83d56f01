"""A stand-in of ORBIT: the published users, objects and numbers of videos, with made-up pictures in the real layout.

The files are the same for every seed, only what the pictures show differs. Videos are short and play a few distinct
frames back and forth, the repeats being hard links, so that the whole benchmark is small and quickly written.
"""

from __future__ import annotations

import base64
import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from lite_bench.datasets.orbit.annotations import annotation_path
from lite_bench.datasets.orbit.layout import MARKER
from lite_bench.datasets.orbit.published import PublishedObject, published_users
from lite_bench.datasets.orbit.standin_images import (
    Box,
    Picture,
    Scene,
    draw_ground,
    draw_look,
    draw_picture,
    draw_scene,
)
from lite_bench.datasets.orbit.videos import Kind, Video
from lite_bench.harness.core import Split, stable_key
from lite_bench.harness.errors import RunError, UsageError
from lite_bench.harness.files import write_atomically, write_errors

FRAMES = 56
"""Of a clutter video, unless the real one is shorter: 50 frames with the object and some without."""
MOST_ABSENT = 6
FEW_FRAMES = 50
"""A video with fewer frames that show its object is not scored in the protocol of 2022; the real ones stay so."""
CONTEXT_VIDEOS = 5
CONTEXT_FRAMES = (8, 20)
HELD_OUT_FRAMES = (50, 60)
DISTINCT_FRAMES = (8, 10)
ANNOTATION_SIDE = 1080
SMALLEST = 16
NOTE = "made-up videos in the layout of the ORBIT benchmark; results on them mean nothing"
QUALITIES = ("framing", "viewpoint", "blur", "occlusion", "overexposed", "underexposed")
OVEREXPOSED, UNDEREXPOSED = 1.1, 0.85


@dataclass(frozen=True)
class PlannedVideo:
    """A video to be made.

    Attributes:
        video: its name, folder and length.
        n_absent: how many of its frames do not show the object.
    """

    video: Video
    n_absent: int


def write_standin(
    root: Path,
    *,
    image_size: int = 84,
    seed: int = 0,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write a stand-in of the whole benchmark, with annotations.

    Args:
        root: folder to write into, which becomes the benchmark's root; made if missing.
        image_size: side of a frame in pixels, at least 16.
        seed: another one gives other pictures.
        workers: processes to use; they do not show in the files.
        progress: told how many of how many videos are done.

    Raises:
        UsageError: the image size is too small.
        RunError: ``root`` is not an empty folder, or cannot be written.
    """
    if image_size < SMALLEST:
        raise UsageError(f"A stand-in of image size {image_size} would show nothing; give at least {SMALLEST}.")
    root = root.expanduser()
    with write_errors(root):
        taken = root.exists() and (not root.is_dir() or any(root.iterdir()))
    if taken:
        raise RunError(f"{root} is not an empty folder; name a new one for the stand-in.")
    # First of all, so that no part of a stand-in is ever without.
    mark = {"synthetic": True, "note": NOTE, "seed": seed, "image_size": image_size}
    write_atomically(root / MARKER, json.dumps(mark, indent=2) + "\n")
    users = [(split, user, objects) for split, users in published_users().items() for user, objects in users.items()]
    total = sum(each.clean + len(each.clutter) for _, _, objects in users for each in objects)
    jobs = [
        partial(write_object, root, split, user, number, image_size, seed)
        for split, user, objects in users
        for number in range(len(objects))
    ]
    for done in accumulate(_results(jobs, workers)):
        progress(done, total)


def _results(jobs: Sequence[Callable[[], int]], workers: int) -> Iterator[int]:
    """Run jobs in ``workers`` processes; gives their results as they come."""
    if workers == 1:
        for job in jobs:
            yield job()
        return
    # Spawned, because a fork would copy the locks of this process's threads in whatever state they are.
    with ProcessPoolExecutor(min(workers, len(jobs)), multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(job) for job in jobs]):
            yield done.result()


def write_object(root: Path, split: Split, user: str, number: int, image_size: int, seed: int) -> int:
    """Write the videos of a user's object ``number``, in label order, and their annotations; gives how many videos.

    Raises:
        RunError: a file cannot be written.
    """
    objects = published_users()[split][user]
    looks = [draw_look(_generator("look", seed, user, each.token)) for each in objects]
    others = looks[:number] + looks[number + 1 :]
    videos = list(plan_object(root, split, user, objects[number]))
    for planned in videos:
        generator = _generator("video", seed, planned.video.name)
        scene = draw_scene(planned.video.kind, looks[number], others, generator)
        described = _write_frames(planned, scene, image_size, generator)
        annotations = annotation_path(root, split, planned.video)
        with write_errors(annotations):
            annotations.parent.mkdir(parents=True, exist_ok=True)
            annotations.write_text(json.dumps(described), encoding="utf-8")
    return len(videos)


def plan_object(root: Path, split: Split, user: str, published: PublishedObject) -> Iterator[PlannedVideo]:
    """Plan the videos of one object, those of each kind in order of name."""
    folder = root / split / user / published.token.replace("-", " ")

    def planned(kind: Kind, name: str, n_frames: int, n_absent: int) -> PlannedVideo:
        return PlannedVideo(Video(name, kind, folder / kind / name, n_frames), n_absent)

    clean = _names(user, published.token, "clean", published.clean)
    n_context = min(CONTEXT_VIDEOS, published.clean - 1)
    for place, name in enumerate(clean):
        low, high = CONTEXT_FRAMES if place < n_context else HELD_OUT_FRAMES
        yield planned("clean", name, low + stable_key("frames", name) % (high - low + 1), 0)
    clutter = _names(user, published.token, "clutter", len(published.clutter))
    for name, real in zip(clutter, published.clutter, strict=True):
        yield planned("clutter", name, *clutter_frames(*real))


def clutter_frames(n_real: int, n_absent: int) -> tuple[int, int]:
    """Choose the frames, and those without the object, of a clutter video from those of the real one.

    There are at least 50 with the object, except where there are fewer in reality: then as many as in reality.
    """
    n_frames, n_shown = min(n_real, FRAMES), n_real - n_absent
    if n_shown < FEW_FRAMES:
        return n_frames, max(n_frames - n_shown, 0)
    return n_frames, min(n_absent, MOST_ABSENT, n_frames - FEW_FRAMES)


def _names(user: str, token: str, kind: Kind, count: int) -> list[str]:
    """Name videos as the benchmark does, with 43 characters of URL-safe base64 at the end."""
    digests = (hashlib.sha256(f"{user}/{token}/{kind}/{number}".encode()).digest() for number in range(count))
    ids = (base64.urlsafe_b64encode(digest).decode().rstrip("=") for digest in digests)
    return sorted(f"{user}--{token}--{kind}--{each}" for each in ids)


def _generator(*parts: object) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(stable_key("orbit stand-in", *parts)))


def _write_frames(
    planned: PlannedVideo, scene: Scene, side: int, generator: np.random.Generator
) -> dict[str, dict[str, Any]]:
    """Draw and write the frames of a video; gives the annotations of each by its file's name."""
    video = planned.video
    n_distinct = int(generator.integers(DISTINCT_FRAMES[0], DISTINCT_FRAMES[1] + 1))
    first_absent = int(generator.integers(video.n_frames - planned.n_absent + 1))
    noise = np.frombuffer(generator.bytes(n_distinct * side * side * 3), np.uint8).reshape(n_distinct, side, side, 3)
    ground = draw_ground(scene, side)
    drawn: dict[tuple[int, bool], tuple[Picture, Path]] = {}
    described: dict[str, dict[str, Any]] = {}
    with write_errors(video.folder):
        video.folder.mkdir(parents=True)
        for position in range(video.n_frames):
            path, step = video.folder / video.frame(position), back_and_forth(position, n_distinct)
            shown = not 0 <= position - first_absent < planned.n_absent
            if (step, shown) in drawn:
                picture, original = drawn[step, shown]
                _repeat(original, path, picture.jpeg)
            else:
                picture = draw_picture(scene, step / (n_distinct - 1), ground, noise[step], shown=shown)
                path.write_bytes(picture.jpeg)
                drawn[step, shown] = picture, path
            described[path.name] = _annotation(video.kind, scene, picture, side)
    return described


def back_and_forth(position: int, n: int) -> int:
    """Count 0 to n - 1 and back to 0, again and again."""
    place = position % (2 * n - 2)
    return min(place, 2 * n - 2 - place)


def _repeat(original: Path, copy: Path, content: bytes) -> None:
    try:
        copy.hardlink_to(original)
    except OSError:  # there are file systems without links
        copy.write_bytes(content)


def _annotation(kind: Kind, scene: Scene, picture: Picture, side: int) -> dict[str, Any]:
    """Describe a frame as the annotations of the benchmark do since April 2022."""
    absent = picture.box is None
    if kind == "clutter":
        box = None if picture.box is None else _in_full_size(picture.box, side)
        return {"object_bounding_box": box, "object_not_present_issue": absent}
    issues = dict.fromkeys(QUALITIES, False) | {
        "framing": picture.box is not None and picture.box.touches_edge(side),
        "overexposed": bool(scene.light.mean() > OVEREXPOSED),
        "underexposed": bool(scene.light.mean() < UNDEREXPOSED),
    }
    return {"object_not_present_issue": absent, **{f"{name}_issue": value for name, value in issues.items()}}


def _in_full_size(box: Box, side: int) -> dict[str, int]:
    """Give a box in the pixels of full-size frames."""
    left, top, right, bottom = (
        round(edge * ANNOTATION_SIDE / side) for edge in (box.x, box.y, box.x + box.width, box.y + box.height)
    )
    return {"x": left, "y": top, "w": right - left, "h": bottom - top}
