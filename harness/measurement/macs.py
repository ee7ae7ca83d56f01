"""Multiply-accumulates of a network, and why thop counts others."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lite_bench.harness.measurement.counting import Tally, count, counting


@torch.no_grad()
def count_macs(network: Callable[[Tensor], Tensor], images: Tensor) -> int:
    """Count the multiply-accumulates of ``network(images)``, forward only; see `macs_of`."""
    return macs_of(lambda: network(images))


def macs_of(work: Callable[[], object]) -> int:
    """Run ``work`` and count its multiply-accumulates, backward included; what has no rule counts 0.

    See `lite_bench.harness.measurement.counting`, which names what it has no rule for.
    """
    return count(work).macs


@dataclass(frozen=True)
class Cause:
    """One kind of layer that thop and we count differently.

    Attributes:
        layer: name of the class; what a class runs outside of the layers inside it counts as its own.
        ours: its multiply-accumulates.
        thop: what thop counts for it.
    """

    layer: str
    ours: int
    thop: int

    @property
    def difference(self) -> int:
        """By how much ours is more."""
        return self.ours - self.thop

    def __str__(self) -> str:
        """Say what is different."""
        if not self.ours:
            return f"thop counts {self.thop} for {self.layer}, which multiplies no weights"
        if not self.thop:
            return f"thop misses the {self.ours} of {self.layer}"
        return f"thop counts {self.thop} for {self.layer}, not {self.ours}"


@dataclass(frozen=True)
class ThopComparison:
    """Multiply-accumulates of a network by two counters.

    Attributes:
        ours: counted as in `count_macs`.
        thop: counted by thop.
        causes: all kinds of layers that are counted differently, the largest difference first; their differences add
            up to ``ours - thop``.
    """

    ours: int
    thop: int
    causes: tuple[Cause, ...]


@torch.no_grad()
def explain_thop(network: nn.Module, pixels: Tensor) -> ThopComparison:
    """Count ``network(pixels)`` in both ways and find the kinds of layers that make the difference.

    Args:
        network: to count; it is left as it is, in evaluation mode only while it is counted.
        pixels: its input.

    Raises:
        ImportError: thop is not installed.
    """
    network = copy.deepcopy(network).eval()
    with counting() as tally, _watched(network, tally) as own:
        network(pixels)
    total, layers = _thop_profile(copy.deepcopy(network), pixels)
    ours: dict[str, int] = {}
    theirs: dict[str, int] = {}
    seen: set[nn.Module] = set()
    for module, macs, whole in _thop_units(network, total, layers):
        name = type(module).__name__
        theirs[name] = theirs.get(name, 0) + macs
        parts = [m for m in (module.modules() if whole else [module]) if m not in seen]
        ours[name] = ours.get(name, 0) + sum(own.get(part, 0) for part in parts)
        seen.update(parts)
    causes = [Cause(name, ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]]
    causes.sort(key=lambda cause: (-abs(cause.difference), cause.layer))
    return ThopComparison(tally.macs, total, tuple(causes))


Layers = Mapping[str, tuple[float, float, Any]]
"""What thop gives for the children of a module: multiply-accumulates, parameters, and the same for their children."""


def _thop_profile(network: nn.Module, pixels: Tensor) -> tuple[int, Layers]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import thop

        macs, _, layers = thop.profile(network, inputs=(pixels,), verbose=False, ret_layer_info=True)
    return int(macs), layers


def _thop_units(module: nn.Module, macs: int, layers: Layers) -> Iterator[tuple[nn.Module, int, bool]]:
    """Go through the modules as thop does; gives what it counts for each, and whether that is for all inside too."""
    inside = {name: int(layer[0]) for name, layer in layers.items()}
    yield module, macs - sum(inside.values()), not layers
    for name, child in module.named_children():
        if name in layers:
            yield from _thop_units(child, inside[name], layers[name][2])


@contextmanager
def _watched(network: nn.Module, tally: Tally) -> Iterator[dict[nn.Module, int]]:
    """Collect what every module runs itself, outside of the modules it calls."""
    own: dict[nn.Module, int] = {}
    running: list[tuple[int, list[int]]] = []  # of each module that runs: the count before it, and what it called

    def before(module: nn.Module, args: Any) -> None:
        del module, args
        running.append((tally.macs, []))

    def after(module: nn.Module, args: Any, result: Any) -> None:
        del args, result
        start, called = running.pop()
        whole = tally.macs - start
        own[module] = own.get(module, 0) + whole - sum(called)
        if running:
            running[-1][1].append(whole)

    handles: list[RemovableHandle] = []
    for module in network.modules():
        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        yield own
    finally:
        for handle in handles:
            handle.remove()
