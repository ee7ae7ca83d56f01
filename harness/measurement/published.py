"""Multiply-accumulates as the published costs of ORBIT and of the LITE paper's Table 1 count them.

Those costs came from one release of a counter, thop, that knows some kinds of layers and takes all others for free.
The rules, one output element at a time: a convolution costs input channels / groups x kernel area, and one more if it
has a bias; a normalisation over the batch 2, and so does the per-image one that takes its place here; an adaptive
average pool the area of its window plus one; a linear layer its inputs, whatever its bias. All else costs nothing:
activations, other pooling, LayerNorm, sums and products of maps, attention.

These figures are for standing beside published ones. What a program really computes is counted in
`lite_bench.harness.measurement.macs`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd

from lite_bench.harness.core import Learner, TaskSizes
from lite_bench.harness.errors import IncompatibleError

PER_NORMALISED_ELEMENT = 2
NetworkMacs = Callable[[nn.Module], int]
"""Gives the multiply-accumulates of one image in a network."""


@torch.no_grad()
def published_macs(network: nn.Module, image_size: int) -> int:
    """Count the multiply-accumulates of one image by the published rules; the network is left as it was.

    Args:
        network: maps images uint8 [1, 3, S, S]; counted in evaluation mode.
        image_size: side S in pixels.
    """
    counts: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counts.append(_layer_macs(module, inputs[0], output))

    hooks = [module.register_forward_hook(count) for module in network.modules() if isinstance(module, COUNTED)]
    place = next((tensor.device for tensor in _tensors(network)), torch.device("cpu"))
    try:
        with evaluation_mode(network):
            network(torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8, device=place))
    finally:
        for hook in hooks:
            hook.remove()
    return sum(counts)


COUNTED = (_ConvNd, nn.Linear, _BatchNorm, nn.GroupNorm, _AdaptiveAvgPoolNd)


def _layer_macs(module: nn.Module, values: Tensor, output: Tensor) -> int:
    """Count one call of one of `COUNTED`."""
    if isinstance(module, _ConvNd):
        own = module.in_channels // module.groups * math.prod(module.kernel_size) + (module.bias is not None)
        return output.numel() * own
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    if isinstance(module, _AdaptiveAvgPoolNd):
        window = math.prod(a // b for a, b in zip(values.shape[2:], output.shape[2:], strict=True))
        return output.numel() * (window + 1)
    return output.numel() * PER_NORMALISED_ELEMENT


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Put ``network`` in evaluation mode, and every module in it back into its own mode afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def linear_macs(module: nn.Module) -> int:
    """Count one row of values through every linear layer inside ``module``, by the published rules."""
    return sum(layer.in_features * layer.out_features for layer in module.modules() if isinstance(layer, nn.Linear))


def network_counter(image_size: int) -> NetworkMacs:
    """Give a counter of networks on images of ``image_size`` pixels that runs each network only once."""
    known: dict[nn.Module, int] = {}

    def count(network: nn.Module) -> int:
        if network not in known:
            known[network] = published_macs(network, image_size)
        return known[network]

    return count


def mean_task_macs(learner: Learner, tasks: Iterable[TaskSizes], network_macs: NetworkMacs) -> float:
    """Average what adapting ``learner`` to tasks costs by the published rules.

    Args:
        learner: with the method ``published_macs``.
        tasks: sizes of their support sets.
        network_macs: see `network_counter`.

    Raises:
        IncompatibleError: the learner does not say how it is counted.
    """
    own = getattr(learner, "published_macs", None)
    if own is None:
        raise IncompatibleError(
            f"Learner {type(learner).__name__} does not say what adapting costs as published tables count it; give it "
            "the method published_macs(sizes, network_macs)."
        )
    numbers = Counter(tasks)
    return sum(number * int(own(sizes, network_macs)) for sizes, number in numbers.items()) / numbers.total()
