"""The type of images: bytes, or float32 on the same scale where a protocol resizes without rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

__all__ = ["Pixels", "normalised"]

if TYPE_CHECKING:
    from typing import Annotated as Pixels
else:
    from jaxtyping import AbstractDtype

    class Pixels(AbstractDtype):
        """Values from 0 to 255, as uint8 or float32."""

        dtypes = ("uint8", "float32")


def normalised(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Map images of values 0 to 255 to ``(images / 255 - mean) / std``, in the type of ``mean`` and never in place.

    Args:
        images: uint8 or float32 [N, channels, S, S].
        mean: per channel, [1, channels, 1, 1], on the 0 to 1 scale; one value means grey images.
        std: likewise.

    Returns:
        [N, channels of ``mean``, S, S], channels last in memory.
    """
    pixels = images.to(mean.dtype, copy=True).div_(255)
    if mean.shape[1] == 1:
        pixels = pixels.mean(1, keepdim=True)
    return pixels.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)
