"""The class graphs of ImageNet, derived from WordNet as google-research/meta-dataset does.

Its ``imagenet_specification.py`` (commit 16760950) is described here in terms of links, pairs of a synset and
its child. The whole graph is made of the classes and all their ancestors; every synset that has one link down
is taken out, its child going to its parents. Then the classes are split, and each split's graph is made in the
same way from the whole graph.

One detail decides the sizes (1399 nodes and not 1397): links are counted and not different children. If a
synset loses a child to one that it already has, it keeps two links to it, and stays.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from importlib.resources import files
from pathlib import Path

from lite_bench.datasets.meta_dataset.specification import SPLITS, Node
from lite_bench.harness.core import Split
from lite_bench.harness.errors import DataError

CARNIVORE, DEVICE = "n02075296", "n03183080"
IS_A, WORDS = "wordnet.is_a.txt", "words.txt"
REMEDY = f"get {IS_A} and {WORDS} of ImageNet again, or remove both and this package's copy of WordNet is used"

Graph = dict[str, Node]


@dataclass(frozen=True)
class WordNet:
    """Synsets and what they are a kind of.

    Attributes:
        origin: where this is from, for messages.
        words: the words of each synset by WordNet id, such as ``dog, domestic dog``.
        parents: WordNet ids of the synsets that a synset is a kind of; a root may be missing.
    """

    origin: str
    words: Mapping[str, str]
    parents: Mapping[str, Collection[str]]


@functools.cache
def imagenet_wordnet() -> WordNet:
    """Give the part of WordNet 3.0 that ILSVRC 2012 needs, from ``imagenet_wordnet.json`` beside this file."""
    name = "imagenet_wordnet.json"
    synsets = json.loads(files(__package__).joinpath(name).read_text(encoding="utf-8"))["synsets"]
    return WordNet(
        origin=name,
        words={wn_id: words for wn_id, (words, _) in synsets.items()},
        parents={wn_id: parents for wn_id, (_, parents) in synsets.items()},
    )


def read_wordnet(is_a: Path, words: Path) -> WordNet:
    """Read ImageNet's two files about WordNet.

    Args:
        is_a: ``wordnet.is_a.txt``, lines of a parent's id, a blank, and the child's id.
        words: ``words.txt``, lines of an id, a tab, and its words.

    Raises:
        DataError: a file cannot be read or has other lines.
    """
    parents: dict[str, set[str]] = {}
    for parent, child in _pairs(is_a, " "):
        parents.setdefault(child, set()).add(parent)
    return WordNet(origin=str(is_a), words=dict(_pairs(words, "\t")), parents=parents)


def _pairs(path: Path, separator: str) -> Iterable[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The file {path} cannot be read ({error}); {REMEDY}.") from error
    for number, line in enumerate(lines, 1):
        first, found, second = line.rstrip().partition(separator)
        if not (first and found and second):
            raise DataError(f"Line {number} of {path} is not two fields parted by {separator!r}; {REMEDY}.")
        yield first, second


def build_graphs(
    wordnet: WordNet, classes: Collection[str], validation: str = CARNIVORE, test: str = DEVICE
) -> dict[Split, Graph]:
    """Build the graphs of the three splits of ``classes``.

    Args:
        wordnet: their ancestry.
        classes: WordNet ids.
        validation: synset whose classes are for validation.
        test: synset whose classes are for test; classes of both go to either alternately, in order of id.

    Raises:
        DataError: as `build_graph`, or the graph has no such synset.
    """
    whole = build_graph(wordnet, classes)
    within = WordNet(wordnet.origin, wordnet.words, {wn_id: node.parents for wn_id, node in whole.items()})
    roots: dict[Split, str | None] = {"train": None, "validation": validation, "test": test}
    split = split_classes(whole, validation, test)
    return {name: build_graph(within, split[name], roots[name]) for name in SPLITS}


def build_graph(wordnet: WordNet, classes: Collection[str], root: str | None = None) -> Graph:
    """Build the graph that has ``classes`` as its leaves, its nodes in order of id.

    Args:
        wordnet: their ancestry.
        classes: WordNet ids.
        root: keep only this ancestor and those below it.

    Raises:
        DataError: a class is unknown or is an ancestor of another, or synsets are their own ancestors.
    """
    leaves = set(classes)
    if unknown := sorted(leaves - wordnet.words.keys()):
        raise DataError(
            f"The class {unknown[0]} ({len(unknown)} in all) is not a synset of {wordnet.origin}; "
            f"use the classes of ILSVRC 2012 and {REMEDY}."
        )
    ancestors = _ancestors(wordnet, leaves)
    _check_acyclic(wordnet, ancestors)
    if both := sorted(ancestors & leaves):
        raise DataError(
            f"The class {both[0]} is an ancestor of another class in {wordnet.origin}, so it cannot be a leaf; "
            f"use the classes of ILSVRC 2012 and {REMEDY}."
        )
    if root is not None:
        ancestors = {wn_id for wn_id in ancestors if wn_id == root or root in _ancestors(wordnet, {wn_id})}
    return _nodes(wordnet.words, _collapsed(wordnet, ancestors | leaves))


def split_classes(graph: Graph, validation: str, test: str) -> dict[Split, set[str]]:
    """Split the leaves of ``graph``: those below two synsets for validation and test, the others for training.

    Raises:
        DataError: the graph has no such synset.
    """
    for wn_id in (validation, test):
        if wn_id not in graph:
            raise DataError(
                f"The classes have no common ancestor {wn_id}, by which validation and test classes are chosen; "
                "use all 1,000 classes of ILSVRC 2012."
            )
    below: dict[Split, set[str]] = {"validation": _leaves_below(graph, validation), "test": _leaves_below(graph, test)}
    for number, wn_id in enumerate(sorted(below["validation"] & below["test"])):
        below["validation" if number % 2 else "test"].remove(wn_id)
    leaves = {wn_id for wn_id, node in graph.items() if not node.children}
    return {"train": leaves - below["validation"] - below["test"], **below}


def _ancestors(wordnet: WordNet, wn_ids: Iterable[str]) -> set[str]:
    found: set[str] = set()
    ahead = list(wn_ids)
    while ahead:
        for parent in wordnet.parents.get(ahead.pop(), ()):
            if parent not in found:
                found.add(parent)
                ahead.append(parent)
    return found


def _check_acyclic(wordnet: WordNet, wn_ids: Iterable[str]) -> None:
    try:
        TopologicalSorter({wn_id: wordnet.parents.get(wn_id, ()) for wn_id in wn_ids}).prepare()
    except CycleError as error:
        circle = " - ".join(error.args[1])
        raise DataError(f"The synsets {circle} of {wordnet.origin} are their own ancestors; {REMEDY}.") from error


def _collapsed(wordnet: WordNet, wn_ids: set[str]) -> dict[str, set[str]]:
    """Give the children of each node that stays.

    Taking out a node changes no other's number of links, so those that go are known at the outset.
    """
    children: dict[str, set[str]] = {wn_id: set() for wn_id in wn_ids}
    for wn_id in wn_ids:
        for parent in wordnet.parents.get(wn_id, ()):
            if parent in children:
                children[parent].add(wn_id)

    def heir(wn_id: str) -> str:
        while len(children[wn_id]) == 1:
            (wn_id,) = children[wn_id]
        return wn_id

    return {wn_id: {heir(child) for child in below} for wn_id, below in children.items() if len(below) != 1}


def _nodes(words: Mapping[str, str], children: Mapping[str, set[str]]) -> Graph:
    parents: dict[str, set[str]] = {wn_id: set() for wn_id in children}
    for wn_id, below in children.items():
        for child in below:
            parents[child].add(wn_id)
    return {
        wn_id: Node(wn_id, words.get(wn_id, wn_id), tuple(sorted(children[wn_id])), tuple(sorted(parents[wn_id])))
        for wn_id in sorted(children)
    }


def _leaves_below(graph: Graph, root: str) -> set[str]:
    found: set[str] = set()
    ahead = [root]
    while ahead:
        node = graph[ahead.pop()]
        ahead.extend(node.children)
        if not node.children:
            found.add(node.wn_id)
    return found
