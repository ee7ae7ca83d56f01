"""Memory of the process on the CPU."""

from __future__ import annotations

import ctypes
import platform

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
