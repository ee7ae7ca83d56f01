"""Plans of episodes hold their promises for any table of classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lite_bench.datasets.sampling import (
    Plan,
    Rule,
    check_rule,
    draw_plan,
    query_count,
    shuffled_rows,
    support_counts,
    task_generator,
)
from lite_bench.harness.core import Task
from lite_bench.harness.errors import DataError, UsageError

TABLES = st.lists(st.integers(2, 300), min_size=2, max_size=70)
KEYS = st.integers(0, 2**63 - 1)
NUMBERS = st.one_of(st.none(), st.integers(1, 12))


def generator(key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key))


def check_plan(plan: Plan, counts: list[int]) -> None:
    assert len(set(plan.classes)) == len(plan.classes) == len(plan.support) == len(plan.query)
    for class_index, support, query in zip(plan.classes, plan.support, plan.query, strict=True):
        items = [*support, *query]
        assert len(support) >= 1
        assert len(query) >= 1
        assert len(set(items)) == len(items)
        assert set(items) <= set(range(counts[class_index]))


@given(TABLES, KEYS, st.one_of(st.none(), st.integers(2, 20)), NUMBERS, NUMBERS)
def test_plans_are_disjoint_complete_and_repeatable(
    counts: list[int], key: int, way: int | None, shot: int | None, query: int | None
) -> None:
    rule = Rule(way, shot, query)
    assume(len(counts) >= (way or 2))
    assume(min(counts) >= rule.min_images)
    check_rule({str(i): n for i, n in enumerate(counts)}, rule, "a table")
    plan = draw_plan(counts, rule, generator(key))
    check_plan(plan, counts)
    assert draw_plan(counts, rule, generator(key)) == plan
    assert len({len(items) for items in plan.query}) == 1
    if way:
        assert len(plan.classes) == way
    else:
        assert min(5, len(counts)) <= len(plan.classes) <= min(50, len(counts))
    if shot:
        assert {len(items) for items in plan.support} == {shot}
    else:
        assert sum(len(items) for items in plan.support) <= 500
    assert len(plan.query[0]) == query if query else len(plan.query[0]) <= 10


@given(TABLES, KEYS, st.integers(2, 10), st.integers(10, 60))
def test_variable_tasks_keep_their_limits(counts: list[int], key: int, max_way: int, max_support: int) -> None:
    plan = draw_plan(counts, Rule(None, None, None, max_way, max_support), generator(key))
    check_plan(plan, counts)
    assert len(plan.classes) <= max_way
    assert sum(len(items) for items in plan.support) <= max_support


@given(TABLES, KEYS)
def test_rows_are_a_permutation_with_gap_free_labels(counts: list[int], key: int) -> None:
    plan = draw_plan(counts, Rule(None, None, None), generator(key))
    rows = shuffled_rows(plan.classes, plan.support, generator(key))
    assert {row.label for row in rows} == set(range(len(plan.classes)))
    assert all(plan.classes[row.label] == row.class_index for row in rows)
    assert len({(row.class_index, row.item) for row in rows}) == sum(map(len, plan.support)) == len(rows)


def test_every_way_and_class_comes_up() -> None:
    plans = [draw_plan([20] * 8, Rule(None, None, None), generator(key)) for key in range(300)]
    assert {len(plan.classes) for plan in plans} == {5, 6, 7, 8}
    assert {plan.classes[0] for plan in plans} == set(range(8))
    assert {item for plan in plans for items in plan.support for item in items} == set(range(20))


def test_support_sizes_vary_and_follow_class_sizes() -> None:
    sizes = np.array([20, 20, 400, 20, 20])
    shots = np.stack([support_counts(sizes, 10, Rule(None, None, None), generator(key)) for key in range(400)])
    assert shots.min() == 1
    assert (shots <= sizes - 10).all()
    assert shots[:, 2].mean() > 3 * shots[:, 0].mean()
    assert len(np.unique(shots.sum(1))) > 50


@pytest.mark.parametrize(
    ("sizes", "rule", "expected"),
    [
        ([20, 30], Rule(2, None, None), 10),
        ([20, 7], Rule(2, None, None), 3),
        ([20, 7], Rule(2, 5, None), 2),
        ([20, 30], Rule(2, 1, None), 10),
        ([20, 30], Rule(2, 1, 15), 15),
    ],
)
def test_query_counts(sizes: list[int], rule: Rule, expected: int) -> None:
    assert query_count(np.array(sizes), rule) == expected


def test_a_generator_depends_on_task_and_purpose_alone() -> None:
    task = Task("toy@1", "a", "test", 3)
    first = task_generator(task, "plan").random(4)
    task_generator(Task("toy@1", "a", "test", 2), "plan").random(100)
    assert (task_generator(task, "plan").random(4) == first).all()
    assert (task_generator(task, "order").random(4) != first).all()
    assert (task_generator(Task("toy@1", "a", "test", 3, seed=1), "plan").random(4) != first).all()


@pytest.mark.parametrize(
    ("counts", "rule", "message"),
    [
        ({"a": 9, "b": 0}, Rule(2, 1, 1), "Class 'b' in X has no images"),
        ({"a": 9, "b": 1}, Rule(None, None, None), "Class 'b' in X has only 1 image, but a task needs 2"),
        (
            {"a": 10, "b": 5},
            Rule(2, 5, 5),
            r"'b' in X has only 5 images.*10 .*of each class \(shot=5 and query=5\)",
        ),
        ({"a": 9, "b": 9}, Rule(3, 1, 1), "only 2 classes in X, fewer than way=3; lower the way to 2"),
        ({"a": 9}, Rule(None, 1, 1), "is only 1 class in X, fewer than the two that a task needs; add"),
    ],
)
def test_tables_too_small_are_named(counts: dict[str, int], rule: Rule, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_rule(counts, rule, "X")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"way": 1}, "way=1 is too small; give at least 2"),
        ({"shot": 0}, "shot=0 is too small; give at least 1"),
        ({"query": 0}, "query=0 is too small; give at least 1"),
        (
            {"max_support": 20},
            "max_support=20 is less than one image .* max_way=50 classes; give max_support=50",
        ),
    ],
)
def test_rules_too_small_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Rule(
            options.get("way"),
            options.get("shot"),
            options.get("query"),
            max_support=options.get("max_support", 500),
        )
