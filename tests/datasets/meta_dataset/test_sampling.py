"""Episode sampling against the upstream sampler's own episodes, its statistics, and the protocol's invariants."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite_bench.datasets.meta_dataset.catalogue import published
from lite_bench.datasets.meta_dataset.sampling import (
    PERMUTED,
    check_source,
    describe_episode,
    draw_distinct,
    draw_images,
    frozen_generator,
)
from lite_bench.datasets.meta_dataset.specification import (
    BiLevelSpecification,
    FlatSpecification,
    HierarchicalSpecification,
    Node,
    Specification,
)
from lite_bench.datasets.sampling import Rule
from lite_bench.harness.core import Split, Task
from lite_bench.harness.errors import DataError

VECTORS = json.loads(Path(__file__).with_name("episode_vectors.json").read_text())["vectors"]
SPLIT_NAMES: dict[str, Split] = {"TRAIN": "train", "VALID": "validation", "TEST": "test"}
STANDARD = Rule(None, None, None)


def source_of(name: str) -> str:
    return name.removesuffix("_flat")


@pytest.mark.parametrize("name", VECTORS)
def test_the_upstream_generator_gives_the_upstream_episodes(name: str) -> None:
    source, split_name = name.split("/")
    split = SPLIT_NAMES[split_name]
    specification = published(source_of(source))
    module = np.random.RandomState(1234)
    generator = np.random.RandomState(module.randint(0, 2**32, dtype=np.uint32))
    for expected in VECTORS[name]:
        found = describe_episode(specification, split, STANDARD, generator)
        first = specification.splits[split].start
        assert [c - first for c in found.classes] == expected["classes"]
        assert list(found.support) == expected["support"]
        assert found.query == expected["query"]


# Means over 20,000 episodes of the upstream sampler: source, split, way, support, query, share with a shot above 100.
PUBLISHED: list[tuple[str, Split, float, float, float, float]] = [
    ("aircraft", "test", 9.99, 338.4, 99.9, 0.0),
    ("cu_birds", "test", 17.52, 315.4, 175.2, 0.0),
    ("dtd", "test", 5.99, 280.6, 59.9, 31.9),
    ("quickdraw", "test", 27.41, 423.7, 274.1, 5.3),
    ("fungi", "test", 27.45, 360.8, 100.6, 10.1),
    ("traffic_sign", "test", 23.98, 419.1, 239.8, 16.2),
    ("mscoco", "test", 22.60, 415.4, 226.0, 34.1),
    ("omniglot", "test", 18.92, 91.6, 189.2, 0.0),
    ("mscoco", "validation", 22.60, 415.5, 226.0, 63.7),
    ("omniglot", "validation", 10.62, 51.4, 106.2, 0.0),
    ("fungi", "validation", 27.45, 355.9, 110.4, 8.6),
    ("ilsvrc_2012_lite", "train", 27.59, 422.9, 275.9, 2.7),
    ("omniglot", "train", 20.12, 96.6, 201.2, 0.0),
    ("mnist", "train", 7.49, 322.7, 74.9, 21.5),
    ("aircraft", "train", 27.64, 416.1, 276.4, 0.0),
]


def measure(source: str, split: Split, n: int) -> np.ndarray:
    """Way, support, query total and whether a shot is above 100, of ``n`` episodes: float64 [n, 4]."""
    specification = published(source)
    rows = []
    for index in range(n):
        generator = frozen_generator(Task("vtab_md@lite", source, split, index), "plan")
        found = describe_episode(specification, split, STANDARD, generator)
        way = len(found.classes)
        rows.append((way, sum(found.support), way * found.query, 100.0 * (max(found.support) > 100)))
    return np.asarray(rows, dtype=np.float64)


@pytest.mark.parametrize(("source", "split", "way", "support", "query", "large"), PUBLISHED)
def test_a_few_episodes_have_the_published_means(
    source: str, split: Split, way: float, support: float, query: float, large: float
) -> None:
    measured = measure(source, split, 400)
    errors = measured.std(0) / np.sqrt(len(measured))
    assert np.all(np.abs(measured.mean(0) - (way, support, query, large)) <= 4.5 * errors + (0.01, 0.1, 0.1, 0.4))


@pytest.mark.slow
@pytest.mark.parametrize(("source", "split", "way", "support", "query", "large"), PUBLISHED)
def test_many_episodes_agree_within_one_percent(
    source: str, split: Split, way: float, support: float, query: float, large: float
) -> None:
    means = measure(source, split, 20_000).mean(0)
    np.testing.assert_allclose(means[:3], (way, support, query), rtol=0.01)
    # a share has its own sampling error on both sides: four standard errors of the difference of two such shares
    error = 100 * np.sqrt(2 * 0.01 * large * (1 - 0.01 * large) / 20_000)
    assert abs(means[3] - large) <= 0.05 + 4 * error


def graph_of(children: dict[str, tuple[str, ...]]) -> dict[str, Node]:
    names = sorted({*children, *(c for each in children.values() for c in each)})
    parents = {n: tuple(sorted(p for p, below in children.items() if n in below)) for n in names}
    return {n: Node(n, n, children.get(n, ()), parents[n]) for n in names}


LEAVES = tuple(f"leaf{i:03d}" for i in range(60))
GRAPH = graph_of(
    {"root": ("few", "five", "many"), "few": LEAVES[:3], "five": LEAVES[3:8], "many": LEAVES[5:]}  # two leaves shared
)
HIERARCHICAL = HierarchicalSpecification("graph", LEAVES, tuple(range(20, 80)), {"train": GRAPH})


@st.composite
def sources(draw: st.DrawFn) -> tuple[Specification, Split]:
    kind = draw(st.sampled_from(["flat", "levels", "graph"]))
    if kind == "graph":
        return dataclasses.replace(
            HIERARCHICAL, images=tuple(draw(st.lists(counts(), min_size=60, max_size=60)))
        ), "train"
    groups = draw(st.lists(st.integers(5, 60), min_size=1, max_size=3))
    images = tuple(draw(st.lists(counts(), min_size=sum(groups), max_size=sum(groups))))
    names = tuple(f"class {i}" for i in range(sum(groups)))
    if kind == "flat":
        return FlatSpecification("flat", names, images, {"test": len(names)}), "test"
    levels = tuple(f"group {i}" for i in range(len(groups)))
    return BiLevelSpecification("levels", names, images, levels, tuple(groups), {"test": len(groups)}), "test"


def counts() -> st.SearchStrategy[int]:
    return st.one_of(st.integers(2, 40), st.integers(40, 10_000), st.just(300_000))


@settings(max_examples=150, deadline=None)
@given(sources(), st.integers(0, 10**6), st.sampled_from([(50, 500), (30, 40), (40, 300), (3, 40)]))
def test_every_episode_keeps_the_protocols_invariants(
    source: tuple[Specification, Split], index: int, caps: tuple[int, int]
) -> None:
    specification, split = source
    rule = Rule(None, None, None, *caps)
    check_source(specification, split, rule)
    generator = frozen_generator(Task("x@1", "s", split, index), "plan")
    found = describe_episode(specification, split, rule, generator)
    plan = draw_images(specification, found, generator)
    way = len(found.classes)
    sizes = [specification.images[c] for c in found.classes]
    assert min(5, caps[0]) <= way <= caps[0]
    assert len(set(found.classes)) == way
    assert set(found.classes) <= set(specification.splits[split])
    assert found.query == min(10, *(n // 2 for n in sizes))
    assert found.query >= 1
    assert all(1 <= s <= n - found.query for s, n in zip(found.support, sizes, strict=True))
    assert way <= sum(found.support) <= caps[1]
    for n, shot, support, query in zip(sizes, found.support, plan.support, plan.query, strict=True):
        assert len(support) == shot
        assert len(query) == found.query
        assert len({*support, *query}) == shot + found.query
        assert all(0 <= item < n for item in (*support, *query))
    if isinstance(specification, BiLevelSpecification):
        assert any(set(found.classes) <= set(members) for members in specification.members)
    if isinstance(specification, HierarchicalSpecification):
        below = [set(leaves) for leaves in specification.eligible[split]]
        assert any(set(found.classes) == leaves or (way == caps[0] and set(found.classes) < leaves) for leaves in below)


def test_a_small_graph_is_never_an_episodes_root() -> None:
    ids = {name: i for i, name in enumerate(LEAVES)}
    found = {tuple(sorted(below)) for below in HIERARCHICAL.eligible["train"]}
    assert found == {
        tuple(ids[n] for n in LEAVES[3:8]),
        tuple(ids[n] for n in LEAVES[5:]),
        tuple(range(60)),
    }


def test_a_fixed_way_and_shot() -> None:
    rule = Rule(5, 5, 15)
    for source in ("aircraft", "omniglot"):
        if source == "omniglot":
            rule = Rule(5, 5, None)
        found = describe_episode(published(source), "test", rule, np.random.RandomState(0))
        assert len(found.classes) == 5
        assert found.support == (5,) * 5
        assert found.query == (15 if source == "aircraft" else 10)  # min(10, 20 - 5)


def test_traffic_signs_are_not_read_in_the_order_of_their_file() -> None:
    """Frames of one sign follow each other there: google-research/meta-dataset #54."""
    specification = published("traffic_sign")
    earlier, neighbours, expected = [], [], []
    for index in range(60):
        generator = frozen_generator(Task("vtab_md@lite", "traffic_sign", "test", index), "images")
        plan = draw_images(specification, describe_episode(specification, "test", STANDARD, generator), generator)
        for class_id, support, query in zip(plan.classes, plan.support, plan.query, strict=True):
            gaps = np.subtract.outer(np.asarray(query), np.asarray(support))
            earlier.append((gaps > 0).mean())
            neighbours.append((np.abs(gaps) == 1).mean())
            expected.append(2 / specification.images[class_id])
    assert np.mean(earlier) == pytest.approx(0.5, abs=0.03)
    assert np.mean(neighbours) == pytest.approx(np.mean(expected), rel=0.25)


def test_images_are_drawn_from_the_whole_of_a_large_class() -> None:
    n, generator = 200_000, np.random.RandomState(3)
    drawn = np.concatenate([draw_distinct(n, 100, generator) for _ in range(200)])
    tenths = np.bincount(drawn * 10 // n, minlength=10)
    assert np.all(np.abs(tenths - 2000) < 5 * np.sqrt(2000))


@pytest.mark.parametrize("n", [4, PERMUTED + 1])
def test_every_ordered_choice_is_equally_likely(n: int) -> None:
    generator = np.random.RandomState(11)
    if n == 4:
        found = Counter(tuple(draw_distinct(4, 2, generator)) for _ in range(12_000))
        assert set(found) == set(permutations(range(4), 2))
        assert all(abs(count - 1000) < 5 * np.sqrt(1000) for count in found.values())
        return
    halves = Counter(tuple(item * 2 // n for item in draw_distinct(n, 3, generator)) for _ in range(8_000))
    assert len(halves) == 8
    assert all(abs(count - 1000) < 5 * np.sqrt(1000) for count in halves.values())


def test_a_class_with_too_few_images_is_named() -> None:
    images = list(published("aircraft").images)
    images[90] = 1
    poor = dataclasses.replace(published("aircraft"), images=tuple(images))
    check_source(poor, "validation", STANDARD)
    with pytest.raises(DataError, match=r"Class 90 .* of aircraft has 1 images, but a task needs 2 .* convert"):
        check_source(poor, "test", STANDARD)


@pytest.mark.parametrize(("source", "split"), [("traffic_sign", "train"), ("omniglot", "validation")])
def test_too_few_classes_are_an_error(source: str, split: Split) -> None:
    rule: Any = Rule(15, 1, 1)
    with pytest.raises(DataError, match=f"A {split} task of {source} needs 15 classes, but may find only"):
        check_source(published(source), split, rule)
