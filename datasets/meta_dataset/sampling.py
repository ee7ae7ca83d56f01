"""Which classes and images make an episode of a Meta-Dataset source (Triantafillou et al., ICLR 2020).

Every draw is made in the order of Meta-Dataset's own sampler (google-research/meta-dataset at commit 16760950,
``sampling.py``), so from the same ``RandomState`` come the same episodes. That generator's stream is frozen by
numpy for good (NEP 19), unlike ``numpy.random.Generator``'s. Letters: C way, n_c images of class c, q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lite_bench.datasets.meta_dataset.specification import (
    BiLevelSpecification,
    HierarchicalSpecification,
    Specification,
)
from lite_bench.datasets.sampling import MIN_VARIABLE_WAY, Plan, Rule, query_count, support_counts
from lite_bench.harness.core import Split, Task
from lite_bench.harness.errors import DataError

PERMUTED = 4096
"""Classes up to this size are permuted as a whole; of larger ones images are drawn until enough differ."""


@dataclass(frozen=True)
class Description:
    """The classes of an episode and how many images each gives; the label of a class is its position.

    Attributes:
        classes: the C class ids, in the order drawn.
        support: support images of each class.
        query: query images, the same for every class.
    """

    classes: tuple[int, ...]
    support: tuple[int, ...]
    query: int


def frozen_generator(task: Task, purpose: str) -> np.random.RandomState:
    """Make the generator of everything random about ``task`` that serves ``purpose``."""
    return generator_of(task.key(purpose))


def generator_of(key: int) -> np.random.RandomState:
    """Make the generator that a key of up to 64 bits stands for."""
    return np.random.RandomState([key & 0xFFFFFFFF, key >> 32])


def describe_episode(
    specification: Specification, split: Split, rule: Rule, generator: np.random.RandomState
) -> Description:
    """Draw the classes of an episode and how many images each gives.

    Args:
        specification: of the source; must have passed `check_source` for ``split``.
        split: which classes to draw from.
        rule: way, shot, query and caps.
        generator: source of all randomness.
    """
    classes = draw_classes(specification, split, rule, generator)
    sizes = np.asarray([specification.images[c] for c in classes], dtype=np.int64)
    n_query = query_count(sizes, rule)
    shots = support_counts(sizes, n_query, rule, generator)
    return Description(tuple(classes), tuple(shots.tolist()), n_query)


def draw_classes(specification: Specification, split: Split, rule: Rule, generator: np.random.RandomState) -> list[int]:
    """Draw the C classes of an episode.

    Flat sources: C uniform in [min(5, ``max_way``), min(``max_way``, all)], then C classes. Two levels: the same
    within one superclass. Graphs: all leaves of one eligible node, or ``max_way`` of them; a fixed way is drawn
    from them.
    """
    if isinstance(specification, HierarchicalSpecification):
        _spare_draw(generator)
        nodes = specification.eligible[split]
        below = list(nodes[generator.randint(0, len(nodes))])
        most = rule.way or rule.max_way
        return below if len(below) <= most else generator.choice(below, size=[most], replace=False).tolist()
    candidates = specification.splits[split]
    if isinstance(specification, BiLevelSpecification):
        _spare_draw(generator)
        candidates = specification.members[generator.choice(list(specification.superclasses[split]), 1)[0]]
    way = rule.way
    if way is None:
        lowest = min(MIN_VARIABLE_WAY, rule.max_way)
        way = int(generator.randint(lowest, min(rule.max_way, len(candidates)) + 1))
    chosen: list[int] = (candidates.start + generator.choice(len(candidates), way, replace=False)).tolist()
    return chosen


def _spare_draw(generator: np.random.RandomState) -> None:
    """Make the draw by which Meta-Dataset decides to follow a source's structure, which it always does."""
    generator.choice([True, False], p=[1.0, 0.0])


def draw_images(specification: Specification, description: Description, generator: np.random.RandomState) -> Plan:
    """Draw the images of an episode, uniformly and without replacement from the whole of each class.

    Meta-Dataset's own reader draws from a moving window of 1000 records; for larger classes that leaves out most.
    """
    support, query = [], []
    for class_id, shot in zip(description.classes, description.support, strict=True):
        items = draw_distinct(specification.images[class_id], shot + description.query, generator)
        support.append(tuple(items[:shot]))
        query.append(tuple(items[shot:]))
    return Plan(description.classes, tuple(support), tuple(query))


def draw_distinct(n: int, count: int, generator: np.random.RandomState) -> list[int]:
    """Draw ``count`` different numbers below ``n`` in random order, every ordered choice equally likely."""
    if n <= PERMUTED or 2 * count > n:
        permuted: list[int] = generator.permutation(n)[:count].tolist()
        return permuted
    drawn: dict[int, None] = {}
    while len(drawn) < count:
        drawn.update(dict.fromkeys(generator.randint(0, n, size=count - len(drawn)).tolist()))
    return list(drawn)


def check_source(specification: Specification, split: Split, rule: Rule) -> None:
    """Check that every episode of ``rule`` can be drawn from ``split``.

    Raises:
        DataError: there are fewer classes than the way, or a class has too few images.
    """
    name, ids = specification.name, specification.splits[split]
    for class_id in ids:
        if specification.images[class_id] < rule.min_images:
            raise DataError(
                f"Class {class_id} ({specification.class_names[class_id]!r}) of {name} has "
                f"{specification.images[class_id]} images, but a task needs {rule.min_images} of each class; convert "
                "the source again, or lower shot or query."
            )
    needed = rule.way or min(MIN_VARIABLE_WAY, rule.max_way)
    smallest = min(_choices(specification, split), default=0)
    if smallest < needed:
        raise DataError(
            f"A {split} task of {name} needs {needed} classes, but may find only {smallest}; lower the way, or leave "
            f"{name} out."
        )


def _choices(specification: Specification, split: Split) -> Sequence[int]:
    """List between how many classes an episode chooses, for each place it may choose in."""
    if isinstance(specification, HierarchicalSpecification):
        return [len(below) for below in specification.eligible.get(split, ())]
    if isinstance(specification, BiLevelSpecification):
        return [len(specification.members[i]) for i in specification.superclasses[split]]
    return [len(specification.splits[split])]
