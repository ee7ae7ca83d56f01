"""What is on disk: users, their objects, and the videos of each, as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lite_bench.harness.core import Split

Kind = Literal["clean", "clutter"]
KINDS: tuple[Kind, ...] = ("clean", "clutter")


@dataclass(frozen=True)
class Video:
    """A video: a folder of frames ``<name>-00001.jpg`` to ``<name>-<n_frames>.jpg``, five digits, without gaps.

    Attributes:
        name: ``<user>--<object token>--<kind>--<id>``, the name of its folder.
        kind: ``clean`` or ``clutter``.
        folder: where its frames are.
        n_frames: number of frames, at least 1.
    """

    name: str
    kind: Kind
    folder: Path
    n_frames: int

    def frame(self, position: int) -> str:
        """Name the file of frame ``position``, counted from 0."""
        return f"{self.name}-{position + 1:05d}.jpg"

    @property
    def token(self) -> str:
        """The object as it is spelled in the video's name; the video's id may itself hold hyphens."""
        return self.name.split("--", 3)[1]


@dataclass(frozen=True)
class UserObject:
    """An object of a user.

    Attributes:
        name: the name of its folder, which may hold spaces.
        clean: its clean videos, in order of name.
        clutter: its clutter videos, in order of name.
    """

    name: str
    clean: tuple[Video, ...]
    clutter: tuple[Video, ...]


@dataclass(frozen=True)
class Dataset:
    """A whole tree of videos.

    Attributes:
        root: the folder that holds ``train``, ``validation`` and ``test``.
        users: split -> user -> objects; users and objects in order of (folder) name.
        fingerprints: of each split, SHA-256 over the videos' paths below ``root``, their frame counts and their first
            frames' sizes in bytes.
        synthetic: whether it is a stand-in.
        differences: how it differs from the published benchmark, a sentence each; none if it is as published. Frame
            counts of a stand-in do not count.
    """

    root: Path
    users: Mapping[Split, Mapping[str, tuple[UserObject, ...]]]
    fingerprints: Mapping[Split, str]
    synthetic: bool
    differences: tuple[str, ...]

    def videos(self) -> Iterator[Video]:
        """Go through all videos, split by split."""
        for users in self.users.values():
            for objects in users.values():
                for each in objects:
                    yield from each.clean
                    yield from each.clutter
