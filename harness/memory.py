"""Memory: keeping what was freed, noticing that it ran out, and going on with smaller batches."""

from __future__ import annotations

import ctypes
import gc
import platform
from dataclasses import asdict, dataclass
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
KEPT_BYTES = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell the C library to reuse freed memory instead of returning it to the system.

    Activations of large images are allocated and freed all the time; by default each such block is fresh memory that
    the system must find and clear, which can take longer than the arithmetic. Only glibc is asked; on other
    systems nothing happens.

    Returns:
        whether the C library agreed.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(M_MMAP_MAX, 0) and library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether ``error`` means that memory ran out, on a GPU or on the CPU."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # torch's CPU allocator and some CUDA libraries raise a plain RuntimeError.
    texts = ("allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in texts)


def without_frames(error: BaseException) -> BaseException:
    """Take the tracebacks off ``error`` and off all errors behind it, whose frames keep abandoned tensors alive."""
    chain, known = [error], {id(error)}
    for each in chain:
        each.__traceback__ = None
        behind = [e for e in (each.__cause__, each.__context__) if e is not None and id(e) not in known]
        known |= {id(e) for e in behind}
        chain += behind
    return error


def release_memory() -> None:
    """Free what an abandoned piece of work left behind; call it outside the ``except`` block that still holds it."""
    import torch

    # A backward pass on the CPU that fails leaves the nodes it had not come to in this thread's queue, and with them
    # what they saved. Only the next pass throws them out, so this is one through nothing.
    with torch.enable_grad():
        torch.zeros((), device="cpu", requires_grad=True).backward()  # type: ignore[no-untyped-call]  # torch
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class BatchSizes:
    """How many images travel through a network at once; memory knobs that never change what is computed.

    Attributes:
        chunk: support images (``--batch-size``).
        query: queries (``--query-batch-size``).
    """

    chunk: int
    query: int

    @property
    def smallest(self) -> bool:
        """Whether they cannot be halved."""
        return self.chunk == self.query == 1

    def halved(self) -> BatchSizes:
        """Give half of both, at least 1."""
        return BatchSizes(max(1, self.chunk // 2), max(1, self.query // 2))

    def plain(self) -> dict[str, Any]:
        """Give values that JSON can hold."""
        return asdict(self)

    def __str__(self) -> str:
        """Print as the flags that ask for them."""
        return f"--batch-size {self.chunk} --query-batch-size {self.query}"


def fixed_advice(sizes: BatchSizes) -> str:
    """Say what to do when batches do not fit that a learner's results depend on."""
    return (
        f"Memory ran out with {sizes}, and this learner's options make its results depend on them, so they are not "
        "lowered; choose smaller ones, change those options, or use --precision bf16."
    )


def memory_advice(sizes: BatchSizes, gradient: str, h: int) -> str:
    """Say what to do when even single images do not fit."""
    return (
        f"Memory ran out with {sizes}, --gradient {gradient} and --lite-h {h}, the smallest batches there are. Use "
        "--gradient exact or a lower --lite-h, a smaller --image-size or backbone, or --precision bf16."
    )
