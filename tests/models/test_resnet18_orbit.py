"""ResNet-18 with the stem of ORBIT's baselines: its maps, and that timm's weights fit."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import conv2d, max_pool2d, pad

from lite_bench.harness.errors import WeightsError
from lite_bench.models.backbones import resnet18_orbit, timm_backbone
from lite_bench.models.normalisation import PerImageNorm

NAME = "resnet18_orbit"


def test_its_maps_at_224_pixels_are_the_published_ones() -> None:
    backbone = resnet18_orbit(NAME, image_size=224, pretrained=False).eval()
    network: Any = backbone.network
    sides = []
    layers = (network.conv1, network.maxpool, network.layer1, network.layer2, network.layer3, network.layer4)
    for layer in layers:
        layer.register_forward_hook(lambda _module, _inputs, output: sides.append(tuple(output.shape[2:])))
    with torch.no_grad():
        backbone(torch.zeros(1, 3, 224, 224, dtype=torch.uint8))
    assert sides == [(side, side) for side in (110, 55, 55, 28, 14, 7)]
    assert backbone.features == 512
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 11_176_512


def test_only_the_padding_of_the_stem_is_other_than_timms() -> None:
    """timm's network on an image without its border of 2 pixels, and padded by 3, sees what ours sees padded by 1."""
    ours: Any = resnet18_orbit(NAME, image_size=64, pretrained=False).network.double().eval()
    plain: Any = timm_backbone("resnet18", image_size=64, pretrained=False).network.double().eval()
    plain.load_state_dict(ours.state_dict())
    assert repr(ours).replace("padding=(1, 1), bias=False)", "", 1) == repr(plain).replace(
        "padding=(3, 3), bias=False)", "", 1
    )
    pixels = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    stem = conv2d(pad(pixels, (1, 1, 1, 1)), plain.conv1.weight, stride=2)
    maps = max_pool2d(plain.bn1(stem).relu(), 3, 2, 1)
    maps = plain.layer4(plain.layer3(plain.layer2(plain.layer1(maps))))
    torch.testing.assert_close(ours(pixels), maps.mean((2, 3)))
    assert not torch.allclose(ours(pixels), plain(pixels))


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache of weights that holds those of timm's ResNet-18: all of them 2."""
    import timm
    from huggingface_hub import constants

    network = timm.create_model("resnet18", pretrained=False)
    folder = tmp_path / "hub" / f"models--{network.pretrained_cfg['hf_hub_id'].replace('/', '--')}"
    commit = "0" * 40
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    weights = {key: torch.full_like(value, 2) for key, value in network.state_dict().items()}
    save_file(weights, folder / "snapshots" / commit / "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("pretrained", [None, True])
def test_the_published_weights_of_timm_load(pretrained: bool | None) -> None:
    backbone = resnet18_orbit(NAME, image_size=32, pretrained=pretrained)
    assert all(bool((parameter == 2).all()) for parameter in backbone.parameters())
    assert backbone.pretraining == "timm resnet18.a1_in1k"


def test_a_file_of_weights_loads(tmp_path: Path) -> None:
    plain = timm_backbone("resnet18", image_size=32, pretrained=False)
    weights = {key: value.contiguous() for key, value in plain.network.state_dict().items()}
    save_file(weights, tmp_path / "own.safetensors")
    backbone = resnet18_orbit(NAME, image_size=32, weights=tmp_path / "own.safetensors")
    digest = hashlib.sha256((tmp_path / "own.safetensors").read_bytes()).hexdigest()
    assert backbone.pretraining == f"file own.safetensors ({digest[:12]})"
    assert plain.pretraining == "none"
    for key, value in backbone.network.state_dict().items():
        assert torch.equal(value, weights[key])


def test_per_image_norms_have_no_published_weights() -> None:
    backbone = resnet18_orbit(f"{NAME}+gn", image_size=32)
    network: Any = backbone.network
    assert isinstance(network.bn1, PerImageNorm)
    with pytest.raises(WeightsError, match=r"resnet18_orbit\+gn has no published weights"):
        resnet18_orbit(f"{NAME}+gn", image_size=32, pretrained=True)
