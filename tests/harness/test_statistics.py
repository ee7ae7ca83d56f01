"""Means and intervals against numpy and scipy; nothing is averaged over missing records."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lite_bench.harness.core import Record
from lite_bench.harness.errors import DataError
from lite_bench.harness.records import Manifest
from lite_bench.harness.statistics import (
    Estimate,
    estimate,
    mean_of_means,
    summarise,
)

accuracies = st.lists(st.floats(0, 1), min_size=2, max_size=50)


def make_manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "suite": "letters@1",
        "split": "test",
        "seed": 0,
        "sources": {"a": 3, "b": 3},
        "groups": {"both": ["a", "b"], "only a": ["a"]},
        "learner": "l",
        "backbone": "b",
        "image_size": 84,
        "checkpoint": "untrained",
        "data": "d",
    }
    return Manifest(**(values | changes))


def records(*values: float, synthetic: bool = False) -> list[Record]:
    name = ("letters@1", "a", "l", "b")
    return [
        Record(f"letters@1/a/test/{i}", *name, 84, v, 5, 5, 5, 0.0, 0.0, "untrained", "d", "0", synthetic)
        for i, v in enumerate(values)
    ]


@given(accuracies)
def test_estimate_is_the_protocols(values: list[float]) -> None:
    found = estimate(values)
    assert found.n == len(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert found.half_width == pytest.approx(1.96 * np.std(values) / np.sqrt(len(values)), abs=1e-12)


def test_one_value_has_no_interval_and_none_no_mean() -> None:
    assert estimate([0.25]) == Estimate(0.25, None, 1)
    with pytest.raises(DataError):
        estimate([])
    with pytest.raises(DataError):
        mean_of_means([])


@given(st.lists(accuracies, min_size=1, max_size=6))
def test_mean_of_means_adds_variances(columns: list[list[float]]) -> None:
    found = mean_of_means([estimate(values) for values in columns])
    variances = [np.var(values) / len(values) for values in columns]
    assert found.mean == pytest.approx(np.mean([np.mean(values) for values in columns]), abs=1e-12)
    assert found.half_width == pytest.approx(1.96 * np.sqrt(np.sum(variances)) / len(columns), abs=1e-12)


def test_a_mean_over_a_score_without_interval_has_none() -> None:
    assert mean_of_means([estimate([0.5, 1.0]), estimate([0.25])]) == Estimate(0.5, None, 3)


def test_a_complete_evaluation_has_all_its_numbers() -> None:
    summary = summarise(make_manifest(), {"a": records(0.5, 0.5, 0.5), "b": records(0.0, 0.5, 1.0)})
    assert summary.complete
    assert not summary.partial
    assert summary.groups["only a"] == Estimate(0.5, 0.0, 3)
    both = summary.groups["both"]
    assert both is not None
    assert (both.mean, both.n) == (0.5, 6)
    assert both.half_width == pytest.approx(1.96 * np.std([0, 0.5, 1]) / np.sqrt(3) / 2)


@pytest.mark.parametrize("b", [[], [0.5], [0.5, 0.5]])
def test_a_group_with_anything_missing_has_no_mean(b: list[float]) -> None:
    summary = summarise(make_manifest(), {"a": records(0.5, 0.5, 0.5), "b": records(*b)})
    assert not summary.complete
    assert summary.groups["both"] is None
    assert summary.groups["only a"] is not None
    assert (summary.sources["b"].done, summary.sources["b"].expected) == (len(b), 3)
    assert (summary.sources["b"].estimate is None) == (not b)


def test_an_absent_source_is_missing_and_an_empty_group_has_no_mean() -> None:
    summary = summarise(make_manifest(groups={"none": []}), {})
    assert summary.sources["a"].estimate is None
    assert summary.groups == {"none": None}
    assert not summary.synthetic


def test_a_limited_evaluation_is_complete_but_partial() -> None:
    summary = summarise(make_manifest(limit=2), {"a": records(0.5, 0.5), "b": records(1.0, 1.0)})
    assert summary.complete
    assert summary.partial
    assert summary.groups["both"] == Estimate(0.75, 0.0, 4)


def test_all_tasks_done_are_the_whole_protocol_whatever_the_limit() -> None:
    everything = {"a": records(0.5, 0.5, 0.5), "b": records(0.5, 0.5, 0.5)}
    assert not summarise(make_manifest(limit=2), everything).partial


def test_one_stand_in_record_makes_all_synthetic() -> None:
    assert summarise(make_manifest(), {"a": records(0.5, synthetic=True)}).synthetic


@pytest.mark.parametrize(("p", "n", "published"), [(0.729, 1500, 2.249), (0.918, 905, 1.788)])
def test_half_widths_of_pooled_video_scores(p: float, n: int, published: float) -> None:
    """A pool of 0/1 scores has the half width 196 sqrt(p (1 - p) / n), as in Table 1 of the LITE paper."""
    right = round(p * n)
    half = estimate([1.0] * right + [0.0] * (n - right)).half_width
    assert half is not None
    assert 100 * half == pytest.approx(published, abs=0.005)


def test_the_standard_deviation_is_the_population_one() -> None:
    half = estimate([1.0, 0.0, 1.0, 1.0]).half_width
    assert half == pytest.approx(1.96 * 0.4330127 / 2)


def test_no_mean_is_taken_over_the_survivors_of_failed_tasks() -> None:
    sound = records(0.2, 0.4)
    failed = replace(records(0.0, 0.0, 0.0)[2], accuracy=None, failed="The inner loop diverged.")
    summary = summarise(make_manifest(), {"a": [*sound, failed], "b": records(0.1, 0.2, 0.3)})
    score = summary.sources["a"]
    assert (score.estimate, score.failed, score.done, score.complete) == (None, 1, 3, True)
    assert score.survivors is not None
    assert score.survivors.mean == pytest.approx(0.3)
    assert score.survivors.n == 2
    assert summary.groups == {"both": None, "only a": None}
    assert (summary.failed, summary.complete) == (1, True)
    all_failed = summarise(make_manifest(), {"a": [failed]}).sources["a"]
    assert (all_failed.estimate, all_failed.survivors, all_failed.failed) == (None, None, 1)
