"""Tiny trees of frames in the layout of the real benchmark."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from lite_bench.datasets.orbit.published import SPLITS
from lite_bench.datasets.orbit.videos import Kind, Video

Counts = tuple[tuple[int, ...], tuple[int, ...]]
"""Frames of each clean and each clutter video of an object."""
Users = Mapping[str, Mapping[str, Mapping[str, Counts]]]
"""Split -> user -> object -> its videos."""

USERS: Users = {
    "train": {"P100": {"blue mug": ((3, 4), (2,)), "keys": ((1, 1, 2), (3, 1))}},
    "validation": {"P189": {"cane": ((2, 1), (2,))}},
    "test": {"P177": {"front door": ((2, 3), (5,)), "keys": ((1, 2), (2,))}, "P198": {"bag": ((1, 1), (1,))}},
}
N_VIDEOS = {"train": 8, "validation": 3, "test": 9}
N_FRAMES = {"train": 17, "validation": 5, "test": 18}
OLD = 1_600_000_000


def video_name(user: str, token: str, kind: str, number: int) -> str:
    """Name a video; its id has 43 characters, hyphens at its start and double ones inside."""
    mark = hashlib.sha256(f"{user}{token}{kind}{number}".encode()).hexdigest()[:8]
    return f"{user}--{token}--{kind}--" + f"-{number:02d}--a-b_{mark}--".ljust(43, "x")


def jpeg(key: str, size: int, mode: str = "RGB") -> bytes:
    """Draw a picture that no other key has."""
    digest = hashlib.sha256(key.encode()).digest()
    coarse = Image.fromarray(np.frombuffer(digest[:27], np.uint8).reshape(3, 3, 3))
    buffer = io.BytesIO()
    coarse.resize((size, size)).convert(mode).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_video(
    root: Path, split: str, user: str, item: str, kind: Kind, number: int, n_frames: int, size: int
) -> Video:
    """Write one video."""
    name = video_name(user, item.replace(" ", "-"), kind, number)
    video = Video(name, kind, root / split / user / item / kind / name, n_frames)
    video.folder.mkdir(parents=True)
    for position in range(n_frames):
        (video.folder / video.frame(position)).write_bytes(jpeg(video.frame(position), size))
    return video


def write_tree(root: Path, users: Users = USERS, size: int = 16) -> Path:
    """Write a whole tree, whose folders look as if they had long been there."""
    for split, of_split in users.items():
        for user, objects in of_split.items():
            for item, (clean, clutter) in objects.items():
                for number, n_frames in enumerate(clean):
                    write_video(root, split, user, item, "clean", number, n_frames, size)
                for number, n_frames in enumerate(clutter):
                    write_video(root, split, user, item, "clutter", number, n_frames, size)
    age(root)
    return root


def age(root: Path) -> None:
    """Set the times of all folders back, so that any change shows whatever the clock's resolution."""
    for folder, _, _ in os.walk(root):
        os.utime(folder, (OLD, OLD))


def content(root: Path) -> dict[str, bytes]:
    """Read all files but hidden ones and those in hidden folders, by relative path."""
    files = {path.relative_to(root): path for path in root.rglob("*") if path.is_file()}
    seen = {place: path for place, path in files.items() if not any(part.startswith(".") for part in place.parts)}
    return {place.as_posix(): path.read_bytes() for place, path in seen.items()}


def pack(root: Path, downloads: Path, above: str = "{split}/", *, splits: tuple[str, ...] = SPLITS) -> Path:
    """Pack splits as they are published; ``above`` is what stands in front of users inside the archives."""
    downloads.mkdir(exist_ok=True)
    for split in splits:
        with zipfile.ZipFile(downloads / f"{split}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted((root / split).rglob("*")):
                inside = above.format(split=split) + path.relative_to(root / split).as_posix()
                archive.write(path, inside)
            archive.writestr(f"__MACOSX/{split}/P100/keys/clean/v/._v-00001.jpg", b"fork")
            archive.writestr(f"{split}/.DS_Store", b"")
            archive.writestr("README.txt", "Frames.")
    return downloads
