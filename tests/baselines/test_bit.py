"""BiT against a literal implementation: a copied network, torch.optim.SGD, torch's own schedulers."""

from __future__ import annotations

import copy
import hashlib
import math
import re
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.layers import GroupNormAct, StdConv2d
from timm.models.resnetv2 import ResNetV2
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR, MultiStepLR, SequentialLR

from lite_bench.baselines.bit import (
    BiT,
    Resolution,
    Schedule,
    crop_side,
    learning_rate,
    mix,
    random_views,
    resolution,
    schedule,
)
from lite_bench.harness.assembly import build_backbone
from lite_bench.harness.checks import check_learner
from lite_bench.harness.core import Support, stable_key
from lite_bench.harness.errors import DivergedError, IncompatibleError, UsageError
from lite_bench.models.backbones import Backbone
from lite_bench.models.encoding import FullEncode
from tests.models.toys import SIDE, build, clip_episode, tiny_episode

EPISODE = tiny_episode(n=9, way=3, m=7)
SMALL_SET = Schedule(500, 100, (200, 300, 400), 0.0)
MIDDLE_SET = Schedule(10_000, 500, (3_000, 6_000, 9_000), 0.1)
LARGE_SET = Schedule(20_000, 500, (6_000, 12_000, 18_000), 0.1)


def content_order(support: Support) -> tuple[list[int], int]:
    """Order items by the hash of their bytes, and give the key of the set."""
    digests = [hashlib.sha256(bytes(image.flatten().tolist())).hexdigest() for image in support.images]
    order = sorted(range(len(digests)), key=digests.__getitem__)
    return order, stable_key(*(digests[row] for row in order))


class Literal:
    """A copy of the network and a zero head under SGD, whose rate is set by torch's schedulers."""

    def __init__(self, learner: Any, way: int, warmup: int, drops: tuple[int, ...], lr: float) -> None:
        self.body = copy.deepcopy(learner.backbone).requires_grad_(True)
        self.head = nn.Linear(self.body.features, way).double()
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.optimizer = torch.optim.SGD([*self.body.parameters(), *self.head.parameters()], lr=lr, momentum=0.9)
        rising = LambdaLR(self.optimizer, lambda step: step / warmup)
        falling = MultiStepLR(self.optimizer, [drop - warmup for drop in drops], gamma=0.1)
        self.scheduler = SequentialLR(self.optimizer, [rising, falling], milestones=[warmup])

    def logits(self, images: Tensor) -> Tensor:
        result: Tensor = self.head(self.body(images))
        return result

    def step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.scheduler.step()

    def compare(self, state: Any) -> None:
        for name, parameter in self.body.network.named_parameters():
            torch.testing.assert_close(state.backbone[name], parameter.detach(), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(state.weight, self.head.weight.detach(), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(state.bias, self.head.bias.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("chunk", [2, 100])
@pytest.mark.parametrize("gradients", [True, False])
def test_fine_tuning_is_the_literal_one_whatever_the_chunk(chunk: int, gradients: bool) -> None:
    """25 steps are a twentieth of 500: warm-up in 5, drops at 10, 15 and 20."""
    learner = build(BiT, steps=25, inner_lr=0.3)
    with torch.set_grad_enabled(gradients):
        state = learner.adapt(EPISODE.support, FullEncode(chunk))
    reference = Literal(learner, 3, warmup=5, drops=(10, 15, 20), lr=0.3)
    start = [p.detach().clone() for p in reference.body.network.parameters()]
    for _ in range(25):
        reference.step(cross_entropy(reference.logits(EPISODE.support.images), EPISODE.support.labels))
    reference.compare(state)
    moved = [
        float((a - b).detach().abs().max()) for a, b in zip(start, reference.body.network.parameters(), strict=True)
    ]
    assert min(moved) > 1e-3  # all of the network learns
    (batch,) = EPISODE.query
    found = learner.classify(state, batch.images)
    torch.testing.assert_close(found, reference.logits(batch.images).detach(), rtol=1e-10, atol=1e-12)
    assert not found.requires_grad


def test_the_published_rule_is_taken_unless_steps_are_given() -> None:
    learner = build(BiT)
    state = learner.adapt(tiny_episode(n=2).support, FullEncode(100))
    reference = Literal(learner, 2, warmup=100, drops=(200, 300, 400), lr=0.003)
    support = tiny_episode(n=2).support
    for _ in range(500):
        reference.step(cross_entropy(reference.logits(support.images), support.labels))
    reference.compare(state)


def test_large_support_sets_are_taken_in_random_batches() -> None:
    learner = build(BiT, steps=10, inner_lr=0.3, inner_batch=4)
    state = learner.adapt(EPISODE.support, FullEncode(3))
    reference = Literal(learner, 3, warmup=2, drops=(4, 6, 8), lr=0.3)
    order, key = content_order(EPISODE.support)
    generator = torch.Generator().manual_seed(key)
    stream = [order[place] for _ in range(5) for place in torch.randperm(9, generator=generator).tolist()]
    for step in range(10):
        rows = stream[4 * step : 4 * step + 4]
        reference.step(cross_entropy(reference.logits(EPISODE.support.images[rows]), EPISODE.support.labels[rows]))
    reference.compare(state)


def test_mixup_is_the_mean_of_two_losses_on_mixed_images() -> None:
    learner = build(BiT, steps=10, inner_lr=0.3, mixup=0.7)
    state = learner.adapt(EPISODE.support, FullEncode(4))
    reference = Literal(learner, 3, warmup=2, drops=(4, 6, 8), lr=0.3)
    order, key = content_order(EPISODE.support)
    generator, shares = torch.Generator().manual_seed(key), np.random.default_rng(key)
    images, labels = EPISODE.support.images[order].float(), EPISODE.support.labels[order]
    for _ in range(10):
        other, share = torch.randperm(9, generator=generator), shares.beta(0.7, 0.7)
        logits = reference.logits(share * images + (1 - share) * images[other])
        loss = share * cross_entropy(logits, labels) + (1 - share) * cross_entropy(logits, labels[other])
        reference.step(loss)
    for name, parameter in reference.body.network.named_parameters():  # images are mixed in float32
        torch.testing.assert_close(state.backbone[name], parameter.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state.weight, reference.head.weight.detach(), rtol=1e-5, atol=1e-6)


def test_large_sets_are_mixed_unless_told_otherwise() -> None:
    """What a step sees, of support items of one pixel each: values in proportion to the labels, or as they are."""
    n = 20_000
    images = torch.arange(n).remainder(2).mul(200).to(torch.uint8).view(n, 1, 1, 1)
    support = Support(images, torch.arange(n).remainder(2), 2)
    for mixup, mixed in ((None, True), (0.0, False)):
        batches = build(BiT, mixup=mixup)._batches(support, torch.float32)
        seen = [next(batches) for _ in range(3)]
        assert all(len(pixels) == len(labels) == 512 for pixels, labels in seen)
        for pixels, labels in seen:
            if mixed:
                torch.testing.assert_close(labels.sum(1), torch.ones(512))
                torch.testing.assert_close(pixels.flatten(), 200 * labels[:, 1])
            else:
                assert torch.equal(pixels.flatten(), 200 * labels.to(torch.uint8))


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (2, SMALL_SET),
        (1000, SMALL_SET),
        (19_999, SMALL_SET),
        (20_000, MIDDLE_SET),
        (499_999, MIDDLE_SET),
        (500_000, LARGE_SET),
        (10_000_000, LARGE_SET),
    ],
)
def test_the_schedule_is_the_published_one(n: int, expected: Schedule) -> None:
    assert schedule(n) == expected


@pytest.mark.parametrize(
    ("n", "step", "expected"),
    [
        (1000, 0, 0),
        (1000, 50, 0.0015),
        (1000, 100, 0.003),
        (1000, 199, 0.003),
        (1000, 200, 3e-4),
        (1000, 299, 3e-4),
        (1000, 300, 3e-5),
        (1000, 400, 3e-6),
        (1000, 499, 3e-6),
        (20_000, 250, 0.0015),
        (20_000, 2_999, 0.003),
        (20_000, 3_000, 3e-4),
        (20_000, 9_999, 3e-6),
        (500_000, 499, 0.003 * 499 / 500),
        (500_000, 5_999, 0.003),
        (500_000, 18_000, 3e-6),
    ],
)
def test_the_learning_rate_is_the_published_one(n: int, step: int, expected: float) -> None:
    assert learning_rate(step, n) == pytest.approx(expected, rel=1e-12)
    assert learning_rate(step, n, base=0.03) == pytest.approx(10 * expected, rel=1e-12)


@given(n=st.integers(1, 10**6), divisor=st.sampled_from([2, 4, 5, 10, 20, 50, 100]), data=st.data())
def test_a_shorter_schedule_is_the_same_in_fewer_steps(n: int, divisor: int, data: st.DataObject) -> None:
    steps = schedule(n).steps // divisor
    step = data.draw(st.integers(0, steps - 1))
    assert learning_rate(step, n, steps=steps) == pytest.approx(learning_rate(step * divisor, n))


@given(n=st.integers(1, 10**6), steps=st.integers(1, 50_000))
def test_any_number_of_steps_makes_a_schedule(n: int, steps: int) -> None:
    plan = schedule(n, steps)
    assert plan.steps == steps
    assert plan.mixup == schedule(n).mixup
    assert 0 <= plan.warmup <= plan.drops[0] <= plan.drops[1] <= plan.drops[2] <= steps
    rates = [learning_rate(step, n, steps=steps) for step in sorted({0, plan.warmup, *plan.drops, steps - 1})]
    assert all(math.isfinite(rate) and 0 <= rate <= 0.003 for rate in rates)
    assert learning_rate(plan.warmup, n, steps=steps) == 0.003  # it is reached, even in a single step


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (32, 32, Resolution(160, 128)),
        (95, 96, Resolution(160, 128)),
        (96, 96, Resolution(512, 480)),
        (20, 500, Resolution(512, 480)),
        (1024, 768, Resolution(512, 480)),
    ],
)
def test_the_resolution_is_the_published_one(height: int, width: int, expected: Resolution) -> None:
    assert resolution(height, width) == expected


@pytest.mark.parametrize(("side", "crop"), [(512, 480), (224, 210), (160, 128), (84, 67), (32, 25)])
def test_crops_have_the_published_proportion(side: int, crop: int) -> None:
    assert crop_side(side) == crop


def test_views_are_all_crops_and_their_mirror_images() -> None:
    """Of items whose pixels are all different, every place and both orientations occur, about equally often."""
    n, frames = 2000, 2
    items = torch.arange(frames * 3 * 5 * 5).view(frames, 3, 5, 5).expand(n, -1, -1, -1, -1)
    views = random_views(items, 3, torch.Generator().manual_seed(0))
    possible = [items[0, ..., y : y + 3, x : x + 3] for y in range(3) for x in range(3)]
    possible += [view.flip(-1) for view in possible]
    matches = torch.stack([(views == view).flatten(1).all(1) for view in possible])
    assert bool((matches.sum(0) == 1).all())
    counts = matches.sum(1).double()
    assert float(((counts - n / 18) ** 2 / (n / 18)).sum()) < 50  # chi-squared of 17 degrees; 99.996 % are below


def test_augmented_steps_see_crops_and_queries_are_resized_to_them() -> None:
    learner = build(BiT, steps=10, inner_lr=0.3, augment=True)
    assert learner.crop == 25
    state = learner.adapt(EPISODE.support, FullEncode(3))
    reference = Literal(learner, 3, warmup=2, drops=(4, 6, 8), lr=0.3)
    order, key = content_order(EPISODE.support)
    generator = torch.Generator().manual_seed(key)
    images, labels = EPISODE.support.images[order], EPISODE.support.labels[order]
    for _ in range(10):
        corners = torch.randint(8, (9, 2), generator=generator)
        flips = torch.randint(2, (9,), generator=generator)
        views = torch.empty(9, 3, 25, 25, dtype=torch.uint8)
        for item, (y, x) in enumerate(corners.tolist()):
            view = images[item, :, y : y + 25, x : x + 25]
            views[item] = view.flip(2) if flips[item] else view
        reference.step(cross_entropy(reference.logits(views), labels))
    reference.compare(state)
    (batch,) = EPISODE.query
    planes = [[Image.fromarray(plane.numpy().astype(np.float32)) for plane in image] for image in batch.images]
    small = np.stack([[np.asarray(p.resize((25, 25), Image.Resampling.BILINEAR)) for p in image] for image in planes])
    expected = reference.logits(torch.from_numpy(small)).detach()
    torch.testing.assert_close(learner.classify(state, batch.images), expected, rtol=1e-4, atol=1e-5)


def test_the_share_of_a_mixture_goes_to_the_item_itself() -> None:
    images = torch.tensor([[10, 0], [250, 40]], dtype=torch.uint8)
    mixed, targets = mix(images, torch.eye(2), torch.tensor([1, 0]), 0.75)
    torch.testing.assert_close(mixed, torch.tensor([[70.0, 10.0], [190.0, 30.0]]))
    torch.testing.assert_close(targets, torch.tensor([[0.75, 0.25], [0.25, 0.75]]))


@pytest.mark.parametrize("options", [{}, {"inner_batch": 4}, {"augment": True}, {"mixup": 0.5}])
def test_neither_order_nor_names_nor_chunks_matter(options: dict[str, Any]) -> None:
    learner = build(BiT, steps=5, inner_lr=0.3, **options)
    support, (query,) = EPISODE.support, EPISODE.query
    reference = learner.classify(learner.adapt(support, FullEncode(3)), query.images)
    order, names = torch.randperm(9, generator=torch.Generator().manual_seed(1)), torch.tensor([2, 0, 1])
    shuffled = Support(support.images[order], support.labels[order], 3)
    found = learner.classify(learner.adapt(shuffled, FullEncode(100)), query.images)
    torch.testing.assert_close(found, reference, rtol=1e-9, atol=1e-11)
    renamed = Support(support.images, names[support.labels], 3)
    found = learner.classify(learner.adapt(renamed, FullEncode(3)), query.images)[:, names]
    torch.testing.assert_close(found, reference, rtol=1e-9, atol=1e-11)


def test_clips_are_cut_and_mixed_as_items() -> None:
    episode = clip_episode(n=6, frames=2)
    learner = build(BiT, steps=5, inner_batch=4, augment=True, mixup=0.5)
    learner.adapt(episode.support, FullEncode(3))
    images, labels = next(learner._batches(episode.support, torch.float64))
    assert images.shape == (4, 2, 3, 25, 25)
    assert labels.shape == (4, 2)


def test_it_tunes_the_network_of_the_paper() -> None:
    """Weight-standardised convolutions and GroupNorm, in small: images do not influence each other in a step."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ResNetV2(
            [1, 1, 1, 1],
            channels=(32, 32, 32, 32),
            num_classes=0,
            stem_chs=32,
            conv_layer=StdConv2d,
            norm_layer=partial(GroupNormAct, num_groups=4),
        )
    backbone = Backbone("small", network, SIDE, mean=(0.5,) * 3, std=(0.5,) * 3)
    learner = BiT(backbone, steps=5, inner_lr=0.1).double()
    assert any(isinstance(module, nn.GroupNorm) for module in network.modules())
    whole, parts = (learner.adapt(EPISODE.support, FullEncode(chunk)) for chunk in (100, 2))
    reference = Literal(learner, 3, warmup=1, drops=(2, 3, 4), lr=0.1)
    for _ in range(5):
        reference.step(cross_entropy(reference.logits(EPISODE.support.images), EPISODE.support.labels))
    reference.compare(whole)
    reference.compare(parts)


@pytest.mark.parametrize("mode", [True, False])
def test_nothing_is_meta_trained_or_changed(mode: bool) -> None:
    learner = build(BiT, steps=5).train(mode)
    assert not any(module.training for module in learner.backbone.modules())
    assert not any(p.requires_grad for p in learner.parameters())
    assert not BiT.meta_trained
    before = {key: value.clone() for key, value in learner.state_dict().items()}
    learner.adapt(EPISODE.support, FullEncode(4))
    assert all(torch.equal(before[key], value) for key, value in learner.state_dict().items())
    assert all(p.grad is None for p in learner.parameters())


def test_passes_are_the_steps() -> None:
    assert build(BiT).passes == BiT.passes == "500FB"
    assert build(BiT, steps=20).passes == "20FB"


@pytest.mark.parametrize("options", [{}, {"inner_batch": 4}])
def test_steps_that_diverge_say_so(options: dict[str, Any]) -> None:
    with pytest.raises(DivergedError, match=r"The inner loop diverged: .* lower inner learning rates"):
        build(BiT, steps=20, inner_lr=1e200, **options).adapt(EPISODE.support, FullEncode(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "-P steps=-1 is not usable: give a number of steps, or 0 for the published number."),
        ({"inner_batch": 0}, "-P inner_batch=0 is not usable: a step needs at least 1 support item."),
        ({"mixup": -0.1}, "-P mixup=-0.1 is not usable: give a positive number, or 0 to mix nothing."),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        build(BiT, **options)


def test_crops_are_refused_by_a_backbone_of_fixed_size() -> None:
    backbone: Any = build_backbone("test_vit", image_size=64, pretrained=False)
    with pytest.raises(IncompatibleError, match=r"crops images of 64 pixels to 51, which backbone test_vit cannot"):
        BiT(backbone, augment=True)


def test_it_keeps_the_contract() -> None:
    backbone: Any = build_backbone("conv4", image_size=32, pretrained=False)
    check_learner(BiT(backbone, steps=3))
