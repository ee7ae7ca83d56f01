"""Wall time of the parts of a task, synchronised with the device."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch


def clock(device: torch.device) -> float:
    """Give the time in seconds once all work sent to ``device`` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@dataclass
class Stopwatch:
    """Adds up the time spent in each part; usable as the ``watch`` of `accumulate_task_gradient`.

    Attributes:
        device: to synchronise with.
        seconds: by part.
    """

    device: torch.device
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Time a block as ``part``."""
        start = clock(self.device)
        try:
            yield
        finally:
            self.seconds[part] += clock(self.device) - start
