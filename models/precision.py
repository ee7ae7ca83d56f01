"""Mixed precision: networks may run in bfloat16, heads and statistics in float32 or better."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(like: Tensor) -> torch.autocast:
    """Give a context in which autocast is off on the device of ``like``."""
    return torch.autocast(like.device.type, enabled=False)
