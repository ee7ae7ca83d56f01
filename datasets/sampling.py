"""Which images make an episode: pure functions over a "class -> number of images" table.

Everything is drawn from the generator that is passed in, so a plan depends on the table, the rule and the
generator's key alone, not on what was drawn before. Letters: C way, n_c images of class c.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lite_bench.harness.core import Task
from lite_bench.harness.errors import DataError, UsageError

LOG_2 = math.log(2.0)
MIN_VARIABLE_WAY = 5
MAX_VARIABLE_QUERY = 10
MAX_CLASS_SUPPORT = 100


Draws = np.random.Generator | np.random.RandomState


@dataclass(frozen=True)
class Rule:
    """How many classes and images an episode takes; None means variable.

    Attributes:
        way: classes, or None for uniform in [min(5, n), min(``max_way``, n)] of n classes.
        shot: support images per class, or None for the variable, unbalanced rule of :func:`support_counts`.
        query: query images per class, or None for as many as leave half of the smallest class (or ``shot`` of
            it) to the support, at most 10.
        max_way: largest variable way.
        max_support: largest total of a variable support set.
    """

    way: int | None
    shot: int | None
    query: int | None
    max_way: int = 50
    max_support: int = 500

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            UsageError: one is too small to make an episode.
        """
        for name, minimum in {"way": 2, "shot": 1, "query": 1, "max_way": 2}.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise UsageError(f"{name}={value} is too small; give at least {minimum}.")
        if self.max_support < self.max_way:
            raise UsageError(
                f"max_support={self.max_support} is less than one image for each of max_way={self.max_way} "
                f"classes; give max_support={self.max_way} or more, or lower max_way."
            )

    @property
    def min_images(self) -> int:
        """The fewest images a class must have."""
        if self.shot is None and self.query is None:
            return 2
        return (self.shot or 1) + (self.query or 1)


@dataclass(frozen=True)
class Plan:
    """The images of an episode by number; the label of a class is its position.

    Attributes:
        classes: the C classes drawn, in random order.
        support: per label, item numbers in the class.
        query: per label, item numbers in the class, none of them in ``support``.
    """

    classes: tuple[int, ...]
    support: tuple[tuple[int, ...], ...]
    query: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Row:
    """One image of an episode: its class and number in the data, and its label in the task."""

    class_index: int
    item: int
    label: int


def task_generator(task: Task, purpose: str) -> np.random.Generator:
    """Make the generator of everything random about ``task`` that serves ``purpose``."""
    return np.random.Generator(np.random.Philox(task.key(purpose)))


def check_rule(counts: Mapping[str, int], rule: Rule, where: str) -> None:
    """Check that every episode of ``rule`` can be drawn from these classes.

    Args:
        counts: class name -> number of images.
        rule: the rule to fulfil.
        where: what holds the classes, for messages ("the test split of /photos").

    Raises:
        DataError: a class is empty or too small, or there are fewer classes than the way.
    """
    check_sizes(counts, rule, where)
    check_classes(len(counts), rule, where)


def check_sizes(counts: Mapping[str, int], rule: Rule, where: str) -> None:
    """Check that every class has the images ``rule`` needs.

    Raises:
        DataError: a class is empty or too small; it is named.
    """
    for name, count in counts.items():
        if count >= rule.min_images:
            continue
        if not count:
            raise DataError(f"Class {name!r} in {where} has no images; add images or delete its folder.")
        plural = "" if count == 1 else "s"
        raise DataError(
            f"Class {name!r} in {where} has only {count} image{plural}, but a task needs {rule.min_images} "
            f"of each class ({_needs(rule)}); add images, delete the class, or lower shot or query."
        )


def check_classes(n_classes: int, rule: Rule, where: str) -> None:
    """Check that there are enough classes for the way of ``rule``.

    Raises:
        DataError: there are fewer.
    """
    if n_classes >= (rule.way or 2):
        return
    asked = f"way={rule.way}" if rule.way else "the two that a task needs"
    remedy = f"lower the way to {n_classes} or add classes" if n_classes > 1 else "add or move classes there"
    classes = "is only 1 class" if n_classes == 1 else f"are only {n_classes} classes"
    raise DataError(f"There {classes} in {where}, fewer than {asked}; {remedy}.")


def _needs(rule: Rule) -> str:
    shot = f"shot={rule.shot}" if rule.shot else "at least 1 support"
    query = f"query={rule.query}" if rule.query else "at least 1 query"
    return f"{shot} and {query}"


def draw_plan(counts: Sequence[int], rule: Rule, generator: np.random.Generator) -> Plan:
    """Draw an episode's classes, and their support and query images, without replacement.

    Args:
        counts: n_c per class; must have passed :func:`check_rule`.
        rule: way, shot and query.
        generator: source of all randomness.
    """
    way = draw_way(len(counts), rule, generator)
    classes = generator.permutation(len(counts))[:way]
    sizes = np.asarray([counts[c] for c in classes], dtype=np.int64)
    n_query = query_count(sizes, rule)
    shots = support_counts(sizes, n_query, rule, generator)
    support, query = [], []
    for size, shot in zip(sizes, shots, strict=True):
        items = generator.choice(int(size), size=int(shot) + n_query, replace=False).tolist()
        support.append(tuple(items[:shot]))
        query.append(tuple(items[shot:]))
    return Plan(tuple(classes.tolist()), tuple(support), tuple(query))


def draw_way(n_classes: int, rule: Rule, generator: np.random.Generator) -> int:
    """Draw the way C: fixed, or uniform in [min(5, n), min(max_way, n)]."""
    if rule.way is not None:
        return rule.way
    low, high = min(MIN_VARIABLE_WAY, n_classes, rule.max_way), min(rule.max_way, n_classes)
    return int(generator.integers(low, high + 1))


def query_count(sizes: np.ndarray, rule: Rule) -> int:
    """Compute the queries per class, the same for every class of the task.

    Variable: min(10, min_c floor(n_c / 2)), or min(10, min_c n_c - shot) if the shot is fixed, which are the
    rules of Meta-Dataset (Triantafillou et al., ICLR 2020).
    """
    if rule.query is not None:
        return rule.query
    smallest = int(sizes.min())
    spare = smallest // 2 if rule.shot is None else smallest - rule.shot
    return min(MAX_VARIABLE_QUERY, spare)


def support_counts(sizes: np.ndarray, n_query: int, rule: Rule, generator: Draws) -> np.ndarray:
    """Draw the support images per class, int64 [C].

    A variable shot follows the distribution of Meta-Dataset (Triantafillou et al., ICLR 2020), in the order of
    its own draws: with r_c = n_c - q left of class c and beta ~ U[0, 1), the total is
    S = min(max_support, sum_c floor(beta min(100, r_c)) + 1), shared out in proportion to n_c exp(alpha_c)
    with alpha_c ~ U(-ln 2, ln 2): s_c = min(floor(p_c (S - C)) + 1, r_c).
    """
    if rule.shot is not None:
        return np.full(len(sizes), rule.shot, dtype=np.int64)
    remaining = sizes - n_query
    beta = generator.random()
    total = int((np.floor(beta * np.minimum(MAX_CLASS_SUPPORT, remaining)) + 1).sum())
    total = min(rule.max_support, total)
    weights = sizes * np.exp(generator.uniform(-LOG_2, LOG_2, size=len(sizes)))
    shares = np.floor(weights / weights.sum() * (total - len(sizes))).astype(np.int64) + 1
    counts: np.ndarray = np.minimum(np.maximum(shares, 1), remaining)
    return counts


def shuffled_rows(classes: Sequence[int], items: Sequence[Sequence[int]], generator: np.random.Generator) -> list[Row]:
    """List the images of a support or query set in random order."""
    rows = [
        Row(class_index, item, label)
        for label, (class_index, numbers) in enumerate(zip(classes, items, strict=True))
        for item in numbers
    ]
    return [rows[i] for i in generator.permutation(len(rows))]
