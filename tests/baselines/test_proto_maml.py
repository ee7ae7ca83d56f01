"""ProtoMAML against its definition: autograd through the starting point, with inner gradients as constants."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from lite_bench.baselines.proto_maml import ProtoMAML, parameters_outside_normalisation
from lite_bench.harness.core import Episode, Support, TaskSizes
from lite_bench.harness.errors import DivergedError, UsageError
from lite_bench.models.backbones import timm_backbone
from lite_bench.models.encoding import FullEncode
from lite_bench.models.estimators import Exact, Full, Lite, LiteImportance
from lite_bench.models.protonets import ProtoNets
from tests.models.toys import Scripted, build, clip_episode, gradient, subsets, tiny_episode

EPISODE = tiny_episode(n=9, way=3, m=7)
UNEVEN = Support(EPISODE.support.images, torch.tensor([0, 0, 0, 0, 1, 2, 2, 0, 1]), 3)
RATE = 0.2
NORMS = {f"blocks.{block}.1.{kind}" for block in (0, 1) for kind in ("weight", "bias")}


def literal(learner: Any, support: Support, steps: int) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Write the method down: every step subtracts a constant, so that only the starting point is differentiated."""
    weights = dict(learner.backbone.network.named_parameters())
    features = run(learner, weights, support.images)
    means = torch.stack([features[support.labels == c].mean(0) for c in range(support.way)])
    head = [2 * means, -(means * means).sum(1)]
    chosen = [name for name in weights if name not in NORMS]
    for _ in range(steps):
        here = {name: w.detach().requires_grad_() for name, w in weights.items()}
        there = [h.detach().requires_grad_() for h in head]
        logits = run(learner, here, support.images) @ there[0].T + there[1]
        slopes = torch.autograd.grad(cross_entropy(logits, support.labels), [*(here[n] for n in chosen), *there])
        weights |= {name: weights[name] - RATE * slope for name, slope in zip(chosen, slopes, strict=False)}
        head = [h - RATE * slope for h, slope in zip(head, slopes[-2:], strict=True)]
    return weights, head[0], head[1]


def run(learner: Any, weights: dict[str, Tensor], items: Tensor) -> Tensor:
    """Compute features of images, or the means of those of the frames of clips."""
    named = {f"network.{name}": weight for name, weight in weights.items()}
    features: Tensor = functional_call(learner.backbone, named, (items.flatten(0, -4),))
    return features.view(len(items), -1, features.shape[1]).mean(1)


def literal_gradient(learner: Any, episode: Episode, steps: int) -> Tensor:
    weights, weight, bias = literal(learner, episode.support, steps)
    (batch,) = episode.query
    loss = cross_entropy(run(learner, weights, batch.images) @ weight.T + bias, batch.labels)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(learner.parameters()))])


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("estimator", [Full, Exact])
@pytest.mark.parametrize(("chunk", "batch_size"), [(1, 100), (4, 2), (100, 3)])
def test_the_outer_gradient_is_the_total_first_order_one(
    steps: int, estimator: type[Full], chunk: int, batch_size: int
) -> None:
    learner = build(ProtoMAML, inner_lr=RATE, train_steps=steps, steps=0)
    expected = literal_gradient(learner, EPISODE, steps)
    assert expected.norm() > 1e-3
    found = gradient(learner, EPISODE, estimator(0, chunk), batch_size)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("estimator", [Exact(0, 2), Lite(5, 2), LiteImportance(5, 2)])
def test_the_outer_gradient_on_clips_is_the_total_first_order_one(estimator: Any) -> None:
    """Also with LITE whose H is all five clips."""
    learner, episode = build(ProtoMAML, inner_lr=RATE, train_steps=2), clip_episode(5, frames=3)
    found, expected = gradient(learner, episode, estimator), literal_gradient(learner, episode, 2)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_both_paths_of_the_gradient_are_there() -> None:
    """The support path is missing with H = 0; what is left differs from the query gradient at the initial weights."""
    learner = build(ProtoMAML, inner_lr=RATE, train_steps=2)
    whole, queries_only = gradient(learner, EPISODE, Full(0, 100)), gradient(learner, EPISODE, Lite(0, 100))
    unadapted = gradient(build(ProtoMAML, train_steps=0), EPISODE, Lite(0, 100))
    assert (whole - queries_only).norm() / whole.norm() > 1e-2
    assert (unadapted - queries_only).norm() / whole.norm() > 1e-2


def test_the_mean_of_lite_over_all_draws_is_the_full_gradient() -> None:
    learner, episode = build(ProtoMAML, inner_lr=RATE, train_steps=2), tiny_episode(n=5)
    full = gradient(learner, episode, Full(0, 100))
    members = torch.stack([gradient(learner, episode, Scripted((rows,), 5)) for rows in subsets(5, 2)])
    torch.testing.assert_close(members.mean(0), full, rtol=1e-9, atol=1e-12)
    assert ((members - full).norm(dim=1) / full.norm()).max() > 1e-2
    drawn = gradient(learner, episode, Lite(2, 100))
    assert (members - drawn).norm(dim=1).min() < 1e-12


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("chunk", [2, 100])
@pytest.mark.parametrize("support", [EPISODE.support, UNEVEN])
def test_training_and_evaluation_take_their_own_numbers_of_steps(
    training: bool, gradients: bool, chunk: int, support: Support
) -> None:
    learner = build(ProtoMAML, inner_lr=RATE, steps=4, train_steps=2).train(training)
    with torch.set_grad_enabled(gradients):
        state = learner.adapt(support, FullEncode(chunk))
    weights, weight, bias = literal(learner, support, 2 if training else 4)
    assert set(state.backbone) == set(weights) - NORMS
    for name, found in state.backbone.items():
        torch.testing.assert_close(found, weights[name], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(state.weight, weight, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(state.bias, bias, rtol=1e-9, atol=1e-12)
    (batch,) = EPISODE.query
    logits = run(learner, weights, batch.images) @ weight.T + bias
    torch.testing.assert_close(learner.classify(state, batch.images), logits, rtol=1e-9, atol=1e-11)


def test_without_steps_it_is_protonets() -> None:
    """The same probabilities and the same gradient, though the linear head lacks -||f||^2."""
    learner, reference = build(ProtoMAML, steps=0, train_steps=0), build(ProtoNets)
    (batch,) = EPISODE.query
    logits = [each.classify(each.adapt(UNEVEN, FullEncode(4)), batch.images) for each in (learner, reference)]
    assert (logits[0] - logits[1]).abs().max() > 1e-3
    torch.testing.assert_close(logits[0].softmax(1), logits[1].softmax(1), rtol=1e-9, atol=1e-12)
    found, expected = (gradient(each, EPISODE, Exact(0, 4)) for each in (learner, reference))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_normalisation_is_learned_but_does_not_adapt() -> None:
    learner = build(ProtoMAML, inner_lr=RATE, train_steps=2)
    gradient(learner, EPISODE, Full(0, 100))
    slopes = {name: p.grad for name, p in learner.backbone.network.named_parameters()}
    assert set(slopes) > NORMS
    assert all(slope is not None and bool(slope.any()) for slope in slopes.values())


@pytest.mark.parametrize(
    ("name", "adapted"),
    [
        ("resnet18", 20),  # its convolutions, which have no bias
        ("test_efficientnet", None),
        ("test_vit", None),
        ("test_convnext2", None),  # LayerNorm and global response normalisation
        ("test_nfnet", None),  # no normalisation layer at all: weights are standardised
    ],
)
def test_scales_and_shifts_are_told_from_weights(name: str, adapted: int | None) -> None:
    network = timm.create_model(name, num_classes=0)
    chosen = parameters_outside_normalisation(network)
    if adapted is not None:
        assert len(chosen) == adapted
    layers = dict(network.named_modules())
    left = {n: p for n, p in network.named_parameters() if n not in chosen}
    owners = {type(layers[n.rpartition(".")[0]]).__name__ for n in left}
    assert owners <= {"BatchNormAct2d", "BatchNorm2d", "LayerNorm", "LayerNorm2d", "GlobalResponseNorm"}
    kinds = (nn.BatchNorm2d, nn.LayerNorm)
    known = {f"{n}.{k}" for n, m in layers.items() if isinstance(m, kinds) for k, _ in m.named_parameters()}
    assert known <= set(left)
    assert bool(left) == (name != "test_nfnet")


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(9)), renamed=st.permutations(range(3)))
def test_order_and_names_do_not_matter(order: list[int], renamed: list[int]) -> None:
    learner = build(ProtoMAML, inner_lr=RATE, steps=2).eval()
    (batch,) = EPISODE.query
    with torch.no_grad():
        reference = learner.classify(learner.adapt(UNEVEN, FullEncode(4)), batch.images)
        changed = Support(UNEVEN.images[order], torch.tensor(renamed)[UNEVEN.labels[order]], 3)
        logits = learner.classify(learner.adapt(changed, FullEncode(4)), batch.images)
    torch.testing.assert_close(logits[:, renamed], reference, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("mode", [True, False])
def test_batch_norm_statistics_are_fixed_and_the_learner_unchanged(mode: bool) -> None:
    learner = build(ProtoMAML, inner_lr=RATE).train(mode)
    assert {m.training for m in learner.modules() if isinstance(m, nn.BatchNorm2d)} == {False}
    before = {key: value.clone() for key, value in learner.state_dict().items()}
    (batch,) = EPISODE.query
    learner.classify(learner.adapt(EPISODE.support, FullEncode(4)), batch.images)
    assert all(torch.equal(before[key], value) for key, value in learner.state_dict().items())
    assert all(p.grad is None for p in learner.parameters())


def test_the_head_is_in_full_precision_under_autocast() -> None:
    learner = ProtoMAML(timm_backbone("test_efficientnet", image_size=32, pretrained=False), steps=1).eval()
    (batch,) = EPISODE.query
    with torch.autocast("cpu", dtype=torch.bfloat16):
        state = learner.adapt(EPISODE.support, FullEncode(4))
        logits = learner.classify(state, batch.images)
    assert {state.weight.dtype, state.bias.dtype, logits.dtype} == {torch.float32}
    assert {w.dtype for w in state.backbone.values()} == {torch.float32}


def test_defaults_are_the_published_settings_for_all_sources() -> None:
    learner = build(ProtoMAML)
    assert (learner.train_steps, learner.steps, learner.inner_lr, learner.default_lr) == (1, 6, 0.0199, 3.0e-4)
    assert learner.passes == ProtoMAML.passes
    assert build(ProtoMAML, steps=0).passes == "1F"


def test_published_macs_count_a_start_as_protonets_and_steps_as_maml() -> None:
    """3.4 of the protocol of ORBIT, with F = 20 frames of N = 5 clips in C = 2 classes, D = 5 and f = 1000."""
    start = 20 * 1000 + 20 * 5 + 2 * 5 + 5 * 5 + 3 * 2 * 5
    steps = 6 * (2 * 20 * 1000 + 20 * 5)
    assert build(ProtoMAML).published_macs(TaskSizes((3, 2), 4), lambda _: 1000) == start + steps


def test_divergence_is_named() -> None:
    learner = build(ProtoMAML, inner_lr=1e308, steps=3).eval()
    with pytest.raises(DivergedError, match=r"the loss is inf at step 3 of 3; use lower inner learning rates"):
        learner.adapt(EPISODE.support, FullEncode(4))


@pytest.mark.parametrize("option", ["steps", "train_steps"])
def test_a_negative_number_of_steps_is_refused(option: str) -> None:
    with pytest.raises(UsageError, match=f"-P {option}=-1 is not usable: give a number of steps"):
        build(ProtoMAML, **{option: -1})
