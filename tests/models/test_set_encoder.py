"""The set encoder against its description in the papers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d, group_norm, max_pool2d

from lite_bench.models.backbones import conv4
from lite_bench.models.set_encoder import SetEncoder
from tests.models.toys import tiny_backbone

MEAN, STD = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(1, 3, 1, 1)


def make(statistics: Any, seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = SetEncoder(MEAN, STD, statistics).double()
        with torch.no_grad():
            for p in encoder.parameters():
                p.add_(0.1 * torch.randn_like(p))
    return encoder


def images(n: int = 6, side: int = 40) -> Tensor:
    return torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


@pytest.mark.parametrize("statistics", ["image", "fixed", "batch"])
@pytest.mark.parametrize("mode", [True, False])
def test_it_is_five_blocks_and_a_global_average(statistics: Any, mode: bool) -> None:
    """Written out with normalisation, ReLU, then pooling, in the order of the papers; 40 pixels make pooling floor."""
    encoder = make(statistics).train(mode)
    maps = (images().double() / 255 - MEAN.double()) / STD.double()
    for convolution, norm, *_ in encoder.blocks:
        maps = conv2d(maps, convolution.weight, convolution.bias, padding=1)
        if statistics == "image":
            maps = group_norm(maps, 8, norm.weight, norm.bias)
        elif statistics == "fixed":
            maps = batch_norm(maps, torch.zeros(64).double(), torch.ones(64).double(), norm.weight, norm.bias)
        else:
            maps = batch_norm(maps, None, None, norm.weight, norm.bias, training=True)
        maps = max_pool2d(maps.relu(), 2)
    torch.testing.assert_close(encoder(images()), maps.mean((2, 3)))


@pytest.mark.parametrize("mode", [True, False])
def test_only_batch_statistics_couple_the_images_of_a_chunk(mode: bool) -> None:
    for statistics, coupled in (("image", False), ("fixed", False), ("batch", True)):
        encoder = make(statistics).train(mode)
        together, pieces = encoder(images()), torch.cat([encoder(part) for part in torch.split(images(), 2)])
        assert torch.allclose(together, pieces, rtol=1e-10, atol=1e-12) != coupled


@pytest.mark.parametrize("statistics", ["image", "fixed", "batch"])
def test_running_it_changes_nothing_in_it(statistics: Any) -> None:
    encoder = make(statistics).train()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    encoder(images())
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())


def test_it_scales_pixels_as_the_backbone_does() -> None:
    backbone, grey = tiny_backbone(), conv4("conv4", image_size=32)
    assert torch.equal(SetEncoder(backbone.mean, backbone.std).mean, backbone.mean)
    encoder = SetEncoder(grey.mean, grey.std)
    assert encoder.mean.flatten().tolist() == [1, 1, 1]
    assert encoder.std.flatten().tolist() == [-1, -1, -1]


def test_it_gives_64_numbers_per_image() -> None:
    assert make("image")(images(3, 32)).shape == (3, 64)
