"""What a Meta-Dataset source consists of: its classes, splits and image counts, in its three kinds.

Class ids run from 0 without gaps: the training classes first, then validation, then test. ``dataset_spec.json``
is this in Meta-Dataset's own form; see `lite_bench.datasets.meta_dataset.specification_files`. The kinds and
their meaning are those of google-research/meta-dataset (``dataset_spec.py``, commit 16760950).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from lite_bench.harness.core import Split

SPLITS: tuple[Split, Split, Split] = ("train", "validation", "test")
Member = TypeVar("Member")
MIN_LEAVES, MAX_LEAVES = 5, 392
"""Nodes of a class graph are episodes' roots if they span so many classes (Meta-Dataset's sampler)."""


def _all_splits(members: Mapping[Split, Member], none: Member) -> dict[Split, Member]:
    return {split: members.get(split, none) for split in SPLITS}


def consecutive(sizes: Mapping[Split, int]) -> dict[Split, range]:
    """Turn numbers per split into id ranges, in the order train, validation, test."""
    ranges: dict[Split, range] = {}
    start = 0
    for split in SPLITS:
        ranges[split] = range(start, start + sizes.get(split, 0))
        start = ranges[split].stop
    return ranges


@dataclass(frozen=True)
class FlatSpecification:
    """A source whose classes have no structure.

    Attributes:
        name: of the source, such as ``aircraft``.
        class_names: by class id.
        images: number of images by class id.
        classes_per_split: number of classes of each split; a missing split has none.
    """

    name: str
    class_names: tuple[str, ...]
    images: tuple[int, ...]
    classes_per_split: Mapping[Split, int]

    def __post_init__(self) -> None:
        """Give every split a number, so that equal specifications compare equal."""
        object.__setattr__(self, "classes_per_split", _all_splits(self.classes_per_split, 0))

    @cached_property
    def splits(self) -> dict[Split, range]:
        """Class ids of each split."""
        return consecutive(self.classes_per_split)


@dataclass(frozen=True)
class BiLevelSpecification:
    """A source whose classes belong to superclasses (Omniglot: characters of alphabets).

    Attributes:
        name: of the source.
        class_names: by class id.
        images: number of images by class id.
        superclass_names: by superclass id; ids run over train, validation, test like class ids.
        classes_per_superclass: by superclass id; the classes of a superclass have consecutive ids.
        superclasses_per_split: number of superclasses of each split.
    """

    name: str
    class_names: tuple[str, ...]
    images: tuple[int, ...]
    superclass_names: tuple[str, ...]
    classes_per_superclass: tuple[int, ...]
    superclasses_per_split: Mapping[Split, int]

    def __post_init__(self) -> None:
        """Give every split a number, so that equal specifications compare equal."""
        object.__setattr__(self, "superclasses_per_split", _all_splits(self.superclasses_per_split, 0))

    @cached_property
    def superclasses(self) -> dict[Split, range]:
        """Superclass ids of each split."""
        return consecutive(self.superclasses_per_split)

    @cached_property
    def members(self) -> tuple[range, ...]:
        """Class ids of each superclass."""
        ranges, start = [], 0
        for size in self.classes_per_superclass:
            ranges.append(range(start, start + size))
            start += size
        return tuple(ranges)

    @cached_property
    def splits(self) -> dict[Split, range]:
        """Class ids of each split."""
        sizes = {split: sum(self.classes_per_superclass[i] for i in ids) for split, ids in self.superclasses.items()}
        return consecutive(sizes)


@dataclass(frozen=True)
class Node:
    """A synset of WordNet in a split's class graph.

    Attributes:
        wn_id: WordNet id, such as ``n02084071``.
        words: its words, such as ``dog, domestic dog``.
        children: WordNet ids of its children; none for a leaf, which is a class.
        parents: WordNet ids of its parents.
    """

    wn_id: str
    words: str
    children: tuple[str, ...]
    parents: tuple[str, ...]


@dataclass(frozen=True)
class HierarchicalSpecification:
    """A source whose classes are the leaves of a graph (ImageNet and WordNet).

    Attributes:
        name: of the source.
        class_names: WordNet ids by class id.
        images: number of images by class id.
        graphs: the nodes of each split's graph by WordNet id, in order of id.
    """

    name: str
    class_names: tuple[str, ...]
    images: tuple[int, ...]
    graphs: Mapping[Split, Mapping[str, Node]]

    def __post_init__(self) -> None:
        """Give every split a graph, so that equal specifications compare equal."""
        object.__setattr__(self, "graphs", _all_splits(self.graphs, {}))

    @cached_property
    def splits(self) -> dict[Split, range]:
        """Class ids of each split."""
        return consecutive({split: sum(not n.children for n in graph.values()) for split, graph in self.graphs.items()})

    def leaves(self, split: Split) -> dict[str, frozenset[str]]:
        """Give the leaves below every node of ``split``, a leaf's being itself."""
        graph = self.graphs.get(split, {})
        found: dict[str, frozenset[str]] = {}

        def visit(wn_id: str) -> frozenset[str]:
            if wn_id not in found:
                children = graph[wn_id].children
                found[wn_id] = frozenset().union(*map(visit, children)) if children else frozenset({wn_id})
            return found[wn_id]

        for wn_id in graph:
            visit(wn_id)
        return found

    @cached_property
    def eligible(self) -> dict[Split, tuple[tuple[int, ...], ...]]:
        """Classes below every internal node that spans 5 to 392, each in order of WordNet id, nodes likewise."""
        ids = {name: class_id for class_id, name in enumerate(self.class_names)}
        return {
            split: tuple(
                tuple(ids[leaf] for leaf in sorted(below))
                for wn_id, below in sorted(self.leaves(split).items())
                if graph[wn_id].children and MIN_LEAVES <= len(below) <= MAX_LEAVES
            )
            for split, graph in self.graphs.items()
        }


Specification = FlatSpecification | BiLevelSpecification | HierarchicalSpecification
