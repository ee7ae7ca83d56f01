"""What a root of ORBIT holds: all users, objects, videos and numbers of frames, found once and kept in a cache folder.

The real tree has 3,822 videos and 2.7 million frames. The frames are listed but not looked at, except for the size in
bytes of the first of each video. What was found holds while the modification time of every folder of a user, object,
kind or video is the same.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from lite_bench.datasets.caches import cache_folder
from lite_bench.datasets.orbit.differences import differences
from lite_bench.datasets.orbit.folders import list_folders, present_splits, unfinished
from lite_bench.datasets.orbit.layout import MARKER, frames_problem, is_seen
from lite_bench.datasets.orbit.published import SPLITS
from lite_bench.datasets.orbit.videos import KINDS, Dataset, Kind, UserObject, Video
from lite_bench.datasets.workers import for_each
from lite_bench.harness.core import Split
from lite_bench.harness.errors import DataError, RunError
from lite_bench.harness.files import write_atomically

STAMPS_AT_ONCE = 128
VERSION = 1


@dataclass(frozen=True)
class FoundVideo:
    """A video.

    Attributes:
        place: its folder, relative to the root: ``<split>/<user>/<object>/<kind>/<video>``.
        n_frames: number of frames.
        first_bytes: size of the first frame's file.
        stamp: modification time of the folder, in ns, taken before it was listed.
    """

    place: str
    n_frames: int
    first_bytes: int
    stamp: int


@dataclass(frozen=True)
class Scan:
    """A root's videos, and all that is wrong with it.

    Attributes:
        dataset: the videos; those without a single frame are left out.
        problems: sentences that name path and remedy; a root with problems cannot be used.
    """

    dataset: Dataset
    problems: tuple[str, ...]


def open_dataset(root: Path) -> Dataset:
    """Open the tree below ``root``, from the cache if that is fresh.

    Splits that are not there have no users.

    Raises:
        DataError: something is wrong with the tree; the first problem is named.
    """
    found = scan(root)
    if found.problems:
        more = f" This is one of {len(found.problems)} problems; `lite-bench data verify orbit` lists them."
        raise DataError(found.problems[0] + (more if len(found.problems) > 1 else ""))
    return found.dataset


def scan(root: Path, *, rebuild: bool = False) -> Scan:
    """List all of a root, or take what the cache has of it.

    Args:
        root: the folder that holds ``train``, ``validation`` and ``test``.
        rebuild: list it even if the cache is fresh.
    """
    cached = cache_path(root)
    begun = unfinished(root)
    if not rebuild and not begun and (stored := _stored(cached, root)) is not None:
        return Scan(_dataset(root, stored), ())
    folders = list_folders(root)
    videos, problems = _count_frames(root, folders.videos)
    problems = [*([begun] if begun else []), *folders.problems, *problems]
    if not problems:
        _store(cached, folders.stamps, videos)
    return Scan(_dataset(root, videos), tuple(problems))


# --- frames


def _count_frames(root: Path, places: Sequence[str]) -> tuple[list[FoundVideo], list[str]]:
    """Count the frames of videos on the worker threads; those without any are left out."""
    videos: list[FoundVideo | None] = [None] * len(places)
    problems: list[str] = [""] * len(places)

    def count(number: int, place: str) -> None:
        videos[number], problems[number] = _count(root, place)

    for_each(count, places)
    return [video for video in videos if video], [problem for problem in problems if problem]


def _count(root: Path, place: str) -> tuple[FoundVideo | None, str]:
    folder = root / place
    try:
        stamp = folder.stat().st_mtime_ns
        names = sorted(os.listdir(folder))  # noqa: PTH208  # millions of names, many times faster than paths
        if problem := frames_problem(folder.name, names, folder):
            names = [name for name in names if is_seen(name)]
            problem = frames_problem(folder.name, names, folder)
        if not names:
            return None, problem
        return FoundVideo(place, len(names), (folder / names[0]).stat().st_size, stamp), problem
    except OSError as error:
        return None, f"The video {folder} cannot be read ({error.strerror}); change its permissions."


# --- from videos to a dataset


def _dataset(root: Path, videos: Sequence[FoundVideo]) -> Dataset:
    users: dict[Split, dict[str, tuple[UserObject, ...]]] = {split: {} for split in SPLITS}
    for (split, user), of_user in groupby(videos, lambda video: tuple(video.place.split("/")[:2])):
        objects = groupby(of_user, lambda video: video.place.split("/")[2])
        users[_split(split)][user] = tuple(_object(root, name, list(of_object)) for name, of_object in objects)
    synthetic = (root / MARKER).is_file()
    compared = {split: users[split] for split in present_splits(root)}
    return Dataset(root, users, _fingerprints(videos), synthetic, differences(compared, synthetic=synthetic))


def _split(name: str) -> Split:
    return next(split for split in SPLITS if split == name)


def _object(root: Path, name: str, videos: Sequence[FoundVideo]) -> UserObject:
    by_kind: dict[Kind, tuple[Video, ...]] = {
        kind: tuple(
            Video(video.place.rpartition("/")[2], kind, root / video.place, video.n_frames)
            for video in videos
            if video.place.split("/")[3] == kind
        )
        for kind in KINDS
    }
    return UserObject(name, by_kind["clean"], by_kind["clutter"])


def _fingerprints(videos: Iterable[FoundVideo]) -> dict[Split, str]:
    digests = {split: hashlib.sha256() for split in SPLITS}
    for video in videos:
        line = f"{video.place}\0{video.n_frames}\0{video.first_bytes}\n"
        digests[_split(video.place.partition("/")[0])].update(os.fsencode(line))
    return {split: digest.hexdigest() for split, digest in digests.items()}


# --- cache


def cache_path(root: Path) -> Path:
    """Name the cache file of a root, by a digest of its resolved path."""
    return cache_folder("orbit") / f"{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]}.json"


def _store(cached: Path, stamps: Mapping[str, int], videos: Sequence[FoundVideo]) -> None:
    rows = [[video.place, video.n_frames, video.first_bytes, video.stamp] for video in videos]
    content = json.dumps({"version": VERSION, "folders": stamps, "videos": rows})
    try:
        write_atomically(cached, f"{_checksum(content)}\n{content}\n")
    except RunError as error:
        _warn_once(cached.parent, str(error))


def _stored(cached: Path, root: Path) -> list[FoundVideo] | None:
    """Read what was found in ``root``, or give None if the file is missing, damaged or stale."""
    try:
        checksum, _, content = cached.read_text(encoding="ascii").strip().partition("\n")
        if checksum != _checksum(content):
            return None
        record = json.loads(content)
    except (OSError, ValueError):
        return None
    if record["version"] != VERSION:
        return None
    videos = [FoundVideo(*row) for row in record["videos"]]
    stamps = record["folders"] | {video.place: video.stamp for video in videos}
    return videos if _fresh(root, stamps) else None


def _checksum(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def _fresh(root: Path, stamps: Mapping[str, int]) -> bool:
    """Compare the times of all folders with those that were noted."""
    if present_splits(root) != [split for split in SPLITS if split in stamps]:
        return False
    places = list(stamps)
    groups = [places[start : start + STAMPS_AT_ONCE] for start in range(0, len(places), STAMPS_AT_ONCE)]
    fresh = [False] * len(groups)

    def compare(number: int, group: list[str]) -> None:
        fresh[number] = all(_time(root / place) == stamps[place] for place in group)

    for_each(compare, groups)
    return all(fresh)


def _time(folder: Path) -> int | None:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return None


@functools.cache
def _warn_once(folder: Path, reason: str) -> None:
    warnings.warn(
        f"What is found in ORBIT's folders cannot be kept in {folder}, so they are listed anew each time ({reason}); "
        "set LITE_BENCH_HOME to a folder that can be written.",
        RuntimeWarning,
        stacklevel=4,
    )
