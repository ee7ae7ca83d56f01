"""Data for the tests of sampler and suite: the published users without files, and a small tree of files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from lite_bench.datasets.orbit.published import PublishedObject, published_users
from lite_bench.datasets.orbit.videos import UserObject, Video
from lite_bench.harness.core import Split

CLEAN_FRAMES = 300
"""Of every clean video: how many there are is not published."""
SIDE = 16

Users = Mapping[str, tuple[UserObject, ...]]


def published(split: Split) -> Users:
    """Give the published users of a split with all their objects, videos and numbers of clutter frames."""
    return {user: tuple(_object(user, each) for each in objects) for user, objects in published_users()[split].items()}


def _object(user: str, each: PublishedObject) -> UserObject:
    clean = [video(user, each.token, "clean", number, CLEAN_FRAMES) for number in range(each.clean)]
    clutter = [video(user, each.token, "clutter", number, n) for number, (n, _) in enumerate(each.clutter)]
    return UserObject(each.token.replace("-", " "), tuple(clean), tuple(clutter))


def video(user: str, token: str, kind: str, number: int, n_frames: int) -> Video:
    """Make a video; its id holds hyphens."""
    name = f"{user}--{token}--{kind}--{number:02d}{'-' * 2}{'a_-B' * 10}"[: len(f"{user}--{token}--{kind}--") + 43]
    return Video(name, "clean" if kind == "clean" else "clutter", Path(name), n_frames)


def frames_shown(split: Split) -> dict[str, np.ndarray]:
    """Make up positions of the frames that show the object, as many as are published, by name of clutter video."""
    shown = {}
    for user, objects in published_users()[split].items():
        for each in objects:
            for number, (n, absent) in enumerate(each.clutter):
                shown[video(user, each.token, "clutter", number, n).name] = np.arange(n)[absent:]
    return shown


# --- files

TREE: dict[Split, dict[str, dict[str, tuple[list[int], list[int]]]]] = {
    "train": {
        "P100": {
            "front door": ([9, 8, 60, 12, 7, 5], [52]),
            "hole-punch": ([3, 16], [50, 55]),
            "scissors": ([30, 20, 8], [60]),
        },
        "P106": {"dog toy": ([5, 6], [51]), "fridge": ([8, 9, 10], [49, 70])},
    },
    "validation": {"P189": {"cup": ([9, 20], [56]), "red hat": ([10, 11, 12], [64])}},
    "test": {
        "P177": {"my mug": ([70, 9, 8, 12, 7, 5, 51], [52, 57]), "cane": ([3, 16], [130]), "-x": ([9, 55], [50])},
        "P198": {"bag": ([5, 52], [51]), "cup": ([3, 4], [53]), "dog lead": ([8, 9, 60], [40, 72])},
    },
}
"""Split -> user -> object -> numbers of frames of its clean and its clutter videos."""
ABSENT = {52: 3, 57: 2, 130: 30, 51: 2, 56: 1}
"""Number of frames of a video -> how many of them, from the third on, do not show the object."""


def write_tree(root: Path) -> Path:
    """Write `TREE` with frames of 16 pixels below ``root``, each of a colour of its own."""
    for split, users in TREE.items():
        for user, objects in users.items():
            for number, (name, kinds) in enumerate(objects.items()):
                for kind, counts in zip(("clean", "clutter"), kinds, strict=True):
                    for place, n in enumerate(counts):
                        made = video(user, name.replace(" ", "-"), kind, place, n)
                        _write_video(made, root / split / user / name / kind / made.name, number)
    return root


def _write_video(made: Video, folder: Path, number: int) -> None:
    folder.mkdir(parents=True)
    for position in range(made.n_frames):
        colour = (40 * number + 20, sum(map(ord, made.name)) % 256, (position * 2) % 256)
        Image.new("RGB", (SIDE, SIDE), colour).save(folder / made.frame(position), quality=95)


def write_annotations(root: Path, split: Split, kind: str) -> None:
    """Annotate the videos of one kind in the tree at ``root``, in the form published since February 2022."""
    folder = root / "annotations" / split
    folder.mkdir(parents=True, exist_ok=True)
    for user, objects in TREE[split].items():
        for name, counts in objects.items():
            for place, n in enumerate(counts[kind == "clutter"]):
                made = video(user, name.replace(" ", "-"), kind, place, n)
                entries = {
                    made.frame(position): {"object_not_present_issue": not shown}
                    for position, shown in enumerate(shows_object(n))
                }
                (folder / f"{made.name}.json").write_text(json.dumps(entries))


def shows_object(n: int) -> list[bool]:
    """Say for each of ``n`` frames of a video of the tree whether it shows the object."""
    return [not 2 <= position < 2 + ABSENT.get(n, 0) for position in range(n)]
