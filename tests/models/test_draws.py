"""Which rows are drawn: how many, how evenly, and with factors that leave every sum unbiased."""

from __future__ import annotations

import collections
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lite_bench.models.draws import (
    Rows,
    allocate,
    class_by_class,
    draw_covering_rows,
    draw_importance,
    draw_rows,
    draw_stratified,
    draw_systematic,
    draw_uniform,
    inclusion_probabilities,
)

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=40)
SIZES = st.lists(st.sampled_from([0.0, 1e-9, 0.1, 1.0, 2.5, 300.0]), min_size=1, max_size=30)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dense(labels: list[int]) -> tuple[Tensor, int]:
    """Rename the classes that occur to 0..way-1."""
    present = sorted(set(labels))
    return torch.tensor([present.index(c) for c in labels]), len(present)


@given(n=st.integers(1, 60), h=st.integers(0, 70), seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_rows_are_drawn_without_replacement(n: int, h: int, seed: int) -> None:
    rows = draw_rows(n, h, generator(seed)).tolist()
    assert len(rows) == len(set(rows)) == min(h, n)
    assert all(0 <= row < n for row in rows)
    assert rows == draw_rows(n, h, generator(seed)).tolist()


def chi_square(counts: list[int], expected: float) -> float:
    return sum((count - expected) ** 2 / expected for count in counts)


def test_every_subset_is_equally_likely() -> None:
    source, draws = generator(1), 6000
    seen = collections.Counter(tuple(sorted(draw_rows(5, 2, source).tolist())) for _ in range(draws))
    assert set(seen) == set(itertools.combinations(range(5), 2))
    assert chi_square(list(seen.values()), draws / 10) < 27.9  # 0.999 quantile at 9 degrees of freedom


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=40), h=st.integers(0, 50), seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_covering_rows_hold_every_class(labels: list[int], h: int, seed: int) -> None:
    present = sorted(set(labels))
    y = torch.tensor([present.index(c) for c in labels])
    way = len(present)
    rows = draw_covering_rows(y, way, h, generator(seed))
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert len(rows) == min(len(y), max(h, way))
    assert set(y[rows].tolist()) == set(range(way))


def test_covering_rows_choose_evenly_within_a_class() -> None:
    labels, source = torch.tensor([0, 0, 0, 0, 1]), generator(2)
    counts = collections.Counter(int(draw_covering_rows(labels, 2, 2, source)[0]) for _ in range(2000))
    assert chi_square([counts[i] for i in range(4)], 500) < 16.3  # 0.999 quantile at 3 degrees of freedom


@given(n=st.integers(1, 60), h=st.integers(0, 70), seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_uniform_rows_stand_for_all(n: int, h: int, seed: int) -> None:
    rows = draw_uniform(n, h, generator(seed))
    assert rows.indices.tolist() == draw_rows(n, h, generator(seed)).tolist()
    assert float(rows.factors.sum()) == pytest.approx(n if h else 0)


@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=5), extra=st.integers(0, 20))
@settings(max_examples=80, deadline=None)
def test_shares_are_the_best_there_are(counts: list[int], extra: int) -> None:
    """Against every way to share so many rows: none has a smaller sum of k^2 / h."""
    h = len(counts) + extra
    shares = allocate(counts, counts, h, list(range(len(counts))))
    assert sum(shares) == min(h, sum(counts))
    assert all(1 <= share <= k for share, k in zip(shares, counts, strict=True))

    def spread(each: tuple[int, ...]) -> float:
        return sum(k**2 / share for k, share in zip(counts, each, strict=True))

    others = itertools.product(*(range(1, k + 1) for k in counts))
    best = min(spread(each) for each in others if sum(each) == sum(shares))
    assert spread(tuple(shares)) == pytest.approx(best)


def test_equal_classes_get_equal_shares_and_ties_are_settled_by_the_order() -> None:
    assert allocate([1, 1, 1], [10, 10, 10], 6, [0, 1, 2]) == [2, 2, 2]
    assert allocate([1, 1, 1], [10, 10, 10], 7, [2, 0, 1]) == [2, 2, 3]
    assert allocate([1.0, 0.0, 9.0], [4, 0, 3], 6, [0, 2]) == [3, 0, 3]  # large, but it has only three


@given(labels=LABELS, h=st.integers(0, 50), seed=st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_stratified_rows_stand_for_their_classes(labels: list[int], h: int, seed: int) -> None:
    y, way = dense(labels)
    rows = draw_stratified(y, way, h, generator(seed))
    assert len(set(rows.indices.tolist())) == len(rows.indices) == min(h, len(y))
    assert bool((rows.factors >= 1).all())
    if h >= way:
        for c in range(way):
            assert float(rows.factors[y[rows.indices] == c].sum()) == pytest.approx(int((y == c).sum()))
    else:
        assert torch.allclose(rows.factors, torch.full_like(rows.factors, len(y) / max(1, h)))
        if h and torch.bincount(y).max() == torch.bincount(y).min():
            assert torch.bincount(y[rows.indices]).max() <= 1  # no class twice before every class once


@pytest.mark.parametrize(("labels", "h"), [([0, 0, 0, 1, 1], 3), ([0, 0, 0, 1, 1], 2), ([0, 0, 0, 1, 2], 2)])
def test_stratified_draws_reach_every_row_as_their_factors_say(labels: list[int], h: int) -> None:
    """The mean over draws of sum factor_n 1[n drawn] must be 1 for every row: that is what unbiased means."""
    y, way = dense(labels)
    source, draws = generator(3), 4000
    total, square = torch.zeros(len(y), dtype=torch.float64), torch.zeros(len(y), dtype=torch.float64)
    for _ in range(draws):
        rows = draw_stratified(y, way, h, source)
        weights = torch.zeros(len(y), dtype=torch.float64).index_add_(0, rows.indices, rows.factors)
        total += weights
        square += weights.square()
    mean = total / draws
    error = ((square / draws - mean.square()) / draws).sqrt()
    assert bool(((mean - 1).abs() <= 4 * error + 1e-12).all())


@given(sizes=SIZES, h=st.integers(0, 35))
@settings(max_examples=200, deadline=None)
def test_inclusion_probabilities_are_proportional_below_one(sizes: list[float], h: int) -> None:
    s = torch.tensor(sizes, dtype=torch.float64)
    p = inclusion_probabilities(s, h)
    assert bool(((p >= 0) & (p <= 1)).all())
    assert bool((p[s == 0] == 0).all())
    assert float(p.sum()) == pytest.approx(min(h, int((s > 0).sum())), abs=1e-6)
    below = (p > 0) & (p < 1)
    if int(below.sum()) > 1:
        ratios = p[below] / s[below]
        torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios))
    if bool(below.any()) and bool((p == 1).any()):
        assert float(s[p == 1].min()) >= float(s[below].max())


@given(labels=LABELS, h=st.integers(0, 50), seed=st.integers(0, 10**6), data=st.data())
@settings(max_examples=100, deadline=None)
def test_importance_rows_are_distinct_and_fixed_in_number(
    labels: list[int], h: int, seed: int, data: st.DataObject
) -> None:
    y, way = dense(labels)
    sizes = data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 40.0]), min_size=len(y), max_size=len(y)))
    s = torch.tensor(sizes, dtype=torch.float64)
    rows = draw_importance(s, y, way, h, generator(seed))
    assert len(set(rows.indices.tolist())) == len(rows.indices) == min(h, int((s > 0).sum()))
    assert bool((s[rows.indices] > 0).all())
    assert bool((rows.factors >= 1 - 1e-9).all())
    positive = y[s > 0].bincount(minlength=way)
    if h >= 2 * int((positive > 0).sum()):
        assert bool((y[rows.indices].bincount(minlength=way)[positive > 0] >= 1).all())


@pytest.mark.parametrize("h", [1, 3, *(pytest.param(h, marks=pytest.mark.slow) for h in (4, 6))])
def test_importance_draws_reach_every_row_as_their_factors_say(h: int) -> None:
    y = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    sizes = torch.tensor([5.0, 1, 1, 0, 0.2, 0.3, 1, 0.5], dtype=torch.float64)
    source, draws = generator(5), 4000
    total, square = torch.zeros(8, dtype=torch.float64), torch.zeros(8, dtype=torch.float64)
    for _ in range(draws):
        rows = draw_importance(sizes, y, 2, h, source)
        weights = torch.zeros(8, dtype=torch.float64).index_add_(0, rows.indices, rows.factors)
        total += weights
        square += weights.square()
    mean = total / draws
    error = ((square / draws - mean.square()) / draws).sqrt()
    assert mean[3] == 0
    assert bool((((mean - 1).abs() <= 4 * error + 1e-12) | (sizes == 0)).all())


class Fixed:
    """Stands for a random start of the systematic draw."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.start = 0.0
        monkeypatch.setattr(torch, "rand", lambda *size, **options: torch.tensor(self.start, dtype=torch.float64))


def test_systematic_draws_reach_every_row_with_its_probability_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The draw is a step function of its start: integrate it exactly, between its breakpoints."""
    sizes = torch.tensor([0.3, 0.0, 5.0, 1.0, 0.7, 0.02, 1.0], dtype=torch.float64)
    order = torch.tensor([3, 6, 0, 5, 2, 1, 4])
    fixed = Fixed(monkeypatch)
    for h in range(9):
        chances = inclusion_probabilities(sizes, h)
        line = order[(chances[order] > 0) & (chances[order] < 1)]
        breaks = sorted({0.0, 1.0, *(math.modf(float(end))[0] for end in chances[line].cumsum(0))})
        reached = torch.zeros(len(sizes), dtype=torch.float64)
        for low, high in itertools.pairwise(breaks):
            if high - low < 1e-12:
                continue
            fixed.start = (low + high) / 2
            rows = draw_systematic(sizes, h, order, generator())
            assert len(set(rows.indices.tolist())) == len(rows.indices) == min(h, 6)
            torch.testing.assert_close(rows.factors, 1 / chances[rows.indices])
            reached[rows.indices] += high - low
        torch.testing.assert_close(reached, chances)


@given(labels=LABELS, seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_class_by_class_keeps_classes_together(labels: list[int], seed: int) -> None:
    y, way = dense(labels)
    order = class_by_class(y, way, generator(seed))
    assert sorted(order.tolist()) == list(range(len(y)))
    assert len([c for c, _ in itertools.groupby(y[order].tolist())]) == way


def test_rows_move_with_their_factors() -> None:
    rows = Rows(torch.tensor([1, 2]), torch.tensor([2.0, 3.0], dtype=torch.float64)).to(torch.device("cpu"))
    assert rows.indices.tolist() == [1, 2]
    assert rows.factors.tolist() == [2.0, 3.0]
