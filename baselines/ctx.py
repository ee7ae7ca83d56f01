"""CrossTransformers: attention from the positions of a query to those of all support images of a class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import mse_loss, pad, scaled_dot_product_attention

from lite_bench.harness.core import Encode, Support
from lite_bench.harness.errors import UsageError
from lite_bench.models.backbones import Backbone
from lite_bench.models.class_statistics import class_counts
from lite_bench.models.normalisation import fix_batch_statistics
from lite_bench.models.pixels import Pixels
from lite_bench.models.precision import full_precision

ALIGNMENT = 4
"""Fused attention in float32 on a GPU asks for rows of whole 16 bytes."""


@dataclass(frozen=True)
class SupportPositions:
    """Keys and values at every position of every support image, class after class.

    Attributes:
        keys: [N, P, K].
        values: [N, P, V].
        counts: int64 [C], images of each class: the first of them are of class 0.
    """

    keys: Float[Tensor, "N P K"]
    values: Float[Tensor, "N P V"]
    counts: Int[Tensor, " C"]


class CrossTransformers(nn.Module):
    """Class prototypes that attention aligns with every position of a query (CrossTransformers, CTX).

    Carl Doersch, Ankush Gupta, Andrew Zisserman: CrossTransformers, NeurIPS 2020.

    Each position of a query's feature map attends over all positions of a class's support images, and the query goes to
    the class whose values it finds nearest to its own.

    The network and the two projections of its maps, to keys and to values, are meta-learned; nothing is fitted to a
    task.

    With query keys q_p and values v*_p, and support keys k_jm and values v_jm of class c, at positions p and m:

        t_cp = sum_jm softmax_jm(<k_jm, q_p> / sqrt(K)) v_jm        logit_c = -1/P sum_p ||v*_p - t_cp||^2

    Each image's keys and values depend on that image alone, so every gradient estimator applies: the softmax is over
    all of them, but its value is exact under any estimator, and the gradient is then a sum over support images.

    The authors' network is ``resnet34_stride16``; any with feature maps will do. What makes their training is not here:
    episodes of SimCLR (each image its own class, support and query two augmentations of it), normalised gradient
    descent, and a week on 8 GPUs.

    The attention of a query batch is never held: torch's fused kernels form it piece by piece, in the backward pass
    too. Memory therefore grows with the positions, P (K + V) numbers for each support image and C P V for each query,
    and not with their products. Only where torch has no fused kernel (float64 on a GPU) is the attention held whole.

    Shape letters: N support images, M queries, C way, P positions of a map, K numbers of a key, V of a value.
    """

    task_free_features: ClassVar[bool] = True
    meta_trained: ClassVar[bool] = True
    passes: str = "1F"

    def __init__(self, backbone: Backbone, *, key_features: int = 128, value_features: int = 128) -> None:
        """Set up the learner.

        Args:
            backbone: the network to learn; its last feature maps are used before pooling.
            key_features: K, the length of keys and of the queries that they are compared with.
            value_features: V, the length of values.

        Raises:
            UsageError: a length is below 1, or the backbone has no feature maps.
        """
        super().__init__()
        for name, length in (("key_features", key_features), ("value_features", value_features)):
            if length < 1:
                raise UsageError(
                    f"-P {name}={length} is not usable: a vector has at least 1 number; the paper's is 128."
                )
        channels, _, _ = backbone.map_shape()
        self.backbone = backbone
        self.key_features = key_features
        self.value_features = value_features
        self.to_keys = nn.Conv2d(channels, key_features, 1, bias=False)
        self.to_values = nn.Conv2d(channels, value_features, 1, bias=False)
        self.train(self.training)

    def train(self, mode: bool = True) -> CrossTransformers:
        """Switch mode; BatchNorm stays on fixed statistics."""
        super().train(mode)
        fix_batch_statistics(self)
        return self

    def adapt(self, support: Support, encode: Encode) -> SupportPositions:
        """Compute the keys and values of the support set, and sort them by class."""
        encoded = encode(self._project, support.images)
        with full_precision(encoded):
            order = support.labels.argsort(stable=True)
            keys, values = self._split(encoded[order])
        return SupportPositions(keys, values, class_counts(support.labels, support.way))

    def classify(self, state: SupportPositions, images: Pixels[Tensor, "M 3 S S"]) -> Float[Tensor, "M C"]:
        """Compare query images with the support images of each class."""
        return self.logits(state, self.features(state, images))

    def features(self, state: SupportPositions, images: Pixels[Tensor, "M 3 S S"]) -> Float[Tensor, "M D"]:
        """Compute keys and values of query images, flattened: D = P (K + V)."""
        del state
        return self._project(images)

    def logits(self, state: SupportPositions, features: Float[Tensor, "M D"]) -> Float[Tensor, "M C"]:
        """Compare the keys and values of queries with those of each class."""
        with full_precision(features):
            queries, values = self._split(features)
            classes = zip(*(torch.split(of, state.counts.tolist()) for of in (state.keys, state.values)), strict=True)
            return torch.stack([-mean_distance(values, attend(queries, *own)) for own in classes], 1)

    def _project(self, images: Tensor) -> Tensor:
        """Compute keys and values [n, P (K + V)] of images, those of a position side by side."""
        maps = self.backbone.maps(images)
        both = torch.cat([self.to_keys(maps), self.to_values(maps)], 1).to(maps.dtype)
        return both.flatten(2).transpose(1, 2).flatten(1)

    def _split(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """Take keys [n, P, K] and values [n, P, V] out of [n, P (K + V)]."""
        lengths = [self.key_features, self.value_features]
        keys, values = torch.split(projected.reshape(len(projected), -1, sum(lengths)), lengths, 2)
        return keys, values


def attend(
    queries: Float[Tensor, "M P K"], keys: Float[Tensor, "k P K"], values: Float[Tensor, "k P V"]
) -> Float[Tensor, "M P V"]:
    """Give every position of a query the mean of a class's values, weighted by how well their keys fit.

    Queries are independent, so all their positions are one sequence. Fused kernels want keys and values of one length:
    zeros, which change no product, make up the difference.

    Args:
        queries: keys of M queries.
        keys: of all k support images of one class.
        values: likewise.
    """
    n_query, positions, length = queries.shape
    width = max(length, values.shape[2])
    width += -width % ALIGNMENT
    q, k, v = (lengthened(each, width).reshape(1, 1, -1, width) for each in (queries, keys, values))
    found = scaled_dot_product_attention(q, k, v, scale=length**-0.5)
    return found.view(n_query, positions, width)[..., : values.shape[2]]


def lengthened(vectors: Float[Tensor, "n P d"], width: int) -> Float[Tensor, "n P width"]:
    """Append zeros to the last dimension."""
    return vectors if vectors.shape[2] == width else pad(vectors, (0, width - vectors.shape[2]))


def mean_distance(values: Float[Tensor, "M P V"], aligned: Float[Tensor, "M P V"]) -> Float[Tensor, " M"]:
    """Average the squared distance over positions; unlike a difference that is squared, it keeps no copy for later."""
    return mse_loss(values, aligned, reduction="none").sum(2).mean(1)
