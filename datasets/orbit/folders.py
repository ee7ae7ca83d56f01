"""The folders of a root of ORBIT, from splits to videos, and what is wrong with them; frames are not listed."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lite_bench.datasets.orbit.layout import (
    LAYOUT,
    PREPARATION,
    UNFILTERED_KIND,
    has_unfiltered_part,
    is_seen,
    unfiltered,
)
from lite_bench.datasets.orbit.published import SPLITS
from lite_bench.datasets.orbit.videos import KINDS
from lite_bench.datasets.workers import for_each
from lite_bench.harness.core import Split

MIN_CLEAN, MIN_CLUTTER = 2, 1
"""Videos that every object has: a clean one to learn from, another to be tested on, and one in clutter."""
AGAIN = "download or unpack it again"


@dataclass
class Folders:
    """The folders of a root, down to those of the videos, whose frames are not listed.

    Attributes:
        stamps: modification time, in ns, of each folder above the videos, taken before it was listed; by place, which
            is its path relative to the root.
        videos: places of the videos, in order.
        problems: what is wrong, a sentence each.
    """

    stamps: dict[str, int] = field(default_factory=dict)
    videos: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, other: Folders) -> None:
        """Append what ``other`` has."""
        self.stamps |= other.stamps
        self.videos += other.videos
        self.problems += other.problems

    def visit(self, root: Path, place: str, what: str) -> list[str]:
        """Note a folder's time and list the names of the folders in it, in order; a file among them is a problem."""
        try:
            self.stamps[place] = (root / place).stat().st_mtime_ns
            with os.scandir(root / place) as entries:
                seen = sorted((entry.name, entry.is_dir()) for entry in entries if is_seen(entry.name))
        except OSError as error:
            self.problems.append(
                f"The folder {root / place} cannot be read ({error.strerror}); change its permissions."
            )
            return []
        for name, is_folder in seen:
            if not is_folder:
                self.problems.append(
                    f"The file {root / place / name} lies where only folders of {what} belong; remove it."
                )
        return [name for name, is_folder in seen if is_folder]


def unfinished(root: Path) -> str:
    """Say so if the root's preparation was stopped or its record is damaged, or give nothing."""
    path = root / PREPARATION
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        source, finished = str(record["source"]), bool(record["finished"])
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}); change its permissions."
    except (ValueError, KeyError, TypeError):
        return f"{path} is damaged; delete it, and use `lite-bench data verify orbit` to see if all is there."
    if finished:
        return ""
    return f"The preparation of {root} is not finished; repeat `lite-bench data prepare {source}` to go on with it."


def list_folders(root: Path) -> Folders:
    """List the folders of a root down to its videos, and check their names and numbers; frames are not listed."""
    found = Folders()
    splits = present_splits(root)
    if not splits:
        found.problems.append(
            f"{root} holds none of the folders train, validation and test; give the folder that does, which is called "
            "orbit_benchmark_224 for instance."
        )
    users: list[str] = []
    for split in splits:
        names = found.visit(root, split, "users")
        if not names:
            found.problems.append(f"The folder {root / split} has no users; {AGAIN}.")
        users += [f"{split}/{name}" for name in names]
    parts = [Folders() for _ in users]
    for_each(lambda number, place: _list_user(parts[number], root, place), users)
    for part in parts:
        found.add(part)
    found.problems += _twice(root, users, "user")
    found.problems += _twice(root, found.videos, "video")
    wrong = unfiltered(root)
    if wrong in found.problems or has_unfiltered_part(root):
        found.problems = [wrong]  # whatever else is wrong follows from this
    return found


def present_splits(root: Path) -> list[Split]:
    """List the splits that have a folder."""
    return [split for split in SPLITS if (root / split).is_dir()]


def _list_user(found: Folders, root: Path, place: str) -> None:
    names = found.visit(root, place, "objects")
    if not names:
        found.problems.append(f"The user {root / place} has no objects; {AGAIN}, or remove the folder.")
    for name in names:
        _list_object(found, root, f"{place}/{name}")


def _list_object(found: Folders, root: Path, place: str) -> None:
    counts: dict[str, int] = dict.fromkeys(KINDS, 0)
    for kind in found.visit(root, place, "kinds of videos"):
        if kind not in KINDS:
            found.problems.append(_unknown_kind(root, f"{place}/{kind}"))
            continue
        names = found.visit(root, f"{place}/{kind}", "videos")
        counts[kind] = len(names)
        for name in names:
            if problem := _misnamed(root, f"{place}/{kind}/{name}"):
                found.problems.append(problem)
            found.videos.append(f"{place}/{kind}/{name}")
    if counts["clean"] < MIN_CLEAN:
        found.problems.append(
            f"The object {root / place} has {counts['clean']} clean videos and needs {MIN_CLEAN}, one to learn from "
            f"and one to be tested on; {AGAIN}, or remove the object's folder."
        )
    if counts["clutter"] < MIN_CLUTTER:
        found.problems.append(
            f"The object {root / place} has no clutter video and needs one; {AGAIN}, or remove the object's folder."
        )


def _unknown_kind(root: Path, place: str) -> str:
    if place.endswith(f"/{UNFILTERED_KIND}"):
        return unfiltered(root)
    return f"The folder {root / place} is no kind of videos; those are {' and '.join(KINDS)} (the layout is {LAYOUT})."


def _misnamed(root: Path, place: str) -> str:
    """Check that a video's name says the user and the kind of the folders that it lies in."""
    _, user, _, kind, name = place.split("/")
    parts = name.split("--", 3)
    if len(parts) < 4 or not all(parts):  # user, object, kind and id
        return f"The video {root / place} is not named <user>--<object>--<kind>--<id>; {AGAIN}."
    for what, said, right in (("user", parts[0], user), ("kind", parts[2], kind)):
        if said != right:
            return f"The video {root / place} lies in a folder of the {what} {right} but is named for {said}; move it."
    return ""


def _twice(root: Path, places: Sequence[str], what: str) -> list[str]:
    """Name those whose own folder's name occurs in two places."""
    first: dict[str, str] = {}
    problems = []
    for place in places:
        name = place.rpartition("/")[2]
        if name in first:
            problems.append(
                f"The {what} {name} is there twice, as {root / first[name]} and {root / place}; remove one."
            )
        first.setdefault(name, place)
    return problems
