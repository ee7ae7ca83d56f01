"""A module's buffers, such as running statistics, kept and put back around work that must leave no trace in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def copy_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Copy all buffers, by name."""
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


def put_back(module: nn.Module, buffers: dict[str, Tensor]) -> None:
    """Set the buffers of ``module`` to copies made before."""
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            buffer.copy_(buffers[name])


@contextmanager
def kept_buffers(module: nn.Module) -> Iterator[None]:
    """Put the buffers of ``module`` back after a block, however it ends."""
    buffers = copy_buffers(module)
    try:
        yield
    finally:
        put_back(module, buffers)
