"""Checkpoints: one safetensors file each, written in one piece, with its description in the header.

A ``.json`` beside it repeats the description for people. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lite_bench.harness.errors import WeightsError
from lite_bench.harness.files import write_atomically

FORMAT = 1
HEADER = "lite_bench"


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint holds.

    Attributes:
        learner: entry-point name.
        backbone: name of the feature extractor.
        image_size: side of the training images in pixels.
        step: optimizer steps taken.
        tasks: training tasks seen.
        best_accuracy: validation accuracy of the best model so far, the mean over sources, or None.
        best_by_source: its accuracy on each source.
        format: version of this file's layout.
        groups: the optimizer's parameter groups without their tensors.
    """

    learner: str
    backbone: str
    image_size: int
    step: int
    tasks: int
    best_accuracy: float | None = None
    best_by_source: dict[str, float] = field(default_factory=dict)
    format: int = FORMAT
    groups: list[dict[str, Any]] = field(default_factory=list)


def save_checkpoint(
    path: Path, info: CheckpointInfo, module: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Write ``module``, and the optimizer's state if training is to go on from here."""
    tensors = {f"model.{key}": value for key, value in module.state_dict().items()}
    info = replace(info, groups=[])
    if optimizer is not None:
        state = optimizer.state_dict()
        for index, entries in state["state"].items():
            tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in entries.items()}
        info = replace(info, groups=state["param_groups"])
    # Copies, because safetensors refuses tensors that share memory, as tied weights do.
    plain = {key: torch.empty(value.shape, dtype=value.dtype).copy_(value.detach()) for key, value in tensors.items()}
    text = json.dumps(asdict(info))
    write_atomically(path, save(plain, metadata={HEADER: text}))
    write_atomically(path.with_suffix(".json"), json.dumps(asdict(info), indent=2) + "\n")


def read_info(path: Path) -> CheckpointInfo:
    """Read what a checkpoint holds, without its tensors.

    Raises:
        WeightsError: it is missing, damaged, not a checkpoint, or of another format.
    """
    with _opened(path) as file:
        return _parse_header(path, (file.metadata() or {}).get(HEADER))


def read_checkpoint(path: Path) -> tuple[CheckpointInfo, dict[str, Tensor]]:
    """Read a checkpoint onto the CPU.

    Raises:
        WeightsError: it is missing, damaged, not a checkpoint, or of another format.
    """
    with _opened(path) as file:
        info = _parse_header(path, (file.metadata() or {}).get(HEADER))
        return info, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise WeightsError(f"There is no checkpoint {path}; give a run folder or a .safetensors checkpoint.")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged or no safetensors file ({error}); use another checkpoint.") from error


def _parse_header(path: Path, header: str | None) -> CheckpointInfo:
    if header is None:
        raise WeightsError(f"{path} holds tensors but is no lite-bench checkpoint; plain weights go to --weights.")
    try:
        content = json.loads(header)
        found = content["format"]
        if found == FORMAT:
            return CheckpointInfo(**content)
    except (ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{path} has a damaged description ({error}); use another checkpoint.") from error
    raise WeightsError(
        f"{path} has checkpoint format {found}, this version reads {FORMAT}; use the version of lite-bench that wrote "
        "it."
    )


def check_learner_of(path: Path, learner: str) -> None:
    """Refuse a checkpoint of another learner, before anything is built for it.

    Raises:
        WeightsError: it is one, or `read_info` refuses it.
    """
    found = read_info(path).learner
    if found != learner:
        raise WeightsError(f"{path} is a checkpoint of {found}, not of {learner}; name that learner or another file.")


def restore(
    path: Path, learner: str, module: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> CheckpointInfo:
    """Load a checkpoint into ``module``, and into ``optimizer`` to go on training.

    Raises:
        WeightsError: it is a checkpoint of another learner, does not fit, or holds no optimizer state.
    """
    check_learner_of(path, learner)
    info, tensors = read_checkpoint(path)
    model = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    try:
        module.load_state_dict(model)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{path} does not fit this {learner} ({reason}); use the options it was trained with."
        ) from error
    if optimizer is not None:
        _restore_optimizer(path, info, tensors, optimizer)
    return info


def _restore_optimizer(
    path: Path, info: CheckpointInfo, tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    if not info.groups:
        raise WeightsError(f"{path} holds no optimizer state, so training cannot go on from it; use last.safetensors.")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if [len(group["params"]) for group in info.groups] != [len(g["params"]) for g in optimizer.param_groups]:
        raise WeightsError(f"{path} was written for other trainable parameters; use the options it was trained with.")
    for number, entries in state.items():
        state[number] = {name: _laid_out_like(parameters[number], value) for name, value in entries.items()}
    groups = [{**g, "betas": tuple(g["betas"])} if "betas" in g else g for g in info.groups]
    if ["betas" in g for g in groups] != ["betas" in g for g in optimizer.param_groups]:
        raise WeightsError(f"{path} was written by another optimizer; use the settings it was trained with.")
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _laid_out_like(parameter: nn.Parameter, value: Tensor) -> Tensor:
    """Give ``value`` the memory layout of its parameter, as in an optimizer that was never interrupted."""
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, device="cpu", dtype=value.dtype, requires_grad=False).copy_(value)


def file_sha256(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
