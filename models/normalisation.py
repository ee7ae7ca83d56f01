"""Normalisation layers: which statistics they use, and per-image ones for training from scratch.

LITE and the exact gradient need an image's encoding to depend on that image alone. BatchNorm satisfies this
only with fixed statistics; GroupNorm always does.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

GROUPS = 8


class PerImageNorm(nn.GroupNorm):
    """GroupNorm with the optional activation that timm fuses into its BatchNorm layers."""

    def __init__(self, channels: int, activation: nn.Module | None = None) -> None:
        """Normalise ``channels`` in up to 8 groups (their greatest common divisor with 8)."""
        super().__init__(math.gcd(GROUPS, channels), channels)
        self.activation = activation or nn.Identity()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in torch's own signature
        """Map [N, C, ...] to the same shape."""
        values: Tensor = self.activation(super().forward(input))
        return values


def with_per_image_norms(network: nn.Module) -> nn.Module:
    """Replace every BatchNorm inside ``network`` by a `PerImageNorm` of the same parameter count, in place."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                parent.add_module(name, PerImageNorm(child.num_features, getattr(child, "act", None)))
    return network


def fix_batch_statistics(module: nn.Module) -> None:
    """Put every BatchNorm inside ``module`` in evaluation mode: its running statistics become constants."""
    for child in module.modules():
        if isinstance(child, _BatchNorm):
            child.eval()


def use_batch_statistics(module: nn.Module) -> None:
    """Let every BatchNorm inside ``module`` normalise with the statistics of the batch it sees, at test time as well.

    Its running statistics are given up, so that running it changes nothing in it.
    """
    for child in module.modules():
        if isinstance(child, _BatchNorm):
            child.track_running_stats = False
            child.running_mean = child.running_var = child.num_batches_tracked = None
