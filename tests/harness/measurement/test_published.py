"""The published counting: exact figures of the published networks, and small layers counted by what they compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lite_bench.harness.assembly import build_backbone
from lite_bench.harness.core import TaskSizes
from lite_bench.harness.errors import IncompatibleError
from lite_bench.harness.measurement.published import linear_macs, mean_task_macs, network_counter, published_macs
from lite_bench.models.normalisation import PerImageNorm
from lite_bench.models.protonets import ProtoNets
from lite_bench.models.set_encoder import SetEncoder
from tests.models.toys import tiny_backbone


class OnFloats(nn.Module):
    """Gives layers the images as floats, all ones."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        seen: Tensor = self.layers(images.float() + 1)
        self.seen = seen
        return seen


@pytest.mark.parametrize(
    ("name", "side", "macs"),
    [
        ("resnet18_orbit", 224, 1_797_895_936),
        ("resnet18_84", 84, 1_045_051_968),
        ("efficientnet_b0", 224, 398_083_484),
        ("resnet18", 224, 1_818_554_368),
    ],
)
def test_a_backbone_costs_what_is_published_to_the_unit(name: str, side: int, macs: int) -> None:
    assert published_macs(build_backbone(name, image_size=side, pretrained=False), side) == macs


@pytest.mark.parametrize(("side", "macs"), [(224, 713_694_080), (84, 99_888_320)])
@pytest.mark.parametrize("statistics", ["image", "fixed", "batch"])
def test_the_set_encoder_costs_what_is_published_to_the_unit(side: int, macs: int, statistics: Any) -> None:
    encoder = SetEncoder(torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1), statistics)
    assert published_macs(encoder, side) == macs


@settings(max_examples=30, deadline=None)
@given(
    groups=st.sampled_from([1, 3]),
    filters=st.integers(1, 3),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    bias=st.booleans(),
    side=st.integers(5, 9),
)
def test_a_convolution_costs_the_ones_it_adds_up(
    groups: int, filters: int, kernel: tuple[int, int], stride: int, padding: int, bias: bool, side: int
) -> None:
    """Of ones alone, padding included, an output is the number of products that it is the sum of, and its bias."""
    own = nn.Conv2d(3, 3 * filters, kernel, stride, padding, groups=groups, bias=bias, padding_mode="circular")
    for parameter in own.parameters():
        nn.init.ones_(parameter)
    network = OnFloats(own)
    macs = published_macs(network, side)
    assert macs == int(network.seen.sum())


def test_a_linear_layer_costs_its_products_without_the_bias() -> None:
    own = nn.Linear(6, 4)
    nn.init.ones_(own.weight)
    nn.init.constant_(own.bias, 1e-4)
    network = OnFloats(own)
    assert published_macs(network, 6) == int(network.seen.sum()) == 3 * 6 * (6 * 4)


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (nn.BatchNorm2d(3), 2 * 3 * 36),
        (nn.GroupNorm(3, 3), 2 * 3 * 36),
        (PerImageNorm(3, nn.SiLU()), 2 * 3 * 36),
        (nn.LayerNorm(6), 0),
        (nn.AdaptiveAvgPool2d(1), 3 * (36 + 1)),
        (nn.AdaptiveAvgPool2d((2, 3)), 3 * 6 * (3 * 2 + 1)),
        (nn.AvgPool2d(2), 0),
        (nn.MaxPool2d(2), 0),
        (nn.ReLU(), 0),
        (nn.Dropout(), 0),
        (nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3)), 2 * 2 * 3 * 36),
    ],
    ids=repr,
)
def test_other_layers(layer: nn.Module, macs: int) -> None:
    assert published_macs(OnFloats(layer), 6) == macs


def test_kinds_of_convolution_and_layers_that_run_twice_count_too() -> None:
    class Own(nn.Conv2d):
        pass

    twice = Own(3, 3, 1)
    assert published_macs(OnFloats(twice), 4) == 3 * 16 * 4
    assert published_macs(OnFloats(twice, twice), 4) == 2 * 3 * 16 * 4


def test_a_network_is_left_as_it_was() -> None:
    network = OnFloats(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)).train()
    network.layers[0].eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    published_macs(network, 8)
    assert [module.training for module in network.modules()] == modes
    assert {True, False} == set(modes)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
    assert not network.seen.requires_grad


def test_it_is_left_as_it_was_even_if_it_cannot_run() -> None:
    network = OnFloats(nn.Conv2d(3, 3, 1), nn.Conv2d(5, 2, 1)).train()
    with pytest.raises(RuntimeError):
        published_macs(network, 8)
    assert all(module.training and not module._forward_hooks for module in network.modules())


def test_every_network_is_run_once() -> None:
    calls = []
    first, second = OnFloats(nn.Conv2d(3, 1, 1)), OnFloats(nn.Conv2d(3, 2, 1))
    for network in (first, second):
        network.register_forward_hook(lambda module, *_: calls.append(module))
    count = network_counter(4)
    assert [count(network) for network in (first, second, first)] == [16 * 4, 32 * 4, 16 * 4]
    assert calls == [first, second]


def test_linear_layers_inside_a_module_are_summed() -> None:
    module = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Sequential(nn.Linear(5, 2, bias=False)))
    assert linear_macs(module) == 15 + 10


def test_the_mean_over_tasks_is_weighted_by_how_often_a_size_occurs() -> None:
    learner, count = ProtoNets(tiny_backbone()), network_counter(32)
    sizes = [TaskSizes((2, 2)), TaskSizes((9, 1, 4), 8)]
    small, large = (learner.published_macs(each, count) for each in sizes)
    assert mean_task_macs(learner, [sizes[0], sizes[1], sizes[0]], count) == pytest.approx((2 * small + large) / 3)


def test_a_learner_that_does_not_say_its_cost_is_named() -> None:
    class Silent:
        pass

    silent: Any = Silent()
    with pytest.raises(IncompatibleError, match=r"Learner Silent does not say .*the method published_macs"):
        mean_task_macs(silent, [TaskSizes((1, 1))], network_counter(32))
