"""Steps on a copy of a network under autocast: every step sees the weights that the last one left."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lite_bench.harness.assembly import build_backbone
from lite_bench.harness.core import Support
from lite_bench.harness.errors import UsageError
from lite_bench.harness.registry import LEARNERS
from lite_bench.models.encoding import FullEncode
from tests.models.toys import tiny_episode

STEPS: dict[str, dict[str, Any]] = {
    "fomaml": {"steps": 6, "inner_lr": 0.1, "backbone_lr": 0.1},
    "proto_maml": {"steps": 6, "inner_lr": 0.05},
    "reptile": {"test_steps": 6},
    "md_transfer": {"steps": 6},
    "bit": {"steps": 6, "inner_lr": 0.05},
}


def learner_of(name: str) -> Any:
    return LEARNERS.load(name)(build_backbone("conv4+gn", image_size=32, pretrained=False), **STEPS[name]).eval()


def support() -> Support:
    return tiny_episode(n=12, way=3, side=32).support


@pytest.mark.parametrize("name", STEPS)
def test_a_step_in_bfloat16_sees_the_current_weights(name: str) -> None:
    """With autocast's memory of casts, which outlives a change in place, as without it."""
    learner, task = learner_of(name), support()
    logits = []
    for cached in (True, False):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, cache_enabled=cached):
            state = learner.adapt(task, FullEncode(5))
            logits.append(learner.classify(state, task.images))
    assert torch.equal(*logits)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fomaml", {"steps": -1}, "-P steps=-1 is not usable"),
        ("fomaml", {"clamp": -1.0}, "-P clamp=-1 is not usable"),
        ("fomaml", {"backbone_lr": 0.0}, "-P backbone_lr=0 is not usable: give a number above 0"),
        ("finetuner", {"steps": -3}, "-P steps=-3 is not usable"),
        ("finetuner", {"inner_lr": float("nan")}, "-P inner_lr=nan is not usable"),
        ("sur", {"steps": -3}, "-P steps=-3 is not usable"),
        ("sur", {"logit_scale": 0.0}, "-P logit_scale=0 is not usable"),
        ("bit", {"inner_lr": -1.0}, "-P inner_lr=-1 is not usable"),
        ("md_transfer", {"inner_lr": 0.0}, "-P inner_lr=0 is not usable"),
        ("reptile", {"inner_lr": -1.0}, "-P inner_lr=-1 is not usable"),
        ("proto_maml", {"inner_lr": -1.0}, "-P inner_lr=-1 is not usable"),
        ("simple_cnaps", {"beta": 0.0}, "-P beta=0 is not usable"),
    ],
)
def test_numbers_out_of_range_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LEARNERS.load(name)(build_backbone("conv4", image_size=32, pretrained=False), **options)
