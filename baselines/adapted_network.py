"""What a task is reduced to by learners that take steps on a copy of the whole network: the copy, and a linear head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from lite_bench.models.backbones import Backbone
from lite_bench.models.pixels import Pixels
from lite_bench.models.precision import full_precision


@dataclass(frozen=True)
class AdaptedNetwork:
    """A task's own copy of the network: backbone parameters by name, and a linear head."""

    backbone: dict[str, Tensor]
    weight: Float[Tensor, "C D"]
    bias: Float[Tensor, " C"]


class NetworkAdapter(nn.Module):
    """A learner whose `adapt` gives an `AdaptedNetwork`.

    Attributes:
        backbone: the network that tasks have their own weights of.
    """

    backbone: Backbone

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
