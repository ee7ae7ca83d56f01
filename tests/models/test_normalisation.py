"""Per-image normalisation, and which statistics BatchNorm uses."""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import group_norm

from lite_bench.models.backbones import Backbone, timm_backbone
from lite_bench.models.normalisation import PerImageNorm, fix_batch_statistics, with_per_image_norms


def images(n: int = 4) -> Tensor:
    return torch.randint(0, 256, (n, 3, 64, 64), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def make(name: str) -> Backbone:
    return timm_backbone(name, image_size=64, pretrained=False)


def test_replacement_keeps_parameter_counts_and_channels() -> None:
    for name in ("resnet18", "efficientnet_b0", "regnety_002", "densenet121"):
        plain, changed = make(name), make(f"{name}+gn")
        assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in changed.parameters())
        norms = [m for m in changed.modules() if isinstance(m, PerImageNorm)]
        assert len(norms) == sum(isinstance(m, nn.BatchNorm2d) for m in plain.modules())
        assert not any(isinstance(m, nn.BatchNorm2d) for m in changed.modules())
        assert all(m.num_channels % m.num_groups == 0 for m in norms)


def test_features_are_per_image_in_training_and_test() -> None:
    for name in ("resnet18+gn", "efficientnet_b0+gn"):
        backbone = make(name).double()
        for mode in (True, False):
            backbone.train(mode)
            with torch.no_grad():
                together = backbone(images())
                singly = torch.cat([backbone(image) for image in torch.split(images(), 1)])
            torch.testing.assert_close(together, singly, rtol=1e-9, atol=1e-12)


def test_the_activation_of_timms_fused_layer_stays() -> None:
    from timm.layers import BatchNormAct2d

    fused = BatchNormAct2d(16, act_layer=nn.SiLU)
    plain = BatchNormAct2d(12, apply_act=False)
    network = nn.Sequential(fused, nn.Conv2d(16, 12, 1), plain)
    with_per_image_norms(network)
    values = torch.randn(2, 16, 5, 5)
    expected = nn.functional.silu(group_norm(values, 8))
    torch.testing.assert_close(network[0](values), expected)
    torch.testing.assert_close(network[2](values[:, :12]), group_norm(values[:, :12], 4))


def test_efficientnet_keeps_every_activation() -> None:
    def activations(network: nn.Module) -> int:
        return sum(isinstance(module, nn.SiLU) for module in network.modules())

    plain = timm.create_model("efficientnet_b0", num_classes=0)
    assert activations(make("efficientnet_b0+gn")) == activations(plain) > 18


def test_fixed_statistics_touch_batch_norm_alone() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), nn.BatchNorm1d(3), nn.GroupNorm(1, 3)).train()
    fix_batch_statistics(network)
    assert [module.training for module in network] == [False, True, False, True]
    assert network.training
