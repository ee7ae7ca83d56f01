"""Simple CNAPs: CNAPs with a parameter-free Mahalanobis classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from lite_bench.harness.core import Encode, Support, TaskSizes
from lite_bench.harness.errors import UsageError
from lite_bench.harness.measurement.published import NetworkMacs
from lite_bench.models.backbones import Backbone
from lite_bench.models.cnaps import body_macs
from lite_bench.models.mahalanobis import ClassGaussians, Solver, fit_class_gaussians, mahalanobis_squared
from lite_bench.models.pixels import Pixels
from lite_bench.models.precision import full_precision
from lite_bench.models.set_encoder import Statistics
from lite_bench.models.task_encoder import AdaptedBody, TaskEncoder


@dataclass(frozen=True)
class GaussianTask:
    """An adapted body with one Gaussian per class."""

    body: AdaptedBody
    classes: ClassGaussians


class SimpleCNAPs(nn.Module):
    """The modulated backbone of CNAPs, and the nearest class in Mahalanobis distance (Simple CNAPs).

    Peyman Bateni, Raghav Goyal, Vaden Masrani, Frank Wood, Leonid Sigal: Improved Few-Shot Visual Classification, CVPR
    2020. The body is adapted as in CNAPs; queries go to the class nearest in Mahalanobis distance, with class
    covariances shrunk towards the covariance of the whole support set. The head has no parameters.
    """

    meta_trained: ClassVar[bool] = True
    passes: str = "1F"

    def __init__(
        self,
        backbone: Backbone,
        *,
        set_statistics: Statistics = "image",
        gate_penalty: float = 0.001,
        beta: float = 1.0,
        logit_scale: float = 1.0,
        compat_one_shot: bool = False,
        solver: Solver = "auto",
    ) -> None:
        """Set up the learner.

        Args:
            backbone: frozen feature extractor.
            set_statistics: normalisation of the set encoder, see `SetEncoder`.
            gate_penalty: weight of the sum of squared FiLM gates in the task loss.
            beta: weight of the identity in the class covariances.
            logit_scale: factor on the squared distances; the released codes use 1, the paper's text 1/2.
            compat_one_shot: give one-shot classes the released codes' accidental covariance, see `fit_class_gaussians`.
            solver: how the distances are computed: ``woodbury`` or ``cholesky``, by default the cheaper one; or
                ``inverse``, the dense inverse of every class matrix, as published. The logits are the same.

        Raises:
            UsageError: ``beta`` is not positive.
        """
        super().__init__()
        if not beta > 0:
            raise UsageError(f"-P beta={beta:g} is not usable: without some identity covariances have no inverse.")
        self.body = TaskEncoder(backbone, set_statistics)
        self.fixed_batches = set_statistics == "batch"
        self.gate_penalty = gate_penalty
        self.beta = beta
        self.logit_scale = logit_scale
        self.compat_one_shot = compat_one_shot
        self.solver: Solver = solver

    def penalty(self) -> Tensor:
        """Regulariser added to the task loss."""
        return self.gate_penalty * self.body.generators.gate_energy()

    def adapt(self, support: Support, encode: Encode) -> GaussianTask:
        """Modulate the body and fit one Gaussian per class."""
        body, features = self.body.adapt(support, encode)
        with full_precision(features):
            classes = fit_class_gaussians(
                features, support.labels, support.way, self.beta, self.compat_one_shot, self.solver
            )
        return GaussianTask(body, classes)

    def published_macs(self, sizes: TaskSizes, network_macs: NetworkMacs) -> int:
        """Count one pass of set encoder and body, all covariances, and an inverse of each class's, as published.

        What `solver` saves is not in this count.
        """
        n, width = sizes.items, self.body.backbone.features
        covariances = _covariance_macs(n, width) + sum(_covariance_macs(k, width) for k in sizes.class_counts)
        shrinking = 2 * width**2 + 1
        inverse = (width**3 - 4 * width) // 3 + width**2  # a multiple of three: (D - 2) D (D + 2)
        per_class = n + shrinking + inverse
        heads = sizes.way * per_class + n * width  # the class means are k_c D for each class, N D in all
        return body_macs(self.body, sizes, network_macs) + covariances + heads

    def classify(self, state: GaussianTask, images: Pixels[Tensor, "M 3 S S"]) -> Float[Tensor, "M C"]:
        """Score query images by negative squared Mahalanobis distance."""
        return self.logits(state, self.features(state, images))

    def features(self, state: GaussianTask, images: Pixels[Tensor, "M 3 S S"]) -> Float[Tensor, "M D"]:
        """Compute modulated features of query images."""
        return self.body.features(state.body, images)

    def logits(self, state: GaussianTask, features: Float[Tensor, "M D"]) -> Float[Tensor, "M C"]:
        """Score query features by negative squared Mahalanobis distance."""
        with full_precision(features):
            return -self.logit_scale * mahalanobis_squared(state.classes, features)


def _covariance_macs(rows: int, features: int) -> int:
    """Count a covariance as published costs do."""
    return 2 * features * rows + features**2 * rows + 1
