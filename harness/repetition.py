"""Loops whose passes all cost the same, so that counting what they cost may do with a few of them.

A learner writes ``for step in repeated(500)`` where it would write ``range(500)``. Nothing is different in a run; only
a count without values stops after `FEW` passes and takes the last of them for all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

FEW = 3

Macs = dict[str, int]
_counter: ContextVar[tuple[Callable[[], Macs], Callable[[Macs], None]] | None] = ContextVar("counter", default=None)


def repeated(times: int) -> Iterator[int]:
    """Count up to ``times``, for a loop whose passes from the third on cost the same as each other.

    Yields:
        0, 1, ...
    """
    counter = _counter.get()
    if counter is None or times <= FEW:
        yield from range(times)
        return
    read, add = counter
    before: Macs = {}
    for step in range(FEW):
        before = read()
        yield step
    last = {kind: macs - before.get(kind, 0) for kind, macs in read().items()}
    add({kind: (times - FEW) * macs for kind, macs in last.items()})


@contextmanager
def abridged(read: Callable[[], Macs], add: Callable[[Macs], None]) -> Iterator[None]:
    """Let loops inside the block stop early.

    Args:
        read: gives what was counted so far, by kind.
        add: adds what the passes left out would have counted.
    """
    token = _counter.set((read, add))
    try:
        yield
    finally:
        _counter.reset(token)
