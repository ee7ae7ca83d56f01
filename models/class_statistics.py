"""Sums over the support set, per class. N support images, C way, D features."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot


def class_counts(labels: Int[Tensor, " N"], way: int) -> Int[Tensor, " C"]:
    """Count the support images of each class."""
    return labels.bincount(minlength=way)


def class_means(features: Float[Tensor, "N D"], labels: Int[Tensor, " N"], way: int) -> Float[Tensor, "C D"]:
    """Average the features of each class: eq. (4) of the LITE paper."""
    members = one_hot(labels, way).to(features.dtype)
    return members.T @ features / members.sum(0).unsqueeze(1)
