"""Work on threads reaches every item and brings errors back."""

from __future__ import annotations

import pytest

from lite_bench.datasets.workers import for_each, worker_count
from lite_bench.harness.errors import DataError


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("n", [0, 1, 7, 100])
def test_every_item_once(n: int, parallel: bool) -> None:
    seen: list[tuple[int, str]] = []
    for_each(lambda number, item: seen.append((number, item)), [str(i) for i in range(n)], parallel=parallel)
    assert sorted(seen) == [(i, str(i)) for i in range(n)]


def test_errors_come_back() -> None:
    def fail(number: int, item: int) -> None:
        if number == 5:
            raise DataError(f"item {item}")

    with pytest.raises(DataError, match="item 50"):
        for_each(fail, range(0, 100, 10))


def test_at_most_eight_threads() -> None:
    assert 1 <= worker_count() <= 8
