"""From a plan to tensors: clips at once, and the frames of videos as a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from lite_bench.datasets.orbit.sampling import Clip, Plan
from lite_bench.datasets.orbit.videos import Video
from lite_bench.harness.core import Episode, QueryBatch, Support, Task

FRAMES_AT_ONCE = 64
"""Different frames of videos decoded together."""

Load = Callable[[Sequence[tuple[Video, int]]], np.ndarray]
"""Gives frames, each by its video and position, as uint8 [N, 3, S, S]."""


def load_clips(clips: Sequence[Clip], load: Load) -> tuple[Tensor, Tensor]:
    """Load clips of one length T.

    Returns:
        the clips, uint8 [N, T, 3, S, S], or [N, 3, S, S] if T is 1; and their labels, int64 [N].
    """
    frames = torch.from_numpy(load([(clip.video, position) for clip in clips for position in clip.positions]))
    length = len(clips[0].positions)
    images = frames if length == 1 else frames.view(len(clips), length, *frames.shape[1:])
    return images, torch.tensor([clip.label for clip in clips], dtype=torch.int64)


def training_episode(task: Task, plan: Plan, load: Load, user: str) -> Episode:
    """Make an episode whose queries are the target clips."""
    images, labels = load_clips([*plan.context, *plan.target], load)
    n = len(plan.context)
    support = Support(images[:n], labels[:n], len(plan.objects))
    return Episode(task, support, (QueryBatch(images[n:], labels[n:]),), len(plan.target), cluster=user)


def pretraining_episode(
    task: Task, plan: Plan, load: Load, user: str, clusters: Sequence[int], n_clusters: int
) -> Episode:
    """Make an episode that asks for the kind of object: all clips of the task are queries, context and target.

    The support set is the context clips under the same labels. It lacks most of the ``n_clusters`` classes, so only a
    learner that ignores it, a plain classifier with as many outputs, can be trained on such an episode.

    Args:
        task: its name.
        plan: the clips.
        load: gives frames.
        user: the task's user.
        clusters: of each object of the task, in 0..n_clusters-1.
        n_clusters: number of kinds.
    """
    images, labels = load_clips([*plan.context, *plan.target], load)
    labels = torch.tensor(clusters, dtype=torch.int64)[labels]
    n = len(plan.context)
    support = Support(images[:n], labels[:n], n_clusters)
    return Episode(task, support, (QueryBatch(images, labels),), len(labels), cluster=user)


def evaluation_episode(task: Task, plan: Plan, load: Load, user: str, window: int, query_id: str) -> Episode:
    """Make an episode whose queries are the frames of the target videos, video after video.

    Args:
        task: its name.
        plan: context clips and target videos.
        load: gives frames.
        user: the task's user.
        window: frames that a frame is classified from.
        query_id: the same for tasks with the same target set, or empty.
    """
    images, labels = load_clips(plan.context, load)
    return Episode(
        task,
        Support(images, labels, len(plan.objects)),
        FrameStream(plan.target, load),
        sum(len(each.positions) for each in plan.target),
        groups=tuple(each.video.name for each in plan.target),
        window=window,
        query_id=query_id,
        cluster=user,
    )


class FrameStream:
    """The frames of videos as query batches, decoded while they are gone through; each iteration starts anew.

    A batch has at most 64 different frames. One batch is decoded ahead in a thread, so that at most two are in memory
    besides what the caller keeps. A repeated frame is decoded once.
    """

    def __init__(self, videos: Sequence[Clip], load: Load) -> None:
        """Take videos, each with the positions of its frames in order."""
        self._videos = videos
        self._load = load
        self._group = np.repeat(np.arange(len(videos)), [len(each.positions) for each in videos])
        self._position = np.concatenate([np.asarray(each.positions) for each in videos])

    def __iter__(self) -> Iterator[QueryBatch]:
        """Yield the frames of the first video, then those of the second, and so on."""
        parts = self._parts()
        pool = ThreadPoolExecutor(1, thread_name_prefix="orbit-frames")
        try:
            ahead = pool.submit(self._batch, parts[0])
            for part in parts[1:]:
                batch = ahead.result()
                ahead = pool.submit(self._batch, part)
                yield batch
            yield ahead.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _parts(self) -> list[np.ndarray]:
        """Cut the frames into batches, int64 [M] each, without parting a frame from its repetitions."""
        new = np.ones(len(self._position), dtype=bool)
        new[1:] = (np.diff(self._position) != 0) | (np.diff(self._group) != 0)
        batch = (np.cumsum(new) - 1) // FRAMES_AT_ONCE
        return np.split(np.arange(len(batch)), np.flatnonzero(np.diff(batch)) + 1)

    def _batch(self, part: np.ndarray) -> QueryBatch:
        groups, positions = self._group[part], self._position[part]
        wanted = [
            (self._videos[group].video, position) for group, position in zip(groups, positions.tolist(), strict=True)
        ]
        labels = np.asarray([self._videos[group].label for group in groups], dtype=np.int64)
        return QueryBatch(torch.from_numpy(self._load(wanted)), torch.from_numpy(labels), torch.from_numpy(groups))
