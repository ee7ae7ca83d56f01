"""Student's and bootstrap intervals against scipy, closed forms, dense linear algebra, enumeration and simulation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from lite_bench.harness import bootstrap
from lite_bench.harness.bootstrap import resampled_means
from lite_bench.harness.errors import DataError
from lite_bench.harness.statistics import Scores, estimate
from lite_bench.leaderboard.intervals import Interval, Kind, interval_of, interval_of_mean, uncertainty

UNBALANCED = (1, 1, 2, 2, 10, 20)
accuracies = st.lists(st.integers(0, 100).map(lambda count: count / 100), min_size=2, max_size=30)


def scores(values: Sequence[float], clusters: Sequence[str] | None = None) -> Scores:
    keys = tuple(f"s@1/a/test/{index}" for index in range(len(values)))
    return Scores(keys, tuple(values), tuple(clusters or [""] * len(values)))


def ends(interval: Interval | None) -> tuple[float, float]:
    assert interval is not None
    return interval.low, interval.high


def labels(sizes: Sequence[int]) -> list[str]:
    return [f"u{number}" for number, size in enumerate(sizes) for _ in range(size)]


class TestStudent:
    @given(accuracies)
    def test_it_is_scipys_t_interval(self, values: list[float]) -> None:
        found = stats.ttest_1samp(values, 0.0).confidence_interval() if len(set(values)) > 1 else (values[0], values[0])
        assert ends(interval_of(scores(values), Kind.student)) == pytest.approx(tuple(found), abs=1e-12)

    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=9))
    def test_of_clusters_of_one_size_it_is_that_of_their_means(self, clusters: list[tuple[int, int, int]]) -> None:
        values = [count / 9 for each in clusters for count in each]
        found = ends(interval_of(scores(values, labels([3] * len(clusters))), Kind.student))
        means = [sum(each) / 27 for each in clusters]
        assert found == pytest.approx(ends(interval_of(scores(means), Kind.student)), abs=1e-12)

    @given(accuracies)
    def test_of_clusters_of_one_score_it_is_that_of_the_scores(self, values: list[float]) -> None:
        alone = scores(values, [f"u{index}" for index in range(len(values))])
        assert ends(interval_of(alone, Kind.student)) == pytest.approx(ends(interval_of(scores(values), Kind.student)))

    @given(st.lists(st.integers(1, 6), min_size=2, max_size=7), st.integers(0, 2**32 - 1))
    def test_of_clusters_of_any_size_it_is_bell_and_mccaffreys(self, sizes: list[int], seed: int) -> None:
        """The estimator of regression with clustered errors, in dense matrices, for a regression on a constant."""
        n, names = sum(sizes), np.asarray(labels(sizes))
        y, X = np.random.default_rng(seed).random(n), np.ones((n, 1))
        residual = np.eye(n) - X @ np.linalg.inv(X.T @ X) @ X.T
        rows = []
        for name in sorted(set(names.tolist())):
            own = np.flatnonzero(names == name)
            values, vectors = np.linalg.eigh(residual[np.ix_(own, own)])
            root = vectors @ np.diag(1 / np.sqrt(values)) @ vectors.T
            rows.append(residual[own].T @ root @ X[own, 0] / n)
        M = np.stack(rows) @ np.stack(rows).T
        error = math.sqrt(sum(float(row @ y) ** 2 for row in rows))
        found = uncertainty(y.tolist(), names.tolist())
        assert found is not None
        assert found.error == pytest.approx(error)
        assert found.freedom == pytest.approx(np.trace(M) ** 2 / np.trace(M @ M))

    def test_its_variance_has_no_bias(self) -> None:
        """Over all 2^7 ways that seven independent scores of -1 or 1 fall, the mean of error^2 is 1 / 7."""
        names = labels([1, 2, 4])
        squares = []
        for values in itertools.product([-1.0, 1.0], repeat=7):
            found = uncertainty(values, names)
            assert found is not None
            squares.append(found.error**2)
        assert np.mean(squares) == pytest.approx(1 / 7)

    def test_rounding_is_no_spread(self) -> None:
        found = interval_of(scores([0.1 + 0.2, 0.3, 0.3]), Kind.student)
        assert found is not None
        assert found.half_width == 0.0

    def test_a_large_cluster_among_single_scores_tells_little(self) -> None:
        found = uncertainty([0.5, 0.6] * 28, labels([1] * 16 + [40]))
        assert found is not None
        assert 1 < found.freedom < 2


class TestGroups:
    @given(accuracies, accuracies)
    def test_of_two_sources_it_is_welchs(self, one: list[float], other: list[float]) -> None:
        """The mean of a and 1 - b is off by half of what a - b is off by."""
        assume(len(set(one)) > 1 and len(set(other)) > 1)
        found = interval_of_mean([scores(one), scores([1 - value for value in other])], Kind.student)
        low, high = stats.ttest_ind(one, other, equal_var=False).confidence_interval()
        assert ends(found) == pytest.approx(((1 + low) / 2, (1 + high) / 2), abs=1e-12)

    def test_of_three_sources_it_is_satterthwaites(self) -> None:
        generator = np.random.default_rng(3)
        samples = [generator.normal(0.5, spread, size) for spread, size in ((0.01, 9), (0.1, 4), (0.2, 30))]
        parts = [sample.var(ddof=1) / len(sample) for sample in samples]
        freedom = sum(parts) ** 2 / sum(v**2 / (len(x) - 1) for v, x in zip(parts, samples, strict=True))
        middle = np.mean([sample.mean() for sample in samples])
        reach = stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts)) / 3
        found = interval_of_mean([scores(sample.tolist()) for sample in samples], Kind.student)
        assert ends(found) == pytest.approx((middle - reach, middle + reach))

    def test_sources_without_spread_have_no_width(self) -> None:
        found = interval_of_mean([scores([0.5, 0.5]), scores([1.0, 1.0, 1.0])], Kind.student)
        assert ends(found) == (0.75, 0.75)

    def test_clusters_of_a_source_count_in_its_mean(self) -> None:
        values, names = [0.1, 0.1, 0.9, 0.9], ["a", "a", "b", "b"]
        apart = interval_of_mean([scores(values), scores(values)], Kind.student)
        together = interval_of_mean([scores(values, names), scores(values, names)], Kind.student)
        assert apart is not None
        assert together is not None
        assert together.half_width > 2 * apart.half_width

    @pytest.mark.parametrize("kind", list(Kind))
    def test_one_score_leaves_no_telling(self, kind: Kind) -> None:
        assert interval_of(scores([0.5]), kind) is None
        assert interval_of_mean([scores([0.5, 0.6]), scores([0.5])], kind) is None
        assert interval_of_mean([scores([0.5, 0.6]), scores([0.5, 0.7])], kind) is not None

    @pytest.mark.parametrize("kind", [Kind.student, Kind.bootstrap])
    def test_one_cluster_leaves_no_telling(self, kind: Kind) -> None:
        assert interval_of(scores([0.5, 0.6], ["u", "u"]), kind) is None

    @pytest.mark.parametrize("kind", list(Kind))
    def test_of_nothing_there_is_no_mean(self, kind: Kind) -> None:
        with pytest.raises(DataError, match="0 sources; a group needs at least one"):
            interval_of_mean([], kind)
        with pytest.raises(DataError, match="0 tasks; evaluate at least one"):
            interval_of(scores([]), kind)


@given(accuracies, accuracies)
def test_the_protocols_is_as_published(one: list[float], other: list[float]) -> None:
    half = 1.96 * np.std(one) / math.sqrt(len(one)), 1.96 * np.std(other) / math.sqrt(len(other))
    found = interval_of_mean([scores(one), scores(other)], Kind.protocol)
    middle = (np.mean(one) + np.mean(other)) / 2
    reach = math.hypot(*half) / 2
    assert ends(found) == pytest.approx((middle - reach, middle + reach), abs=1e-12)
    assert found is not None
    assert found.symmetric


class TestBootstrap:
    def test_its_samples_are_those_of_enumeration(self) -> None:
        """Of clusters of sizes 1, 2 and 3, the 27 equally likely samples have these means, a ratio of sums."""
        values, sizes = [0.0, 0.2, 0.6, 0.9, 1.0, 0.8], [1, 2, 3]
        sums = [0.0, 0.8, 2.7]
        exact = sorted(
            sum(sums[i] for i in s) / sum(sizes[i] for i in s) for s in itertools.product(range(3), repeat=3)
        )
        found = resampled_means(values, labels(sizes))
        assert found is not None
        for mean in set(exact):
            share = np.mean(found < mean + 1e-9)
            assert share == pytest.approx(sum(each < mean + 1e-9 for each in exact) / 27, abs=0.015)

    def test_its_ends_are_percentiles_of_enumeration(self) -> None:
        values = [0.0, 0.31, 0.62, 0.7, 1.0]
        exact = sorted(sum(sample) / 5 for sample in itertools.product(values, repeat=5))
        low, high = ends(interval_of(scores(values), Kind.bootstrap))
        for end, level in ((low, 0.025), (high, 0.975)):
            assert sum(each < end - 1e-9 for each in exact) / 5**5 <= level + 0.005
            assert sum(each <= end + 1e-9 for each in exact) / 5**5 >= level - 0.005

    def test_of_many_tasks_it_is_the_normal_interval(self) -> None:
        values = np.random.default_rng(1).beta(8, 2, 600).tolist()
        half = estimate(values).half_width
        assert half is not None
        low, high = ends(interval_of(scores(values), Kind.bootstrap))
        assert (low, high) == pytest.approx((np.mean(values) - half, np.mean(values) + half), abs=0.05 * half)

    def test_it_is_not_symmetric_for_skewed_scores(self) -> None:
        found = interval_of(scores([1.0] * 9 + [0.0]), Kind.bootstrap)
        assert found is not None
        assert not found.symmetric
        assert ends(found) == (0.7, 1.0)

    def test_it_resamples_whole_clusters(self) -> None:
        values, names = [0.1, 0.1, 0.5, 0.5, 0.9, 0.9], ["a", "a", "b", "b", "c", "c"]
        assert ends(interval_of(scores(values, names), Kind.bootstrap)) == pytest.approx((0.1, 0.9))
        low, high = ends(interval_of(scores(values), Kind.bootstrap))
        assert high - low < 0.6

    def test_sources_are_independent_though_they_share_what_is_drawn(self) -> None:
        """The mean of two equal sources is off by 1 / sqrt(2) of what each is off by; of four by half."""
        values = scores(np.random.default_rng(2).random(100).tolist())
        alone, two, four = (interval_of_mean([values] * number, Kind.bootstrap) for number in (1, 2, 4))
        assert alone is not None
        assert two is not None
        assert four is not None
        assert two.half_width / alone.half_width == pytest.approx(0.5**0.5, rel=0.05)
        assert four.half_width / alone.half_width == pytest.approx(0.5, rel=0.05)

    def test_the_order_of_tasks_does_not_matter(self) -> None:
        keys, values = ("x", "y", "z"), (0.1, 0.4, 0.9)
        forward = interval_of(Scores(keys, values, ("", "", "")), Kind.bootstrap)
        assert forward == interval_of(Scores(keys[::-1], values[::-1], ("", "", "")), Kind.bootstrap)

    def test_columns_with_as_many_tasks_draw_once(self) -> None:
        bootstrap._kept_counts.cache_clear()
        for offset in range(5):
            interval_of(scores([(index + offset) % 7 / 7 for index in range(50)]), Kind.bootstrap)
        assert bootstrap._kept_counts.cache_info().misses == 1

    def test_what_is_too_large_to_keep_is_drawn_in_the_same_way(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values, names = np.random.default_rng(0).random(12).tolist(), labels([1, 2, 3, 6])
        kept = resampled_means(values, names)
        bootstrap._kept_counts.cache_clear()
        monkeypatch.setattr(bootstrap, "KEPT_COUNTS", 0)
        monkeypatch.setattr(bootstrap, "COUNTS_AT_ONCE", 999)
        drawn = resampled_means(values, names)
        assert kept is not None
        assert drawn is not None
        np.testing.assert_allclose(kept, drawn, rtol=1e-14)
        assert bootstrap._kept_counts.cache_info().currsize == 0


class TestCoverage:
    """How often a 95 % interval holds the true mean, in 2,000 simulated evaluations: a standard error of 0.5 %."""

    def covered(self, kind: Kind, sizes: Sequence[int], alike: float, times: int = 2000) -> float:
        """Share of evaluations with a true mean of 0; ``alike`` is the share of variance that a cluster has in common.

        The clusters' part and the scores' own are normal.
        """
        generator = np.random.default_rng(0)
        names = labels(sizes) if max(sizes) > 1 else None
        inside = 0
        for _ in range(times):
            common = np.repeat(generator.normal(0, math.sqrt(alike), len(sizes)), sizes)
            values = common + generator.normal(0, math.sqrt(1 - alike), sum(sizes))
            low, high = ends(interval_of(scores(values.tolist(), names), kind))
            inside += low <= 0.0 <= high
        return inside / times

    def test_of_five_tasks(self) -> None:
        assert self.covered(Kind.protocol, [1] * 5, 0.0) < 0.86
        assert self.covered(Kind.student, [1] * 5, 0.0) == pytest.approx(0.95, abs=0.015)

    def test_of_many_tasks_both_are_right(self) -> None:
        assert self.covered(Kind.protocol, [1] * 100, 0.0, 4000) == pytest.approx(0.945, abs=0.012)
        assert self.covered(Kind.student, [1] * 100, 0.0, 4000) == pytest.approx(0.945, abs=0.012)

    def test_of_eight_users_with_ten_videos_each(self) -> None:
        assert self.covered(Kind.protocol, [10] * 8, 0.5) < 0.65
        assert self.covered(Kind.student, [10] * 8, 0.5) == pytest.approx(0.95, abs=0.015)

    def test_of_users_with_very_different_numbers_of_videos(self) -> None:
        assert self.covered(Kind.protocol, UNBALANCED, 0.5) < 0.6
        assert self.covered(Kind.student, UNBALANCED, 0.5) == pytest.approx(0.955, abs=0.015)
        assert self.covered(Kind.student, UNBALANCED, 0.0) >= 0.95

    def test_the_bootstrap_holds_with_many_clusters(self) -> None:
        sizes = [1, 2, 3, 4, 5] * 10
        assert self.covered(Kind.bootstrap, sizes, 0.5, 300) == pytest.approx(0.94, abs=0.03)
        assert self.covered(Kind.protocol, sizes, 0.5) < 0.85
