"""What a result was made with: versions, devices, source revision; and where weights are cached.

Versions come from installed metadata, so that nothing heavy is imported unless devices are asked for.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

DISTRIBUTIONS = ("lite-bench", "torch", "torchvision", "timm", "numpy", "pillow", "tensorflow-datasets")
GIT_SECONDS = 5.0


def describe_environment(devices: bool | None = None, folder: Path | None = None) -> dict[str, Any]:
    """Describe this process and machine in values that JSON can hold.

    Args:
        devices: also describe GPUs, CUDA and threads, with torch; by default if that is imported already.
        folder: whose git revision to record; the working directory by default.
    """
    described: dict[str, Any] = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cpu_count": os.cpu_count(),
        "versions": {name: installed_version(name) for name in DISTRIBUTIONS},
        "git": git_state(folder or Path.cwd()),
    }
    if devices or (devices is None and "torch" in sys.modules):
        described["devices"] = describe_devices()
    return described


def installed_version(distribution: str) -> str | None:
    """Give the version of an installed distribution, or None if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def installed_versions() -> dict[str, str]:
    """Give the versions of `DISTRIBUTIONS`, of those that are installed."""
    found = {name: installed_version(name) for name in DISTRIBUTIONS}
    return {name: version for name, version in found.items() if version is not None}


def command_line() -> str:
    """Give the command that was typed, with the home folder written as ``~``."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return " ".join(shlex.quote(word).replace(str(Path.home()), "~") for word in words)


def cpu_model() -> str:
    """Name the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def git_state(folder: Path) -> dict[str, Any] | None:
    """Give revision and cleanness of the repository around ``folder``; None outside one or without git."""
    revision = _git(folder, "rev-parse", "HEAD")
    if revision is None:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"revision": revision, "dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    """Run git without locks or prompts; None if it is absent, fails or takes too long."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            command,
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def describe_devices() -> dict[str, Any]:
    """Describe what torch computes on: GPUs with memory in bytes, CUDA, cuDNN, CPU threads."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    properties = [torch.cuda.get_device_properties(index) for index in range(count)]
    return {
        "cpu_threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if count else None,  # type: ignore[no-untyped-call]  # torch
        "gpus": [{"name": each.name, "memory_bytes": each.total_memory} for each in properties],
        "mps": torch.backends.mps.is_available(),
    }


def device_text(device: torch.device) -> str:
    """Name a device for the heading of a table."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def weights_cache_folders(environ: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """Find where torch hub and Hugging Face keep downloaded weights, by the rules of these two libraries.

    Returns:
        folders by library, ``torch`` and ``huggingface``; they need not exist.
    """
    cache = Path(environ.get("XDG_CACHE_HOME") or "~/.cache")
    torch_home = Path(environ.get("TORCH_HOME") or cache / "torch")
    hf_home = Path(environ.get("HF_HOME") or cache / "huggingface")
    hf_hub = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or hf_home / "hub"
    return {
        "torch": torch_home.expanduser() / "hub" / "checkpoints",
        "huggingface": Path(os.path.expandvars(hf_hub)).expanduser(),
    }
