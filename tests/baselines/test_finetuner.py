"""FineTuner against a literal loop with torch.nn.Linear and torch.optim."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from torch.nn.modules.batchnorm import _BatchNorm

from lite_bench.baselines.finetuner import FineTuner, new_head
from lite_bench.harness.core import Episode
from lite_bench.harness.errors import DivergedError, UsageError
from lite_bench.models.encoding import FullEncode
from lite_bench.models.estimators import Full
from tests.models.toys import build, clip_episode, gradient, tiny_backbone, tiny_episode

EPISODE = tiny_episode(n=9, way=3)


def fitted(learner: Any, chunk: int = 4, gradients: bool = True) -> tuple[Any, Tensor]:
    (batch,) = EPISODE.query
    with torch.set_grad_enabled(gradients):
        state = learner.adapt(EPISODE.support, FullEncode(chunk))
        return state, learner.classify(state, batch.images)


def literal(learner: Any, steps: int, lr: float, kind: Any) -> nn.Linear:
    support = EPISODE.support
    head = nn.Linear(learner.backbone.features, support.way).double()
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = kind(head.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.no_grad():
            features = learner.backbone.eval()(support.images)
        torch.autograd.backward(cross_entropy(head(features), support.labels))
        optimizer.step()
    return head


@pytest.mark.parametrize(
    ("options", "steps", "lr", "kind"),
    [
        ({}, 50, 0.1, torch.optim.SGD),
        ({"steps": 7, "inner_lr": 0.5}, 7, 0.5, torch.optim.SGD),
        ({"optimizer": "adam", "inner_lr": 0.001}, 50, 0.001, torch.optim.Adam),
        ({"recompute": True}, 50, 0.1, torch.optim.SGD),
    ],
)
@pytest.mark.parametrize("gradients", [True, False])
def test_the_head_is_that_of_a_literal_loop(
    options: dict[str, Any], steps: int, lr: float, kind: Any, gradients: bool
) -> None:
    learner = build(FineTuner, **options)
    state, logits = fitted(learner, gradients=gradients)
    head = literal(learner, steps, lr, kind)
    torch.testing.assert_close(state.weight, head.weight.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(state.bias, head.bias.detach(), rtol=1e-10, atol=1e-12)
    (batch,) = EPISODE.query
    torch.testing.assert_close(logits, head(learner.backbone(batch.images)).detach(), rtol=1e-10, atol=1e-12)
    assert not logits.requires_grad


def test_recomputing_features_runs_the_body_at_every_step_with_the_same_answer() -> None:
    calls = {False: 0, True: 0}
    heads = {}
    for recompute in (False, True):
        learner = build(FineTuner, recompute=recompute, steps=6)

        def count(module: Any, inputs: Any, output: Any, key: bool = recompute) -> None:
            calls[key] += len(output)

        hook = learner.backbone.network.register_forward_hook(count)
        heads[recompute] = learner.adapt(EPISODE.support, FullEncode(100)).weight
        hook.remove()
    assert calls == {False: 9, True: 54}
    assert torch.equal(heads[False], heads[True])


def test_without_steps_the_head_is_zero() -> None:
    state, logits = fitted(build(FineTuner, steps=0))
    assert not state.weight.any()
    assert not state.bias.any()
    assert not logits.any()


def test_the_body_is_frozen_in_evaluation_mode() -> None:
    learner = FineTuner(tiny_backbone())
    for mode in (True, False):
        assert learner.train(mode).training is mode
        assert not any(module.training for module in learner.backbone.modules())
    assert not any(p.requires_grad for p in learner.parameters())


def test_adapting_leaves_the_learner_unchanged() -> None:
    learner = build(FineTuner)
    before = {key: value.clone() for key, value in learner.state_dict().items()}
    fitted(learner)
    assert all(torch.equal(before[key], value) for key, value in learner.state_dict().items())
    assert all(p.grad is None for p in learner.parameters())


def classification_gradient(learner: Any, episode: Episode) -> Tensor:
    """Compute the gradient of plain supervised classification of the queries by the learned head."""
    (batch,) = episode.query
    frames = batch.images.flatten(0, -4)
    features = learner.backbone(frames).view(len(batch.labels), -1, learner.backbone.features).mean(1)
    loss = cross_entropy(linear(features, learner.head.weight, learner.head.bias), batch.labels)
    found = torch.autograd.grad(loss, [*learner.backbone.parameters(), *learner.head.parameters()])
    return torch.cat([each.flatten() for each in found])


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("batch_statistics", [False, True])
def test_pretraining_is_supervised_classification_of_the_queries(frames: int, batch_statistics: bool) -> None:
    options = {"pretrain_classes": 3, "batch_statistics": batch_statistics}
    learner, episode = build(FineTuner, **options), clip_episode(6, frames, way=3)
    assert [name for name, _ in learner.named_parameters()][-2:] == ["head.weight", "head.bias"]
    found = gradient(learner, episode, Full(0, 100))
    expected = classification_gradient(build(FineTuner, **options), episode)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    whole = gradient(learner, episode, Full(0, 100), batch_size=2 * frames)
    if not batch_statistics:  # which those of a batch are
        torch.testing.assert_close(whole, expected, rtol=1e-9, atol=1e-12)
    norms: list[Any] = [module for module in learner.backbone.modules() if isinstance(module, _BatchNorm)]
    assert len(norms) == 2
    assert all(module.training == batch_statistics for module in norms)
    assert all(bool(module.running_mean.any()) == batch_statistics for module in norms)


def test_while_pretraining_the_state_is_the_learned_head_whatever_the_support_set() -> None:
    learner = build(FineTuner, pretrain_classes=3)
    calls: list[int] = []
    learner.backbone.network.register_forward_hook(lambda *_: calls.append(1))
    state = learner.adapt(EPISODE.support, FullEncode(4))
    assert state.weight is learner.head.weight
    assert state.bias is learner.head.bias
    assert not calls


@pytest.mark.parametrize("gradients", [True, False])
def test_a_pretrained_finetuner_is_evaluated_like_any_other(gradients: bool) -> None:
    """On other classes than those of pre-training, with a fresh head on the features as they are."""
    learner = build(FineTuner, pretrain_classes=7, batch_statistics=True)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.05)
    before = {key: value.clone() for key, value in learner.state_dict().items()}
    state, logits = fitted(learner.eval(), gradients=gradients)
    head = literal(learner, 50, 0.1, torch.optim.SGD)
    torch.testing.assert_close(state.weight, head.weight.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(state.bias, head.bias.detach(), rtol=1e-10, atol=1e-12)
    assert logits.shape == (5, 3)
    assert not state.weight.requires_grad
    assert not any(module.training for module in learner.modules())
    assert all(torch.equal(before[key], value) for key, value in learner.state_dict().items())
    assert learner.train().training


def test_the_learned_head_starts_as_published_and_belongs_to_the_weights() -> None:
    """Kaiming's uniform rule over the fan-out of C = 100: within sqrt(6 / C), with variance 2 / C."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = new_head(512, 100)
    bound, weight = (6 / 100) ** 0.5, head.weight.detach()
    assert 0.99 * bound < float(weight.abs().max()) <= bound
    assert float(weight.var()) == pytest.approx(2 / 100, rel=0.05)
    assert not bool(head.bias.any())
    assert {"head.weight", "head.bias"} <= build(FineTuner, pretrain_classes=3).state_dict().keys()
    assert not any(key.startswith("head") for key in build(FineTuner).state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pretrain_classes": -1}, "-P pretrain_classes=-1 is not usable: give a number of classes, or 0"),
        ({"batch_statistics": True}, "-P batch_statistics=true is for pre-training, .* give -P pretrain_classes=N too"),
    ],
)
def test_options_of_pretraining_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(FineTuner, **options)


@pytest.mark.parametrize("classes", [2, 100])
def test_training_tasks_of_other_classes_than_the_head_has_are_refused(classes: int) -> None:
    learner = build(FineTuner, pretrain_classes=classes)
    with pytest.raises(UsageError, match=f"pretrain_classes={classes} does not fit a training task of 3 classes: .*"):
        gradient(learner, EPISODE, Full(0, 100))


def test_summed_batches_scale_the_rate_with_the_number_of_batches() -> None:
    """With equal chunks the sum of their means is the mean times their number."""
    episode = tiny_episode(n=9, way=3)
    summed = build(FineTuner, steps=4, sum_batches=True).adapt(episode.support, FullEncode(3))
    plain = build(FineTuner, steps=4, inner_lr=0.3).adapt(episode.support, FullEncode(3))
    torch.testing.assert_close(summed.weight, plain.weight, rtol=1e-10, atol=1e-12)
    whole = build(FineTuner, steps=4, sum_batches=True).adapt(episode.support, FullEncode(9))
    assert not torch.allclose(whole.weight, summed.weight)


def test_a_diverging_fit_is_named_with_its_step() -> None:
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) at step \d+ of 50"):
        build(FineTuner, inner_lr=float("inf")).adapt(tiny_episode(n=9, way=3).support, FullEncode(9))


@pytest.mark.parametrize(("options", "training", "fixed"), [
    ({}, True, False), ({"sum_batches": True}, False, True),
    ({"pretrain_classes": 3, "batch_statistics": True}, True, True),
    ({"pretrain_classes": 3, "batch_statistics": True}, False, False),
])  # fmt: skip
def test_it_says_when_its_results_depend_on_the_batches(options: dict[str, Any], training: bool, fixed: bool) -> None:
    assert build(FineTuner, **options).train(training).fixed_batches == fixed
