"""Conditional neural adaptive processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lite_bench.harness.core import Encode, Support, TaskSizes
from lite_bench.harness.measurement.published import NetworkMacs, linear_macs
from lite_bench.models.backbones import Backbone
from lite_bench.models.class_statistics import class_means
from lite_bench.models.pixels import Pixels
from lite_bench.models.precision import full_precision
from lite_bench.models.set_encoder import Statistics
from lite_bench.models.task_encoder import AdaptedBody, TaskEncoder


@dataclass(frozen=True)
class LinearTask:
    """An adapted body with a generated linear classifier: weight [C, D] and bias [C]."""

    body: AdaptedBody
    weight: Float[Tensor, "C D"]
    bias: Float[Tensor, " C"]


class HeadGenerator(nn.Module):
    """Class means to the weights of a linear classifier (Gordon et al., VERSA, ICLR 2019, without the variances).

    Weight: three D -> D layers with ELU plus the mean itself; bias: D -> 1 -> 1 -> 1. 3 D^2 + 4 D + 5 parameters.
    """

    def __init__(self, features: int) -> None:
        """Build both networks for features of length D."""
        super().__init__()
        self.weight = self._network(features, features)
        self.bias = self._network(features, 1)

    @staticmethod
    def _network(n_in: int, n_out: int) -> nn.Sequential:
        last = [nn.Linear(n_out, n_out), nn.ELU(), nn.Linear(n_out, n_out)]
        return nn.Sequential(nn.Linear(n_in, n_out), nn.ELU(), *last)

    def forward(self, means: Float[Tensor, "C D"]) -> tuple[Float[Tensor, "C D"], Float[Tensor, " C"]]:
        """Generate one row of weights and one bias per class."""
        return self.weight(means) + means, self.bias(means).squeeze(1)


def body_macs(body: TaskEncoder, sizes: TaskSizes, network_macs: NetworkMacs) -> int:
    """Count, as published costs do, the set encoder, the generators and one pass of the modulated body.

    FiLM itself is free; averaging the features of the frames of clips takes D for each frame.
    """
    per_image = network_macs(body.set_encoder) + network_macs(body.backbone) + body.backbone.features
    return sizes.images * per_image + linear_macs(body.generators)


class CNAPs(nn.Module):
    """A frozen backbone modulated by a learned embedding of the task, and a generated linear classifier (CNAPs).

    James Requeima, Jonathan Gordon, John Bronskill, Sebastian Nowozin, Richard Turner: Fast and Flexible Multi-Task
    Classification Using Conditional Neural Adaptive Processes, NeurIPS 2019; as used in the LITE paper. A set encoder
    embeds the task, its embedding modulates a frozen backbone by FiLM, and class means of the modulated features
    generate a linear classifier.
    """

    meta_trained: ClassVar[bool] = True
    passes: str = "1F"

    def __init__(
        self, backbone: Backbone, *, set_statistics: Statistics = "image", gate_penalty: float = 0.001
    ) -> None:
        """Set up the learner.

        Args:
            backbone: frozen feature extractor.
            set_statistics: normalisation of the set encoder, see `SetEncoder`.
            gate_penalty: weight of the sum of squared FiLM gates in the task loss.
        """
        super().__init__()
        self.body = TaskEncoder(backbone, set_statistics)
        self.fixed_batches = set_statistics == "batch"
        self.head = HeadGenerator(backbone.features)
        self.gate_penalty = gate_penalty

    def penalty(self) -> Tensor:
        """Regulariser added to the task loss."""
        return self.gate_penalty * self.body.generators.gate_energy()

    def adapt(self, support: Support, encode: Encode) -> LinearTask:
        """Modulate the body and generate the classifier."""
        body, features = self.body.adapt(support, encode)
        with full_precision(features):
            weight, bias = self.head(class_means(features, support.labels, support.way))
        return LinearTask(body, weight, bias)

    def published_macs(self, sizes: TaskSizes, network_macs: NetworkMacs) -> int:
        """Count one pass of set encoder and body, the class means, and a run of the generated classifier's networks."""
        n, way, features = sizes.items, sizes.way, self.body.backbone.features
        means = way * n + n * features
        return body_macs(self.body, sizes, network_macs) + means + way * linear_macs(self.head)

    def classify(self, state: LinearTask, images: Pixels[Tensor, "M 3 S S"]) -> Float[Tensor, "M C"]:
        """Apply the generated classifier to query images."""
        return self.logits(state, self.features(state, images))

    def features(self, state: LinearTask, images: Pixels[Tensor, "M 3 S S"]) -> Float[Tensor, "M D"]:
        """Compute modulated features of query images."""
        return self.body.features(state.body, images)

    def logits(self, state: LinearTask, features: Float[Tensor, "M D"]) -> Float[Tensor, "M C"]:
        """Apply the generated classifier to modulated query features."""
        with full_precision(features):
            return torch.addmm(state.bias, features, state.weight.T)
