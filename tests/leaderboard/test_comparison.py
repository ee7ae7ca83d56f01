"""Paired comparisons against scipy's tests, enumeration of signs and simulation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from lite_bench.harness.errors import DataError
from lite_bench.harness.statistics import Scores, estimate
from lite_bench.leaderboard.comparison import Comparison, compare, compare_groups
from lite_bench.leaderboard.ranks import tied

pairs = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=2, max_size=30)


def scores(values: Sequence[float], clusters: Sequence[str] | None = None, keys: Sequence[str] | None = None) -> Scores:
    names = tuple(keys or (f"s@1/a/test/{index}" for index in range(len(values))))
    return Scores(names, tuple(values), tuple(clusters or [""] * len(values)))


def compared(ours: Scores, theirs: Scores) -> Comparison:
    found = compare(ours, theirs)
    assert found is not None
    return found


def check(found: Comparison, difference: float, p: float, interval: tuple[float, float]) -> None:
    assert found.difference == pytest.approx(difference, abs=1e-12)
    assert found.p == pytest.approx(p, abs=1e-9, rel=1e-6)
    assert found.interval == pytest.approx(interval, abs=1e-9)


class TestPairs:
    @given(pairs)
    def test_it_is_scipys_paired_t(self, counts: list[tuple[int, int]]) -> None:
        assume(len({one - other for one, other in counts}) > 1)
        ours, theirs = ([each[side] / 50 for each in counts] for side in (0, 1))
        wanted = stats.ttest_rel(ours, theirs)
        found = compared(scores(ours), scores(theirs))
        low, high = wanted.confidence_interval()
        check(found, float(np.mean(ours) - np.mean(theirs)), wanted.pvalue, (low, high))
        assert found.kind == f"paired t over {len(counts)} tasks"
        assert found.significant == (wanted.pvalue < 0.05)

    @given(st.lists(st.lists(st.integers(-20, 20), min_size=3, max_size=3), min_size=2, max_size=8))
    def test_of_clusters_of_one_size_it_is_the_t_of_their_means(self, clusters: list[list[int]]) -> None:
        assume(len({sum(each) for each in clusters}) > 1)
        names = [f"u{number}" for number, each in enumerate(clusters) for _ in each]
        differences = [count / 50 for each in clusters for count in each]
        ours, theirs = [0.5 + difference for difference in differences], [0.5] * len(names)
        wanted = stats.ttest_1samp([sum(each) / 150 for each in clusters], 0.0)
        low, high = wanted.confidence_interval()
        found = compared(scores(ours, names), scores(theirs, names))
        check(found, float(np.mean(differences)), wanted.pvalue, (low, high))
        assert found.kind == f"cluster-robust t over {len(names)} scores in {len(clusters)} clusters"

    @given(pairs)
    def test_of_clusters_of_one_score_it_is_the_paired_t(self, counts: list[tuple[int, int]]) -> None:
        ours, theirs = ([each[side] / 50 for each in counts] for side in (0, 1))
        alone = [f"u{index}" for index in range(len(counts))]
        apart, paired = compared(scores(ours, alone), scores(theirs, alone)), compared(scores(ours), scores(theirs))
        assert (apart.difference, apart.error, apart.freedom) == (paired.difference, paired.error, paired.freedom)

    @given(pairs, st.booleans())
    def test_the_other_way_round_it_is_its_mirror(self, counts: list[tuple[int, int]], clustered: bool) -> None:
        names = [f"u{index // 2}" for index in range(len(counts))] if clustered else None
        ours, theirs = (scores([each[side] / 50 for each in counts], names) for side in (0, 1))
        one, other = compared(ours, theirs), compared(theirs, ours)
        assert one.difference == pytest.approx(-other.difference, abs=1e-15)
        assert one.p == (None if other.p is None else pytest.approx(other.p))

    def test_clusters_that_only_one_side_names_count(self) -> None:
        ours, theirs, names = [0.9, 0.8, 0.5, 0.6], [0.5, 0.5, 0.4, 0.4], ["a", "a", "b", "b"]
        both = compared(scores(ours, names), scores(theirs, names))
        assert compared(scores(ours, names), scores(theirs)) == both
        assert compared(scores(ours), scores(theirs, names)) == both
        assert both != compared(scores(ours), scores(theirs))

    def test_only_tasks_that_both_have_are_compared(self) -> None:
        ours = scores([0.9, 0.7, 0.8, 0.1], keys=["d", "a", "b", "x"])
        theirs = scores([0.5, 0.6, 0.4, 0.0], keys=["a", "b", "d", "y"])
        found = compared(ours, theirs)
        assert found.n == 3
        check(found, 0.3, *_scipy([0.5, 0.2, 0.2]))
        assert compare(scores([0.5], keys=["a"]), scores([0.5], keys=["b"])) is None
        assert compare(scores([]), scores([])) is None

    @pytest.mark.parametrize(
        ("ours", "names", "kind"),
        [
            ([0.5], None, "no test: 1 task"),
            ([0.5], ["u"], "no test: 1 score in 1 cluster"),
            ([0.5, 0.7], ["u", "u"], "no test: 2 scores in 1 cluster"),
        ],
    )
    def test_one_pair_or_one_cluster_leaves_no_telling(
        self, ours: list[float], names: list[str] | None, kind: str
    ) -> None:
        found = compared(scores(ours, names), scores([0.25] * len(ours), names))
        assert found.difference == pytest.approx(np.mean(ours) - 0.25)
        assert (found.error, found.freedom, found.p, found.interval, found.significant) == (None,) * 5
        assert found.kind == kind


def _scipy(differences: Sequence[float]) -> tuple[float, tuple[float, float]]:
    found = stats.ttest_1samp(differences, 0.0)
    low, high = found.confidence_interval()
    return float(found.pvalue), (float(low), float(high))


class TestNoSpread:
    @pytest.mark.parametrize("other", [[0.3, 0.7, 1.0], [0.1 + 0.2, 1.4 / 2, 1 - 2**-53]])
    def test_the_same_scores_do_not_differ(self, other: list[float]) -> None:
        found = compared(scores([0.3, 0.7, 1.0]), scores(other))
        assert (found.difference, found.error, found.p, found.interval) == (0.0, 0.0, 1.0, (0.0, 0.0))
        assert math.copysign(1.0, found.difference) == 1.0
        assert found.significant is False
        assert found.kind == "paired t over 3 tasks"

    @pytest.mark.parametrize("n", [2, 4, 5, 6, 10])
    def test_the_same_difference_everywhere_is_tested_by_signs(self, n: int) -> None:
        """Of all 2^n ways to deal signs to n equal differences, 2 give a mean as far from 0."""
        ours, theirs = [0.9 - index / 50 for index in range(n)], [0.8 - index / 50 for index in range(n)]
        found = compared(scores(ours), scores(theirs))
        extreme = sum(abs(sum(signs)) == n for signs in itertools.product([-1, 1], repeat=n))
        assert found.p == pytest.approx(extreme / 2**n)
        assert found.significant == (n >= 6)
        assert (found.error, found.interval) == (0.0, None)
        assert found.difference == pytest.approx(0.1)
        assert found.kind == f"sign test, as all differ alike, over {n} tasks"

    def test_clusters_that_differ_alike_count_as_one_sign_each(self) -> None:
        names = ["a", "a", "b", "b", "c", "c"]
        found = compared(scores([0.6, 0.8, 0.7, 0.7, 0.9, 0.5], names), scores([0.5] * 6, names))
        assert found.p == pytest.approx(2 / 2**3)


@pytest.mark.parametrize(("t", "freedom"), [(0.5, 3.7), (8.0, 16.0), (60.0, 16.0), (38.0, 599.0), (1e6, 1.0)])
def test_small_p_is_as_small_as_scipys(t: float, freedom: float) -> None:
    found = Comparison(t * 0.001, 0.001, freedom, 600, "")
    assert found.p is not None
    assert found.p > 0.0
    assert found.p == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-6)


def test_p_beyond_all_numbers_is_zero() -> None:
    assert Comparison(0.9, 1e-9, 599.0, 600, "").p == 0.0
    assert Comparison(-0.9, 1e-9, 599.0, 600, "").significant is True


class TestGroups:
    @given(pairs, pairs)
    def test_of_two_sources_it_is_welchs(self, one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
        first, second = ([(mine - theirs) / 50 for mine, theirs in each] for each in (one, other))
        assume(len(set(first)) > 1 and len(set(second)) > 1)
        members = [
            compared(scores([mine / 50 for mine, _ in each]), scores([theirs / 50 for _, theirs in each]))
            for each in (one, other)
        ]
        wanted = stats.ttest_ind(first, [-difference for difference in second], equal_var=False)
        low, high = wanted.confidence_interval()
        found = compare_groups(members)
        check(found, float(np.mean(first) + np.mean(second)) / 2, wanted.pvalue, (low / 2, high / 2))
        assert found.kind == f"paired t over {len(first) + len(second)} scores of 2 sources"

    def test_sources_of_one_score_are_the_sample(self) -> None:
        ours, theirs = [0.9, 0.6, 0.7, 0.8], [0.5, 0.6, 0.65, 0.6]
        members = [compared(scores([one]), scores([other])) for one, other in zip(ours, theirs, strict=True)]
        wanted = stats.ttest_rel(ours, theirs)
        low, high = wanted.confidence_interval()
        found = compare_groups(members)
        check(found, 0.1625, wanted.pvalue, (low, high))
        assert found.kind == "paired t over 4 sources"

    def test_one_source_is_its_own_mean(self) -> None:
        member = compared(scores([0.5, 0.7, 0.6]), scores([0.4, 0.4, 0.4]))
        assert compare_groups([member]) is member

    def test_one_score_among_many_leaves_no_telling(self) -> None:
        many, one = compared(scores([0.5, 0.7]), scores([0.4, 0.4])), compared(scores([0.5]), scores([0.4]))
        found = compare_groups([many, one])
        assert found.difference == pytest.approx(0.15)
        assert (found.p, found.interval, found.n) == (None, None, 3)
        assert found.kind == "no test: a source has one score or one cluster only"

    def test_clusters_show_in_the_words(self) -> None:
        names = ["a", "a", "b"]
        clustered = compared(scores([0.5, 0.7, 0.9], names), scores([0.4, 0.4, 0.4], names))
        plain = compared(scores([0.5, 0.7]), scores([0.4, 0.4]))
        found = compare_groups([clustered, plain])
        assert (found.kind, found.clusters) == ("cluster-robust t over 5 scores of 2 sources", 4)

    def test_sources_without_spread(self) -> None:
        """All alike within each source: no more than the signs of the smallest source are relied on."""
        better = compared(scores([0.6] * 7), scores([0.5] * 7))
        same = compared(scores([0.5] * 3), scores([0.5] * 3))
        assert compare_groups([better, same]).p == 2.0**-2
        assert compare_groups([same, same]).p == 1.0

    def test_opposite_differences_cancel_to_nothing(self) -> None:
        up, down = compared(scores([0.3] * 4), scores([0.2] * 4)), compared(scores([0.8] * 4), scores([0.9] * 4))
        found = compare_groups([up, down])
        assert (found.difference, found.p) == (0.0, 1.0)

    def test_no_sources_are_refused(self) -> None:
        with pytest.raises(DataError, match="0 sources; a group needs at least one"):
            compare_groups([])


class TestErrorRates:
    """2,000 simulated pairs of learners on tasks of very different difficulty."""

    def rejected(self, gain: float, sizes: Sequence[int]) -> tuple[float, float]:
        """Share of pairs told apart by the paired test, and by the intervals of the two means."""
        generator = np.random.default_rng(1)
        names = [f"u{number}" for number, size in enumerate(sizes) for _ in range(size)]
        paired = apart = 0
        for _ in range(2000):
            n = len(names)
            task = generator.normal(0.5, 0.2, n)
            user = np.repeat(generator.normal(0, 0.02, len(sizes)), sizes)
            ours = task + gain + (user if max(sizes) > 1 else 0.0) + generator.normal(0, 0.02, n)
            theirs = task + generator.normal(0, 0.02, n)
            clusters = names if max(sizes) > 1 else None
            found = compared(scores(ours.tolist(), clusters), scores(theirs.tolist(), clusters))
            paired += found.significant is True
            high, low = sorted([estimate(ours.tolist()), estimate(theirs.tolist())], key=lambda each: -each.mean)
            apart += not tied(high, low)
        return paired / 2000, apart / 2000

    def test_without_a_difference_five_of_a_hundred_are_told_apart(self) -> None:
        assert self.rejected(0.0, [1] * 8)[0] == pytest.approx(0.05, abs=0.015)
        assert self.rejected(0.0, [2, 3, 4, 5, 6, 7, 8])[0] == pytest.approx(0.05, abs=0.015)

    def test_a_small_difference_shows_in_pairs_alone(self) -> None:
        paired, apart = self.rejected(0.02, [1] * 30)
        assert paired > 0.9
        assert apart < 0.02
