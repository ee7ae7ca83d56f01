"""Meta-Dataset's tie rule against cases worked by hand and a second implementation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from lite_bench.harness.statistics import Estimate, estimate
from lite_bench.leaderboard.ranks import average_rank, column_ranks, tied


def exact(*means: float) -> list[Estimate]:
    return [Estimate(mean, 0.0, 600) for mean in means]


def test_without_intervals_ranks_are_plain() -> None:
    assert column_ranks(exact(0.2, 0.9, 0.5)) == [3.0, 1.0, 2.0]


def test_equal_scores_share_the_mean_rank() -> None:
    assert column_ranks(exact(0.5, 0.9, 0.5, 0.5)) == [3.0, 1.0, 3.0, 3.0]


def test_ties_are_with_the_best_not_along_a_chain() -> None:
    # 0.80 and 0.86 differ by 0.06 > sqrt(2) * 0.04 = 0.0566, though 0.83 ties with both.
    scores = [Estimate(mean, 0.04, 600) for mean in (0.86, 0.83, 0.80)]
    assert column_ranks(scores) == [1.5, 1.5, 3.0]


def test_a_wide_interval_may_tie_past_a_narrow_one() -> None:
    scores = [Estimate(0.9, 0.01, 600), Estimate(0.85, 0.01, 600), Estimate(0.8, 0.2, 600)]
    assert column_ranks(scores) == [1.5, 3.0, 1.5]


def test_missing_scores_have_no_rank() -> None:
    one, two = exact(0.1, 0.2)
    assert column_ranks([one, None, two]) == [2.0, None, 1.0]
    assert column_ranks([None]) == [None]
    assert column_ranks([]) == []


def test_a_single_task_has_no_interval() -> None:
    assert not tied(Estimate(0.9, None, 1), Estimate(0.8, None, 1))
    assert tied(Estimate(0.9, None, 1), Estimate(0.8, 0.1, 600))


def test_tie_is_the_normal_test_of_two_means() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        a, b = generator.normal(0.5, 0.1, 40), generator.normal(0.48, 0.1, 60)
        spread = 1.96 * np.sqrt(a.var() / len(a) + b.var() / len(b))
        first, second = sorted([estimate(list(a)), estimate(list(b))], key=lambda each: -each.mean)
        assert tied(first, second) == (first.mean - second.mean <= spread)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_exact_scores_rank_like_scipy(values: list[int]) -> None:
    scores = exact(*(value / 10 for value in values))
    assert column_ranks(scores) == rankdata([-value for value in values], method="average").tolist()


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.3)), min_size=1, max_size=8))
def test_ranks_always_add_up(pairs: list[tuple[float, float]]) -> None:
    ranks = column_ranks([Estimate(mean, width, 600) for mean, width in pairs])
    assert sum(rank or 0.0 for rank in ranks) == len(pairs) * (len(pairs) + 1) / 2


def test_average_rank_never_skips_a_missing_column() -> None:
    assert average_rank([1.0, 2.5]) == 1.75
    assert average_rank([1.0, None]) is None
    assert average_rank([]) is None


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_order_of_rows_does_not_matter(order: tuple[int, ...]) -> None:
    scores = [Estimate(0.86, 0.04, 600), Estimate(0.83, 0.04, 600), Estimate(0.80, 0.04, 600)]
    wanted = [1.5, 1.5, 3.0]
    assert column_ranks([scores[i] for i in order]) == [wanted[i] for i in order]
