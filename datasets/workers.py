"""The threads that decode and render images; Pillow releases the interpreter lock while it works."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")

MAX_WORKERS = 8


def worker_count() -> int:
    """Count the threads used: the processor's, at most 8."""
    return max(1, min(MAX_WORKERS, os.cpu_count() or 1))


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Keep one pool per process, because threads do not survive a fork."""
    return ThreadPoolExecutor(worker_count(), thread_name_prefix=f"lite-bench-images-{process}")


def for_each(function: Callable[[int, Item], None], items: Sequence[Item], *, parallel: bool = True) -> None:
    """Call ``function(number, item)`` for all items on the worker threads, and wait for them.

    Calls much shorter than a millisecond are faster one after the other (``parallel=False``), because they
    mostly wait for the interpreter lock. Each thread takes every n-th item, so slow items spread. The first
    error in order of threads is raised. ``function`` must not call ``for_each`` itself.
    """
    threads = min(worker_count(), len(items)) if parallel else 1
    if threads <= 1:
        _stride(function, items, 0, 1)
        return
    pool = _pool(os.getpid())
    jobs = [pool.submit(_stride, function, items, start, threads) for start in range(threads)]
    for job in jobs:
        job.result()


def _stride(function: Callable[[int, Item], None], items: Sequence[Item], start: int, step: int) -> None:
    for number in range(start, len(items), step):
        function(number, items[number])
