"""MD-Transfer against a literal loop: a copied network, torch.optim, torch's own cosine and weight normalisation."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy
from torch.nn.utils.parametrizations import weight_norm

from lite_bench.baselines.md_transfer import MDTransfer, name_of, put_in_order
from lite_bench.harness.checks import check_learner
from lite_bench.harness.clips import ItemEncode
from lite_bench.harness.core import Support, TaskSizes, stable_key
from lite_bench.harness.errors import DivergedError, UsageError
from lite_bench.models.backbones import timm_backbone
from lite_bench.models.encoding import FullEncode
from tests.models.toys import build, clip_episode, tiny_backbone, tiny_episode

EPISODE = tiny_episode(n=9, way=3, m=7)
UNEVEN = Support(EPISODE.support.images, torch.tensor([2, 0, 0, 0, 1, 2, 2, 0, 1]), 3)
(BATCH,) = EPISODE.query
STEPS = 6


class Cosine(nn.Module):
    """The cosine of feature and class row, times a scale."""

    def __init__(self, rows: Tensor, scale: float, *, learn: bool) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows.clone())
        self.scale = nn.Parameter(torch.tensor(scale, dtype=torch.float64), requires_grad=learn)

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * cosine_similarity(features.unsqueeze(1), self.rows.unsqueeze(0), dim=2)


def linear_head(rows: Tensor) -> nn.Linear:
    head = nn.Linear(rows.shape[1], len(rows)).double()
    head.weight.data.copy_(rows)
    nn.init.zeros_(head.bias)
    return head


def literal_head(rows: Tensor, options: dict[str, Any]) -> nn.Module:
    kind = options.get("head", "cosine")
    if kind == "cosine":
        return Cosine(rows, options.get("logit_scale", 10.0), learn=options.get("learn_scale", False))
    head = linear_head(rows)
    return weight_norm(head) if kind == "weight_norm" else head


def features_of(body: nn.Module, items: Tensor) -> Tensor:
    """Compute features of images, or the means of those of the frames of clips."""
    features: Tensor = body(items.flatten(0, -4))
    return features.view(len(items), -1, features.shape[1]).mean(1)


def bytes_of(frame: Tensor) -> bytes:
    return bytes(frame.flatten().view(torch.uint8).tolist())


def starting_rows(learner: Any, support: Support) -> Tensor:
    """Write the start down: normal numbers from a generator that knows the class's images, or unit class means."""
    rows = []
    for c in range(support.way):
        items = support.images[support.labels == c]
        if learner.start == "means":
            mean = features_of(learner.backbone, items).mean(0)
            rows.append(mean / mean.norm())
            continue
        frames = items.flatten(1, -4) if items.ndim == 5 else items.unsqueeze(1)
        digests = ["".join(sorted({hashlib.sha256(bytes_of(f)).hexdigest() for f in item})) for item in frames]
        generator = torch.Generator().manual_seed(stable_key(*sorted(digests)))
        rows.append(torch.randn(5, generator=generator, dtype=torch.float64) / 5**0.5)
    return torch.stack(rows).detach()


def literal(learner: Any, support: Support, options: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    body = copy.deepcopy(learner.backbone).eval().requires_grad_(True)
    head = literal_head(starting_rows(learner, support), options)
    parameters = [p for p in [*body.parameters(), *head.parameters()] if p.requires_grad]
    optimizer: torch.optim.Optimizer
    if options.get("optimizer", "adam") == "adam":
        optimizer = torch.optim.Adam(parameters, lr=options.get("inner_lr", 0.01))
    else:
        optimizer = torch.optim.SGD(parameters, lr=options.get("inner_lr", 0.01))
    for _ in range(learner.steps):
        optimizer.zero_grad()
        torch.autograd.backward(cross_entropy(head(features_of(body, support.images)), support.labels))
        optimizer.step()
    return body, head


OPTIONS: list[dict[str, Any]] = [
    {},
    {"optimizer": "sgd", "inner_lr": 0.1},
    {"logit_scale": 3.0},
    {"learn_scale": True},
    {"start": "means"},
    {"head": "weight_norm"},
    {"head": "weight_norm", "optimizer": "sgd", "inner_lr": 0.1, "start": "means"},
    {"head": "linear"},
    {"head": "linear", "start": "means"},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("chunk", "gradients"), [(1, False), (4, True), (100, False)])
def test_it_is_the_literal_loop_whatever_the_chunk(options: dict[str, Any], chunk: int, gradients: bool) -> None:
    learner = build(MDTransfer, steps=STEPS, **options)
    with torch.set_grad_enabled(gradients):
        state = learner.adapt(UNEVEN, FullEncode(chunk))
        found = learner.classify(state, BATCH.images)
    body, head = literal(learner, UNEVEN, options)
    assert set(state.backbone) == {name for name, _ in learner.backbone.network.named_parameters()}
    for name, parameter in body.get_submodule("network").named_parameters():
        torch.testing.assert_close(state.backbone[name], parameter.detach(), rtol=1e-7, atol=1e-9)
        assert not torch.equal(state.backbone[name], learner.backbone.network.get_parameter(name))
    torch.testing.assert_close(found, head(body(BATCH.images)).detach(), rtol=1e-7, atol=1e-8)
    assert not any(t.requires_grad for t in [found, state.weight, state.bias, *state.backbone.values()])


@pytest.mark.parametrize("start", ["random", "means"])
def test_it_is_the_literal_loop_on_clips(start: str) -> None:
    learner, support = build(MDTransfer, steps=STEPS, start=start), clip_episode(5, frames=3).support
    state = learner.adapt(support, ItemEncode(FullEncode(2)))
    body, head = literal(learner, support, {})
    found = learner.logits(state, learner.features(state, BATCH.images))
    torch.testing.assert_close(found, head(body(BATCH.images)).detach(), rtol=1e-7, atol=1e-8)


def test_defaults_are_the_published_ones_and_those_of_the_ancestor() -> None:
    learner = build(MDTransfer)
    assert (learner.steps, learner.inner_lr, learner.optimizer, learner.head) == (200, 0.01, "adam", "cosine")
    assert (learner.logit_scale, learner.learn_scale) == (10.0, False)
    assert learner.passes == MDTransfer.passes
    assert build(MDTransfer, steps=7, start="means").passes == "1F+7FB"


def test_without_steps_the_head_is_its_start() -> None:
    """A class has the start that its images give it, whatever its number and the classes beside it."""
    learner = build(MDTransfer, steps=0)
    state = learner.adapt(UNEVEN, FullEncode(4))
    rows = starting_rows(learner, UNEVEN)
    torch.testing.assert_close(state.weight, 10 * rows / rows.norm(dim=1, keepdim=True), rtol=1e-12, atol=1e-12)
    assert all(torch.equal(state.backbone[name], p) for name, p in learner.backbone.network.named_parameters())
    two = UNEVEN.labels != 1
    renamed = Support(UNEVEN.images[two], (UNEVEN.labels[two] == 0).long(), 2)
    assert torch.equal(learner.adapt(renamed, FullEncode(4)).weight, state.weight[[2, 0]])


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(9)), renamed=st.permutations(range(3)), head=st.sampled_from(["cosine", "linear"]))
def test_order_and_names_do_not_change_a_bit(order: list[int], renamed: list[int], head: Any) -> None:
    """In float32, where sums depend on their order and Adam on the last bit of a small gradient."""
    learner = MDTransfer(tiny_backbone(), steps=5, head=head)
    reference = learner.classify(learner.adapt(UNEVEN, FullEncode(4)), BATCH.images)
    changed = Support(UNEVEN.images[order], torch.tensor(renamed)[UNEVEN.labels[order]], 3)
    logits = learner.classify(learner.adapt(changed, FullEncode(4)), BATCH.images)
    assert torch.equal(logits[:, renamed], reference)


@settings(max_examples=50, deadline=None)
@given(labels=st.lists(st.integers(0, 3), max_size=8), seed=st.integers(0, 1000), data=st.data())
def test_the_order_of_a_support_set_is_its_contents(labels: list[int], seed: int, data: st.DataObject) -> None:
    """Any shuffling and renaming of a set, repeated images included, is put in the same order."""
    numbers = torch.tensor([0, 1, 2, 3, *labels])
    images = torch.randint(0, 3, (len(numbers), 3, 1, 1), generator=torch.Generator().manual_seed(seed)).byte()
    images[:, 0, 0, 0] = numbers.byte()  # classes share no image
    order = data.draw(st.permutations(range(len(numbers))))
    renamed = torch.tensor(data.draw(st.permutations(range(4))))
    support, places, keys = put_in_order(Support(images, numbers, 4))
    other, other_places, other_keys = put_in_order(Support(images[order], renamed[numbers[order]], 4))
    assert torch.equal(support.images, other.images)
    assert torch.equal(support.labels, other.labels)
    assert (keys, [other_places[new] for new in renamed]) == (other_keys, places)
    assert sorted(places) == [0, 1, 2, 3]
    back = [places.index(label) for label in support.labels.tolist()]
    members = zip(back, support.images.flatten(1).tolist(), strict=True)
    assert sorted(members) == sorted(zip(numbers.tolist(), images.flatten(1).tolist(), strict=True))


def test_an_image_is_named_by_every_bit() -> None:
    image = torch.rand(3, 4, 4) * 255
    other = image.clone()
    other[2, 3, 3] = torch.nextafter(other[2, 3, 3], torch.tensor(1e9))
    assert name_of(image) == name_of(image.clone().contiguous(memory_format=torch.contiguous_format))
    assert name_of(image) == name_of(image.permute(1, 2, 0).contiguous().permute(2, 0, 1))  # other strides
    assert name_of(image) != name_of(other)
    assert name_of(torch.stack([image, other])) == name_of(torch.stack([other, image, other]))
    assert name_of(torch.stack([image, image])) == name_of(image)


def test_random_rows_have_unit_length_and_no_direction_in_common() -> None:
    learner = build(MDTransfer)
    learner.backbone.features = 10_000
    rows = learner._random_rows([1, 2, 2**63 - 1])
    torch.testing.assert_close(rows @ rows.T, torch.eye(3).double(), rtol=0, atol=0.06)
    assert torch.equal(rows, learner._random_rows([1, 2, 2**63 - 1]))


def test_float_images_adapt() -> None:
    learner = build(MDTransfer, steps=2)
    float_support = replace(UNEVEN, images=UNEVEN.images.float() + 0.25)
    state = learner.adapt(float_support, FullEncode(4))
    body, head = literal(learner, float_support, {})
    torch.testing.assert_close(
        learner.classify(state, BATCH.images), head(body(BATCH.images)).detach(), rtol=1e-8, atol=1e-9
    )


def test_classes_with_the_same_images_cannot_be_told_apart() -> None:
    support = Support(EPISODE.support.images[[0, 0, 1]], torch.tensor([0, 1, 2]), 3)
    learner = build(MDTransfer, steps=3)
    logits = learner.classify(learner.adapt(support, FullEncode(4)), BATCH.images)
    torch.testing.assert_close(logits[:, 0], logits[:, 1])
    assert not torch.allclose(logits[:, 0], logits[:, 2])


@pytest.mark.parametrize("mode", [True, False])
def test_nothing_is_meta_trained_and_the_learner_unchanged(mode: bool) -> None:
    learner = build(MDTransfer, steps=3).train(mode)
    assert not any(p.requires_grad for p in learner.parameters())
    assert not any(m.training for m in learner.backbone.modules())
    before = {key: value.clone() for key, value in learner.state_dict().items()}
    learner.classify(learner.adapt(EPISODE.support, FullEncode(4)), BATCH.images)
    assert all(torch.equal(before[key], value) for key, value in learner.state_dict().items())
    assert all(p.grad is None for p in learner.parameters())


def test_it_keeps_the_contract() -> None:
    """With few steps: two hundred would magnify the rounding of another chunk, on a network from scratch."""
    check_learner(MDTransfer(timm_backbone("test_efficientnet", image_size=32, pretrained=False), steps=2))


def test_it_fits_the_support_set() -> None:
    learner = build(MDTransfer, steps=40)
    state = learner.adapt(UNEVEN, FullEncode(100))
    assert (learner.classify(state, UNEVEN.images).argmax(1) == UNEVEN.labels).all()
    start = build(MDTransfer, steps=0)
    assert (start.classify(start.adapt(UNEVEN, FullEncode(100)), UNEVEN.images).argmax(1) != UNEVEN.labels).any()


@pytest.mark.parametrize("start", ["random", "means"])
def test_the_head_is_in_full_precision_under_autocast(start: Any) -> None:
    learner = MDTransfer(timm_backbone("test_efficientnet", image_size=32, pretrained=False), steps=2, start=start)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        state = learner.adapt(UNEVEN, FullEncode(4))
        logits = learner.classify(state, BATCH.images)
    assert {t.dtype for t in [state.weight, state.bias, logits, *state.backbone.values()]} == {torch.float32}


@pytest.mark.parametrize(("start", "first"), [("random", 0), ("means", 20 * 1000 + 20 * 5)])
def test_published_macs_count_every_step_twice(start: str, first: int) -> None:
    """3.4 of the protocol of ORBIT, with F = 20 frames, D = 5 and f = 1000."""
    expected = first + 200 * (2 * 20 * 1000 + 20 * 5)
    assert build(MDTransfer, start=start).published_macs(TaskSizes((3, 2), 4), lambda _: 1000) == expected


def test_divergence_is_named() -> None:
    learner = build(MDTransfer, steps=3, inner_lr=1e308, optimizer="sgd", head="linear")
    with pytest.raises(DivergedError, match=r"the loss is (inf|nan) at step \d of 3; use lower inner learning rates"):
        learner.adapt(UNEVEN, FullEncode(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "-P steps=-1 is not usable: give a number of steps"),
        ({"head": "linear", "learn_scale": True}, "-P learn_scale=true is for a cosine, but -P head=linear has none"),
        ({"head": "weight_norm", "logit_scale": 5.0}, "-P logit_scale=5 is for a cosine, but -P head=weight_norm"),
    ],
)
def test_unusable_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(MDTransfer, **options)
