"""The numbers of both versions of the protocol: ``protocol.toml``."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from lite_bench.harness.core import Split

Version = Literal["2021", "2022"]
CapsName = Literal["lite", "84"]


@functools.cache
def protocol() -> dict[str, Any]:
    """Read the tables; do not write to what is given."""
    tables: dict[str, Any] = tomllib.loads(files(__package__).joinpath("protocol.toml").read_text(encoding="utf-8"))
    return tables


@dataclass(frozen=True)
class VideoCaps:
    """Most context and target videos of an object."""

    context: int
    target: int


@dataclass(frozen=True)
class Caps:
    """Caps on training tasks.

    Attributes:
        max_objects: most objects of a task.
        many: the way from which on ``many_videos`` holds, and below it ``few_videos``.
        many_videos: most videos of an object of a large task.
        few_videos: most videos of an object of a small task.
    """

    max_objects: int
    many: int
    many_videos: VideoCaps
    few_videos: VideoCaps

    def videos(self, way: int) -> VideoCaps:
        """Give the most videos of an object in a task of ``way`` objects."""
        return self.many_videos if way >= self.many else self.few_videos


@dataclass(frozen=True)
class ClipRule:
    """Version 2021: clips of neighbouring frames.

    Attributes:
        length: frames of a clip.
        train: clips of a video in training.
        context: clips of a context video elsewhere.
    """

    length: int
    train: int
    context: int


@dataclass(frozen=True)
class FrameRule:
    """Version 2022: single frames.

    Attributes:
        context_step: distance of the frames of a context video.
        context: most frames of a context video.
        train_target: most frames of a target video in training.
        target: most frames of a target video elsewhere.
        min_target: fewest frames that a target video may have.
    """

    context_step: int
    context: int
    train_target: int
    target: int
    min_target: int


@dataclass(frozen=True)
class Rules:
    """How tasks are drawn.

    Attributes:
        frames: how frames come from a video.
        caps: on training tasks.
        tasks_per_user: number of tasks; in training, of each epoch.
        metrics: what is reported, of `lite_bench.harness.core.GROUP_METRICS`.
        window: frames that a frame is classified from, itself the last.
        max_objects: most objects of a task that is not for training; None for no limit.
        max_videos: most context, and most target videos of an object in such a task.
    """

    frames: ClipRule | FrameRule
    caps: Caps
    tasks_per_user: Mapping[Split, int]
    metrics: tuple[str, ...]
    window: int
    max_objects: int | None
    max_videos: int


def rules(version: Version, caps: CapsName = "lite") -> Rules:
    """Give the rules of a version."""
    own = protocol()["versions"][version]
    return Rules(
        frames=ClipRule(**own["clips"]) if "clips" in own else FrameRule(**own["frames"]),
        caps=_caps(caps),
        tasks_per_user=own["tasks_per_user"],
        metrics=tuple(own["metrics"]),
        window=own["window"],
        max_objects=own.get("max_objects"),
        max_videos=protocol()["max_videos"],
    )


def _caps(name: CapsName) -> Caps:
    own, every = protocol()["caps"][name], protocol()["max_videos"]
    if "many" not in own:
        return Caps(own["max_objects"], 0, VideoCaps(every, every), VideoCaps(every, every))
    return Caps(own["max_objects"], own["many"], VideoCaps(**own["many_videos"]), VideoCaps(**own["few_videos"]))
