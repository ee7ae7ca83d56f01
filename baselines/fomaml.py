"""First-order MAML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy, linear

from lite_bench.baselines.adapted_network import AdaptedNetwork, NetworkAdapter
from lite_bench.baselines.inner_loop import (
    TaskCopy,
    first_order,
    item_weights,
    refuse_divergence,
    refuse_rates,
    refuse_steps,
)
from lite_bench.harness.clips import per_item
from lite_bench.harness.core import Encode, Support, TaskSizes
from lite_bench.models.backbones import Backbone
from lite_bench.models.normalisation import fix_batch_statistics, use_batch_statistics
from lite_bench.models.precision import full_precision


class _Clamp(torch.autograd.Function):
    """The identity, whose gradient is clamped elementwise."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, clamp: float) -> Tensor:
        """Return ``values``."""
        ctx.clamp = clamp
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Clamp the gradient."""
        return gradients[0].clamp(-ctx.clamp, ctx.clamp), None


class FirstOrderMAML(NetworkAdapter):
    """A backbone whose initial weights are learned for a few gradient steps on each task (first-order MAML).

    Chelsea Finn, Pieter Abbeel, Sergey Levine: Model-Agnostic Meta-Learning, ICML 2017; as the ORBIT baseline.

    First order: the task's network is found by gradient steps from the meta-learned backbone and a zero head on the
    whole support set; its query gradient is applied to the initial weights. The steps accumulate over chunks weighted
    by their size, so memory is one chunk and the chunk never changes the result. BatchNorm uses fixed statistics
    throughout. (``sum_batches`` and ``transductive`` are the exceptions to both.)

    ``second_order=true`` differentiates through the steps as well (MAML itself): the graph of all steps on the whole
    support set is kept while training. Evaluation is the same.
    """

    default_lr: ClassVar[float] = 1e-6
    meta_trained: ClassVar[bool] = True
    passes: str = "15FB"

    def __init__(
        self,
        backbone: Backbone,
        *,
        steps: int = 15,
        inner_lr: float = 0.001,
        backbone_lr: float = 0.0001,
        clamp: float = 10.0,
        second_order: bool = False,
        sum_batches: bool = False,
        transductive: bool = False,
    ) -> None:
        """Set up the learner.

        Args:
            backbone: the network whose initial weights are learned.
            steps: inner SGD steps per task, in training and test.
            inner_lr: inner learning rate of the head.
            backbone_lr: inner learning rate of the backbone.
            clamp: elementwise bound on a task's outer gradient, before it is divided by the tasks of a step. The
                released code bounds the sum over the tasks so far, after each; that differs only where it is reached.
            second_order: differentiate through the inner steps.
            sum_batches: sum the mean losses of batches of ``--batch-size`` images, as the released code does, so that
                the batch size is a factor on the inner learning rates; else the mean over the support set.
            transductive: BatchNorm normalises with the statistics of the images it sees, support or queries, as in the
                published Omniglot figures: queries of a batch then help each other. Needs ``--gradient full`` and
                batches that hold a whole support or query set. Otherwise it uses fixed statistics.

        Raises:
            UsageError: a number is out of range.
        """
        super().__init__()
        refuse_steps(steps=steps)
        refuse_rates(inner_lr=inner_lr, backbone_lr=backbone_lr, clamp=clamp)
        self.backbone = backbone
        self.steps = steps
        self.inner_lr = inner_lr
        self.backbone_lr = backbone_lr
        self.clamp = clamp
        self.second_order = second_order
        self.sum_batches = sum_batches
        self.transductive = transductive
        self.fixed_batches = sum_batches or transductive
        if transductive:
            use_batch_statistics(backbone)
        self.passes = f"{steps}FB"
        self.train(self.training)

    def train(self, mode: bool = True) -> FirstOrderMAML:
        """Switch mode; BatchNorm stays on the statistics it was built for."""
        super().train(mode)
        fix_batch_statistics(self)
        return self

    def published_macs(self, sizes: TaskSizes, network_macs: Callable[[nn.Module], int]) -> int:
        """Every step is a forward and a backward pass, which counts as much; the head does not count."""
        return self.steps * (2 * sizes.images * network_macs(self.backbone) + sizes.images * self.backbone.features)

    def adapt(self, support: Support, encode: Encode) -> AdaptedNetwork:
        """Take the inner steps from the initial weights.

        Raises:
            DivergedError: the loss of a step was not finite.
        """
        initial = dict(self.backbone.network.named_parameters())
        if self.second_order and torch.is_grad_enabled():
            return self._through_the_steps(initial, support, encode.chunk)
        own = TaskCopy.of(self.backbone, self._zero_head(support.way))
        optimizer = torch.optim.SGD(own.groups(self.inner_lr, self.backbone_lr))
        own.descend(support, encode.chunk, optimizer, self.steps, sum_batches=self.sum_batches)
        adapted = {name: first_order(start, own.weights[name], self.clamp) for name, start in initial.items()}
        return AdaptedNetwork(adapted, own.head[0].detach(), own.head[1].detach())

    def _zero_head(self, way: int) -> list[Tensor]:
        like = next(self.backbone.network.parameters())
        return [like.new_zeros(way, self.backbone.features), like.new_zeros(way)]

    def _through_the_steps(self, initial: Mapping[str, Tensor], support: Support, chunk: int) -> AdaptedNetwork:
        """Take the same steps with a graph; attention in its plain form, as fused kernels have no second derivative."""
        with sdpa_kernel(SDPBackend.MATH):
            return self._with_graph(initial, support, chunk)

    def _with_graph(self, initial: Mapping[str, Tensor], support: Support, chunk: int) -> AdaptedNetwork:
        names, losses = list(initial), []
        values = [clamp_gradient(start, self.clamp) for start in initial.values()]
        values += [h.requires_grad_() for h in self._zero_head(support.way)]
        rates = [self.backbone_lr] * len(names) + [self.inner_lr] * 2
        for _ in range(self.steps):
            network = partial(self.backbone, parameters=dict(zip(names, values[:-2], strict=True)))
            features = torch.cat([per_item(network, part) for part in torch.split(support.images, chunk)])
            with full_precision(features):
                each = cross_entropy(linear(features, *values[-2:]), support.labels, reduction="none")
                loss = (each * item_weights(each, chunk, sum_batches=self.sum_batches)).sum()
                gradients = torch.autograd.grad(loss, values, create_graph=True)
            losses.append(loss.detach())
            values = [v - rate * g for v, rate, g in zip(values, rates, gradients, strict=True)]
        refuse_divergence(losses)
        return AdaptedNetwork(dict(zip(names, values[:-2], strict=True)), *values[-2:])


def clamp_gradient(values: Tensor, clamp: float) -> Tensor:
    """Give ``values``, whose gradient is bounded elementwise."""
    result: Tensor = _Clamp.apply(values, clamp)
    return result
