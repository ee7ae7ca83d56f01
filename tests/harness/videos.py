"""A suite of two users whose queries are videos of random frames, small enough to look at every window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lite_bench.harness.core import GROUP_METRICS, Episode, QueryBatch, Split, Support, Task

SIDE, CLIP, WAY, SHOT = 32, 3, 2, 2
LENGTHS = {"anna": (1, 12, 5, 9), "bert": (4, 10, 3)}
TASKS_PER_USER = 2


def frames(user: str, number: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1000 * len(user) + 100 * number + ord(user[0]))
    return torch.randint(0, 256, (length, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)


class Queries:
    """All frames of a user's videos, in batches that end anywhere."""

    def __init__(self, user: str, batch: int) -> None:
        self.user, self.batch = user, batch
        self.read = 0

    def __iter__(self) -> Iterator[QueryBatch]:
        videos = [frames(self.user, number, length) for number, length in enumerate(LENGTHS[self.user])]
        images = torch.cat(videos)
        groups = torch.cat([torch.full((len(video),), number) for number, video in enumerate(videos)])
        for start in range(0, len(images), self.batch):
            part = slice(start, start + self.batch)
            self.read += len(images[part])
            yield QueryBatch(images[part], groups[part] % WAY, groups[part])


class Videos:
    """Tasks of users, of clips as support and videos as queries."""

    id = "videos@1"
    image_size = SIDE
    fingerprint = "f" * 64
    embedded = True
    metrics = GROUP_METRICS

    def __init__(
        self, image_size: int | None = None, data_dir: Path | None = None, *, window: int = 4, batch: int = 7
    ) -> None:
        self.window, self.batch = window, batch
        self.streams: list[Queries] = []

    @staticmethod
    def configured(data_dir: Path | None) -> str | None:
        return None

    groups: Mapping[str, tuple[str, ...]] = {}

    def train_task(self, index: int, seed: int) -> Task:
        return Task(self.id, "own", "train", index, seed)

    def tasks(self, split: Split, seed: int = 0) -> Mapping[str, Sequence[Task]]:
        return {"own": [Task(self.id, "own", split, index, seed) for index in range(2 * TASKS_PER_USER)]}

    def support(self, task: Task) -> Support:
        generator = torch.Generator().manual_seed(task.key("support") % 2**31)
        shape = (WAY * SHOT, CLIP, 3, SIDE, SIDE)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        return Support(images, torch.arange(WAY * SHOT) % WAY, WAY)

    def episode(self, task: Task) -> Episode:
        if task.split == "train":
            batch = QueryBatch(self.support(Task("other", "own", "train", task.index)).images, torch.arange(4) % WAY)
            return Episode(task, self.support(task), (batch,), 4)
        user = list(LENGTHS)[task.index // TASKS_PER_USER]
        stream = Queries(user, self.batch)
        self.streams.append(stream)
        names = [f"{user}-{number}" for number in range(len(LENGTHS[user]))]
        return Episode(task, self.support(task), stream, sum(LENGTHS[user]), names, self.window, user, user)

    def predictions(self, tasks: Mapping[Task, Mapping[str, Sequence[int]]]) -> Any:
        return {str(task): {name: list(classes) for name, classes in found.items()} for task, found in tasks.items()}
