"""Real photographs as a small tree in ORBIT's layout: people, their things, and "videos" that pan over photographs."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from lite_bench.datasets.orbit.videos import Kind
from lite_bench.harness.core import Split

USERS: dict[Split, dict[str, int]] = {
    "train": {"P001": 3, "P002": 3},
    "validation": {"P003": 3},
    "test": {"P004": 4, "P005": 3},
}
"""Number of objects of each user."""
VIDEOS: dict[Kind, int] = {"clean": 4, "clutter": 1}
PHOTOGRAPHS_PER_VIDEO = 4
CROPS = ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0))
"""Where in the room that is left to it a crop lies: a frame each."""
CROP = 0.8
"""Side of a crop, as a fraction of the photograph's shorter side."""


def write_photographs(source: Path, root: Path, size: int) -> None:
    """Write a tree in the benchmark's layout: 5 users with 3 or 4 objects, 4 clean videos and a clutter one of each.

    Args:
        source: folder with one folder of photographs per item; items from all over the list are taken, so that no user
            has several that are nearly alike.
        root: folder to write into; made if missing.
        size: side of a frame in pixels.
    """
    folders = sorted(path for path in source.iterdir() if path.is_dir())
    n_objects = sum(n for users in USERS.values() for n in users.values())
    items = iter(folders[:: len(folders) // n_objects])
    for split, users in USERS.items():
        for user, n in users.items():
            for _ in range(n):
                write_item(next(items), root / split / user, size)


def write_item(item: Path, user: Path, size: int) -> None:
    """Write the videos of one item, each of photographs that no other one has."""
    photographs = sorted(item.glob("*.jpg"))
    for kind, n in VIDEOS.items():
        for number in range(n):
            shown, photographs = photographs[:PHOTOGRAPHS_PER_VIDEO], photographs[PHOTOGRAPHS_PER_VIDEO:]
            digest = hashlib.sha256(f"{item.name}/{kind}/{number}".encode()).digest()
            name = f"{user.name}--{item.name}--{kind}--{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"
            write_video(shown, user / item.name.replace("-", " ") / kind / name, size)


def write_video(photographs: Sequence[Path], folder: Path, size: int) -> None:
    """Write crops of photographs as the frames of a video."""
    folder.mkdir(parents=True)
    frames = [frame for path in photographs for frame in crops(path, size)]
    for number, frame in enumerate(frames, start=1):
        frame.save(folder / f"{folder.name}-{number:05d}.jpg", quality=90)


def crops(path: Path, size: int) -> list[Image.Image]:
    """Cut squares out of a photograph and resize them to ``size`` pixels."""
    with Image.open(path) as image:
        photograph = image.convert("RGB")
    side = CROP * min(photograph.size)
    corners = [((photograph.width - side) * at[0], (photograph.height - side) * at[1]) for at in CROPS]
    boxes = [(x, y, x + side, y + side) for x, y in corners]
    return [photograph.resize((size, size), Image.Resampling.LANCZOS, box) for box in boxes]
