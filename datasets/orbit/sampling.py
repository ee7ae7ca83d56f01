"""Which objects, videos and frames make a task: pure functions of the data, the rules and a generator.

Tasks are of one user; labels are 0..C-1 in ascending order of the names of the objects' folders. Positions of frames
are counted from 0. Letters: n frames of a video, of which the first 1,000 count; P(n) of them after padding; K clips of
T frames.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Int

from lite_bench.datasets.orbit.protocol import ClipRule, FrameRule, Rules, protocol
from lite_bench.datasets.orbit.videos import Kind, UserObject, Video
from lite_bench.harness.core import stable_key

MAX_FRAMES: int = protocol()["max_frames"]
CONTEXT_VIDEOS: int = protocol()["context_videos"]
MIN_WAY = 2

Item = TypeVar("Item")
Positions = Int[np.ndarray, " n"]
FramesOf = Callable[[Video], Positions]
"""Gives the positions of the frames of a target video that count, in order."""


@dataclass(frozen=True)
class Clip:
    """Frames of one video: a clip, a single frame, or all frames of a target video that are classified in turn.

    Attributes:
        video: they are of.
        positions: of the frames, in order of name; repeated ones are padding or fill.
        label: of the video's object in the task.
    """

    video: Video
    positions: tuple[int, ...]
    label: int


@dataclass(frozen=True)
class Plan:
    """What a task consists of.

    Attributes:
        objects: its objects; the label of each is its place.
        context: clips of the support set in their order.
        target: in training the clips to classify in their order, else one entry for each video, object after object.
    """

    objects: tuple[UserObject, ...]
    context: tuple[Clip, ...]
    target: tuple[Clip, ...]


@dataclass(frozen=True)
class Candidate:
    """An object with the videos that a task may take, each in order of name."""

    object: UserObject
    context: tuple[Video, ...]
    target: tuple[Video, ...]


def all_frames(video: Video) -> Positions:
    """Count every frame of a video."""
    return np.arange(video.n_frames)


def split_videos(each: UserObject, mode: Kind) -> tuple[tuple[Video, ...], tuple[Video, ...]]:
    """Divide the videos of an object into those for the context and those for the target set.

    Clean mode takes the first min(5, m - 1) of the m clean videos as context and the rest as target; clutter mode takes
    all clean videos as context and all clutter videos as target. The division is fixed; nothing about it is random.
    """
    if mode == "clutter":
        return each.clean, each.clutter
    first = min(CONTEXT_VIDEOS, len(each.clean) - 1)
    return each.clean[:first], each.clean[first:]


def candidates(
    objects: Sequence[UserObject], mode: Kind, rules: Rules, frames: FramesOf = all_frames
) -> tuple[Candidate, ...]:
    """List what tasks of a user may take: in version 2022, only target videos with enough frames that count.

    Objects without context or without target videos are left out.
    """
    fewest = rules.frames.min_target if isinstance(rules.frames, FrameRule) else 1
    found = []
    for each in objects:
        context, target = split_videos(each, mode)
        target = tuple(video for video in target if len(frames(video)) >= fewest)
        if context and target:
            found.append(Candidate(each, context, target))
    return tuple(found)


def train_plan(found: Sequence[Candidate], rules: Rules, generator: np.random.Generator) -> Plan:
    """Draw a training task.

    The way is uniform in 2..min(objects, cap), and of each object drawn there are 1..min(videos, cap) context and
    target videos, uniform too. All are drawn without replacement, and the clips of both sets shuffled.

    Args:
        found: the user's objects, at least two.
        rules: of the version, with its caps.
        generator: source of all randomness.
    """
    way = int(generator.integers(MIN_WAY, min(len(found), rules.caps.max_objects), endpoint=True))
    chosen, caps = draw(found, way, generator), rules.caps.videos(way)
    context: list[Clip] = []
    target: list[Clip] = []
    for label, each in enumerate(chosen):
        for video in draw_some(each.context, caps.context, generator):
            context += clips(video, label, context_frames(video, rules.frames, generator, train=True))
        for video in draw_some(each.target, caps.target, generator):
            target += clips(video, label, train_target_frames(video, rules.frames, generator))
    objects = tuple(each.object for each in chosen)
    return Plan(objects, shuffled(context, generator), shuffled(target, generator))


def evaluation_plan(
    found: Sequence[Candidate],
    rules: Rules,
    generator: np.random.Generator,
    target_generator: np.random.Generator,
    frames: FramesOf = all_frames,
) -> Plan:
    """Draw a validation or test task: all objects and all videos, as far as caps allow, the context shuffled.

    Args:
        found: the user's objects.
        rules: of the version.
        generator: source of what is random about the objects and the context set.
        target_generator: source of what is random about the target set; tasks with equal ones have equal target sets.
        frames: frames of a target video that count; in version 2021 all do.
    """
    chosen = draw(found, rules.max_objects or len(found), generator)
    context: list[Clip] = []
    target: list[Clip] = []
    for label, each in enumerate(chosen):
        for video in draw(each.context, rules.max_videos, generator):
            context += clips(video, label, context_frames(video, rules.frames, generator, train=False))
        target += [
            Clip(video, target_frames(frames(video), rules.frames, target_generator), label)
            for video in draw(each.target, rules.max_videos, target_generator)
        ]
    return Plan(tuple(each.object for each in chosen), shuffled(context, generator), tuple(target))


def train_user(index: int, seed: int, n_users: int, per_user: int) -> int:
    """Give the number of the user that training task ``index`` is of.

    An epoch is ``n_users * per_user`` tasks; in each, every user has ``per_user``, in an order shuffled anew.
    """
    epoch, place = divmod(index, n_users * per_user)
    return int(_epoch_order(epoch, seed, n_users, per_user)[place])


@functools.lru_cache(maxsize=8)
def _epoch_order(epoch: int, seed: int, n_users: int, per_user: int) -> Int[np.ndarray, " tasks"]:
    generator = np.random.Generator(np.random.Philox(stable_key("orbit", "order of users", seed, epoch)))
    return generator.permutation(np.repeat(np.arange(n_users), per_user))


def draw(items: Sequence[Item], n: int, generator: np.random.Generator) -> list[Item]:
    """Draw at most ``n`` items without replacement, in their order; nothing is random if all are taken."""
    if n >= len(items):
        return list(items)
    return [items[number] for number in np.sort(generator.choice(len(items), n, replace=False))]


def draw_some(items: Sequence[Item], cap: int, generator: np.random.Generator) -> list[Item]:
    """Draw a uniform number of items in 1..min(items, cap), without replacement, in their order."""
    return draw(items, int(generator.integers(1, min(len(items), cap), endpoint=True)), generator)


def shuffled(items: Sequence[Item], generator: np.random.Generator) -> tuple[Item, ...]:
    """Give items in random order."""
    return tuple(items[number] for number in generator.permutation(len(items)))


def clips(video: Video, label: int, positions: Int[np.ndarray, "K T"]) -> list[Clip]:
    """Make a clip of every row of positions."""
    return [Clip(video, tuple(row), label) for row in positions.tolist()]


def context_frames(
    video: Video, rule: ClipRule | FrameRule, generator: np.random.Generator, *, train: bool
) -> Int[np.ndarray, "K T"]:
    """Choose the frames of a context video, a row for each clip."""
    if isinstance(rule, ClipRule):
        return draw_clips(video.n_frames, rule.train if train else rule.context, rule.length, generator)
    return every_nth(min(video.n_frames, MAX_FRAMES), rule.context_step, rule.context)[:, None]


def train_target_frames(
    video: Video, rule: ClipRule | FrameRule, generator: np.random.Generator
) -> Int[np.ndarray, "K T"]:
    """Choose the frames of a target video of a training task, a row for each clip; see `draw_clips`.

    In version 2022 they are a uniform number of frames in 1..min(10, n), drawn without replacement.
    """
    if isinstance(rule, ClipRule):
        return draw_clips(video.n_frames, rule.train, rule.length, generator)
    return np.array(draw_some(range(min(video.n_frames, MAX_FRAMES)), rule.train_target, generator))[:, None]


def target_frames(frames: Positions, rule: ClipRule | FrameRule, generator: np.random.Generator) -> tuple[int, ...]:
    """Choose the frames of a target video that are classified.

    In version 2021, all of the first 1,000, padded as by `padded`; in version 2022, at most 200 of the first 1,000 of
    those that count, drawn without replacement, in order of name.
    """
    considered = frames[:MAX_FRAMES]
    if isinstance(rule, ClipRule):
        return tuple(padded(considered, rule.length).tolist())
    return tuple(draw(considered.tolist(), rule.target, generator))


def every_nth(n: int, step: int, most: int) -> Positions:
    """Choose every ``step``-th of ``n`` frames from the first on, at most ``most``."""
    return np.arange(0, n, min(step, n))[:most]


def padded(frames: Positions, length: int) -> Positions:
    """Repeat the last frame until the number of frames is the next larger multiple of ``length``.

    A number that is a multiple already grows by ``length`` too, which the published results have in them: the released
    code appends ``length - n % length`` copies. So P(n) = length * (floor(n / length) + 1).
    """
    return np.append(frames, np.repeat(frames[-1:], length - len(frames) % length))


def draw_clips(n: int, k: int, length: int, generator: np.random.Generator) -> Int[np.ndarray, "K T"]:
    """Draw K clips of a video: windows of the padded frames that begin at multiples of ``length``, none twice.

    If the padded video has fewer than K windows, as many frames as it lacks are drawn from the original ones, without
    replacement if there are that many, and sorted in. A window may consist of padding alone.

    Args:
        n: frames of the video, of which the first 1,000 are considered.
        k: number of clips K.
        length: frames of a clip T.
        generator: source of all randomness.
    """
    original = np.arange(min(n, MAX_FRAMES))
    frames = padded(original, length)
    lacking = k * length - len(frames)
    if lacking > 0:
        fill = generator.choice(original, lacking, replace=lacking > len(original))
        frames = np.sort(np.append(frames, fill))
    windows = frames.reshape(-1, length)
    return windows[generator.choice(len(windows), k, replace=False)]
