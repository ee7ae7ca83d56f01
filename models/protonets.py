"""Prototypical networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from lite_bench.harness.core import Encode, Support, TaskSizes
from lite_bench.harness.measurement.published import NetworkMacs
from lite_bench.models.backbones import Backbone
from lite_bench.models.class_statistics import class_means
from lite_bench.models.normalisation import fix_batch_statistics
from lite_bench.models.pixels import Pixels
from lite_bench.models.precision import full_precision


@dataclass(frozen=True)
class Prototypes:
    """What a task is reduced to: one mean feature per class, [C, D]."""

    means: Float[Tensor, "C D"]


class ProtoNets(nn.Module):
    """The nearest class mean, with a meta-learned backbone (prototypical networks).

    Jake Snell, Kevin Swersky, Richard Zemel: Prototypical Networks for Few-shot Learning, NeurIPS 2017. Classes are the
    means of their support features; queries go to the nearest. The whole backbone is learned, nothing in it is adapted
    to the task.
    """

    task_free_features: ClassVar[bool] = True
    meta_trained: ClassVar[bool] = True
    passes: str = "1F"

    def __init__(
        self,
        backbone: Backbone,
        *,
        metric: Literal["euclidean", "cosine"] = "euclidean",
        logit_scale: float | None = None,
        learn_scale: bool = False,
        batch_statistics: bool = False,
    ) -> None:
        """Set up the learner.

        Args:
            backbone: the network to learn.
            metric: negative squared Euclidean distance, or cosine similarity.
            logit_scale: factor on the logits; 1 for ``euclidean`` and 10 for ``cosine`` unless given.
            learn_scale: learn that factor.
            batch_statistics: BatchNorm normalises with the statistics of the images it sees while training, as in
                the authors' Omniglot runs; needs ``--gradient full``, and a ``--batch-size`` that holds all queries of
                a task, since each query batch is normalised by itself. Otherwise it uses fixed statistics.
        """
        super().__init__()
        self.backbone = backbone
        self.metric = metric
        start = logit_scale if logit_scale is not None else (10.0 if metric == "cosine" else 1.0)
        self.logit_scale = nn.Parameter(torch.tensor(start)) if learn_scale else start
        self.batch_statistics = batch_statistics
        self.train(self.training)

    @property
    def fixed_batches(self) -> bool:
        """Whether results depend on the batches: in training, on what each is normalised by."""
        return self.batch_statistics and self.training

    def train(self, mode: bool = True) -> ProtoNets:
        """Switch mode; BatchNorm stays on fixed statistics unless ``batch_statistics`` was chosen."""
        super().train(mode)
        if not self.batch_statistics:
            fix_batch_statistics(self)
        return self

    def adapt(self, support: Support, encode: Encode) -> Prototypes:
        """Average the support features of each class."""
        features = encode(self.backbone, support.images)
        with full_precision(features):
            return Prototypes(class_means(features, support.labels, support.way))

    def published_macs(self, sizes: TaskSizes, network_macs: NetworkMacs) -> int:
        """Count one pass of the body, and the means with what makes a linear classifier of them."""
        n, way, features = sizes.items, sizes.way, self.backbone.features
        body = sizes.images * (network_macs(self.backbone) + features)
        return body + way * n + n * features + 3 * way * features

    def classify(self, state: Prototypes, images: Pixels[Tensor, "M 3 S S"]) -> Float[Tensor, "M C"]:
        """Compare query images with the prototypes."""
        return self.logits(state, self.features(state, images))

    def features(self, state: Prototypes, images: Pixels[Tensor, "M 3 S S"]) -> Float[Tensor, "M D"]:
        """Compute features of query images."""
        del state
        return cast("Tensor", self.backbone(images))

    def logits(self, state: Prototypes, features: Float[Tensor, "M D"]) -> Float[Tensor, "M C"]:
        """Compare query features with the prototypes."""
        with full_precision(features):
            if self.metric == "cosine":
                return self.logit_scale * normalize(features, dim=1) @ normalize(state.means, dim=1).T
            return -self.logit_scale * squared_distances(features, state.means)


def squared_distances(a: Float[Tensor, "M D"], b: Float[Tensor, "C D"]) -> Float[Tensor, "M C"]:
    """Compute ||a_m - b_c||^2 without forming the differences, from one matrix product."""
    return a.square().sum(1, keepdim=True) - 2 * a @ b.T + b.square().sum(1)
