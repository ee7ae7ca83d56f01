"""Fine-tuning of a linear head on a frozen backbone: the transfer baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from lite_bench.harness.core import Encode, Support
from lite_bench.models.backbones import Backbone
from lite_bench.models.pixels import Pixels
from lite_bench.models.precision import full_precision


@dataclass(frozen=True)
class LinearHead:
    """A linear classifier on backbone features: weight [C, D] and bias [C]."""

    weight: Float[Tensor, "C D"]
    bias: Float[Tensor, " C"]


class FineTuner(nn.Module):
    """The FineTuner of Massiceti et al., ORBIT, ICCV 2021, and of Table 1 of the LITE paper.

    A zero-initialised linear head is fitted to the support set by full-batch gradient steps; the backbone is frozen, in
    evaluation mode, and never meta-trained. Features of a frozen body never change, so they are computed once;
    ``recompute=true`` runs the body at every step, as the published costs count it, with the same answer.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        steps: int = 50,
        inner_lr: float = 0.1,
        optimizer: Literal["sgd", "adam"] = "sgd",
        recompute: bool = False,
    ) -> None:
        """Set up the learner.

        Args:
            backbone: frozen feature extractor.
            steps: gradient steps per task.
            inner_lr: their learning rate; 0.1 with SGD, 0.001 in the later Adam variant.
            optimizer: of the head.
            recompute: run the backbone at every step instead of once.
        """
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.steps = steps
        self.inner_lr = inner_lr
        self.optimizer = optimizer
        self.recompute = recompute
        self.train(self.training)

    def train(self, mode: bool = True) -> FineTuner:
        """Switch mode; the frozen backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def adapt(self, support: Support, encode: Encode) -> LinearHead:
        """Fit the head."""
        features = encode(self.backbone, support.images).detach()
        weight = features.new_zeros(support.way, features.shape[1], requires_grad=True)
        bias = features.new_zeros(support.way, requires_grad=True)
        kind = torch.optim.SGD if self.optimizer == "sgd" else torch.optim.Adam
        optimizer = kind([weight, bias], lr=self.inner_lr)
        for step in range(self.steps):
            if self.recompute and step:
                features = encode(self.backbone, support.images).detach()
            with torch.enable_grad(), full_precision(features):
                loss = cross_entropy(linear(features, weight, bias), support.labels)
                weight.grad, bias.grad = torch.autograd.grad(loss, [weight, bias])
            optimizer.step()
        return LinearHead(weight.detach(), bias.detach())

    def classify(self, state: LinearHead, images: Pixels[Tensor, "M 3 S S"]) -> Float[Tensor, "M C"]:
        """Apply the fitted head."""
        features = self.backbone(images)
        with full_precision(features):
            return linear(features, state.weight, state.bias)
