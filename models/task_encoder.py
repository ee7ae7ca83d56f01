"""Body adaptation shared by CNAPs and Simple CNAPs: a frozen backbone modulated by a learned set encoder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from lite_bench.harness.core import Encode, Support
from lite_bench.harness.errors import UsageError
from lite_bench.models.backbones import Backbone
from lite_bench.models.film import FilmGenerators, film_sites
from lite_bench.models.precision import full_precision
from lite_bench.models.set_encoder import SMALLEST_IMAGE, SetEncoder, Statistics


def mean_encoding(encode: Encode, network: nn.Module, images: Tensor) -> Float[Tensor, " D"]:
    """Average ``network`` over all support items; an `Encode` may have a mean of its own, a method ``mean``."""
    own = getattr(encode, "mean", None)
    mean: Tensor = encode(network, images).mean(0) if own is None else own(network, images)
    return mean


@dataclass(frozen=True)
class AdaptedBody:
    """A task's modulated backbone: FiLM-folded affine parameters by name."""

    film: dict[str, Tensor]


class TaskEncoder(nn.Module):
    """Steps 1 to 3 of CNAPs: z = mean of e(x_n), FiLM parameters from z, features f(x_n; FiLM).

    The backbone is frozen, its BatchNorm on fixed statistics; set encoder and generators are learned.
    """

    def __init__(self, backbone: Backbone, statistics: Statistics) -> None:
        """Build set encoder and generators around ``backbone``, which is frozen here.

        Raises:
            UsageError: the images are too small for the set encoder, or the backbone has nothing to modulate.
        """
        super().__init__()
        if backbone.image_size < SMALLEST_IMAGE:
            raise UsageError(
                f"The set encoder halves images five times and needs at least {SMALLEST_IMAGE} pixels, "
                f"not {backbone.image_size}; raise --image-size."
            )
        self.backbone = backbone.requires_grad_(False)
        self.set_encoder = SetEncoder(backbone.mean, backbone.std, statistics)
        self.generators = FilmGenerators(film_sites(backbone))
        self.train(self.training)

    def train(self, mode: bool = True) -> TaskEncoder:
        """Switch mode; the frozen backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def adapt(self, support: Support, encode: Encode) -> tuple[AdaptedBody, Float[Tensor, "N D"]]:
        """Modulate the backbone for a task; returns it with the support features it computes."""
        embedding = mean_encoding(encode, self.set_encoder, support.images)
        with full_precision(embedding):
            film = self.generators(embedding, self.backbone.network)
        return AdaptedBody(film), encode(partial(self.backbone, parameters=film), support.images)

    def features(self, body: AdaptedBody, images: Tensor) -> Float[Tensor, "M D"]:
        """Compute the features of images [M, 3, S, S] with the task's modulation."""
        features: Tensor = self.backbone(images, body.film)
        return features
