"""Peak memory of a piece of work, above what was there before it.

On a GPU, torch's own counters. On a CPU, every allocation and release of torch, in order, as its profiler sees them:
exact and repeatable, where the resident memory of the process also counts what the C library holds in reserve. Scratch
space inside a library's kernel is not seen.
"""

from __future__ import annotations

import itertools
import os
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

T = TypeVar("T")


@dataclass(frozen=True)
class Peak:
    """Peak memory, in bytes.

    Attributes:
        tensors: what tensors took at the most, above what they took before.
        reserved: what torch had taken from the device at the most, all told; on a CPU the same as ``tensors``.
    """

    tensors: int
    reserved: int


def measure_peak(work: Callable[[], object], device: torch.device) -> Peak:
    """Run ``work`` once and give its peak memory."""
    return _on_gpu(work, device) if device.type == "cuda" else _on_cpu(work)


def with_device_peak(work: Callable[[], T], device: torch.device) -> tuple[T, int | None]:
    """Run ``work`` and give its result, with the most memory that tensors took on a GPU above what they took before.

    None on a CPU, where only a profiler could tell.
    """
    if device.type != "cuda":
        return work(), None
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = work()
    return result, torch.cuda.max_memory_allocated(device) - before


def _on_gpu(work: Callable[[], object], device: torch.device) -> Peak:
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return Peak(torch.cuda.max_memory_allocated(device) - before, torch.cuda.max_memory_reserved(device))


def _on_cpu(work: Callable[[], object]) -> Peak:
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True, acc_events=False) as profiler:
        work()
    events = profiler.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    highest = max(itertools.accumulate((size for _, size in changes), initial=0))
    return Peak(highest, highest)


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch
    """Follows how much memory the tensors made inside it take."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch
        self.now = self.highest = 0
        self.seen: dict[int, weakref.finalize[..., Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided:
                self._add(tensor.untyped_storage(), args)
        return result

    def _add(self, storage: torch.UntypedStorage, args: tuple[Any, ...]) -> None:
        key = storage._cdata  # noqa: SLF001 - the identity of a storage
        given = {a.untyped_storage()._cdata for a in args if isinstance(a, torch.Tensor) and a.layout == torch.strided}  # noqa: SLF001 - as above
        if key in self.seen or key in given:
            return
        size = storage.nbytes()
        self.seen[key] = weakref.finalize(storage, self._free, key, size)
        self.now += size
        self.highest = max(self.highest, self.now)

    def _free(self, key: int, size: int) -> None:
        self.seen.pop(key, None)
        self.now -= size


def live_peak(work: Callable[[], object]) -> int:
    """Run ``work`` and give the most memory that tensors made in it took at a time, in bytes, on any device.

    Unlike `measure_peak` it keeps no list of what happened, so that it does for work of any length. What an operation
    takes inside itself is not seen.
    """
    live = _Live()
    with live:
        work()
    for freed in list(live.seen.values()):
        freed.detach()
    return live.highest


def task_peak(work: Callable[[], object], device: torch.device) -> int:
    """Run ``work`` of any length and give its peak memory of tensors, in bytes."""
    return live_peak(work) if device.type == "cpu" else measure_peak(work, device).tensors


def resident_bytes() -> int:
    """Memory of this process that is in use now; its highest so far where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        import resource  # absent on Windows, where there is no /proc either

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return pages * os.sysconf("SC_PAGE_SIZE")
