"""The contract, over the registry: every registered learner, ours or not, keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lite_bench.harness.assembly import build_backbone
from lite_bench.harness.checks import check_learner
from lite_bench.harness.errors import PluginError
from lite_bench.harness.registry import LEARNERS

FEW_STEPS: dict[str, dict[str, Any]] = {
    "fomaml": {"steps": 3},
    "proto_maml": {"steps": 2},
    "md_transfer": {"steps": 2},
    "bit": {"steps": 3},
    "reptile": {"steps": 2, "test_steps": 2},
}
"""Hundreds of steps on a network from scratch make much of rounding and take minutes; the contract is of each step."""


@pytest.mark.parametrize("name", LEARNERS.names())
@pytest.mark.parametrize("backbone", ["conv4", "test_efficientnet", "test_vit"])
def test_every_learner_keeps_the_contract(name: str, backbone: str) -> None:
    size = {"conv4": 32, "test_efficientnet": 64, "test_vit": 64}[backbone]
    built = build_backbone(backbone, image_size=size, pretrained=False)
    check_learner(LEARNERS.load(name)(built, **FEW_STEPS.get(name, {})), image_size=size)


@dataclass
class Means:
    means: Tensor


class Sound(nn.Module):
    """Nearest class mean on pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1).float() / 255

    def adapt(self, support: Any, encode: Any) -> Any:
        features = encode(self.features, support.images)
        return Means(torch.stack([features[support.labels == c].mean(0) for c in range(support.way)]))

    def classify(self, state: Any, images: Tensor) -> Tensor:
        return -self.scale * torch.cdist(self.features(images), state.means)


class Forgetful(Sound):
    def adapt(self, support: Any, encode: Any) -> Any:
        self.register_buffer("last", support.labels)
        return super().adapt(support, encode)


class Ordered(Sound):
    def adapt(self, support: Any, encode: Any) -> Any:
        features = encode(self.features, support.images)
        return Means(torch.stack([features[support.labels == c][0] for c in range(support.way)]))


class Transductive(Sound):
    def features(self, images: Tensor) -> Tensor:
        pixels = super().features(images)
        return pixels - pixels.mean(0)


class Bare(Sound):
    def adapt(self, support: Any, encode: Any) -> Any:
        return super().adapt(support, encode).means


class Labelled(Sound):
    def classify(self, state: Any, images: Tensor) -> Tensor:
        return super().classify(state, images) + torch.arange(len(state.means))


class Narrow(Sound):
    def classify(self, state: Any, images: Tensor) -> Tensor:
        return super().classify(state, images)[:, :2]


class Undefined(Sound):
    def classify(self, state: Any, images: Tensor) -> Tensor:
        return super().classify(state, images) / 0


class Severed(Sound):
    def classify(self, state: Any, images: Tensor) -> Tensor:
        return super().classify(state, images).detach()


class Late(Sound):
    """Its networks use a loop variable: run again, all of them are the last one."""

    def adapt(self, support: Any, encode: Any) -> Any:
        total: Any = 0
        for power in (1, 2):
            total = total + encode(lambda images: self.features(images) ** power * self.scale, support.images)  # noqa: B023 - the breach
        return Means(torch.stack([total[support.labels == c].mean(0) for c in range(support.way)]))


class Unfinished(nn.Module):
    def adapt(self, support: Any, encode: Any) -> Any:
        return None


def test_a_sound_learner_passes() -> None:
    check_learner(Sound())


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (Forgetful, "changes itself in adapt"),
        (Ordered, "order of the support set"),
        (Transductive, "chunks|influence each other"),
        (Bare, "not a dataclass"),
        (Labelled, "classes are renamed"),
        (Narrow, "shape"),
        (Undefined, "not finite"),
        (Severed, "no gradient"),
        (Late, "run again"),
        (Unfinished, "lacks adapt"),
        (dict, "not a torch.nn.Module"),
    ],
)
def test_every_breach_is_named(learner: Any, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        check_learner(learner())
