"""The bootstrap by clusters against normal theory and enumeration."""

from __future__ import annotations

import numpy as np
import pytest

from lite_bench.harness.bootstrap import clustered_interval
from lite_bench.harness.statistics import estimate


class TestClusteredInterval:
    def test_alike_clusters_leave_no_doubt(self) -> None:
        assert clustered_interval([0.0, 1.0] * 6, ["a", "a", "b", "b", "c", "c"] * 2) == (0.5, 0.5)

    def test_one_cluster_tells_nothing(self) -> None:
        assert clustered_interval([0.0, 1.0], ["a", "a"]) is None

    def test_it_is_the_normal_interval_of_many_cluster_means(self) -> None:
        """With clusters of one size the bootstrap's spread is that of the mean of K independent cluster means."""
        generator = np.random.default_rng(0)
        means = generator.normal(0.5, 0.1, 200)
        values = [value for mean in means for value in (mean - 0.2, mean, mean + 0.2)]
        clusters = [f"u{number}" for number in range(200) for _ in range(3)]
        interval = clustered_interval(values, clusters)
        assert interval is not None
        half = 1.96 * means.std() / 200**0.5
        assert interval[0] == pytest.approx(means.mean() - half, abs=0.05 * half)
        assert interval[1] == pytest.approx(means.mean() + half, abs=0.05 * half)

    def test_repeated_scores_do_not_narrow_it(self) -> None:
        """Five copies of every score are five times the scores for the normal interval, and nothing new here."""
        values, clusters = [0.1, 0.9, 0.4, 0.6, 0.8, 0.3], ["a", "a", "b", "b", "c", "c"]
        assert clustered_interval(values * 5, clusters * 5) == pytest.approx(clustered_interval(values, clusters))
        once, five = estimate(values).half_width, estimate(values * 5).half_width
        assert once is not None
        assert five == pytest.approx(once / 5**0.5)

    def test_the_order_of_scores_does_not_matter(self) -> None:
        values, clusters = [0.1, 0.9, 0.4], ["a", "b", "c"]
        assert clustered_interval(values[::-1], clusters[::-1]) == clustered_interval(values, clusters)

    def test_two_clusters_by_enumeration(self) -> None:
        """Of two clusters with means 0 and 1, a quarter of the samples hold one alone: the ends are 0 and 1."""
        assert clustered_interval([0.0, 1.0], ["a", "b"]) == (0.0, 1.0)
