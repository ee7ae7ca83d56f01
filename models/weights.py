"""Reading weight files into a network, with a clear answer when they do not fit."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from lite_bench.harness.errors import WeightsError

PREFIXES = ("", "module.", "model.")
BACKBONE = "backbone.network."
CLASSIFIERS = ("fc.", "classifier.", "head.", "head_dist.", "head.fc.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file or of a PyTorch file (loaded without running any pickled code).

    Raises:
        WeightsError: the file is missing, unreadable or holds no tensors.
    """
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}; give --weights a .safetensors, .pth or .pt file.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if isinstance(error, pickle.UnpicklingError):  # whose own text advises to run the code
            reason = "it is damaged or holds pickled objects other than tensors"
        raise WeightsError(
            f"{path} cannot be read as weights ({reason}); "
            "give a safetensors file or a PyTorch file that holds plain tensors."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise WeightsError(f"{path} holds no tensors; give a file of network weights.")
    return tensors


def _prefixes(tensors: Iterable[str]) -> list[str]:
    """List what may precede a network's own names: a wrapper, or a learner that holds the backbone anywhere in it."""
    within = (key.partition(BACKBONE) for key in tensors)
    return [*PREFIXES, *dict.fromkeys(f"{before}{name}" for before, name, _ in within if name)]


def load_weights(network: nn.Module, path: Path, name: str) -> None:
    """Load the weights of a backbone from ``path``, which may be a checkpoint of a whole learner.

    A classifier in the file is ignored; everything else must fit.

    Raises:
        WeightsError: tensors are missing, left over, or of another shape; the message counts and names them.
    """
    tensors = read_weights(path)
    own = network.state_dict()
    prefix = max(_prefixes(tensors), key=lambda p: sum(f"{p}{key}" in tensors for key in own))
    found = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    missing = [key for key in own if key not in found and not key.endswith("num_batches_tracked")]
    shapes = [key for key in own if key in found and found[key].shape != own[key].shape]
    surplus = [key for key in found if key not in own and not key.startswith(CLASSIFIERS)]
    problems = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for what, keys in (("missing", missing), ("of another shape", shapes), ("unexpected", surplus))
        if keys
    ]
    if problems:
        raise WeightsError(
            f"{path} does not fit backbone {name}: {'; '.join(problems)}. "
            "Give weights of this network, or name their backbone with --backbone."
        )
    network.load_state_dict({key: found.get(key, own[key]) for key in own})
