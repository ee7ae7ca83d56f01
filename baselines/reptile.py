"""Reptile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lite_bench.baselines.adapted_network import AdaptedNetwork, NetworkAdapter
from lite_bench.baselines.inner_loop import (
    TaskCopy,
    content_order,
    mini_batches,
    refuse_divergence,
    refuse_rates,
)
from lite_bench.harness.core import Encode, Support
from lite_bench.harness.errors import UsageError
from lite_bench.harness.repetition import repeated
from lite_bench.models.backbones import Backbone
from lite_bench.models.normalisation import fix_batch_statistics

BETAS = (0.0, 0.999)
"""Of the inner Adam: no momentum."""


class Reptile(NetworkAdapter):
    """A backbone that moves towards what tasks make of it (Reptile).

    Alex Nichol, Joshua Achiam, John Schulman: On First-Order Meta-Learning Algorithms, arXiv 1803.02999, 2018.

    A task's network is found by Adam steps (without momentum) from the initial weights on the support set, and the
    initial weights move towards it: theta <- theta + epsilon * mean over tasks (theta' - theta).

    Queries play no part in that. Whatever their loss, the gradient that reaches theta is theta - theta', once per task,
    so ``optimizer = "sgd"`` with the learning rate epsilon is Reptile's update (published: 1, going down to 0 by
    ``lr_linear``). It needs a ``--gradient`` that adapts to a task once, which those that draw anew for every query
    batch do not. BatchNorm uses fixed statistics throughout.

    The head is linear and starts from zero in every task, where it takes two steps to move the backbone; or it is one
    learned head for tasks of ``way`` classes, moved as the backbone is, as in the published runs.
    """

    adapts_once: ClassVar[bool] = True
    meta_trained: ClassVar[bool] = True
    passes: str = "50FB"

    def __init__(
        self,
        backbone: Backbone,
        *,
        steps: int = 5,
        inner_batch: int = 0,
        test_steps: int = 50,
        test_batch: int = 0,
        inner_lr: float = 0.001,
        way: int = 0,
    ) -> None:
        """Set up the learner.

        Args:
            backbone: the network whose initial weights are learned.
            steps: inner steps per task in training.
            inner_batch: support items of such a step, drawn without replacement until all have been; 0 for all.
            test_steps: inner steps per task in an evaluation.
            test_batch: support items of such a step, likewise.
            inner_lr: learning rate of the inner steps.
            way: classes of every task, for a learned head; 0 for a zero head.

        Raises:
            UsageError: a number is negative.
        """
        super().__init__()
        numbers = {
            "steps": steps,
            "inner_batch": inner_batch,
            "test_steps": test_steps,
            "test_batch": test_batch,
            "way": way,
        }
        for name, value in numbers.items():
            if value < 0:
                raise UsageError(f"-P {name}={value} is not usable: it must not be negative.")
        refuse_rates(inner_lr=inner_lr)
        self.backbone = backbone
        self.steps = steps
        self.inner_batch = inner_batch
        self.test_steps = test_steps
        self.test_batch = test_batch
        self.inner_lr = inner_lr
        self.way = way
        self.passes = f"{test_steps}FB"
        if way:
            self.head = nn.Linear(backbone.features, way)
        self.train(self.training)

    def train(self, mode: bool = True) -> Reptile:
        """Switch mode, and with it the inner steps; BatchNorm stays on fixed statistics."""
        super().train(mode)
        fix_batch_statistics(self)
        return self

    def adapt(self, support: Support, encode: Encode) -> AdaptedNetwork:
        """Take the inner steps from the initial weights.

        Raises:
            UsageError: the learned head is for another number of classes.
            DivergedError: the loss of a step was not finite.
        """
        head = self._initial_head(support.way)
        own = TaskCopy.of(self.backbone, [h.double() for h in head], precise_logits)
        optimizer = torch.optim.Adam(own.tensors, lr=self.inner_lr, betas=BETAS)
        if self.training:
            self._descend(own, support, encode.chunk, optimizer, self.steps, self.inner_batch)
        else:
            self._descend(own, support, encode.chunk, optimizer, self.test_steps, self.test_batch)
        initial = self.backbone.network.named_parameters()
        return AdaptedNetwork(
            {name: displaced(start, own.weights[name]) for name, start in initial},
            displaced(head[0], own.head[0].to(head[0].dtype)),
            displaced(head[1], own.head[1].to(head[1].dtype)),
        )

    @staticmethod
    def _descend(
        own: TaskCopy, support: Support, chunk: int, optimizer: torch.optim.Optimizer, steps: int, batch: int
    ) -> None:
        """Take ``steps`` steps on ``batch`` items each, or on all if that is 0."""
        if not batch:
            own.descend(support, chunk, optimizer, steps)
            return
        order, key = content_order(support.images)
        batches = mini_batches(order, batch, torch.Generator().manual_seed(key))
        for _ in repeated(steps):
            there = next(batches).to(support.images.device)
            own.gradients(support.images[there], support.labels[there], chunk)
            optimizer.step()
        refuse_divergence(own.losses)

    def _initial_head(self, way: int) -> list[Tensor]:
        """Give weight [C, D] and bias [C] to start from.

        Raises:
            UsageError: the learned head is for another number of classes.
        """
        if not self.way:
            like = next(self.backbone.network.parameters())
            return [like.new_zeros(way, self.backbone.features), like.new_zeros(way)]
        if way != self.way:
            raise UsageError(
                f"-P way={self.way} does not fit a task of {way} classes: a learned head is for tasks of one way; "
                "give the suite that way (-S way, train_way), or use a head per task with -P way=0."
            )
        return [self.head.weight, self.head.bias]


def precise_logits(features: Tensor, head: Sequence[Tensor]) -> Tensor:
    """Apply a head of weight [C, D] and bias [C] in its own precision, which is double.

    Adam divides a gradient by its size. That of the bias of a zero head is 0 where all classes have as many items; what
    rounding leaves of it in single precision would become a step as large as any other, and depend on the order of the
    items and on the chunk.
    """
    return linear(features.to(head[0].dtype), *head)


class _Displaced(torch.autograd.Function):
    """Adapted weights forward; backward the way back from them to the initial ones, whatever the loss asks for."""

    @staticmethod
    def forward(ctx: Any, initial: Tensor, adapted: Tensor) -> Tensor:
        """Return the adapted weights."""
        ctx.save_for_backward(initial, adapted)
        return adapted.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Give ``initial - adapted``."""
        del gradients
        initial, adapted = ctx.saved_tensors
        return initial - adapted, None


def displaced(initial: Tensor, adapted: Tensor) -> Tensor:
    """Give ``adapted``, whose gradient at ``initial`` is ``initial - adapted`` as soon as a loss depends on it."""
    result: Tensor = _Displaced.apply(initial, adapted.detach())
    return result
