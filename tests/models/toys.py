"""Tiny tasks and backbones in float64, small enough to enumerate every draw of LITE."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lite_bench.harness.core import Episode, Estimator, QueryBatch, Support, Task
from lite_bench.harness.step import accumulate_task_gradient
from lite_bench.models.backbones import Backbone
from lite_bench.models.draws import Rows
from lite_bench.models.encoding import encode_with_gradient_rows
from lite_bench.models.estimators import TaskDraw

SIDE = 32  # the smallest that five halvings of the set encoder leave something of

Factory = Callable[..., Any]


class TinyNetwork(nn.Module):
    """Two convolution blocks with BatchNorm on fixed statistics, pooled to ``features`` numbers."""

    def __init__(self, features: int = 5) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Tanh()),
            nn.Sequential(nn.Conv2d(4, features, 3, stride=2), nn.BatchNorm2d(features), nn.Tanh()),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        pooled: Tensor = self.blocks(pixels).mean((2, 3)) * 4
        return pooled


def tiny_backbone(features: int = 5, seed: int = 0) -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Backbone("tiny", TinyNetwork(features), SIDE)


def tiny_episode(n: int = 6, way: int = 2, m: int = 5, seed: int = 0, side: int = SIDE) -> Episode:
    generator = torch.Generator().manual_seed(seed)
    base = torch.randint(0, 256, (way, 3, side, side), generator=generator)

    def draw(labels: Tensor) -> Tensor:
        noise = torch.randint(0, 256, (len(labels), 3, side, side), generator=generator)
        return ((base[labels] + noise) // 2).to(torch.uint8)

    labels, query = torch.arange(n) % way, torch.arange(m) % way
    task = Task("toy@1", "toy", "train", 0, seed)
    batch = QueryBatch(draw(query), query)
    return Episode(task, Support(draw(labels), labels, way), (batch,), m)


def clip_episode(n: int, frames: int, way: int = 2, m: int = 5) -> Episode:
    """A task of ``n`` support clips and ``m`` query clips of ``frames`` frames; of images if that is 1."""
    episode = tiny_episode(n=n * frames, way=way, m=m * frames)
    if frames == 1:
        return episode
    (batch,) = episode.query
    support, queries = (x.images.view(-1, frames, *x.images.shape[1:]) for x in (episode.support, batch))
    return replace(
        episode,
        support=Support(support, torch.arange(n) % way, way),
        query=(QueryBatch(queries, torch.arange(m) % way),),
        n_query=m,
    )


def build(factory: Factory, seed: int = 0, **options: object) -> Any:
    """Make a learner in float64, with gates large enough that the task embedding matters."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        learner = factory(tiny_backbone(seed=seed), **options)
    assert isinstance(learner, nn.Module)
    learner = learner.double().train()
    with torch.no_grad():
        for name, parameter in learner.named_parameters():
            if name.endswith("gate"):
                parameter.mul_(500)
    return learner


def gradient(learner: Any, episode: Episode, estimator: Estimator, batch_size: int = 100, seed: int = 0) -> Tensor:
    """Run one task and give the gradient of all trainable parameters as one vector."""
    learner.zero_grad(set_to_none=True)
    generator = torch.Generator().manual_seed(seed)
    accumulate_task_gradient(learner, episode, estimator, batch_size, generator)
    parameters = [p for p in learner.parameters() if p.requires_grad]
    return torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])


class Scripted:
    """An estimator whose successive passes use given rows: enumerating them enumerates a random one."""

    name, h, chunk, per_image, sums_batches = "scripted", 0, 100, True, False

    def __init__(
        self, rows: tuple[tuple[int, ...], ...], n: int, factor: float | None = None, redraws: bool = False
    ) -> None:
        self.rows, self.n, self.redraws = rows, n, redraws
        self.factor = n / len(rows[0]) if factor is None else factor

    def begin(self, support: Support, generator: torch.Generator) -> TaskDraw:
        passes = itertools.count()

        class Pass:
            chunk = 100

            def __call__(inner, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:  # noqa: N805
                indices = torch.tensor(self.rows[next(passes) % len(self.rows)], dtype=torch.int64)
                return encode_with_gradient_rows(network, images, self.rows_of(indices), 100)

        return TaskDraw(support, Pass)

    def rows_of(self, indices: Tensor) -> Rows:
        return Rows(indices, torch.full((len(indices),), self.factor, dtype=torch.float64))

    def update_scale(self, n_support: int) -> float:
        return 1.0


def subsets(n: int, h: int) -> Iterator[tuple[int, ...]]:
    return itertools.combinations(range(n), h)
