"""From settings to objects: suite, backbone, learner and estimator, reached by entry-point name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lite_bench.harness.core import Estimator, Learner, Suite, SuiteFactory, stable_key
from lite_bench.harness.errors import IncompatibleError, PluginError, UsageError
from lite_bench.harness.memory import keep_freed_memory
from lite_bench.harness.options import check_options, option_parameters
from lite_bench.harness.registry import BACKBONES, ESTIMATORS, LEARNERS, SUITES
from lite_bench.harness.settings import Settings

ANY_TIMM = "timm"
SIGNED = "signed"


@dataclass(frozen=True)
class Assembly:
    """What a run is made of, beside its suite.

    Attributes:
        learner: under its own protocol.
        module: the same object as a module, on ``device``.
        estimator: supplies gradients, or the plain forward in an evaluation.
        device: where to run.
        backbone: the part of ``module`` that was built as its backbone, if that is known.
    """

    learner: Learner
    module: nn.Module
    estimator: Estimator
    device: torch.device
    backbone: nn.Module | None = None

    @property
    def pretraining(self) -> str:
        """Where the backbone's first weights came from; empty if it does not say."""
        return str(getattr(self.backbone, "pretraining", ""))


def assemble(settings: Settings, image_size: int, *, weights_follow: bool = False) -> Assembly:
    """Build learner and estimator and put them on their device.

    Args:
        settings: names, options and seed.
        image_size: side of the images in pixels.
        weights_follow: a checkpoint will be loaded, so no pretrained weights are needed.
    """
    keep_freed_memory()
    use_precision(settings.precision)
    device = choose_device(settings.device)
    estimator = build_estimator(settings)
    learner, module, backbone = _build_parts(settings, image_size, weights_follow=weights_follow)
    return Assembly(learner, module.to(device), estimator, device, backbone)


def choose_suite(data_dir: Path | None) -> tuple[str, str]:
    """Choose a suite when none is named: the first whose data is configured, else the embedded one.

    Returns:
        its name, and why it was chosen.

    Raises:
        UsageError: nothing is configured and no suite is embedded.
    """
    embedded = []
    for name in SUITES.names():
        try:
            factory: SuiteFactory = SUITES.load(name)
        except PluginError:
            continue
        where = factory.configured(data_dir)
        if where is not None:
            return name, f"its data was found ({where})"
        if factory.embedded:
            embedded.append(name)
    if not embedded:
        raise UsageError("No suite is named and none has its data configured; give --suite and --data-dir.")
    return embedded[0], "no benchmark's data is configured (see `lite-bench doctor`); this suite needs none"


def build_suite(name: str, image_size: int | None, data_dir: Path | None, options: dict[str, Any]) -> Suite:
    """Open the suite ``name``, or ``name:PATH`` for one that reads a folder of the user's; ``name@version`` pins it.

    Raises:
        UsageError: the suite reads no folder, or has no such version.
    """
    head, _, path = name.partition(":")
    base, _, version = head.partition("@")
    factory = SUITES.load(base)
    if path and factory.embedded:
        raise UsageError(f"Suite {base} reads no folder, but --suite {name} names one; write --suite {base}.")
    if version and "version" in option_parameters(factory):
        if options.get("version", version) != version:
            raise UsageError(f"--suite {name} and -S version={options['version']} contradict each other; give one.")
        options = {**options, "version": version}
    typed = check_options(factory, options, f"suite {base!r}", "-S")
    suite = cast("Suite", factory(image_size, Path(path) if path else data_dir, **typed))
    present = suite.id.partition("@")[2].partition("+")[0]
    if version and version != present:
        raise UsageError(f"Suite {base} has the version {present}, not {version}; write --suite {base}@{present}.")
    return suite


def build_backbone(
    name: str, *, image_size: int, pretrained: bool | None = None, weights: Path | None = None, seed: int = 0
) -> nn.Module:
    """Build a backbone: a registered one, or else any that timm knows; ``+gn`` may follow either name."""
    base = name.partition("+")[0].partition(":")[0]
    factory = BACKBONES.load(base if base in BACKBONES.names() else ANY_TIMM)
    with seeded("backbone", seed):
        return cast("nn.Module", factory(name, image_size=image_size, pretrained=pretrained, weights=weights))


def build_learner(settings: Settings, image_size: int, *, weights_follow: bool = False) -> tuple[Learner, nn.Module]:
    """Build the learner of ``settings`` around its backbone.

    Args:
        settings: names, options and seed.
        image_size: side of the images in pixels.
        weights_follow: a checkpoint will be loaded, so no pretrained weights are needed.

    Returns:
        the learner twice: under its own protocol and as the module that it is.

    Raises:
        PluginError: it is no `torch.nn.Module` or lacks ``adapt`` or ``classify``.
    """
    learner, module, _ = _build_parts(settings, image_size, weights_follow=weights_follow)
    return learner, module


def _build_parts(settings: Settings, image_size: int, *, weights_follow: bool) -> tuple[Learner, nn.Module, nn.Module]:
    """Build a learner, as `build_learner` does, and give the backbone inside it too."""
    factory = LEARNERS.load(settings.learner)
    options = check_options(factory, settings.params, f"learner {settings.learner!r}", "-P")
    pretrained, weights = (False, None) if weights_follow else (settings.pretrained, settings.weights)
    backbone = build_backbone(
        settings.backbone, image_size=image_size, pretrained=pretrained, weights=weights, seed=settings.seed
    )
    if settings.pixel_range == SIGNED:
        use_signed_pixels(backbone, settings.backbone)
    with seeded("learner", settings.seed):
        learner = factory(backbone, **options)
    if not isinstance(learner, nn.Module) or not isinstance(learner, Learner):
        raise PluginError(
            f"Learner {settings.learner!r} is a {type(learner).__name__}; it must be a torch.nn.Module with "
            "adapt(support, encode) and classify(state, images)."
        )
    return learner, learner, backbone


def use_signed_pixels(backbone: nn.Module, name: str) -> None:
    """Let ``backbone`` map images to [-1, 1], the value v to v / 127.5 - 1.

    Raises:
        IncompatibleError: it has no buffers ``mean`` and ``std`` to set.
    """
    buffers = dict(backbone.named_buffers(recurse=False))
    if not {"mean", "std"} <= buffers.keys():
        raise IncompatibleError(
            f"The suite's protocol maps images to [-1, 1], but backbone {name} has no buffers mean and std to set; "
            "choose another backbone, or set pixel_range = 'backbone' in a --config file."
        )
    for buffer in (buffers["mean"], buffers["std"]):
        buffer.fill_(0.5)


def build_estimator(settings: Settings) -> Estimator:
    """Build the gradient estimator of ``settings``."""
    factory = ESTIMATORS.load(settings.gradient)
    return cast("Estimator", factory(settings.h, settings.batch_size))


def check_estimator_fits(learner: nn.Module, estimator: Estimator) -> None:
    """Refuse an estimator whose claim the learner's normalisation makes false.

    Args:
        learner: in training mode.
        estimator: to be used with it.

    Raises:
        IncompatibleError: the estimator needs images to be encoded one by one, and a BatchNorm uses batch statistics;
            or it adapts several times to a task, which the learner does not stand.
    """
    if estimator.redraws and getattr(learner, "adapts_once", False):
        raise IncompatibleError(
            f"--gradient {estimator.name} adapts again for every query batch, but {type(learner).__name__} learns from "
            "adapting itself, which would then count several times; use --gradient full."
        )
    if not estimator.per_image:
        return
    coupled = [
        name
        for name, module in learner.named_modules()
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)
    ]
    if coupled:
        raise IncompatibleError(
            f"--gradient {estimator.name} needs every image to be encoded by itself, but {coupled[0]} and "
            f"{len(coupled) - 1} more BatchNorm layers use batch statistics, so an image's features depend on its "
            "chunk; use --gradient full, or fixed or per-image statistics (the learner's options, or a backbone with "
            "+gn)."
        )


def layers_on_initial_statistics(module: nn.Module) -> list[str]:
    """Name the BatchNorm layers that would normalise with the constants of initialisation, never with data.

    Args:
        module: in the mode it will be used in.
    """
    return [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, _BatchNorm)
        and not layer.training
        and layer.running_mean is not None
        and layer.running_var is not None
        and not bool(layer.running_mean.any())
        and bool((layer.running_var == 1).all())
    ]


def training_notes(assembly: Assembly) -> list[str]:
    """Say what a user should know before training starts.

    Args:
        assembly: its module in training mode.
    """
    notes = list(getattr(assembly.learner, "notes", list)())
    idle = layers_on_initial_statistics(assembly.module)
    if idle:
        notes.append(
            f"Note: {len(idle)} BatchNorm layers ({idle[0]}, ...) keep their initial statistics (mean 0, variance 1), "
            "because no pretrained weights set them and no batch updates them; they normalise nothing. From scratch, "
            "use a backbone with +gn, or the learner's batch statistics with --gradient full."
        )
    return notes


def choose_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu`` or ``cuda[:N]`` into a device.

    Raises:
        UsageError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {name} is not there ({torch.cuda.device_count()} CUDA devices found); use --device cpu."
        )
    return device


def limit_memory(device: torch.device, budget: int) -> None:
    """Keep torch from taking more than ``budget`` bytes of a GPU; more then counts as memory that ran out.

    CUDA's own context is beside this count. A CPU has no such limit: there a budget only chooses batch sizes.
    """
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        total = torch.cuda.get_device_properties(index).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget / total), index)


def use_precision(precision: str) -> None:
    """Let convolutions round to TF32 only where that was asked for; torch allows it unless told otherwise."""
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def precision_context(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """Give the context in which networks run."""
    if precision != "bf16":
        return nullcontext
    return partial(torch.autocast, device.type, dtype=torch.bfloat16)


@contextmanager
def seeded(*key: object) -> Iterator[None]:
    """Run a block whose global torch randomness starts from ``key``, and put the earlier state back."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices):
        torch.manual_seed(stable_key(*key))
        yield
