"""Feature extractors: any timm network, ResNet-18 for 84 pixels, and the four-block Omniglot network.

A backbone maps images [N, 3, S, S] to float features [N, D] after global average pooling. Its name may
end in ``+gn``: every BatchNorm is then replaced by a per-image GroupNorm, which is what a network trained from
scratch under ``lite`` or ``exact`` needs.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from lite_bench.harness.checkpoints import file_sha256
from lite_bench.harness.errors import UnknownNameError, UsageError, WeightsError
from lite_bench.models.hub import cache_only_without_network
from lite_bench.models.normalisation import with_per_image_norms
from lite_bench.models.pixels import Pixels, normalised
from lite_bench.models.weights import load_weights

PER_IMAGE_SUFFIX = "+gn"
PUBLISHED = "has_published_weights"
"""Attribute of a network of timm that was made with its published weights."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MAP_DIMENSIONS, TOKEN_DIMENSIONS = 4, 3


class Backbone(nn.Module):
    """A network with its input scaling.

    Attributes:
        name: the name it was asked for.
        image_size: side S of the images it was built for.
        features: D, the length of a feature vector.
        pretraining: where its first weights came from, for people; ``none`` if they are random.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        network: nn.Module,
        image_size: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        """Wrap ``network``, which maps normalised images [N, len(mean), S, S] to features [N, D].

        Args:
            name: the name it was asked for.
            network: the feature extractor.
            image_size: side S in pixels.
            mean: per channel, on the 0 to 1 scale; one value means that the network sees grey images.
            std: per channel, on the 0 to 1 scale.

        Raises:
            UsageError: the network cannot run on images of this size.
        """
        super().__init__()
        self.name = name
        self.image_size = image_size
        self.pretraining = "none"
        self.network = network.to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self.features = self._measure()

    def _measure(self) -> int:
        try:
            shape = self._shape_of(lambda images: cast("Tensor", self.network(self.scale(images))))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UsageError(
                f"Backbone {self.name} cannot take images of {self.image_size} pixels ({error}); "
                "choose another --image-size."
            ) from error
        if len(shape) != 2:
            raise UsageError(
                f"Backbone {self.name} gives features of shape {tuple(shape)}, not [N, D]; choose another."
            )
        return int(shape[1])

    @torch.no_grad()
    def _shape_of(self, run: Callable[[Tensor], Tensor]) -> torch.Size:
        """Run one blank image in evaluation mode; every layer's own mode is put back."""
        modes = [(module, module.training) for module in self.network.modules()]
        self.network.eval()
        try:
            blank = torch.zeros(1, 3, self.image_size, self.image_size, dtype=torch.uint8, device=self.mean.device)
            return run(blank).shape
        finally:
            for module, training in modes:
                module.training = training

    def scale(self, images: Pixels[Tensor, "N 3 S S"]) -> Float[Tensor, "N channels S S"]:
        """Map images to the range the network works on."""
        return normalised(images, self.mean, self.std)

    def forward(
        self, images: Pixels[Tensor, "N 3 S S"], parameters: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "N D"]:
        """Compute features, in float32 or better whatever the precision inside.

        Args:
            images: values 0 to 255 [N, 3, S, S].
            parameters: values to use in place of the network's own, by parameter name (adapted weights, FiLM).
        """
        pixels = self.scale(images)
        if parameters is None:
            features = self.network(pixels)
        else:
            features = functional_call(self.network, dict(parameters), (pixels,))
        return cast("Tensor", features.to(self.mean.dtype))

    def maps(
        self, images: Pixels[Tensor, "N 3 S S"], parameters: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "N D h w"]:
        """Compute the network's last feature maps, those before pooling, in float32 or better.

        The patch tokens of a vision transformer are laid out as their patches lie in the image.

        Args:
            images: values 0 to 255 [N, 3, S, S].
            parameters: as in `forward`.

        Raises:
            UsageError: the network has no such maps.
        """
        network = _Maps(self.network)
        values = {f"network.{key}": value for key, value in (parameters or {}).items()}
        try:
            maps = functional_call(network, values, (self.scale(images),))
        except _NoMapsError as error:
            raise UsageError(
                f"Backbone {self.name} gives no feature maps [N, D, h, w] before pooling: {error}; choose a "
                "convolutional network or a plain vision transformer with --backbone."
            ) from error
        return cast("Tensor", maps.to(self.mean.dtype))

    def map_shape(self) -> tuple[int, int, int]:
        """Measure channels D, height h and width w of the maps.

        Raises:
            UsageError: the network has none.
        """
        _, channels, height, width = self._shape_of(self.maps)
        return channels, height, width


class _NoMapsError(Exception):
    """A network has no feature maps; says what it has."""


class _Maps(nn.Module):
    """A network whose output is its last feature maps; `functional_call` can replace parameters in ``forward`` only."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute maps [N, D, h, w]; timm names the part of a network before its pooling ``forward_features``."""
        network: Any = self.network
        if not hasattr(network, "forward_features"):
            raise _NoMapsError("the network has no method forward_features")
        found: Tensor = network.forward_features(pixels)
        if found.ndim == MAP_DIMENSIONS:
            return found.permute(0, 3, 1, 2) if getattr(network, "output_fmt", "") == "NHWC" else found
        shape, grid = tuple(found.shape), getattr(getattr(network, "patch_embed", None), "grid_size", None)
        tokens = found[:, getattr(network, "num_prefix_tokens", 0) :]
        if found.ndim != TOKEN_DIMENSIONS or grid is None or tokens.shape[1] != grid[0] * grid[1]:
            raise _NoMapsError(f"it gives values of shape {shape}")
        return tokens.transpose(1, 2).reshape(len(tokens), -1, *grid)


class Conv4(nn.Module):
    """Four blocks of 3x3 convolution (64 filters), BatchNorm, ReLU and 2x2 max-pool, flattened.

    The Omniglot network of Vinyals et al., Matching Networks, NeurIPS 2016, and Snell et al., Prototypical
    Networks, NeurIPS 2017; D = 64 on 28x28 images.
    """

    def __init__(self, in_channels: int = 1, filters: int = 64) -> None:
        """Build the blocks for ``in_channels`` input channels."""
        super().__init__()
        widths = [in_channels] + [filters] * 4
        self.blocks = nn.Sequential(*(self._block(a, b) for a, b in itertools.pairwise(widths)))

    @staticmethod
    def _block(n_in: int, n_out: int) -> nn.Sequential:
        # ReLU and max-pool commute; pooling first leaves a quarter of the values to rectify and to keep.
        layers = [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.MaxPool2d(2), nn.ReLU()]
        return nn.Sequential(*layers)

    def forward_features(self, pixels: Float[Tensor, "N channels S S"]) -> Float[Tensor, "N filters h w"]:
        """Compute maps [N, 64, S // 16, S // 16]."""
        return cast("Tensor", self.blocks(pixels))

    def forward(self, pixels: Float[Tensor, "N channels S S"]) -> Float[Tensor, "N D"]:
        """Compute features [N, 64 (S // 16)^2]."""
        return self.forward_features(pixels).flatten(1)


def _finish(
    name: str,
    network: nn.Module,
    image_size: int,
    weights: Path | None,
    **scaling: Any,
) -> Backbone:
    if name.endswith(PER_IMAGE_SUFFIX):
        with_per_image_norms(network)
    backbone = Backbone(name, network, image_size, **scaling)
    if weights is not None:
        load_weights(backbone.network, weights, name)
        backbone.pretraining = f"file {weights.name} ({file_sha256(weights)[:12]})"
    elif getattr(network, PUBLISHED, False):
        config: Any = network.pretrained_cfg
        backbone.pretraining = ".".join(filter(None, [f"timm {config['architecture']}", config.get("tag")]))
    return backbone


def _refuse_pretrained(name: str, pretrained: bool | None) -> None:
    if pretrained:
        raise WeightsError(
            f"Backbone {name} has no published weights; use --no-pretrained to start from scratch "
            "or give a file with --weights FILE."
        )


def conv4(name: str, *, image_size: int, pretrained: bool | None = None, weights: Path | None = None) -> Backbone:
    """Build the four-block Omniglot network on inverted grey images: ink is 1, paper 0."""
    _refuse_pretrained(name, pretrained and weights is None)
    return _finish(name, Conv4(), image_size, weights, mean=(1.0,), std=(-1.0,))


def resnet18_84(name: str, *, image_size: int, pretrained: bool | None = None, weights: Path | None = None) -> Backbone:
    """Build ResNet-18 for 84 pixels, with a 5x5 stride-2 stem and no max-pool: the small-image network of LITE."""
    _refuse_pretrained(name, pretrained and weights is None)
    network = _create("resnet18", name, pretrained=False)
    network.conv1 = nn.Conv2d(3, 64, kernel_size=5, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return _finish(name, network, image_size, weights)


def resnet18_orbit(
    name: str, *, image_size: int, pretrained: bool | None = None, weights: Path | None = None
) -> Backbone:
    """Build ResNet-18 with a stem padded by 1 pixel, not 3, as ORBIT's baselines at 224 pixels have it.

    Its maps are 110, 55, 55, 28, 14 and 7 pixels wide at 224. timm's weights of ResNet-18 fit, though they were trained
    with the wider padding.
    """
    network = _create_pretrained("resnet18", name, pretrained, weights)
    network.conv1.padding = (1, 1)
    config = network.pretrained_cfg
    return _finish(name, network, image_size, weights, mean=config["mean"], std=config["std"])


def resnet34_stride16(
    name: str, *, image_size: int, pretrained: bool | None = None, weights: Path | None = None
) -> Backbone:
    """Build ResNet-34 with its last stage kept at stride 16: maps of 14 x 14 at 224 pixels, the network of CTX.

    The last stage is dilated instead of strided, so that weights of the plain ResNet-34 see what they were trained on;
    the parameters are the same. ``pretrained`` and ``weights`` are as in `timm_backbone`.
    """
    network = _create_pretrained("resnet34", name, pretrained, weights, output_stride=16)
    config = network.pretrained_cfg
    return _finish(name, network, image_size, weights, mean=config["mean"], std=config["std"])


def timm_backbone(
    name: str, *, image_size: int, pretrained: bool | None = None, weights: Path | None = None
) -> Backbone:
    """Build any network that timm knows, without its classifier.

    Args:
        name: timm's name, optionally after ``timm:`` and before ``+gn``.
        image_size: side S in pixels; transformers are resized to it.
        pretrained: load timm's default weights; None means yes, unless ``weights`` are given or ``+gn`` changes
            the network.
        weights: a file with weights of this network.

    Raises:
        UnknownNameError: timm has no such network.
        WeightsError: weights cannot be had or do not fit.
    """
    base = name.removeprefix("timm:").removesuffix(PER_IMAGE_SUFFIX)
    network = _create_pretrained(base, name, pretrained, weights)
    if hasattr(network, "set_input_size"):
        _resize(network, name, image_size)
    config = network.pretrained_cfg
    return _finish(name, network, image_size, weights, mean=config["mean"], std=config["std"])


def _create_pretrained(base: str, name: str, pretrained: bool | None, weights: Path | None, **options: Any) -> Any:
    """Create a timm network with its published weights, unless there are others or ``+gn`` changes it."""
    changed = name.endswith(PER_IMAGE_SUFFIX)
    if changed:
        _refuse_pretrained(name, pretrained and weights is None)
    wanted = weights is None and not changed and pretrained is not False
    return _create(base, name, pretrained=wanted, **options)


def _create(base: str, asked: str, *, pretrained: bool, **options: Any) -> Any:
    import timm

    if not timm.is_model(base):
        raise UnknownNameError(
            "backbone", asked, timm.list_models(), "List them with `lite-bench list backbones --timm '*'`."
        )
    if not pretrained:
        return timm.create_model(base, num_classes=0, **options)
    try:
        with cache_only_without_network():
            network = timm.create_model(base, pretrained=True, num_classes=0, **options)
    except Exception as error:
        raise WeightsError(
            f"The pretrained weights of {asked} could not be had ({type(error).__name__}). Without a network, give a "
            "file with --weights FILE, put them in the cache (see `lite-bench doctor`), or start from scratch "
            "with --no-pretrained."
        ) from error
    setattr(network, PUBLISHED, True)
    return network


def _resize(network: Any, name: str, image_size: int) -> None:
    if "img_size" not in inspect.signature(network.set_input_size).parameters:
        return
    try:
        network.set_input_size(img_size=image_size)
    except (AssertionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"Backbone {name} cannot take images of {image_size} pixels ({error}); change --image-size."
        ) from error


BackboneFactory = Callable[..., Backbone]
