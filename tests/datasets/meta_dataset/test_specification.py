"""Class ids, splits and the graph of the three kinds of specifications."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite_bench.datasets.meta_dataset.specification import (
    MAX_LEAVES,
    MIN_LEAVES,
    BiLevelSpecification,
    FlatSpecification,
    HierarchicalSpecification,
    Node,
    consecutive,
)

DIAMOND = {
    "n1": ("n2", "n3", "n9"),
    "n2": ("n4", "n5", "n6"),
    "n3": ("n6", "n7", "n8", "n4", "n5"),
    "n9": ("n2", "n7", "n8"),
}
"""n4 to n8 are leaves; n2 has three of them, all others have all five, most by several ways."""


def graph(children: Mapping[str, Sequence[str]]) -> dict[str, Node]:
    """Complete a graph from the children of its internal nodes."""
    names = sorted({*children, *(child for members in children.values() for child in members)})
    parents = {name: tuple(p for p in sorted(children) if name in children[p]) for name in names}
    return {name: Node(name, f"words of {name}", tuple(children.get(name, ())), parents[name]) for name in names}


def leaf_names(nodes: Mapping[str, Node]) -> list[str]:
    return [name for name in nodes if not nodes[name].children]


def hierarchy(train: Mapping[str, Sequence[str]], test: Mapping[str, Sequence[str]]) -> HierarchicalSpecification:
    """Build a specification whose leaf number i has 10 + i images."""
    graphs = {"train": graph(train), "test": graph(test)}
    names = [*leaf_names(graphs["train"]), *leaf_names(graphs["test"])]
    return HierarchicalSpecification("tree", tuple(names), tuple(range(10, 10 + len(names))), graphs)  # type: ignore[arg-type]  # its keys are splits


def reachable(nodes: Mapping[str, Node], start: str) -> set[str]:
    """Walk every path down from a node."""
    found = {start}
    for child in nodes[start].children:
        found |= reachable(nodes, child)
    return found


def brute_force(specification: HierarchicalSpecification, split: str) -> list[tuple[int, ...]]:
    nodes = specification.graphs[split]  # type: ignore[index]  # a split's name
    roots = []
    for name in sorted(nodes):
        below = sorted(n for n in reachable(nodes, name) if not nodes[n].children)
        if nodes[name].children and MIN_LEAVES <= len(below) <= MAX_LEAVES:
            roots.append(tuple(specification.class_names.index(leaf) for leaf in below))
    return roots


def test_ranges_follow_each_other() -> None:
    assert consecutive({"test": 4, "train": 2}) == {"train": range(2), "validation": range(2, 2), "test": range(2, 6)}


def test_a_split_left_out_has_no_classes() -> None:
    sparse = FlatSpecification("x", ("a",), (3,), {"test": 1})
    assert sparse == FlatSpecification("x", ("a",), (3,), {"train": 0, "validation": 0, "test": 1})
    assert sparse.splits == {"train": range(0), "validation": range(0), "test": range(1)}


def test_classes_of_superclasses_have_consecutive_ids() -> None:
    sizes = {"train": 2, "validation": 1, "test": 1}
    names = tuple("abcdefgh")
    specification = BiLevelSpecification("x", names, (20,) * 8, tuple("ABCD"), (3, 1, 2, 2), sizes)  # type: ignore[arg-type]  # its keys are splits
    assert specification.members == (range(3), range(3, 4), range(4, 6), range(6, 8))
    assert specification.superclasses == {"train": range(2), "validation": range(2, 3), "test": range(3, 4)}
    assert specification.splits == {"train": range(4), "validation": range(4, 6), "test": range(6, 8)}


def test_shared_descendants_count_once() -> None:
    specification = hierarchy(DIAMOND, {"m0": ("m1", "m2")})
    assert specification.leaves("train")["n1"] == frozenset({"n4", "n5", "n6", "n7", "n8"})
    assert specification.leaves("train")["n2"] == frozenset({"n4", "n5", "n6"})
    assert specification.leaves("train")["n4"] == frozenset({"n4"})
    assert specification.leaves("validation") == {}
    assert specification.splits == {"train": range(5), "validation": range(5, 5), "test": range(5, 7)}


def test_nodes_of_few_leaves_are_no_roots() -> None:
    specification = hierarchy(DIAMOND, {"m0": ("m1", "m2")})
    assert specification.eligible == {"train": ((0, 1, 2, 3, 4),) * 3, "validation": (), "test": ()}
    assert list(specification.eligible["train"]) == brute_force(specification, "train")


@pytest.mark.parametrize("n_leaves", [4, 5, 392, 393])
def test_limits_of_leaves_are_inclusive(n_leaves: int) -> None:
    leaves = tuple(f"n{i:05d}" for i in range(1, n_leaves + 1))
    specification = hierarchy({"n00000": leaves}, {"m0": ("m1", "m2")})
    assert len(specification.eligible["train"]) == (5 <= n_leaves <= 392)


def test_class_ids_need_not_follow_wordnet_ids() -> None:
    nodes = graph({"n0": ("n1", "n2", "n3", "n4", "n5")})
    names = ("n5", "n1", "n4", "n2", "n3")
    specification = HierarchicalSpecification("x", names, (1, 2, 3, 4, 5), {"train": nodes})
    assert specification.eligible["train"] == ((1, 3, 4, 2, 0),)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_eligible_roots_of_random_graphs(data: st.DataObject) -> None:
    n_nodes = data.draw(st.integers(8, 24))
    n_internal = data.draw(st.integers(1, n_nodes - 6))
    children = {
        f"n{i:02d}": tuple(
            f"n{child:02d}"
            for child in data.draw(st.sets(st.integers(i + 1, n_nodes - 1), min_size=2, max_size=8).map(sorted))
        )
        for i in range(n_internal)
    }
    specification = hierarchy(children, {"m0": ("m1", "m2")})
    assert list(specification.eligible["train"]) == brute_force(specification, "train")
