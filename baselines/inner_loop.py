"""Gradient steps on a task's own copy of a network and a head: what MAML and its kin and whole-network tuning share.

Shape letters: N support items, C way, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from lite_bench.harness.clips import per_item
from lite_bench.harness.core import Support, stable_key
from lite_bench.harness.errors import DivergedError, UsageError
from lite_bench.harness.repetition import repeated
from lite_bench.models.backbones import Backbone
from lite_bench.models.precision import full_precision

HeadLogits = Callable[[Tensor, Sequence[Tensor]], Tensor]
"""Gives logits [n, C] from features [n, D] and the tensors of a head."""


def linear_logits(features: Tensor, head: Sequence[Tensor]) -> Tensor:
    """Apply a head of weight [C, D] and bias [C]."""
    return linear(features, *head)


def own_copy(tensor: Tensor) -> Tensor:
    """Copy ``tensor`` as a leaf of its own that takes a gradient."""
    return tensor.detach().clone().requires_grad_()


def item_weights(losses: Tensor, chunk: int, *, sum_batches: bool) -> Tensor:
    """Weigh the losses [N] of single items: 1/N each, or with ``sum_batches`` one over the size of the item's chunk."""
    n = len(losses)
    if not sum_batches:
        return torch.full_like(losses, 1 / n)
    sizes = [len(part) for part in torch.split(losses, chunk)]
    return torch.cat([losses.new_full((size,), 1 / size) for size in sizes])


@dataclass
class TaskCopy:
    """Weights of a backbone and a head that belong to one task and are changed in place.

    Attributes:
        backbone: the network they are used in; its own weights stay as they are.
        weights: the parameters that adapt, by their name in ``backbone.network``, leaves.
        head: tensors of the head, leaves.
        logits: applies the head.
        losses: of every step so far, [] each, on the device.
    """

    backbone: Backbone
    weights: dict[str, Tensor]
    head: list[Tensor]
    logits: HeadLogits = linear_logits
    losses: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        head: Sequence[Tensor],
        logits: HeadLogits = linear_logits,
        parameters: Mapping[str, Tensor] | None = None,
    ) -> TaskCopy:
        """Copy ``parameters`` (by default all of ``backbone.network``) and ``head``."""
        chosen = dict(backbone.network.named_parameters()) if parameters is None else parameters
        return cls(backbone, {name: own_copy(p) for name, p in chosen.items()}, [own_copy(h) for h in head], logits)

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors that adapt."""
        return [*self.weights.values(), *self.head]

    def gradients(self, images: Tensor, labels: Tensor, chunk: int, *, sum_batches: bool = False) -> None:
        """Set the ``.grad`` of all tensors to that of the mean cross-entropy of some items, and note the loss.

        Args:
            images: items [n, ...].
            labels: int64 [n], or probabilities of the classes [n, C].
            chunk: items that travel through the network at once.
            sum_batches: sum the means of the chunks, as published codes do, so that the chunk is a setting.
        """
        torch.clear_autocast_cache()  # it keeps casts of the weights from before the last step
        targets = self.tensors
        total = [torch.zeros_like(t) for t in targets]
        whole = labels.new_zeros((), dtype=torch.float64 if targets[0].dtype == torch.float64 else torch.float32)
        for part, own in zip(torch.split(images, chunk), torch.split(labels, chunk), strict=True):
            with torch.enable_grad():
                features = per_item(partial(self.backbone, parameters=self.weights), part)
                with full_precision(features):  # the backward pass too: autocast would act on it as well
                    loss = cross_entropy(self.logits(features, self.head), own, reduction="sum")
                    loss = loss / (len(own) if sum_batches else len(labels))
                    gradients = torch.autograd.grad(loss, targets, allow_unused=True)
            whole += loss.detach()
            for sum_, gradient in zip(total, gradients, strict=True):
                if gradient is not None:
                    sum_.add_(gradient)
        for target, gradient in zip(targets, total, strict=True):
            target.grad = gradient
        self.losses.append(whole)

    def descend(
        self, support: Support, chunk: int, optimizer: torch.optim.Optimizer, steps: int, *, sum_batches: bool = False
    ) -> None:
        """Take ``steps`` steps of ``optimizer``, which holds the tensors, on the whole support set.

        Raises:
            DivergedError: a loss was not finite.
        """
        for _ in repeated(steps):
            self.gradients(support.images, support.labels, chunk, sum_batches=sum_batches)
            optimizer.step()
        refuse_divergence(self.losses)

    def groups(self, head_lr: float, backbone_lr: float) -> list[dict[str, Any]]:
        """Give parameter groups of an optimizer."""
        return [{"params": list(self.weights.values()), "lr": backbone_lr}, {"params": self.head, "lr": head_lr}]


def refuse_divergence(losses: Sequence[Tensor]) -> None:
    """Check all losses of an inner loop at once, after it, so that a GPU is waited for once.

    Args:
        losses: one number per step.

    Raises:
        DivergedError: one of them is not finite.
    """
    finite = torch.stack([loss.detach() for loss in losses]).isfinite() if losses else torch.ones(1, dtype=torch.bool)
    if bool(finite.all()):
        return
    first = int(finite.int().argmin())
    raise DivergedError(
        f"The inner loop diverged: the loss is {float(losses[first]):g} at step {first + 1} of {len(losses)}; use "
        "lower inner learning rates (see the learner's options)."
    )


def refuse_steps(**steps: int) -> None:
    """Check options that are numbers of steps, given by their names.

    Raises:
        UsageError: one is negative.
    """
    for option, number in steps.items():
        if number < 0:
            raise UsageError(f"-P {option}={number} is not usable: give a number of steps, or 0 to take none.")


def refuse_rates(**rates: float) -> None:
    """Check options that are learning rates, bounds or scales, given by their names.

    Raises:
        UsageError: one is not positive.
    """
    for option, number in rates.items():
        if not number > 0:
            raise UsageError(f"-P {option}={number:g} is not usable: give a number above 0.")


class _FirstOrder(torch.autograd.Function):
    """Adapted weights forward; the identity backward, so their gradient reaches the initial weights as it is."""

    @staticmethod
    def forward(ctx: Any, initial: Tensor, adapted: Tensor, clamp: float) -> Tensor:
        """Return the adapted weights."""
        del initial
        ctx.clamp = clamp
        return adapted.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Copy the gradient, clamped elementwise."""
        return gradients[0].clamp(-ctx.clamp, ctx.clamp), None, None


def first_order(initial: Tensor, adapted: Tensor, clamp: float = float("inf")) -> Tensor:
    """Give ``adapted``, whose gradient goes to ``initial`` unchanged but for an elementwise bound."""
    result: Tensor = _FirstOrder.apply(initial, adapted.detach(), clamp)
    return result


def content_order(images: Tensor) -> tuple[Tensor, int]:
    """Put items in an order of their own, so that what is drawn for them does not depend on the one they come in.

    Labels play no part, so that renaming the classes changes nothing either. Items that are equal to the last bit keep
    the order they come in.

    Args:
        images: items [N, ...].

    Returns:
        int64 [N] on the CPU, the items by the SHA-256 of their bytes; and a 63-bit key of the set, to draw by.
    """
    digests = [hashlib.sha256(item.cpu().numpy().tobytes()).hexdigest() for item in images]
    order = sorted(range(len(digests)), key=digests.__getitem__)
    return torch.tensor(order), stable_key(*(digests[row] for row in order))


def mini_batches(order: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Cut random permutations of ``order``, one after another, into batches; a batch may span two of them.

    Args:
        order: int64 [N].
        size: items of a batch, at least 1; from N on, every batch is ``order`` itself.
        generator: draws the permutations, on the CPU.

    Yields:
        int64 [min(size, N)], without end.
    """
    waiting = order[:0]
    while True:
        if size >= len(order):
            yield order
            continue
        if len(waiting) < size:
            waiting = torch.cat([waiting, order[torch.randperm(len(order), generator=generator)]])
        yield waiting[:size]
        waiting = waiting[size:]
