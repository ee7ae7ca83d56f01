"""First-order MAML."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from lite_bench.harness.clips import per_item
from lite_bench.harness.core import Encode, Support
from lite_bench.models.backbones import Backbone
from lite_bench.models.normalisation import fix_batch_statistics
from lite_bench.models.pixels import Pixels
from lite_bench.models.precision import full_precision


@dataclass(frozen=True)
class AdaptedNetwork:
    """A task's own copy of the network: backbone parameters by name, and a linear head."""

    backbone: dict[str, Tensor]
    weight: Float[Tensor, "C D"]
    bias: Float[Tensor, " C"]


class _FirstOrder(torch.autograd.Function):
    """Adapted weights forward; the identity backward, so their gradient reaches the initial weights as it is."""

    @staticmethod
    def forward(ctx: Any, initial: Tensor, adapted: Tensor, clamp: float) -> Tensor:
        """Return the adapted weights."""
        del initial
        ctx.clamp = clamp
        return adapted.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Copy the gradient, clamped elementwise."""
        return gradients[0].clamp(-ctx.clamp, ctx.clamp), None, None


class FirstOrderMAML(nn.Module):
    """Chelsea Finn, Pieter Abbeel, Sergey Levine: Model-Agnostic Meta-Learning, ICML 2017; as the ORBIT baseline.

    First order: the task's network is found by gradient steps from the meta-learned backbone and a zero head on the
    whole support set; its query gradient is applied to the initial weights. The steps accumulate over chunks weighted
    by their size, so memory is one chunk and the chunk never changes the result. BatchNorm uses fixed statistics
    throughout.
    """

    default_lr: ClassVar[float] = 1e-6

    def __init__(
        self,
        backbone: Backbone,
        *,
        steps: int = 15,
        inner_lr: float = 0.001,
        backbone_lr: float = 0.0001,
        clamp: float = 10.0,
    ) -> None:
        """Set up the learner.

        Args:
            backbone: the network whose initial weights are learned.
            steps: inner SGD steps per task, in training and test.
            inner_lr: inner learning rate of the head.
            backbone_lr: inner learning rate of the backbone.
            clamp: elementwise bound on a task's outer gradient, before it is divided by the tasks of a step.
        """
        super().__init__()
        self.backbone = backbone
        self.steps = steps
        self.inner_lr = inner_lr
        self.backbone_lr = backbone_lr
        self.clamp = clamp

    def train(self, mode: bool = True) -> FirstOrderMAML:
        """Switch mode; BatchNorm stays on fixed statistics."""
        super().train(mode)
        fix_batch_statistics(self)
        return self

    def adapt(self, support: Support, encode: Encode) -> AdaptedNetwork:
        """Take the inner steps from the initial weights."""
        initial = dict(self.backbone.network.named_parameters())
        weights = [p.detach().clone().requires_grad_() for p in initial.values()]
        head = [weights[0].new_zeros(support.way, self.backbone.features), weights[0].new_zeros(support.way)]
        head = [h.requires_grad_() for h in head]
        for _ in range(self.steps):
            self._step(dict(zip(initial, weights, strict=True)), head, support, encode.chunk)
        adapted = dict(zip(initial, weights, strict=True))
        for name, start in initial.items():
            adapted[name] = _FirstOrder.apply(start, adapted[name].detach(), self.clamp)
        return AdaptedNetwork(adapted, head[0].detach(), head[1].detach())

    def _step(self, weights: dict[str, Tensor], head: list[Tensor], support: Support, chunk: int) -> None:
        """Take one SGD step on the mean cross-entropy over the whole support set, in place."""
        targets = [*weights.values(), *head]
        total = [torch.zeros_like(t) for t in targets]
        parts = zip(torch.split(support.images, chunk), torch.split(support.labels, chunk), strict=True)
        for images, labels in parts:
            with torch.enable_grad():
                features = per_item(partial(self.backbone, parameters=weights), images)
                with full_precision(features):  # the backward pass too: autocast would act on it as well
                    loss = cross_entropy(linear(features, *head), labels, reduction="sum") / len(support.labels)
                    gradients = torch.autograd.grad(loss, targets, allow_unused=True)
            for sum_, gradient in zip(total, gradients, strict=True):
                if gradient is not None:
                    sum_.add_(gradient)
        with torch.no_grad():
            for target, gradient in zip(targets, total, strict=True):
                is_head = any(target is h for h in head)
                target.sub_(gradient, alpha=self.inner_lr if is_head else self.backbone_lr)

    def classify(self, state: AdaptedNetwork, images: Pixels[Tensor, "M 3 S S"]) -> Float[Tensor, "M C"]:
        """Apply the task's own network to query images."""
        return self.logits(state, self.features(state, images))

    def features(self, state: AdaptedNetwork, images: Pixels[Tensor, "M 3 S S"]) -> Float[Tensor, "M D"]:
        """Compute features of query images by the task's own backbone."""
        return cast("Tensor", self.backbone(images, state.backbone))

    def logits(self, state: AdaptedNetwork, features: Float[Tensor, "M D"]) -> Float[Tensor, "M C"]:
        """Apply the task's own head to query features."""
        with full_precision(features):
            return linear(features, state.weight, state.bias)
