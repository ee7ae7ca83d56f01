"""Ridge regression on backbone features, as a plug-in: the file to copy for a learner of your own.

Shape letters: N support images, M queries, S image side, D features, C way.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lite_bench.harness.core import Encode, Support
from lite_bench.harness.errors import UsageError
from lite_bench.models.normalisation import fix_batch_statistics
from lite_bench.models.precision import full_precision


# Whatever `adapt` learns about a task travels in one small dataclass of tensors, and nowhere else: the
# training step detaches these tensors, gathers their gradients over all query batches, and goes back through
# `adapt` once.
@dataclass(frozen=True)
class RidgeHead:
    """What is learned from a support set.

    Attributes:
        weights: float32 [D, C].
    """

    weights: Tensor


class Ridge(nn.Module):
    """Bertinetto, Henriques, Torr, Vedaldi: Meta-learning with differentiable closed-form solvers, ICLR 2019.

    The head is the exact ridge regression from features to one-hot labels (R2-D2). It is a formula, so the
    meta-training gradient passes through it to the backbone. Three scalars are meta-trained with it: the
    regulariser, and the scale and bias that turn regression outputs into logits (eq. 7).
    """

    # The backbone arrives ready-made: it maps uint8 images [N, 3, S, S] to float features [N, D] with
    # D = backbone.features. Keyword-only parameters are the learner's options, set by -P ridge_lambda=10 and
    # checked against the annotation.
    def __init__(self, backbone: nn.Module, *, ridge_lambda: float = 1.0) -> None:
        """Keep the backbone and start the three scalars.

        Args:
            backbone: maps uint8 images [N, 3, S, S] to features [N, D].
            ridge_lambda: initial weight of the squared norm of the head, above 0.

        Raises:
            UsageError: ``ridge_lambda`` is not above 0.
        """
        super().__init__()
        if not ridge_lambda > 0:
            raise UsageError(f"ridge_lambda is {ridge_lambda} and must be above 0; the default is 1.0.")
        # Every parameter with requires_grad is meta-trained. Logarithms keep lambda and the scale positive.
        # Regression outputs lie in 0..1, too flat for a softmax, hence the initial scale of 10.
        self.backbone = backbone
        self.log_lambda = nn.Parameter(torch.tensor(math.log(ridge_lambda)))
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        # The paper's bias is shared by all classes and cancels in a softmax; it matters to other losses only.
        self.bias = nn.Parameter(torch.tensor(0.0))

    # An image's features may not depend on the images beside it, so BatchNorm keeps its running statistics,
    # in training too.
    def train(self, mode: bool = True) -> "Ridge":
        """Switch mode; BatchNorm stays on fixed statistics."""
        super().train(mode)
        fix_batch_statistics(self)
        return self

    # Call `encode(network, images)` instead of `network(images)` wherever a network runs over the support
    # set: that is all a learner does to be trained with any gradient estimator (LITE, exact, ...) and in any
    # amount of memory. `adapt` must leave `self` as it was.
    def adapt(self, support: Support, encode: Encode) -> RidgeHead:
        """Solve for the head.

        Args:
            support: images uint8 [N, 3, S, S] and labels int64 [N] in 0..C-1.
            encode: applies a network to all support images.

        Returns:
            the head, with weights [D, C].
        """
        features = encode(self.backbone, support.images)  # [N, D]
        targets = F.one_hot(support.labels, support.way).float()  # [N, C]
        with full_precision(features):  # networks may run in bfloat16, linear algebra may not
            return RidgeHead(ridge_weights(features.float(), targets, self.log_lambda.exp()))

    # Each row of logits may depend on its own image and the state alone: queries come in batches of any size.
    def classify(self, state: RidgeHead, images: Tensor) -> Tensor:
        """Compute logits [M, C] of query images uint8 [M, 3, S, S] (eq. 7)."""
        return self.logits(state, self.features(state, images))

    # The same in two steps is all that suites of videos need: they average the features of a video's frames.
    def features(self, state: RidgeHead, images: Tensor) -> Tensor:
        """Compute features [M, D] of query images."""
        del state
        features: Tensor = self.backbone(images)
        return features

    # These features do not depend on the task, so tasks with the same queries may share them.
    task_free_features = True

    def logits(self, state: RidgeHead, features: Tensor) -> Tensor:
        """Compute logits [M, C] from features [M, D]."""
        with full_precision(features):
            logits: Tensor = self.log_scale.exp() * (features.float() @ state.weights) + self.bias
        return logits


def ridge_weights(features: Tensor, targets: Tensor, ridge_lambda: Tensor) -> Tensor:
    """Minimise ``|XW - Y|^2 + lambda |W|^2`` over W.

    By Woodbury's identity W = X'(XX' + lambda I)^-1 Y (eq. 6): a system of N equations, not D, and few-shot
    support sets are smaller than feature vectors. It costs about N^2 D + N^3/6 multiply-accumulates.

    Args:
        features: X, float [N, D].
        targets: Y, float [N, C].
        ridge_lambda: float [], above 0.

    Returns:
        W, float [D, C].
    """
    gram = features @ features.T + ridge_lambda * torch.eye(len(features)).to(features)
    # Cholesky: the matrix is symmetric and, thanks to lambda, positive definite.
    return features.T @ torch.cholesky_solve(targets, torch.linalg.cholesky(gram))
