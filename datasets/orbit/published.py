"""The users, objects and videos that the benchmark is published with."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from lite_bench.harness.core import Split

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class PublishedObject:
    """An object of a user, as ``published.json`` lists it.

    Attributes:
        token: its name as it is spelled inside video names, with hyphens for spaces.
        cluster: the published label of its kind, 0 to 126.
        clean: number of clean videos.
        clutter: frames, and frames that do not show the object, of each clutter video in order of name.
    """

    token: str
    cluster: int
    clean: int
    clutter: tuple[tuple[int, int], ...]


PublishedUsers = Mapping[Split, Mapping[str, tuple[PublishedObject, ...]]]


@functools.cache
def published_users() -> PublishedUsers:
    """Read the published users: split -> user -> objects in label order."""
    text = files(__package__).joinpath("published.json").read_text(encoding="utf-8")
    users = json.loads(text)["users"]
    return {
        split: {
            user: tuple(
                PublishedObject(token, cluster, clean, tuple((frames, absent) for frames, absent in clutter))
                for token, (cluster, clean, clutter) in objects.items()
            )
            for user, objects in users[split].items()
        }
        for split in SPLITS
    }
