"""First-order MAML against a literal implementation: a copied network, torch.optim.SGD, copied gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lite_bench.baselines.fomaml import FirstOrderMAML
from lite_bench.harness.assembly import build_backbone, check_estimator_fits
from lite_bench.harness.core import Episode
from lite_bench.harness.errors import DivergedError, IncompatibleError
from lite_bench.harness.step import accumulate_task_gradient
from lite_bench.models.backbones import Backbone
from lite_bench.models.encoding import FullEncode
from lite_bench.models.estimators import Exact, Full, Lite
from tests.models.toys import build, gradient, tiny_episode

EPISODE = tiny_episode(n=9, way=3, m=7)
RATES: dict[str, Any] = {"steps": 4, "inner_lr": 0.3, "backbone_lr": 0.05}


def literal(learner: Any, episode: Episode, steps: int, inner_lr: float, backbone_lr: float) -> tuple[Any, nn.Linear]:
    """Take the inner steps on a copy of the network, in evaluation mode, and a zero head."""
    support = episode.support
    body = copy.deepcopy(learner.backbone).eval()
    head = nn.Linear(body.features, support.way).double()
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    groups: list[dict[str, Any]] = [{"params": body.parameters(), "lr": backbone_lr}, {"params": head.parameters()}]
    optimizer = torch.optim.SGD(groups, lr=inner_lr)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(cross_entropy(head(body(support.images)), support.labels))
        optimizer.step()
    return body, head


def literal_outer_gradient(learner: Any, episode: Episode, clamp: float = 10.0, **rates: Any) -> Tensor:
    body, head = literal(learner, episode, **rates)
    (batch,) = episode.query
    loss = cross_entropy(head(body(batch.images)), batch.labels)
    gradients = torch.autograd.grad(loss, list(body.parameters()))
    return torch.cat([g.flatten() for g in gradients]).clamp(-clamp, clamp)


@pytest.mark.parametrize("rates", [RATES, {"steps": 15, "inner_lr": 0.001, "backbone_lr": 0.0001}])
@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("gradients", [True, False])
def test_the_inner_loop_is_the_literal_one_whatever_the_chunk(
    rates: dict[str, Any], chunk: int, gradients: bool
) -> None:
    learner = build(FirstOrderMAML, **rates)
    with torch.set_grad_enabled(gradients):
        state = learner.adapt(EPISODE.support, FullEncode(chunk))
    body, head = literal(learner, EPISODE, **rates)
    assert set(state.backbone) == {name for name, _ in learner.backbone.network.named_parameters()}
    for name, parameter in body.network.named_parameters():
        torch.testing.assert_close(state.backbone[name].detach(), parameter.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(state.weight, head.weight.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(state.bias, head.bias.detach(), rtol=1e-10, atol=1e-12)
    (batch,) = EPISODE.query
    found = learner.classify(state, batch.images)
    torch.testing.assert_close(found.detach(), head(body(batch.images)).detach(), rtol=1e-10, atol=1e-12)


def test_defaults_are_the_published_settings() -> None:
    learner = build(FirstOrderMAML)
    assert (learner.steps, learner.inner_lr, learner.backbone_lr, learner.clamp) == (15, 0.001, 0.0001, 10.0)


@pytest.mark.parametrize("estimator", [Full(0, 4), Exact(0, 4), Lite(2, 4)])
@pytest.mark.parametrize("batch_size", [2, 100])
def test_the_outer_gradient_is_the_query_gradient_at_the_adapted_weights(estimator: Any, batch_size: int) -> None:
    learner = build(FirstOrderMAML, **RATES)
    found = gradient(learner, EPISODE, estimator, batch_size)
    expected = literal_outer_gradient(learner, EPISODE, **RATES)
    assert expected.norm() > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_it_differs_from_the_gradient_at_the_initial_weights() -> None:
    learner = build(FirstOrderMAML, steps=4, inner_lr=0.3, backbone_lr=1.0)
    body, head = literal(learner, EPISODE, steps=4, inner_lr=0.3, backbone_lr=1.0)
    initial = copy.deepcopy(body)
    initial.load_state_dict(learner.backbone.state_dict())
    (batch,) = EPISODE.query
    loss = cross_entropy(head(initial(batch.images)), batch.labels)
    there = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(initial.parameters()))])
    assert (gradient(learner, EPISODE, Full(0, 4)) - there).norm() / there.norm() > 1e-2


@pytest.mark.parametrize("batch_size", [2, 100])
def test_the_tasks_whole_gradient_is_clamped(batch_size: int) -> None:
    plain = gradient(build(FirstOrderMAML, **RATES), EPISODE, Full(0, 4))
    bound = float(plain.abs().median())
    learner = build(FirstOrderMAML, clamp=bound, **RATES)
    found = gradient(learner, EPISODE, Full(0, 4), batch_size)
    torch.testing.assert_close(found, plain.clamp(-bound, bound), rtol=1e-9, atol=1e-12)
    assert float(found.abs().max()) == pytest.approx(bound)


def test_gradients_of_several_tasks_add_up_after_clamping() -> None:
    learner = build(FirstOrderMAML, clamp=1e-3, **RATES)
    other = tiny_episode(n=6, way=2, seed=3)
    total = gradient(learner, EPISODE, Full(0, 4)) + gradient(learner, other, Full(0, 4))
    learner.zero_grad()
    for episode in (EPISODE, other):
        accumulate_task_gradient(learner, episode, Full(0, 4), 100, torch.Generator())
    found = torch.cat([p.grad.flatten() for p in learner.parameters()])
    torch.testing.assert_close(found, total, rtol=1e-9, atol=1e-12)


def test_without_steps_the_body_is_the_initial_one_and_the_head_zero() -> None:
    learner = build(FirstOrderMAML, steps=0)
    state = learner.adapt(EPISODE.support, FullEncode(4))
    assert all(torch.equal(state.backbone[name], p) for name, p in learner.backbone.network.named_parameters())
    assert not state.weight.any()
    assert not state.bias.any()
    assert not gradient(learner, EPISODE, Full(0, 4)).any()  # a zero head passes no gradient to the body


@pytest.mark.parametrize("mode", [True, False])
def test_batch_norm_statistics_are_fixed_and_the_learner_unchanged(mode: bool) -> None:
    learner = build(FirstOrderMAML, **RATES).train(mode)
    assert {m.training for m in learner.modules() if isinstance(m, nn.BatchNorm2d)} == {False}
    before = {key: value.clone() for key, value in learner.state_dict().items()}
    state = learner.adapt(EPISODE.support, FullEncode(4))
    (batch,) = EPISODE.query
    learner.classify(state, batch.images)
    assert all(torch.equal(before[key], value) for key, value in learner.state_dict().items())
    assert all(p.grad is None for p in learner.parameters())


def test_parameters_without_a_gradient_stay_as_they_are() -> None:
    learner = build(FirstOrderMAML, **RATES)
    learner.backbone.network.unused = nn.Parameter(torch.ones(3).double())
    state = learner.adapt(EPISODE.support, FullEncode(4))
    assert torch.equal(state.backbone["unused"].detach(), torch.ones(3).double())


def test_summed_batches_scale_the_step_with_the_number_of_batches() -> None:
    """With equal chunks the sum of their means is the mean times their number, so the rates grow by it."""
    summed = build(FirstOrderMAML, sum_batches=True, **RATES).adapt(EPISODE.support, FullEncode(3))
    scaled = {**RATES, "inner_lr": 3 * RATES["inner_lr"], "backbone_lr": 3 * RATES["backbone_lr"]}
    plain = build(FirstOrderMAML, **scaled).adapt(EPISODE.support, FullEncode(3))
    torch.testing.assert_close(summed.weight, plain.weight, rtol=1e-10, atol=1e-12)
    for name, value in plain.backbone.items():
        torch.testing.assert_close(summed.backbone[name], value, rtol=1e-10, atol=1e-12)


def test_unequal_batches_weigh_by_their_own_size() -> None:
    """Chunks of 4, 4 and 1: the last image weighs four times as much as another."""
    learner = build(FirstOrderMAML, sum_batches=True, **{**RATES, "steps": 1})
    state = learner.adapt(EPISODE.support, FullEncode(4))
    features = learner.backbone(EPISODE.support.images).detach()
    each = nn.functional.one_hot(EPISODE.support.labels, 3) - torch.full((3,), 1 / 3, dtype=torch.float64)
    weights = [1 / 4] * 8 + [1.0]
    bias = RATES["inner_lr"] * sum(w * e for w, e in zip(weights, each, strict=True))
    weight = RATES["inner_lr"] * sum(w * torch.outer(e, f) for w, e, f in zip(weights, each, features, strict=True))
    torch.testing.assert_close(state.bias, bias, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(state.weight, weight, rtol=1e-10, atol=1e-12)


def maml_loss(learner: Any, values: list[Tensor], episode: Episode, steps: int) -> Tensor:
    """The query loss of MAML as a function of the initial weights, written plainly."""
    names = [name for name, _ in learner.backbone.network.named_parameters()]
    support = episode.support
    weight = torch.zeros(support.way, learner.backbone.features, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(support.way, dtype=torch.float64, requires_grad=True)

    def logits(images: Tensor) -> Tensor:
        features = learner.backbone(images, dict(zip(names, values, strict=True)))
        scores: Tensor = features @ weight.T + bias
        return scores

    for _ in range(steps):
        loss = cross_entropy(logits(support.images), support.labels)
        *body, head, offset = torch.autograd.grad(loss, [*values, weight, bias], create_graph=True)
        values = [v - RATES["backbone_lr"] * g for v, g in zip(values, body, strict=True)]
        weight, bias = weight - RATES["inner_lr"] * head, bias - RATES["inner_lr"] * offset
    (batch,) = episode.query
    return cross_entropy(logits(batch.images), batch.labels)


@pytest.mark.parametrize("batch_size", [2, 100])
@pytest.mark.parametrize("chunk", [4, 100])
def test_second_order_is_the_derivative_through_the_steps(batch_size: int, chunk: int) -> None:
    """Against central differences of the whole of MAML in float64, and against plain autograd."""
    learner = build(FirstOrderMAML, second_order=True, **RATES)
    found = gradient(learner, EPISODE, Full(0, chunk), batch_size)
    values = [p.detach().clone().requires_grad_() for p in learner.backbone.network.parameters()]
    loss = maml_loss(learner, values, EPISODE, RATES["steps"])
    plain = torch.cat([g.flatten() for g in torch.autograd.grad(loss, values)])
    torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-12)
    first = gradient(build(FirstOrderMAML, **RATES), EPISODE, Full(0, 4))
    assert (first - found).norm() > 1e-3 * found.norm()
    direction = [torch.randn(v.shape, generator=torch.Generator().manual_seed(1), dtype=v.dtype) for v in values]
    step = 1e-5
    ends = []
    for sign in (1, -1):
        moved = [(v + sign * step * d).detach().requires_grad_() for v, d in zip(values, direction, strict=True)]
        ends.append(maml_loss(learner, moved, EPISODE, RATES["steps"]))
    slope = (ends[0] - ends[1]).item() / (2 * step)
    along = (found @ torch.cat([d.flatten() for d in direction])).item()
    assert slope == pytest.approx(along, rel=1e-5)


def test_second_order_adapts_as_first_order_does_and_clamps() -> None:
    whole, first = (build(FirstOrderMAML, second_order=order, **RATES) for order in (True, False))
    found, expected = (learner.adapt(EPISODE.support, FullEncode(4)) for learner in (whole, first))
    torch.testing.assert_close(found.weight.detach(), expected.weight, rtol=1e-10, atol=1e-12)
    bound = float(gradient(whole, EPISODE, Full(0, 4)).abs().median())
    clamped = gradient(build(FirstOrderMAML, second_order=True, clamp=bound, **RATES), EPISODE, Full(0, 4))
    assert float(clamped.abs().max()) == pytest.approx(bound)


def test_transductive_normalises_with_the_batch_and_changes_nothing_in_itself() -> None:
    learner = build(FirstOrderMAML, transductive=True, **RATES)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    assert not any("running" in name for name in before)
    state = learner.adapt(EPISODE.support, FullEncode(100))
    (batch,) = EPISODE.query
    together = learner.classify(state, batch.images)
    alone = torch.cat([learner.classify(state, batch.images[i : i + 1]) for i in range(len(batch.labels))])
    assert not torch.allclose(together, alone)
    assert all(torch.equal(before[name], value) for name, value in learner.state_dict().items())
    with pytest.raises(IncompatibleError, match="batch statistics"):
        check_estimator_fits(learner, Exact(0, 4))
    check_estimator_fits(learner, Full(0, 4))


@pytest.mark.parametrize(("order", "steps"), [(False, 3), (True, 3)])
def test_a_diverging_inner_loop_is_named_with_its_step(order: bool, steps: int) -> None:
    learner = build(FirstOrderMAML, steps=steps, inner_lr=1e300, backbone_lr=1e300, second_order=order)
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) at step [23] of 3"):
        learner.adapt(EPISODE.support, FullEncode(100))


def test_second_order_goes_through_attention() -> None:
    """Fused attention has no second derivative."""
    backbone = build_backbone("test_vit", image_size=32, pretrained=False)
    assert isinstance(backbone, Backbone)
    learner = FirstOrderMAML(backbone, second_order=True, steps=2)
    episode = tiny_episode(n=4, way=2)
    accumulate_task_gradient(learner, episode, Full(0, 4), 100, torch.Generator())
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in learner.parameters())
    assert any(p.grad is not None and bool(p.grad.any()) for p in learner.parameters())
