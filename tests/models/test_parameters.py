"""Parameter counts of Table 1 of the LITE paper, to the unit, and compute per image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lite_bench.baselines.finetuner import FineTuner
from lite_bench.baselines.fomaml import FirstOrderMAML
from lite_bench.harness.measurement.macs import count_macs
from lite_bench.models.backbones import Backbone, resnet18_84, timm_backbone
from lite_bench.models.cnaps import CNAPs, HeadGenerator
from lite_bench.models.protonets import ProtoNets
from lite_bench.models.set_encoder import SetEncoder
from lite_bench.models.simple_cnaps import SimpleCNAPs

BACKBONES = {"resnet18_84": 84, "resnet18": 224, "efficientnet_b0": 224}
BODY = {"resnet18_84": 11_171_904, "resnet18": 11_176_512, "efficientnet_b0": 4_007_548}
GENERATORS = {"resnet18_84": 644_096, "resnet18": 644_096, "efficientnet_b0": 1_510_272}
HEADS = {"resnet18_84": 788_485, "resnet18": 788_485, "efficientnet_b0": 4_920_325}
SET_ENCODER = 150_144
TOTALS: list[tuple[Callable[..., Any], str, int]] = [
    (ProtoNets, "resnet18_84", 11_171_904),
    (ProtoNets, "resnet18", 11_176_512),
    (ProtoNets, "efficientnet_b0", 4_007_548),
    (SimpleCNAPs, "resnet18_84", 11_966_144),
    (SimpleCNAPs, "resnet18", 11_970_752),
    (SimpleCNAPs, "efficientnet_b0", 5_667_964),
    (CNAPs, "resnet18_84", 12_754_629),
    (CNAPs, "resnet18", 12_759_237),
    (CNAPs, "efficientnet_b0", 10_588_289),
]


def make(name: str) -> Backbone:
    factory = resnet18_84 if name == "resnet18_84" else timm_backbone
    return factory(name, image_size=BACKBONES[name], pretrained=False)


def count(module: nn.Module, trainable: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


@pytest.mark.parametrize(("factory", "name", "total"), TOTALS)
def test_totals_are_the_published_ones(factory: Callable[..., Any], name: str, total: int) -> None:
    assert count(factory(make(name))) == total


@pytest.mark.parametrize("factory", [FirstOrderMAML, FineTuner])
def test_baselines_have_the_parameters_of_the_backbone(factory: Callable[..., Any]) -> None:
    assert count(factory(make("efficientnet_b0"))) == BODY["efficientnet_b0"]


@pytest.mark.parametrize("name", BACKBONES)
def test_parts(name: str) -> None:
    learner = CNAPs(make(name))
    assert count(learner.body.backbone) == BODY[name]
    assert count(learner.body.set_encoder) == SET_ENCODER
    assert count(learner.body.generators) == GENERATORS[name]
    assert count(learner.head) == HEADS[name]
    assert BODY[name] + SET_ENCODER + GENERATORS[name] + HEADS[name] == count(learner)


def test_the_classifier_takes_its_closed_form() -> None:
    for features in (1, 5, 64):
        assert count(HeadGenerator(features)) == 3 * features**2 + 4 * features + 5


@pytest.mark.parametrize(
    ("factory", "trainable"),
    [
        (CNAPs, 6_580_741),
        (SimpleCNAPs, 1_660_416),
        (ProtoNets, 4_007_548),
        (FirstOrderMAML, 4_007_548),
        (FineTuner, 0),
    ],
)
def test_trainable_share_on_efficientnet(factory: Callable[..., Any], trainable: int) -> None:
    assert count(factory(make("efficientnet_b0")), trainable=True) == trainable


@pytest.mark.parametrize("statistics", ["image", "fixed", "batch"])
def test_the_set_encoder_has_the_same_size_with_all_statistics(statistics: Any) -> None:
    encoder = SetEncoder(torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1), statistics)
    assert count(encoder) == count(encoder, trainable=True) == SET_ENCODER


@pytest.mark.parametrize(
    ("name", "side", "billions"),
    [
        ("set encoder", 224, 0.701),
        ("set encoder", 84, 0.098),
        ("efficientnet_b0", 224, 0.385),
        ("resnet18", 224, 1.814),
        ("resnet18_84", 84, 1.043),
    ],
)
def test_macs_per_image(name: str, side: int, billions: float) -> None:
    encoder = SetEncoder(torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1))
    network = encoder if name == "set encoder" else make(name).eval()
    macs = count_macs(network, torch.zeros(1, 3, side, side, dtype=torch.uint8))
    assert macs / 1e9 == pytest.approx(billions, abs=5.1e-4)
