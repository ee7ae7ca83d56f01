"""What ProtoNets, CNAPs and Simple CNAPs cost by the published formulas, written out in exact fractions."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lite_bench.harness.core import TaskSizes
from lite_bench.harness.measurement.published import linear_macs
from lite_bench.models.backbones import timm_backbone
from lite_bench.models.cnaps import CNAPs
from lite_bench.models.protonets import ProtoNets
from lite_bench.models.simple_cnaps import SimpleCNAPs

ADAPTER = {"resnet18": 622_592, "efficientnet_b0": 1_462_272}
WEIGHT = {"resnet18": 786_432, "efficientnet_b0": 4_915_200}
BIAS = {"resnet18": 514, "efficientnet_b0": 1_282}
WIDTH = {"resnet18": 512, "efficientnet_b0": 1280}
BODY, SET_ENCODER = 1_000_003, 50_021
"""Stand for one image in the backbone and in the set encoder."""
NETWORKS = pytest.mark.parametrize("name", WIDTH)
SIZES = st.builds(TaskSizes, st.lists(st.integers(1, 60), min_size=2, max_size=15).map(tuple), st.sampled_from([1, 8]))


@cache
def learner(factory: Callable[..., Any], name: str) -> Any:
    return factory(timm_backbone(name, image_size=32, pretrained=False))


def network_macs(module: nn.Module) -> int:
    return {"Backbone": BODY, "SetEncoder": SET_ENCODER}[type(module).__name__]


@NETWORKS
def test_the_layers_of_the_generators_are_the_published_ones(name: str) -> None:
    own = learner(CNAPs, name)
    assert linear_macs(own.body.generators) == ADAPTER[name]
    assert linear_macs(own.head.weight) == WEIGHT[name]
    assert linear_macs(own.head.bias) == BIAS[name]


@NETWORKS
@settings(max_examples=25, deadline=None)
@given(sizes=SIZES)
def test_protonets(name: str, sizes: TaskSizes) -> None:
    f, d, n, c = sizes.images, WIDTH[name], sizes.items, sizes.way
    expected = f * BODY + f * d + c * n + n * d + 3 * c * d
    assert learner(ProtoNets, name).published_macs(sizes, network_macs) == expected


@NETWORKS
@settings(max_examples=25, deadline=None)
@given(sizes=SIZES)
def test_cnaps(name: str, sizes: TaskSizes) -> None:
    f, d, n, c = sizes.images, WIDTH[name], sizes.items, sizes.way
    expected = f * SET_ENCODER + ADAPTER[name] + f * BODY + f * d + c * n + n * d + c * (WEIGHT[name] + BIAS[name])
    assert learner(CNAPs, name).published_macs(sizes, network_macs) == expected


@NETWORKS
@settings(max_examples=25, deadline=None)
@given(sizes=SIZES)
def test_simple_cnaps(name: str, sizes: TaskSizes) -> None:
    f, d, n = sizes.images, Fraction(WIDTH[name]), sizes.items

    def covariance(m: int) -> Fraction:
        return 2 * d * m + d**2 * m + 1

    expected = f * SET_ENCODER + ADAPTER[name] + f * BODY + f * d + covariance(n)
    for own in sizes.class_counts:
        expected += covariance(own) + n + own * d + 1 + 2 * d**2 + d**3 / 3 + d**2 - 4 * d / 3
    assert learner(SimpleCNAPs, name).published_macs(sizes, network_macs) == expected


@pytest.mark.parametrize("factory", [ProtoNets, CNAPs, SimpleCNAPs])
def test_they_are_meta_trained_and_take_one_forward_pass(factory: Any) -> None:
    assert (factory.meta_trained, factory.passes) == (True, "1F")
