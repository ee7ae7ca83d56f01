"""The deep set encoder of CNAPs and Simple CNAPs: images to one task embedding."""

from __future__ import annotations

import itertools
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lite_bench.models.normalisation import PerImageNorm
from lite_bench.models.pixels import Pixels, normalised

EMBEDDING = 64
BLOCKS = 5
SMALLEST_IMAGE = 2**BLOCKS
Statistics = Literal["image", "fixed", "batch"]


class SetEncoder(nn.Module):
    """Five blocks of 3x3 convolution (64 filters, bias), normalisation, ReLU and 2x2 max-pool; global average.

    The task embedding is the plain mean of the outputs over the support set. 150,144 parameters.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, statistics: Statistics = "image") -> None:
        """Build the network.

        Args:
            mean: [1, 3, 1, 1] (or [1, 1, 1, 1] for grey networks), subtracted from images on the 0 to 1 scale.
            std: same shape, divided by.
            statistics: ``image`` (GroupNorm, the default) and ``fixed`` (BatchNorm on its constant running statistics)
                see each image alone; ``batch`` is the released code's BatchNorm on batch statistics, even at test.
        """
        super().__init__()
        self.statistics = statistics
        self.register_buffer("mean", mean.expand(1, 3, 1, 1).clone(), persistent=False)
        self.register_buffer("std", std.expand(1, 3, 1, 1).clone(), persistent=False)
        widths = [3] + [EMBEDDING] * BLOCKS
        blocks = (self._block(a, b) for a, b in itertools.pairwise(widths))
        self.blocks = nn.Sequential(*blocks).to(memory_format=torch.channels_last)
        self.pool = nn.AdaptiveAvgPool2d(1)  # a layer of its own, because published costs count it
        self.train(self.training)

    def _block(self, n_in: int, n_out: int) -> nn.Sequential:
        norm: nn.Module = PerImageNorm(n_out)
        if self.statistics != "image":
            # Batch statistics are never averaged for later use: gathering them would change the learner in `adapt`.
            norm = nn.BatchNorm2d(n_out, track_running_stats=self.statistics == "fixed")
        # ReLU and max-pool commute; pooling first leaves a quarter of the values to rectify and to keep.
        return nn.Sequential(nn.Conv2d(n_in, n_out, 3, padding=1), norm, nn.MaxPool2d(2), nn.ReLU())

    def train(self, mode: bool = True) -> SetEncoder:
        """Switch mode; the statistics used are those of ``statistics`` in both."""
        super().train(mode if self.statistics == "image" else self.statistics == "batch")
        return self

    def forward(self, images: Pixels[Tensor, "N 3 S S"]) -> Float[Tensor, "N 64"]:
        """Embed each image."""
        maps = self.blocks(normalised(images, self.mean, self.std))
        return cast("Tensor", self.pool(maps).flatten(1).to(self.mean.dtype))
