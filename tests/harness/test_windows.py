"""The moving mean over features against the definition of a window."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lite_bench.harness.windows import MovingMean


def literal(features: torch.Tensor, groups: list[int], window: int) -> torch.Tensor:
    """Average the rows of each window one by one: rows t-w+1 to t of the group, its first row before its start."""
    rows = []
    for place, group in enumerate(groups):
        own = [number for number, other in enumerate(groups) if other == group]
        at = own.index(place)
        rows.append(torch.stack([features[own[max(0, at - back)]] for back in range(window)]).mean(0))
    return torch.stack(rows)


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    window=st.integers(1, 10),
    cuts=st.lists(st.integers(1, 15), min_size=1, max_size=4),
)
def test_it_is_the_mean_of_every_window_wherever_batches_end(lengths: list[int], window: int, cuts: list[int]) -> None:
    groups = [number for number, length in enumerate(lengths) for _ in range(length)]
    features = torch.randn(len(groups), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(len(groups)))
    mean, found, start, turn = MovingMean(window), [], 0, 0
    while start < len(groups):
        end = start + cuts[turn % len(cuts)]
        found.append(mean(features[start:end], torch.tensor(groups[start:end])))
        start, turn = end, turn + 1
    torch.testing.assert_close(torch.cat(found), literal(features, groups, window), rtol=1e-12, atol=1e-12)


def test_the_windows_of_a_video_are_those_of_the_protocol() -> None:
    """Window 1 is 8 copies of frame 1, window 8 is frames 1 to 8, window T is frames T-7 to T."""
    length = 12
    one_hot = torch.eye(length, dtype=torch.float64)
    counts = MovingMean(8)(one_hot, torch.zeros(length, dtype=torch.int64)) * 8
    assert counts[0].tolist() == [8.0] + [0.0] * 11
    assert counts[7].tolist() == [1.0] * 8 + [0.0] * 4
    assert counts[11].tolist() == [0.0] * 4 + [1.0] * 8
    assert counts[2].tolist() == [6.0, 1.0, 1.0] + [0.0] * 9


@pytest.mark.parametrize("window", [1, 8])
def test_no_more_than_a_window_is_kept(window: int) -> None:
    mean = MovingMean(window)
    for start in range(0, 1000, 50):
        mean(torch.randn(50, 4), torch.full((50,), start // 500))
        assert mean._rows is None or len(mean._rows) == window - 1
