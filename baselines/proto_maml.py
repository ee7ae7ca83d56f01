"""ProtoMAML: first-order MAML whose head starts at the class means of the task."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lite_bench.baselines.adapted_network import AdaptedNetwork, NetworkAdapter
from lite_bench.baselines.inner_loop import TaskCopy, first_order, refuse_rates, refuse_steps
from lite_bench.harness.core import Encode, Support, TaskSizes
from lite_bench.models.backbones import Backbone
from lite_bench.models.class_statistics import class_means
from lite_bench.models.normalisation import fix_batch_statistics
from lite_bench.models.precision import full_precision


class ProtoMAML(NetworkAdapter):
    """First-order MAML from a head that is ProtoNets' classifier: a few steps on backbone and head (ProtoMAML).

    Eleni Triantafillou et al.: Meta-Dataset: A Dataset of Datasets for Learning to Learn from Few Examples, ICLR 2020.

    With the prototypes p_c, the class means of the support features, the head starts at weight 2 p_c and bias
    -||p_c||^2, which is the softmax over -||f - p_c||^2. Backbone and head then take steps of one rate on the mean
    cross-entropy of the whole support set. The derivative of the steps is left out, that of the starting point is not:
    the query gradient at the adapted head goes on through the prototypes into the backbone, by `encode`, so that the
    estimators of the support gradient apply to it; the query gradient at the adapted backbone is applied to the initial
    one.

    Scales and shifts of normalisation layers are meta-trained but take no inner steps. BatchNorm uses fixed statistics
    throughout; the published runs normalise support and queries of a task with the statistics of its support set.
    The defaults are the published ones for training on all sources of Meta-Dataset.
    """

    default_lr: ClassVar[float] = 3.0e-4
    meta_trained: ClassVar[bool] = True
    passes: str = "1F+6FB"

    def __init__(self, backbone: Backbone, *, steps: int = 6, train_steps: int = 1, inner_lr: float = 0.0199) -> None:
        """Set up the learner.

        Args:
            backbone: the network whose initial weights are learned.
            steps: inner SGD steps per task in evaluation; with 0 this is ProtoNets.
            train_steps: inner SGD steps per task in meta-training.
            inner_lr: their learning rate, for backbone and head.

        Raises:
            UsageError: a number of steps is negative.
        """
        super().__init__()
        refuse_steps(steps=steps, train_steps=train_steps)
        refuse_rates(inner_lr=inner_lr)
        self.backbone = backbone
        self.steps = steps
        self.train_steps = train_steps
        self.inner_lr = inner_lr
        self.passes = f"1F+{steps}FB" if steps else "1F"
        self.train(self.training)

    def train(self, mode: bool = True) -> ProtoMAML:
        """Switch mode; BatchNorm stays on fixed statistics."""
        super().train(mode)
        fix_batch_statistics(self)
        return self

    def published_macs(self, sizes: TaskSizes, network_macs: Callable[[nn.Module], int]) -> int:
        """Count the start as ORBIT's Table 1 counts ProtoNets, and every step as it counts MAML's.

        The table has no row of this learner. It counts a backward pass as much as a forward pass, and applying the head
        not at all.
        """
        n, way, features = sizes.items, sizes.way, self.backbone.features
        forward, pooling = sizes.images * network_macs(self.backbone), sizes.images * features
        start = forward + pooling + way * n + n * features + 3 * way * features
        return start + self.steps * (2 * forward + pooling)

    def adapt(self, support: Support, encode: Encode) -> AdaptedNetwork:
        """Start at the prototypes and take the inner steps.

        Raises:
            DivergedError: the loss of a step was not finite.
        """
        features = encode(self.backbone, support.images)
        with full_precision(features):
            weight, bias = prototype_head(class_means(features, support.labels, support.way))
        initial = parameters_outside_normalisation(self.backbone.network)
        own = TaskCopy.of(self.backbone, [weight, bias], parameters=initial)
        optimizer = torch.optim.SGD(own.groups(self.inner_lr, self.inner_lr))
        own.descend(support, encode.chunk, optimizer, self.train_steps if self.training else self.steps)
        return AdaptedNetwork(
            {name: first_order(start, own.weights[name]) for name, start in initial.items()},
            first_order(weight, own.head[0]),
            first_order(bias, own.head[1]),
        )


def prototype_head(means: Float[Tensor, "C D"]) -> tuple[Float[Tensor, "C D"], Float[Tensor, " C"]]:
    """Give the weight and bias of the linear layer that has the softmax of -||f - p_c||^2; ||f||^2 drops out of it."""
    return 2 * means, -means.square().sum(1)


def parameters_outside_normalisation(network: nn.Module) -> dict[str, nn.Parameter]:
    """Give the parameters of ``network`` that belong to no normalisation layer, by name.

    A normalisation layer is one with ``Norm`` in the name of its type, as all of torch and timm have: they share no
    base class.
    """
    layers = [module for module in network.modules() if "norm" in type(module).__name__.lower()]
    theirs = {id(parameter) for layer in layers for parameter in layer.parameters(recurse=False)}
    return {name: parameter for name, parameter in network.named_parameters() if id(parameter) not in theirs}
