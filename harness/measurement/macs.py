"""Multiply-accumulates of a network, counted by running it."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@torch.no_grad()
def count_macs(network: Callable[[Tensor], Tensor], images: Tensor) -> int:
    """Count the multiply-accumulates of ``network(images)``, forward only; see `macs_of`."""
    return macs_of(lambda: network(images))


def macs_of(work: Callable[[], object]) -> int:
    """Count the multiply-accumulates of convolutions, matrix products and attention in ``work``, backward included.

    Attention is forced onto its plain form: fused kernels are invisible to the counter on the CPU. Factorisations and
    triangular solves are not counted.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops()) // 2


@torch.no_grad()
def count_macs_with_thop(network: nn.Module, pixels: Tensor) -> int | None:
    """Count the same with thop, as a cross-check; None where thop fails.

    It counts normalisation, activations and pooling too, and misses attention and modules it does not know.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import thop

            macs, _ = thop.profile(network, inputs=(pixels,), verbose=False)
    except Exception:
        return None
    return int(macs)
