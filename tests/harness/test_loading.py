"""Episodes ahead of their use: in order, never too many, errors at their turn, no thread left."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from lite_bench.harness.core import Episode, Support, Task
from lite_bench.harness.errors import DataError
from lite_bench.harness.loading import EpisodeStream


class Slow:
    """A suite whose earlier tasks take longer, and one of whose tasks may fail."""

    def __init__(self, fails_at: int | None = None, delay: float = 0.01) -> None:
        self.fails_at, self.delay = fails_at, delay
        self.begun: list[int] = []

    def episode(self, task: Task) -> Episode:
        self.begun.append(task.index)
        time.sleep(self.delay * (3 - task.index % 3))
        if task.index == self.fails_at:
            raise DataError(f"task {task.index} is broken")
        return Episode(task, Support(torch.zeros(0), torch.zeros(0), 0), (), 0)


def tasks(n: int) -> list[Task]:
    return [Task("slow@1", "one", "train", index) for index in range(n)]


def stream(suite: Slow, n: int, ahead: int) -> EpisodeStream:
    return EpisodeStream(suite, tasks(n), ahead)  # type: ignore[arg-type]


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("episode")]


def settle() -> None:
    for _ in range(200):
        if not threads():
            return
        time.sleep(0.01)


@pytest.mark.parametrize("ahead", [0, 1, 4, 50])
def test_the_order_is_that_of_the_tasks(ahead: int) -> None:
    assert [episode.task.index for episode in stream(Slow(), 12, ahead)] == list(range(12))


@pytest.mark.parametrize("ahead", [1, 3])
def test_no_more_than_asked_for_is_prepared(ahead: int) -> None:
    suite = Slow(delay=0)
    for used, _ in enumerate(stream(suite, 20, ahead), start=1):
        time.sleep(0.005)
        assert len(suite.begun) <= used + ahead


def test_tasks_are_named_only_when_they_are_due() -> None:
    named: list[int] = []

    def endless() -> Iterator[Task]:
        for index in range(10**9):
            named.append(index)
            yield Task("slow@1", "one", "train", index)

    episodes = iter(EpisodeStream(Slow(delay=0), endless(), 2))  # type: ignore[arg-type]
    next(episodes)
    assert len(named) == 3
    episodes.close()


def test_an_error_waits_for_its_turn() -> None:
    episodes = iter(stream(Slow(fails_at=4), 10, 6))
    assert [next(episodes).task.index for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(DataError, match="task 4 is broken"):
        next(episodes)


def test_an_error_in_naming_a_task_waits_too() -> None:
    def failing() -> Iterator[Task]:
        yield from tasks(2)
        raise DataError("too few classes")

    episodes = iter(EpisodeStream(Slow(), failing(), 5))  # type: ignore[arg-type]
    assert [next(episodes).task.index for _ in range(2)] == [0, 1]
    with pytest.raises(DataError, match="too few classes"):
        next(episodes)


@pytest.mark.parametrize("way_out", ["end", "break", "error"])
def test_no_thread_is_left_behind(way_out: str) -> None:
    suite = Slow(fails_at=2 if way_out == "error" else None)
    episodes = iter(stream(suite, 8, 3))
    try:
        for episode in episodes:
            if way_out == "break" and episode.task.index == 2:
                break
    except DataError:
        assert way_out == "error"
    episodes.close()
    settle()
    assert threads() == []
    assert len(suite.begun) <= 8


def test_waiting_is_measured() -> None:
    slow = stream(Slow(delay=0.02), 4, 1)
    list(slow)
    assert 0.02 < slow.waited < 5
