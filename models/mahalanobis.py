"""Mahalanobis classification with regularised class covariances, without a matrix inverse unless asked for.

Logits are -(f - mu_c)^T Q_c^-1 (f - mu_c) with Q_c = lambda_c S_c + (1 - lambda_c) S + beta I, where S_c and S are
covariances about the class mean and about the overall mean, lambda_c = k_c / (k_c + 1) (Bateni et al., Improved
Few-Shot Visual Classification, CVPR 2020, eqs. 1 to 3). All class covariances are scalings of one matrix of centred
rows,

    Q_c = beta I + V^T diag(s_c)^2 V,

V [R, D] holding the support features about their class means and the class means about the overall mean (R = N + C):
the within-class and between-class parts of the total scatter. So there are three routes to the same numbers, whose
multiplications, but for terms of lower order, are these (a Cholesky factorisation of size n takes n^3/6, a triangular
solve n (n + 1)/2):

* ``woodbury``: one Gram matrix V V^T [R, R] for all classes, one Cholesky of beta I + diag(s_c) V V^T diag(s_c) per
  class, and the class means times V^T: R^2 D + C R^3/6 + C R D to fit, R D + C R (R + 1)/2 per query.
* ``cholesky``: the total scatter once and the scatter of each class, one Cholesky of Q_c [D, D] per class:
  (2 N + C) D^2 + C D^3/6 to fit, C D (D + 1)/2 per query.
* ``inverse``: the same matrices inverted, as the released codes do: (2 N + C) D^2 + C D^3 to fit, C D^2 per query.
  It is never the cheapest, and is here to compare with.

``auto`` takes woodbury where R < D and cholesky elsewhere. That is the route of fewer multiplications for fitting and
classifying as many queries as there are support items: the two take the same number at R = D. (With many more queries
they would meet at a smaller R, by a fifth with 5 classes and by 2 % with 50.) The choice depends on N, C and D alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lite_bench.models.class_statistics import class_counts, class_means

Solver = Literal["auto", "woodbury", "cholesky", "inverse"]


@dataclass(frozen=True)
class WoodburyGaussians:
    """Class means, and precisions in the space of the rows of V.

    Attributes:
        means: mu_c, [C, D].
        rows: V, [R, D].
        projected: the means in row space, V mu_c, [C, R].
        scales: s_c, [C, R].
        factors: lower Cholesky factors of beta I + diag(s_c) V V^T diag(s_c), [C, R, R].
        beta: the ridge, a scalar.
    """

    means: Float[Tensor, "C D"]
    rows: Float[Tensor, "R D"]
    projected: Float[Tensor, "C R"]
    scales: Float[Tensor, "C R"]
    factors: Float[Tensor, "C R R"]
    beta: Float[Tensor, ""]


@dataclass(frozen=True)
class CholeskyGaussians:
    """Class means [C, D] and lower Cholesky factors of Q_c [C, D, D]."""

    means: Float[Tensor, "C D"]
    factors: Float[Tensor, "C D D"]


@dataclass(frozen=True)
class InverseGaussians:
    """Class means [C, D] and inverses of Q_c [C, D, D]."""

    means: Float[Tensor, "C D"]
    inverses: Float[Tensor, "C D D"]


ClassGaussians = WoodburyGaussians | CholeskyGaussians | InverseGaussians


def fit_class_gaussians(
    features: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    way: int,
    beta: float = 1.0,
    compat_one_shot: bool = False,
    solver: Solver = "auto",
) -> ClassGaussians:
    """Estimate the class distributions from a support set.

    Args:
        features: support features.
        labels: classes 0..way-1, each present.
        way: C.
        beta: weight of the identity in Q_c.
        compat_one_shot: give one-shot classes the released codes' accidental covariance instead of zero: the variance
            across the D entries of their single feature vector, in every cell of the matrix.
        solver: route to the distances, see above; the numbers are the same.
    """
    n, width = features.shape
    means = class_means(features, labels, way)
    weights = _covariance_weights(features, labels, way, compat_one_shot)
    ridge = torch.as_tensor(beta, dtype=features.dtype, device=features.device)
    within, between = features - means[labels], means - features.mean(0)
    if solver == "auto":
        solver = cheaper_solver(n, way, width)
    if solver != "woodbury":
        matrices = _add_ridge(_direct_covariances(within, between, labels, weights), ridge)
        if solver == "inverse":
            return InverseGaussians(means, torch.linalg.inv(matrices))
        return CholeskyGaussians(means, torch.linalg.cholesky(matrices))
    rows = torch.cat([within, between])
    if compat_one_shot:
        rows = torch.cat([rows, torch.ones_like(rows[:1])])
    scales = _row_scales(labels, weights, compat_one_shot)
    gram = _add_ridge(scales.unsqueeze(2) * (rows @ rows.T) * scales.unsqueeze(1), ridge)
    return WoodburyGaussians(means, rows, means @ rows.T, scales, torch.linalg.cholesky(gram), ridge)


def cheaper_solver(n: int, way: int, features: int) -> Literal["woodbury", "cholesky"]:
    """Choose the route of fewer multiplications for ``n`` support items, ``way`` classes and ``features`` dimensions.

    See above for the counts.
    """
    return "woodbury" if n + way < features else "cholesky"


@dataclass(frozen=True)
class _CovarianceWeights:
    """Weights of the parts of Q_c - beta I, each [C].

    Attributes:
        counts: k_c.
        total: (1 - lambda_c) / (N - 1), on the scatter of all support features about the overall mean.
        own: lambda_c / (k_c - 1), on the scatter of class c about its mean; 0 for one-shot classes.
        ones: on the matrix of ones; only with ``compat_one_shot``.
    """

    counts: Tensor
    total: Tensor
    own: Tensor
    ones: Tensor


def _covariance_weights(features: Tensor, labels: Tensor, way: int, compat_one_shot: bool) -> _CovarianceWeights:
    k = class_counts(labels, way).to(features.dtype)
    shrink = k / (k + 1)
    own = shrink / (k - 1).clamp(min=1) * (k > 1)
    ones = torch.zeros_like(k)
    if compat_one_shot:
        spread = class_means(features.var(dim=1, keepdim=True), labels, way).squeeze(1)
        ones = shrink * spread * (k == 1)
    return _CovarianceWeights(k, (1 - shrink) / max(1, len(features) - 1), own, ones)


def _row_scales(labels: Tensor, weights: _CovarianceWeights, compat_one_shot: bool) -> Tensor:
    """Give s_c for the rows of V: N within-class rows, C between-class rows, and the row of ones if there is one."""
    classes = torch.arange(len(weights.counts), device=labels.device)
    member = labels.unsqueeze(0) == classes.unsqueeze(1)
    squares = [weights.total.unsqueeze(1) + weights.own.unsqueeze(1) * member]
    squares.append(weights.total.unsqueeze(1) * weights.counts.unsqueeze(0))
    scales = torch.cat(squares, dim=1).sqrt()
    if not compat_one_shot:
        return scales
    # The derivative of a square root is infinite at zero, where classes of several shots would meet it.
    safe = torch.where(weights.ones > 0, weights.ones, torch.ones_like(weights.ones)).sqrt()
    return torch.cat([scales, torch.where(weights.ones > 0, safe, 0).unsqueeze(1)], dim=1)


def _direct_covariances(within: Tensor, between: Tensor, labels: Tensor, weights: _CovarianceWeights) -> Tensor:
    """Give Q_c - beta I, [C, D, D]; the total scatter is formed once."""
    total = within.T @ within + between.T @ (between * weights.counts.unsqueeze(1))
    own = torch.stack([within[labels == c].T @ within[labels == c] for c in range(len(between))])
    weighted = weights.total.view(-1, 1, 1) * total + weights.own.view(-1, 1, 1) * own
    return weighted + weights.ones.view(-1, 1, 1)


def _add_ridge(matrices: Tensor, ridge: Tensor) -> Tensor:
    return matrices + ridge * torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)


def mahalanobis_squared(gaussians: ClassGaussians, features: Float[Tensor, "M D"]) -> Float[Tensor, "M C"]:
    """Compute (f_m - mu_c)^T Q_c^-1 (f_m - mu_c) for all queries and classes."""
    differences = features.unsqueeze(0) - gaussians.means.unsqueeze(1)
    if isinstance(gaussians, WoodburyGaussians):
        return _through_rows(gaussians, features, differences)
    if isinstance(gaussians, InverseGaussians):
        return ((differences @ gaussians.inverses) * differences).sum(2).T
    whitened: Tensor = torch.linalg.solve_triangular(gaussians.factors, differences.mT, upper=False)
    return whitened.square().sum(1).T


def _through_rows(gaussians: WoodburyGaussians, features: Tensor, differences: Tensor) -> Tensor:
    """Woodbury: d^T Q^-1 d = (|d|^2 - |L^-1 diag(s) V d|^2) / beta, with L L^T = beta I + diag(s) V V^T diag(s)."""
    in_rows = (features @ gaussians.rows.T).unsqueeze(0) - gaussians.projected.unsqueeze(1)
    scaled = in_rows * gaussians.scales.unsqueeze(1)
    whitened: Tensor = torch.linalg.solve_triangular(gaussians.factors, scaled.mT, upper=False)
    return ((differences.square().sum(2) - whitened.square().sum(1)) / gaussians.beta).T
