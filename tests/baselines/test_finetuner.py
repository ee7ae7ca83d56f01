"""FineTuner against a literal loop with torch.nn.Linear and torch.optim."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lite_bench.baselines.finetuner import FineTuner
from lite_bench.models.encoding import FullEncode
from tests.models.toys import build, tiny_backbone, tiny_episode

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
