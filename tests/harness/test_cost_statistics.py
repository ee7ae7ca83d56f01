"""Costs of an evaluation from those of its tasks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lite_bench.harness.core import Cost, Record
from lite_bench.harness.cost_statistics import quantile, summarise_costs


def record(source: str, index: int, cost: Cost | None, adapt: float = 1.0, failed: str = "") -> Record:
    accuracy = None if failed else 0.5
    name = (f"letters@1/{source}/test/{index}", "letters@1", source, "l", "b")
    return Record(*name, 84, accuracy, 5, 5, 10, adapt, 2.0, "untrained", "d", "0", cost=cost, failed=failed)


def cost(macs: int | None, peak: int | None = None, passes: str = "1F") -> Cost:
    return Cost(passes, macs, 3, 4 * (macs or 0), (), 100, 60, 7, peak)


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=40), st.floats(0, 1))
def test_quantiles_are_numpys(values: list[float], fraction: float) -> None:
    assert quantile(values, fraction) == pytest.approx(float(np.quantile(values, fraction)), rel=1e-9, abs=1e-9)


def test_means_are_of_sources_times_of_tasks_and_memory_is_the_largest() -> None:
    a = [record("a", 0, cost(10, 5), 1.0), record("a", 1, cost(30), 2.0), record("a", 2, cost(20, 9), 3.0)]
    found = summarise_costs({"a": a, "b": [record("b", 0, cost(100), 9.0)], "c": []})
    assert found is not None
    assert (found.macs, found.published_macs, found.macs_per_query, found.adapted) == (60, 240, 3, 7)
    assert found.adapt_seconds is not None
    assert found.query_seconds is not None
    assert (found.adapt_seconds.median, found.query_seconds.median) == (2.5, 0.2)
    assert found.adapt_seconds.p95 == pytest.approx(np.quantile([1, 2, 3, 9], 0.95))
    assert (found.peak_bytes, found.measured, found.parameters, found.trainable, found.passes) == (9, 2, 100, 60, "1F")


def test_what_one_task_does_not_tell_is_unknown_and_never_zero() -> None:
    found = summarise_costs({"a": [record("a", 0, cost(10)), record("a", 1, cost(None))]})
    assert found is not None
    assert (found.macs, found.peak_bytes, found.measured) == (None, None, 0)
    assert found.macs_per_query == 3
    older = summarise_costs({"a": [record("a", 0, cost(10)), record("a", 1, None)]})
    assert older is not None
    assert (older.macs, older.passes, older.parameters) == (None, "", None)


def test_records_without_costs_have_no_summary() -> None:
    assert summarise_costs({"a": [record("a", 0, None)], "b": []}) is None
    assert summarise_costs({}) is None


def test_a_failed_task_counts_but_its_time_does_not() -> None:
    tasks = [record("a", 0, cost(10), 1.0), record("a", 1, cost(30), 50.0, failed="diverged")]
    found = summarise_costs({"a": tasks})
    assert found is not None
    assert found.adapt_seconds is not None
    assert (found.macs, found.adapt_seconds.p95) == (20, 1.0)


def test_several_passes_are_all_named() -> None:
    tasks = [record("a", 0, cost(1)), record("a", 1, cost(1, passes="15FB"))]
    found = summarise_costs({"a": tasks})
    assert found is not None
    assert found.passes == "15FB, 1F"
    assert summarise_costs({"a": [*tasks, replace(tasks[0], cost=cost(1, passes=""))]}).passes == ""  # type: ignore[union-attr]  # there is one
