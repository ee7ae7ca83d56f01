"""Backbones: input scaling, feature sizes, and clear answers to what cannot be had."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d

from lite_bench.harness.errors import UnknownNameError, UsageError, WeightsError
from lite_bench.models.backbones import Backbone, conv4, resnet18_84, resnet34_stride16, timm_backbone


def test_images_are_scaled_as_the_weights_expect() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    pixels = timm_backbone("resnet18", image_size=32, pretrained=False).scale(images)
    expected = [(0 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    torch.testing.assert_close(pixels[0, :, 5, 7], torch.tensor(expected))
    halves = timm_backbone("vit_tiny_patch16_224", image_size=32, pretrained=False).scale(images)
    torch.testing.assert_close(halves[0, :, 5, 7], torch.tensor([-1.0, -0.6, 1.0]))
    assert images.unique().tolist() == [0, 51, 255]  # type: ignore[no-untyped-call]


def test_conv4_sees_inverted_grey() -> None:
    backbone = conv4("conv4", image_size=28)
    for colour, ink in (((0, 0, 0), 1.0), ((255, 255, 255), 0.0), ((255, 0, 51), 1 - 0.4)):
        images = torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 28, 28)
        pixels = backbone.scale(images)
        assert pixels.shape == (1, 1, 28, 28)
        torch.testing.assert_close(pixels, torch.full_like(pixels, ink))


def test_conv4_is_four_blocks_of_the_paper() -> None:
    backbone = conv4("conv4", image_size=28).double().train()
    images = torch.randint(0, 256, (3, 3, 28, 28)).to(torch.uint8)
    maps: Tensor = 1 - images.double().mean(1, keepdim=True) / 255
    blocks: Any = backbone.network.blocks
    for convolution, norm, *_ in blocks:
        maps = conv2d(maps, convolution.weight, convolution.bias, padding=1)
        mean, var = maps.mean((0, 2, 3), keepdim=True), maps.var((0, 2, 3), unbiased=False, keepdim=True)
        maps = max_pool2d(((maps - mean) / (var + 1e-5).sqrt()).relu(), 2)
        assert norm.weight.eq(1).all()
    torch.testing.assert_close(backbone(images), maps.flatten(1))
    assert sum(p.numel() for p in backbone.parameters()) == 111_936


@pytest.mark.parametrize(
    ("name", "side", "features"),
    [
        ("conv4", 28, 64),
        ("conv4", 84, 1600),
        ("resnet18_84", 84, 512),
        ("resnet18", 64, 512),
        ("efficientnet_b0", 64, 1280),
        ("timm:test_resnet", 64, 96),
        ("vit_tiny_patch16_224", 96, 192),
        ("vit_small_patch16_224", 64, 384),
    ],
)
def test_feature_sizes(name: str, side: int, features: int) -> None:
    factory = {"conv4": conv4, "resnet18_84": resnet18_84}.get(name, timm_backbone)
    backbone = factory(name, image_size=side, pretrained=False).eval()
    assert backbone.features == features
    with torch.no_grad():
        found = backbone(torch.zeros(2, 3, side, side, dtype=torch.uint8))
    assert found.shape == (2, features)
    assert (backbone.name, backbone.image_size) == (name, side)


def test_resnet18_84_is_a_narrow_stem_without_pooling() -> None:
    plain: Any = timm_backbone("resnet18", image_size=84, pretrained=False).network
    small: Any = resnet18_84("resnet18_84", image_size=84).network
    assert small.conv1.weight.shape == (64, 3, 5, 5)
    assert small.conv1.stride == (2, 2)
    assert small.conv1.padding == (1, 1)
    assert isinstance(small.maxpool, nn.Identity)
    assert {k: v.shape for k, v in small.state_dict().items() if k != "conv1.weight"} == {
        k: v.shape for k, v in plain.state_dict().items() if k != "conv1.weight"
    }
    std = float(small.conv1.weight.detach().std())
    assert std == pytest.approx((2 / (25 * 64)) ** 0.5, rel=0.1)  # He initialisation, as in the rest of the network


def test_a_vision_transformer_is_resized_to_the_images() -> None:
    network: Any = timm_backbone("vit_tiny_patch16_224", image_size=96, pretrained=False).network
    assert network.pos_embed.shape[1] == 1 + 36


@pytest.mark.parametrize(
    ("factory", "name", "side"),
    [(conv4, "conv4", 8), (conv4, "conv4", 15), (timm_backbone, "vit_tiny_patch16_224", 8)],
)
def test_sizes_that_do_not_fit_are_refused(factory: Any, name: str, side: int) -> None:
    with pytest.raises(UsageError, match=rf"Backbone {name} cannot take images of {side} pixels .*--image-size"):
        factory(name, image_size=side, pretrained=False)


def test_maps_instead_of_features_are_refused() -> None:
    with pytest.raises(UsageError, match=r"gives features of shape \(1, 4, 30, 30\), not \[N, D\]"):
        Backbone("map", nn.Conv2d(3, 4, 3), 32)


@pytest.mark.parametrize(
    ("factory", "name"),
    [
        (conv4, "conv4"),
        (resnet18_84, "resnet18_84"),
        (timm_backbone, "resnet18+gn"),
    ],
)
def test_weights_that_nobody_published_are_refused(factory: Any, name: str) -> None:
    with pytest.raises(WeightsError, match=r"has no published weights; use --no-pretrained") as error:
        factory(name, image_size=84, pretrained=True)
    assert name in str(error.value)
    for pretrained in (None, False):
        assert factory(name, image_size=84, pretrained=pretrained).features == (1600 if name == "conv4" else 512)


def test_an_unknown_network_is_named_with_its_neighbours() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean .*resnet18") as error:
        timm_backbone("resnet_18", image_size=64, pretrained=False)
    assert "resnet_18" in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("name", ["timm:resnet18", "timm:resnet18+gn"])
def test_prefix_and_suffix_are_no_part_of_timms_name(name: str) -> None:
    assert timm_backbone(name, image_size=64, pretrained=False).features == 512


def test_measuring_leaves_mode_and_statistics_alone() -> None:
    network = timm_backbone("test_resnet", image_size=64, pretrained=False).network
    assert network.training
    statistics = [value for key, value in network.state_dict().items() if key.endswith("num_batches_tracked")]
    assert statistics
    assert not any(int(value) for value in statistics)


def test_parameters_can_be_replaced_for_one_call() -> None:
    backbone = conv4("conv4", image_size=28).eval()
    images = torch.randint(0, 256, (2, 3, 28, 28)).to(torch.uint8)
    other = conv4("conv4", image_size=28).eval()
    with torch.no_grad():
        found = backbone(images, dict(other.network.named_parameters()))
        assert torch.equal(found, other(images))
        assert not torch.equal(found, backbone(images))


def noise(n: int, side: int) -> Tensor:
    return torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.mark.parametrize(("name", "side"), [("test_resnet", 64), ("test_efficientnet", 96), ("conv4", 84)])
def test_features_are_pooled_or_flattened_maps(name: str, side: int) -> None:
    backbone = {"conv4": conv4}.get(name, timm_backbone)(name, image_size=side, pretrained=False).eval().double()
    maps = backbone.maps(noise(2, side))
    assert maps.shape[1:] == backbone.map_shape()
    pooled = maps.flatten(1) if name == "conv4" else maps.mean((2, 3))
    torch.testing.assert_close(pooled, backbone(noise(2, side)))


def test_a_vision_transformers_tokens_lie_as_their_patches_do() -> None:
    """Without its blocks a token depends on its own patch alone."""
    backbone = timm_backbone("test_vit", image_size=64, pretrained=False).eval()
    network: Any = backbone.network
    network.blocks, network.norm = nn.Identity(), nn.Identity()
    assert backbone.map_shape() == (64, 4, 4)
    images = noise(1, 64)
    changed = images.clone()
    changed[:, :, 16:32, 48:64] = 0  # second row of patches, last column
    moved = (backbone.maps(images) - backbone.maps(changed)).detach().abs().amax((0, 1)) > 0
    assert moved.nonzero().tolist() == [[1, 3]]


def test_maps_with_channels_last_are_turned() -> None:
    class Turned(nn.Conv2d):
        output_fmt = "NHWC"

        def forward_features(self, pixels: Tensor) -> Tensor:
            return super().forward(pixels).permute(0, 2, 3, 1)

        def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in torch's own signature
            return self.forward_features(input).mean((1, 2))

    backbone = Backbone("turned", Turned(3, 4, 3, stride=(2, 3)), 32)
    assert backbone.map_shape() == (4, 15, 10)
    torch.testing.assert_close(backbone.maps(noise(2, 32)).mean((2, 3)), backbone(noise(2, 32)))


def test_parameters_can_be_replaced_for_maps_too() -> None:
    backbone, other = (conv4("conv4", image_size=32).eval() for _ in range(2))
    with torch.no_grad():
        found = backbone.maps(noise(2, 32), dict(other.network.named_parameters()))
        assert torch.equal(found, other.maps(noise(2, 32)))
        assert not torch.equal(found, backbone.maps(noise(2, 32)))


def test_maps_of_bfloat16_networks_are_float32() -> None:
    backbone = conv4("conv4", image_size=32).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert backbone.maps(noise(2, 32)).dtype == torch.float32


def test_measuring_maps_leaves_every_layers_mode_alone() -> None:
    backbone = conv4("conv4", image_size=32).train()
    layers = list(backbone.network.modules())
    layers[-2].eval()
    before = [layer.training for layer in layers]
    assert backbone.map_shape() == (64, 2, 2)
    assert [layer.training for layer in layers] == before
    assert len(set(before)) == 2


class Flat(nn.Flatten):
    """Pixels as features; no maps."""


class Tokens(Flat):
    def forward_features(self, pixels: Tensor) -> Tensor:
        return pixels.flatten(2).transpose(1, 2)


@pytest.mark.parametrize(
    ("network", "reason"),
    [(Flat(), "the network has no method forward_features"), (Tokens(), r"it gives values of shape \(1, 64, 3\)")],
)
def test_a_network_without_maps_is_refused(network: nn.Module, reason: str) -> None:
    backbone = Backbone("flat", network, 8)
    message = rf"^Backbone flat gives no feature maps \[N, D, h, w\] before pooling: {reason}; choose .* --backbone\.$"
    with pytest.raises(UsageError, match=message):
        backbone.map_shape()


def test_resnet34_stride16_has_every_second_position_of_the_plain_network() -> None:
    """Dilation in place of stride computes the positions in between as well, with the same weights."""
    plain = timm_backbone("resnet34", image_size=64, pretrained=False).eval()
    dense = resnet34_stride16("resnet34_stride16", image_size=64, pretrained=False).eval()
    dense.network.load_state_dict(plain.network.state_dict())
    with torch.no_grad():
        maps, expected = dense.maps(noise(2, 64)), plain.maps(noise(2, 64))
    assert (maps.shape, expected.shape) == ((2, 512, 4, 4), (2, 512, 2, 2))
    torch.testing.assert_close(maps[:, :, ::2, ::2], expected, rtol=1e-4, atol=1e-4)
    assert sum(p.numel() for p in dense.parameters()) == 21_284_672
    assert (dense.name, dense.features) == ("resnet34_stride16", 512)


def test_resnet34_stride16_has_maps_of_14_by_14_at_224_pixels() -> None:
    backbone = resnet34_stride16("resnet34_stride16+gn", image_size=224)
    assert backbone.map_shape() == (512, 14, 14)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in backbone.modules())
