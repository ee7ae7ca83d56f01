"""Meta-Dataset's tie rule against its published leaderboards, a second implementation and cases worked by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from lite_bench.harness.statistics import Estimate, estimate
from lite_bench.leaderboard.ranks import average_rank, column_ranks, tied

LEADERBOARDS = json.loads((Path(__file__).parent / "meta_dataset_leaderboard.json").read_text())["leaderboards"]


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


@pytest.mark.parametrize("board", LEADERBOARDS, ids=lambda board: board["training"])
def test_the_published_average_ranks_of_meta_dataset(board: dict[str, Any]) -> None:
    """All 16 and 19 models: their printed average ranks follow from the printed means and intervals."""
    models = board["models"]
    columns = [
        column_ranks([Estimate(model["means"][place], model["half_widths"][place], 600) for model in models])
        for place in range(len(board["datasets"]))
    ]
    found = {model["name"]: average_rank(list(ranks)) for model, *ranks in zip(models, *columns, strict=True)}
    assert found == pytest.approx({model["name"]: model["average_rank"] for model in models}, abs=1e-9)


def literal_ranks(means: Sequence[float], deviations: Sequence[float], counts: Sequence[int]) -> dict[int, float]:
    """Rank one column word by word: take the best, whoever is not significantly worse shares its rank, and repeat.

    Of several best ones it takes the least certain.
    """
    left, ranks, used = set(range(len(means))), dict[int, float](), 0
    errors = [deviation / np.sqrt(count) for deviation, count in zip(deviations, counts, strict=True)]
    while left:
        highest = [i for i in left if all(means[i] >= means[j] for j in left)]
        best = next(i for i in highest if all(errors[i] >= errors[j] for j in highest))
        sharing = []
        for i in left:
            spread = 1.96 * np.sqrt(deviations[best] ** 2 / counts[best] + deviations[i] ** 2 / counts[i])
            if abs(means[best] - means[i]) <= spread:
                sharing.append(i)
        places = range(used + 1, used + len(sharing) + 1)
        for i in sharing:
            ranks[i] = sum(places) / len(places)
        used, left = used + len(sharing), left - set(sharing)
    return ranks


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30), st.integers(2, 700)), min_size=1, max_size=9))
def test_ranks_are_those_of_the_rule_word_by_word(models: list[tuple[int, int, int]]) -> None:
    means, deviations = [0.0137 + m / 10 for m, _, _ in models], [s / 10 for _, s, _ in models]
    counts = [n for _, _, n in models]
    triples = zip(means, deviations, counts, strict=True)
    found = column_ranks([Estimate(mean, 1.96 * s / np.sqrt(n), n) for mean, s, n in triples])
    assert found == [literal_ranks(means, deviations, counts)[index] for index in range(len(models))]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), min_size=2, max_size=8), st.randoms())
def test_no_order_of_rows_changes_a_rank(pairs: list[tuple[int, int]], random: Random) -> None:
    scores = [Estimate(mean / 10, width / 100, 600) for mean, width in pairs]
    order = random.sample(range(len(scores)), len(scores))
    ranks = column_ranks(scores)
    assert column_ranks([scores[index] for index in order]) == [ranks[index] for index in order]
