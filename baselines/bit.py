"""Big Transfer: fine-tuning of a whole pretrained network by a rule for all settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, one_hot

from lite_bench.baselines.adapted_network import AdaptedNetwork, NetworkAdapter
from lite_bench.baselines.inner_loop import (
    TaskCopy,
    content_order,
    mini_batches,
    refuse_divergence,
    refuse_rates,
)
from lite_bench.harness.core import Encode, Support
from lite_bench.harness.errors import IncompatibleError, UsageError
from lite_bench.harness.repetition import repeated
from lite_bench.models.backbones import Backbone
from lite_bench.models.pixels import Pixels

BASE_LR = 0.003
BATCH = 512
MOMENTUM = 0.9


@dataclass(frozen=True)
class Schedule:
    """How long to fine-tune, and how the learning rate goes.

    Attributes:
        steps: in all.
        warmup: steps in which the rate rises linearly from 0.
        drops: steps, counted from 0, from which on the rate is a tenth of what it was.
        mixup: parameter of MixUp's Beta distribution; 0 mixes nothing.
    """

    steps: int
    warmup: int
    drops: tuple[int, int, int]
    mixup: float

    def scaled(self, steps: int) -> Schedule:
        """Give the same schedule in ``steps`` steps; warm-up is rounded down, drops are rounded up."""
        first, second, third = (-(-drop * steps // self.steps) for drop in self.drops)
        return Schedule(steps, self.warmup * steps // self.steps, (first, second, third), self.mixup)


RULE = (
    (20_000, Schedule(500, 100, (200, 300, 400), 0.0)),
    (500_000, Schedule(10_000, 500, (3_000, 6_000, 9_000), 0.1)),
)
"""Schedules of training sets of fewer items than a number."""
LARGEST = Schedule(20_000, 500, (6_000, 12_000, 18_000), 0.1)


def schedule(n: int, steps: int = 0) -> Schedule:
    """Give the schedule of the BiT-HyperRule.

    Args:
        n: items of the training set.
        steps: shrink or stretch it to so many steps; 0 keeps it.
    """
    rule = next((rule for limit, rule in RULE if n < limit), LARGEST)
    return rule.scaled(steps) if steps else rule


def learning_rate(step: int, n: int, base: float = BASE_LR, steps: int = 0) -> float:
    """Give the learning rate of a step of the BiT-HyperRule; that of step 0 is 0.

    Args:
        step: counted from 0.
        n: items of the training set.
        base: rate after the warm-up.
        steps: as in `schedule`.
    """
    plan = schedule(n, steps)
    if step < plan.warmup:
        return base * step / plan.warmup
    return float(base / 10 ** sum(step >= drop for drop in plan.drops))


@dataclass(frozen=True)
class Resolution:
    """Sides in pixels: images are resized to ``resize`` and cropped at random to ``crop``; queries have ``crop``."""

    resize: int
    crop: int


SMALL, LARGE = Resolution(160, 128), Resolution(512, 480)
SMALL_AREA = 96 * 96


def resolution(height: int, width: int) -> Resolution:
    """Give the BiT-HyperRule's resolution for original images of so many pixels; ``resize`` is what to ask a suite for.

    Only who knows the originals can follow it: the images of a task have the suite's size already.
    """
    return SMALL if height * width < SMALL_AREA else LARGE


def crop_side(side: int) -> int:
    """Give the side of crops from images of ``side`` pixels, in the proportion of the resolution they may come from.

    128 of 160 up to that side, 480 of 512 above.
    """
    like = SMALL if side <= SMALL.resize else LARGE
    return side * like.crop // like.resize


class BiT(NetworkAdapter):
    """The whole network fine-tuned by a rule of the support set's size (Big Transfer, BiT).

    Alexander Kolesnikov et al.: Big Transfer (BiT): General Visual Representation Learning, ECCV 2020.

    The whole network and a linear head that starts from zero are fine-tuned on the support set by SGD with momentum, at
    rates and for a number of steps that depend on its size alone. Nothing is meta-trained.

    A step takes the whole support set, or random batches of ``inner_batch`` where it is larger; it accumulates over
    chunks weighted by their size, so that memory is one chunk. What is drawn depends on the images alone, neither on
    their order (of images that differ) nor on their labels. BatchNorm, where a backbone has it, uses fixed statistics.
    """

    meta_trained: ClassVar[bool] = False
    passes: str = "500FB"

    def __init__(
        self,
        backbone: Backbone,
        *,
        steps: int = 0,
        inner_lr: float = BASE_LR,
        inner_batch: int = BATCH,
        mixup: float | None = None,
        augment: bool = False,
    ) -> None:
        """Set up the learner.

        Args:
            backbone: the pretrained network.
            steps: steps per task, with warm-up and drops in proportion; 0 for the published number: 500 below 20,000
                support items, then 10,000, from 500,000 on 20,000.
            inner_lr: learning rate after the warm-up.
            inner_batch: most support items of a step.
            mixup: parameter of MixUp's Beta distribution; 0 mixes nothing. By default 0 below 20,000 support items,
                else 0.1.
            augment: random crops of 15/16 of the side (4/5 up to 160 pixels) and random flips; queries are resized to
                that size. Otherwise images are taken as they are.

        Raises:
            UsageError: a number is out of range.
            IncompatibleError: the backbone cannot take the smaller images of ``augment``.
        """
        super().__init__()
        if steps < 0:
            raise UsageError(f"-P steps={steps} is not usable: give a number of steps, or 0 for the published number.")
        if inner_batch < 1:
            raise UsageError(f"-P inner_batch={inner_batch} is not usable: a step needs at least 1 support item.")
        refuse_rates(inner_lr=inner_lr)
        if mixup is not None and mixup < 0:
            raise UsageError(f"-P mixup={mixup:g} is not usable: give a positive number, or 0 to mix nothing.")
        self.backbone = backbone.requires_grad_(False)
        self.steps = steps
        self.inner_lr = inner_lr
        self.inner_batch = inner_batch
        self.mixup = mixup
        self.crop = crop_side(backbone.image_size) if augment else 0
        self.passes = f"{steps or RULE[0][1].steps}FB"
        self.train(self.training)
        if augment:
            check_side(backbone, self.crop)

    def train(self, mode: bool = True) -> BiT:
        """Switch mode; the backbone, which is never meta-trained, stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def adapt(self, support: Support, encode: Encode) -> AdaptedNetwork:
        """Fine-tune a copy of the network.

        Raises:
            DivergedError: the loss of a step was not finite.
        """
        n = len(support.labels)
        like = next(self.backbone.network.parameters())
        own = TaskCopy.of(
            self.backbone, [like.new_zeros(support.way, self.backbone.features), like.new_zeros(support.way)]
        )
        optimizer = torch.optim.SGD(own.tensors, lr=self.inner_lr, momentum=MOMENTUM)
        batches = self._batches(support, like.dtype)
        for step in repeated(schedule(n, self.steps).steps):
            own.gradients(*next(batches), encode.chunk)
            optimizer.param_groups[0]["lr"] = learning_rate(step, n, self.inner_lr, self.steps)
            optimizer.step()
        refuse_divergence(own.losses)
        weight, bias = own.head
        return AdaptedNetwork({name: w.detach() for name, w in own.weights.items()}, weight.detach(), bias.detach())

    def _batches(self, support: Support, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
        """Give the items and labels, or class probabilities of type ``dtype``, of one step after another."""
        n = len(support.labels)
        mixup = schedule(n).mixup if self.mixup is None else self.mixup
        if n <= self.inner_batch and not self.crop and not mixup:
            while True:
                yield support.images, support.labels
        order, key = content_order(support.images)
        generator, shares = torch.Generator().manual_seed(key), np.random.default_rng(key)
        for rows in mini_batches(order, self.inner_batch, generator):
            there = rows.to(support.images.device)
            images, labels = support.images[there], support.labels[there]
            if self.crop:
                images = random_views(images, self.crop, generator)
            if mixup:
                partners = torch.randperm(len(rows), generator=generator)
                targets = one_hot(labels, support.way).to(dtype)
                images, labels = mix(images, targets, partners.to(labels.device), shares.beta(mixup, mixup))
            yield images, labels

    def features(self, state: AdaptedNetwork, images: Pixels[Tensor, "M 3 S S"]) -> Float[Tensor, "M D"]:
        """Compute features of query images by the task's own backbone, at the size of the crops if there are any."""
        if self.crop:
            images = interpolate(images.float(), (self.crop, self.crop), mode="bilinear", antialias=True)
        return cast("Tensor", self.backbone(images, state.backbone))


def check_side(backbone: Backbone, side: int) -> None:
    """Refuse a backbone that cannot take images of ``side`` pixels.

    Raises:
        IncompatibleError: it cannot.
    """
    try:
        with torch.no_grad():
            features = backbone(torch.zeros(1, 3, side, side, dtype=torch.uint8)).shape[1]
        problem = None
    except (RuntimeError, AssertionError, ValueError) as error:
        features, problem = 0, error
    if features != backbone.features:
        raise IncompatibleError(
            f"-P augment=true crops images of {backbone.image_size} pixels to {side}, which backbone {backbone.name} "
            "cannot take, or gives features of another length for; leave it out, or choose a backbone for images of "
            "any size."
        ) from problem


def random_views(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Cut a random square out of every item, and mirror half of them.

    Args:
        images: items [n, ..., S, S]; frames of a clip are cut alike.
        side: of the squares, at most S.
        generator: on the CPU.

    Returns:
        [n, ..., side, side].
    """
    places = images.shape[-1] - side + 1
    corners = torch.randint(places, (len(images), 2), generator=generator).tolist()
    mirrored = torch.randint(2, (len(images),), generator=generator).tolist()
    views = [item[..., y : y + side, x : x + side] for item, (y, x) in zip(images, corners, strict=True)]
    return torch.stack([view.flip(-1) if flip else view for view, flip in zip(views, mirrored, strict=True)])


def mix(images: Tensor, targets: Tensor, partners: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Mix every item with another (Hongyi Zhang et al., mixup, ICLR 2018).

    Args:
        images: items [n, ...].
        targets: class probabilities [n, C].
        partners: int64 [n], whom to mix each with.
        share: of the item itself, 0 to 1; the partner has the rest.

    Returns:
        mixed items, float32 [n, ...], and their class probabilities [n, C].
    """
    pixels = images.float()
    return torch.lerp(pixels[partners], pixels, share), torch.lerp(targets[partners], targets, share)
