"""FiLM: where it acts, and that folding it into the affine parameters is the explicit map."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lite_bench.harness.errors import UsageError
from lite_bench.models.backbones import Backbone, conv4, resnet18_84, timm_backbone
from lite_bench.models.film import FilmGenerators, FilmSite, GatedGenerator, film_sites, fold_film

RESNET18 = [f"layer{stage}.{block}.bn{norm}" for stage in (1, 2, 3, 4) for block in (0, 1) for norm in (1, 2)]
DEPTHS = (1, 2, 2, 3, 3, 4, 1)
EFFICIENTNET_B0 = [
    "bn1",
    "blocks.0.0.bn1",
    *(f"blocks.{stage}.{block}.bn2" for stage in range(1, 7) for block in range(DEPTHS[stage])),
    "bn2",
]


def make(name: str, side: int = 64) -> Backbone:
    factory = {"conv4": conv4, "resnet18_84": resnet18_84}.get(name.removesuffix("+gn"), timm_backbone)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return factory(name, image_size=side, pretrained=False).eval()


def names_of(name: str, side: int = 64) -> list[str]:
    return [site.name for site in film_sites(make(name, side))]


@pytest.mark.parametrize(("name", "side"), [("resnet18", 64), ("resnet18_84", 84), ("resnet18+gn", 64)])
def test_resnet18_has_16_sites(name: str, side: int) -> None:
    sites = film_sites(make(name, side))
    assert [site.name for site in sites] == RESNET18
    assert [site.channels for site in sites] == [c for c in (64, 128, 256, 512) for _ in range(4)]
    assert sum(site.channels for site in sites) == 3840


@pytest.mark.parametrize("name", ["efficientnet_b0", "tf_efficientnet_b0", "efficientnet_b0+gn"])
def test_efficientnet_b0_has_18_sites(name: str) -> None:
    sites = film_sites(make(name))
    assert [site.name for site in sites] == EFFICIENTNET_B0
    widths = [32, 32, 96, 144, 144, 240, 240, 480, 480, 480, 672, 672, 672, 1152, 1152, 1152, 1152, 1280]
    assert [site.channels for site in sites] == widths
    assert sum(widths) == 10272


def test_sites_do_not_depend_on_the_image_size_or_mode() -> None:
    backbone = make("efficientnet_b0", 96).train()
    assert [site.name for site in film_sites(backbone)] == EFFICIENTNET_B0
    assert backbone.network.training


def test_a_bottleneck_resnet_is_modulated_three_times_per_block_off_the_shortcut() -> None:
    blocks = [(stage, block) for stage, depth in ((1, 3), (2, 4), (3, 6), (4, 3)) for block in range(depth)]
    assert names_of("resnet50") == [f"layer{s}.{b}.bn{n}" for s, b in blocks for n in (1, 2, 3)]


def test_grouped_convolutions_are_not_depthwise() -> None:
    names = names_of("regnety_002")
    assert len(names) == 3 * 13
    assert all(re.fullmatch(r"s\d\.b\d+\.conv[123]\.bn", name) for name in names)


def test_mobilenet_is_modulated_after_its_stem_and_each_depthwise_convolution() -> None:
    depths = (1, 2, 3, 2, 3)
    inner = [f"blocks.{s}.{b}.bn{1 if s == 0 else 2}" for s, depth in enumerate(depths) for b in range(depth)]
    assert names_of("mobilenetv3_small_100") == ["bn1", *inner]


def test_convnext_is_modulated_after_stem_depthwise_convolutions_and_head() -> None:
    inner = [f"stages.{s}.blocks.{b}.norm" for s, depth in enumerate((2, 2, 6, 2)) for b in range(depth)]
    assert names_of("convnext_atto") == ["stem.1", *inner, "head.norm"]


def test_densenet_is_modulated_inside_its_blocks() -> None:
    names = names_of("densenet121")
    assert len(names) == 2 * (6 + 12 + 24 + 16) + 3
    assert not any(name in ("features.norm0", "features.norm5") for name in names)


@pytest.mark.parametrize(("name", "side"), [("vit_tiny_patch16_224", 64), ("test_vit", 64)])
def test_a_vision_transformer_is_modulated_at_every_layer_norm(name: str, side: int) -> None:
    network = make(name, side).network
    expected = [
        key
        for key, m in network.named_modules()
        if isinstance(m, nn.LayerNorm) and not key.endswith(("q_norm", "k_norm"))
    ]
    assert [key for key in names_of(name, side) if not key.endswith(("q_norm", "k_norm"))] == expected


def test_swin_is_modulated_in_all_its_blocks_and_at_the_end() -> None:
    names = names_of("swin_tiny_patch4_window7_224", 224)
    inner = [f"layers.{s}.blocks.{b}.norm{n}" for s, d in enumerate((2, 2, 6, 2)) for b in range(d) for n in (1, 2)]
    assert names == ["patch_embed.norm", *inner, "norm"]


def test_networks_without_blocks_are_modulated_everywhere() -> None:
    assert names_of("conv4", 32) == [f"blocks.{i}.1" for i in range(4)]
    names = names_of("vgg11_bn", 32)
    assert len(names) == 8
    assert all(name.startswith("features.") for name in names)


def test_a_network_without_normalisation_is_refused() -> None:
    bare = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(UsageError, match="Backbone bare has no normalisation layers"):
        film_sites(Backbone("bare", bare, 32))


def images(n: int = 2, side: int = 64) -> Tensor:
    return torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(5)).to(torch.uint8)


def randomise_norms(network: Any) -> None:
    """Give normalisation layers affine parameters and statistics that are not the identity."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for module in network.modules():
            if "norm" in type(module).__name__.lower() and isinstance(getattr(module, "weight", None), Tensor):
                for tensor, centre in ((module.weight, 1.0), (module.bias, 0.0)):
                    tensor.copy_(centre + 0.3 * torch.randn(tensor.shape, generator=generator))
            if isinstance(module, nn.BatchNorm2d):
                mean, var = module.running_mean, module.running_var
                assert mean is not None
                assert var is not None
                mean.add_(0.1 * torch.randn(mean.shape, generator=generator))
                var.mul_(torch.rand(var.shape, generator=generator) + 0.5)


class ExplicitFilm(nn.Module):
    """Normalise with the layer's own affine map, then gamma u + beta per channel, then the activation."""

    def __init__(self, norm: Any, gamma: Tensor, beta: Tensor) -> None:
        super().__init__()
        self.norm, self.gamma, self.beta = norm, gamma, beta
        self.after = nn.Identity()
        if hasattr(norm, "act"):  # timm fuses BatchNorm and activation
            self.after, norm.act = norm.act, nn.Identity()
            assert isinstance(norm.drop, nn.Identity)
        if hasattr(norm, "activation"):
            self.after, norm.activation = norm.activation, nn.Identity()

    def forward(self, values: Tensor) -> Tensor:
        normal = self.norm(values)
        shape = (-1, 1, 1) if not isinstance(self.norm, nn.LayerNorm) else (-1,)
        result: Tensor = self.after(self.gamma.view(shape) * normal + self.beta.view(shape))
        return result


def film_values(sites: tuple[FilmSite, ...], spread: float, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(7)
    gammas = [1 + spread * torch.randn(site.channels, generator=generator).to(dtype) for site in sites]
    return gammas, [spread * torch.randn(site.channels, generator=generator).to(dtype) for site in sites]


NETWORKS = ["resnet18", "efficientnet_b0", "efficientnet_b0+gn", "regnety_002", "test_vit", "conv4"]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_folding_equals_an_explicit_affine_map_before_the_activation(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    backbone = make(name).to(dtype)
    randomise_norms(backbone.network)
    sites = film_sites(backbone)
    gammas, betas = film_values(sites, 0.2, dtype)
    explicit = copy.deepcopy(backbone)
    for site, gamma, beta in zip(sites, gammas, betas, strict=True):
        parent, _, child = site.name.rpartition(".")
        norm = explicit.network.get_submodule(site.name)
        explicit.network.get_submodule(parent).add_module(child, ExplicitFilm(norm, gamma, beta))
    with torch.no_grad():
        folded = backbone(images(), fold_film(backbone.network, sites, gammas, betas))
        expected = explicit(images())
        plain = backbone(images())
    scale = expected.abs().max()
    assert ((folded - expected).abs().max() / scale) < tolerance
    assert ((folded - plain).abs().max() / scale) > 1e-2


@pytest.mark.parametrize("mode", [True, False])
def test_folding_holds_with_batch_statistics_too(mode: bool) -> None:
    backbone = make("resnet18").double()
    sites = film_sites(backbone)
    gammas, betas = film_values(sites, 0.2, torch.float64)
    explicit = copy.deepcopy(backbone)
    for site, gamma, beta in zip(sites, gammas, betas, strict=True):
        parent, _, child = site.name.rpartition(".")
        norm = explicit.network.get_submodule(site.name)
        explicit.network.get_submodule(parent).add_module(child, ExplicitFilm(norm, gamma, beta))
    backbone.train(mode)
    explicit.train(mode)
    with torch.no_grad():
        folded = backbone(images(4), fold_film(backbone.network, sites, gammas, betas))
        torch.testing.assert_close(folded, explicit(images(4)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_identity_reproduces_the_features_bit_for_bit(name: str) -> None:
    backbone = make(name)
    randomise_norms(backbone.network)
    sites = film_sites(backbone)
    ones, zeros = [torch.ones(s.channels) for s in sites], [torch.zeros(s.channels) for s in sites]
    with torch.no_grad():
        folded = backbone(images(), fold_film(backbone.network, sites, ones, zeros))
        assert torch.equal(folded, backbone(images()))


@pytest.mark.parametrize("channels", [[7], [64, 128], [32, 1280]])
def test_generators_have_the_published_size(channels: list[int]) -> None:
    generators = FilmGenerators(tuple(FilmSite(f"n{i}", c) for i, c in enumerate(channels)))
    assert sum(p.numel() for p in generators.parameters()) == sum(2 * (4288 + 66 * c) for c in channels)


def test_a_generator_is_the_gated_network_of_the_paper() -> None:
    torch.manual_seed(0)
    generator = GatedGenerator(10)
    first, norm, _, last = generator.network
    z = torch.randn(64)
    hidden: Any = first.weight @ z + first.bias  # type: ignore[operator]
    hidden = (hidden - hidden.mean()) / (hidden.var(unbiased=False) + 1e-5).sqrt() * norm.weight + norm.bias
    expected = generator.gate * (last.weight @ hidden.clamp(min=0) + last.bias)
    torch.testing.assert_close(generator(z), expected)


def test_gates_start_at_a_thousandth_and_carry_the_whole_penalty() -> None:
    torch.manual_seed(0)
    generators = FilmGenerators(film_sites(make("resnet18")))
    gates = torch.cat([p.flatten() for name, p in generators.named_parameters() if name.endswith("gate")])
    assert len(gates) == 2 * 3840
    assert float(gates.detach().std()) == pytest.approx(1e-3, rel=0.05)
    energy = generators.gate_energy()
    assert float(energy.detach()) == pytest.approx(float(gates.detach().square().sum()))
    torch.autograd.backward(energy)
    assert {n.rpartition(".")[2] for n, p in generators.named_parameters() if p.grad is not None} == {"gate"}


def settle_statistics(backbone: Backbone) -> None:
    """Give BatchNorm the statistics of some images: with those of initialisation the signal of a deep network dies."""
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        backbone.train()(images(8))
    backbone.eval()


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_every_site_starts_within_about_a_thousandth_of_the_unmodified_backbone(name: str) -> None:
    torch.manual_seed(0)
    backbone = make(name)
    settle_statistics(backbone)
    generators = FilmGenerators(film_sites(backbone))
    with torch.no_grad():
        film = generators(torch.randn(64), backbone.network)
        own = dict(backbone.network.named_parameters())
        shift = torch.cat([film[key] - own[key] for key in film])
        assert 0 < float(shift.square().mean().sqrt()) < 2e-3
        plain, adapted = backbone(images()), backbone(images(), film)
    assert 0 < float((adapted - plain).norm() / plain.norm()) < 0.03  # a thousandth per site, over 16 or 18 sites


def test_gamma_and_beta_have_independent_generators_at_every_site() -> None:
    backbone = make("resnet18")
    sites = film_sites(backbone)
    generators = FilmGenerators(sites)
    assert len(generators.gammas) == len(generators.betas) == 16
    film = generators(torch.ones(64), backbone.network)
    assert set(film) == {f"{site.name}.{kind}" for site in sites for kind in ("weight", "bias")}
