"""FiLM: per-channel affine modulation of a frozen backbone, generated from a task embedding.

FiLM maps u to gamma u + beta after a normalisation layer and before its activation (Perez et al., FiLM: Visual
Reasoning with a General Conditioning Layer, AAAI 2018). It is folded into the layer's affine parameters,
weight' = gamma weight and bias' = gamma bias + beta, which is the same map and works where normalisation and
activation are one module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lite_bench.harness.errors import UsageError
from lite_bench.models.backbones import Backbone
from lite_bench.models.set_encoder import EMBEDDING

GATE_SCALE = 0.001
SHORTCUTS = {"downsample", "shortcut", "skip"}
CONTAINERS = (nn.Sequential, nn.ModuleList)


@dataclass(frozen=True)
class FilmSite:
    """A normalisation layer to modulate: its module name and its number of channels."""

    name: str
    channels: int


@dataclass(frozen=True)
class _Norm:
    name: str
    channels: int
    after_depthwise: bool
    in_block: bool
    on_shortcut: bool
    convolutional: bool


def film_sites(backbone: Backbone) -> tuple[FilmSite, ...]:
    """Choose the layers to modulate, in the order they run.

    The rule looks at structure, not at names of networks:

    1. Candidates are normalisation layers with a per-channel weight and bias, off the shortcuts.
    2. A network with depthwise convolutions (EfficientNet, MobileNet, ConvNeXt) is modulated right after each of them,
       and after its stem and head, the normalisation layers outside its blocks.
    3. Any other convolutional network is modulated inside its blocks (ResNet), or everywhere if it has none.
    4. A network without convolutional normalisation (ViT) is modulated at every normalisation layer.

    Gives the 16 sites of ResNet-18 and the 18 of EfficientNet-B0 (3,840 and 10,272 channels).

    Raises:
        UsageError: the network has nothing to modulate.
    """
    norms = _trace_norms(backbone)
    if not norms:
        raise UsageError(
            f"Backbone {backbone.name} has no normalisation layers with weight and bias, so FiLM cannot modulate it; "
            "choose another --backbone."
        )
    main = [norm for norm in norms if not norm.on_shortcut]
    if any(norm.after_depthwise for norm in main):
        chosen = [norm for norm in main if norm.after_depthwise or not norm.in_block]
    elif any(norm.convolutional for norm in main):
        chosen = [norm for norm in main if norm.in_block] or main
    else:
        chosen = main
    return tuple(FilmSite(norm.name, norm.channels) for norm in chosen)


def _is_norm(module: nn.Module) -> bool:
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    named = "norm" in type(module).__name__.lower()
    return named and isinstance(weight, nn.Parameter) and isinstance(bias, nn.Parameter) and weight.ndim == 1


def _block_names(network: nn.Module) -> set[str]:
    """Name the repeated units a network is built of.

    These are the composite members of every sequence, and every instance of a class of two or more convolutions (other
    than a plain sequence) that has siblings of its own kind.
    """
    blocks, kinds = set(), set()
    for name, module in network.named_modules():
        if set(name.split(".")) & SHORTCUTS:
            continue
        children = dict(module.named_children())
        classes = [type(child) for child in children.values()]
        kinds |= {type(c) for c in children.values() if classes.count(type(c)) > 1 and _convolutions(c) > 1}
        if isinstance(module, CONTAINERS):
            composite = (key for key, child in children.items() if any(True for _ in child.children()))
            blocks |= {f"{name}.{key}".lstrip(".") for key in composite}
    kinds -= set(CONTAINERS)
    return blocks | {name for name, module in network.named_modules() if type(module) in kinds}


def _convolutions(module: nn.Module) -> int:
    return sum(isinstance(child, nn.Conv2d) for child in module.modules())


def _trace_norms(backbone: Backbone) -> list[_Norm]:
    """Run a blank image through the network and list its normalisation layers in the order they run."""
    network, blocks = backbone.network, _block_names(backbone.network)
    names = {module: name for name, module in network.named_modules()}
    found: dict[str, _Norm] = {}
    last_depthwise = [False]

    def visit(module: nn.Module, inputs: object, output: object) -> None:
        del inputs, output
        if isinstance(module, nn.Conv2d):
            last_depthwise[0] = 1 < module.groups == module.in_channels
        elif isinstance(module, nn.Linear):
            last_depthwise[0] = False
        elif _is_norm(module):
            name, parts = names[module], names[module].split(".")
            channels = int(module.weight.numel())  # type: ignore[operator]  # _is_norm checked it
            in_block = any(".".join(parts[:i]) in blocks for i in range(1, len(parts)))
            convolutional = not isinstance(module, nn.LayerNorm)
            found.setdefault(
                name,
                _Norm(name, channels, last_depthwise[0], in_block, bool(set(parts) & SHORTCUTS), convolutional),
            )
            last_depthwise[0] = False

    hooks = [module.register_forward_hook(visit) for module in network.modules()]
    training = network.training
    try:
        with torch.no_grad():
            network.eval()
            side = backbone.image_size
            blank = torch.zeros(1, 3, side, side, dtype=torch.uint8, device=backbone.mean.device)
            network(backbone.scale(blank))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return list(found.values())


class GatedGenerator(nn.Module):
    """64 -> Linear -> LayerNorm -> ReLU -> Linear -> c, times a gate of scale 0.001: near zero at the start."""

    def __init__(self, channels: int) -> None:
        """Build the network for a site of ``channels`` channels."""
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(EMBEDDING, EMBEDDING), nn.LayerNorm(EMBEDDING), nn.ReLU(), nn.Linear(EMBEDDING, channels)
        )
        self.gate = nn.Parameter(torch.randn(channels) * GATE_SCALE)

    def forward(self, embedding: Float[Tensor, " 64"]) -> Float[Tensor, " c"]:
        """Generate one value per channel."""
        values: Tensor = self.gate * self.network(embedding)
        return values


class FilmGenerators(nn.Module):
    """Two independent generators per site, for gamma - 1 and for beta: CNAPs as rebuilt in the released LITE codes."""

    def __init__(self, sites: tuple[FilmSite, ...]) -> None:
        """Build the generators of ``sites``."""
        super().__init__()
        self.sites = sites
        self.gammas = nn.ModuleList(GatedGenerator(site.channels) for site in sites)
        self.betas = nn.ModuleList(GatedGenerator(site.channels) for site in sites)

    def forward(self, embedding: Float[Tensor, " 64"], network: nn.Module) -> dict[str, Tensor]:
        """Generate FiLM parameters and fold them into the affine parameters of ``network``.

        Returns:
            values for ``functional_call`` by parameter name: weight and bias of every site.
        """
        gammas = [1 + generator(embedding) for generator in self.gammas]
        betas = [generator(embedding) for generator in self.betas]
        return fold_film(network, self.sites, gammas, betas)

    def gate_energy(self) -> Tensor:
        """Sum the squares of all gates; the regulariser acts on nothing else."""
        gates: list[Tensor] = [m.gate for m in self.modules() if isinstance(m, GatedGenerator)]
        return torch.cat(gates).square().sum()


def fold_film(
    network: nn.Module, sites: tuple[FilmSite, ...], gammas: list[Tensor], betas: list[Tensor]
) -> dict[str, Tensor]:
    """Fold gamma and beta [c] of each site into the affine parameters of its layer; see the module's docstring."""
    own: Mapping[str, Tensor] = dict(network.named_parameters())
    folded = {}
    for site, gamma, beta in zip(sites, gammas, betas, strict=True):
        folded[f"{site.name}.weight"] = gamma * own[f"{site.name}.weight"]
        folded[f"{site.name}.bias"] = gamma * own[f"{site.name}.bias"] + beta
    return folded
