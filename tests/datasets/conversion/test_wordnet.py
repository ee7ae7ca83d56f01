"""ImageNet's class graphs: a brute-force derivation on random graphs, and the published sizes on the real one."""

from __future__ import annotations

import random
from pathlib import Path

import networkx as nx  # type: ignore[import-untyped]  # it has no types of its own
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lite_bench.datasets.conversion.wordnet import (
    Graph,
    WordNet,
    build_graph,
    build_graphs,
    imagenet_wordnet,
    read_wordnet,
    split_classes,
)
from lite_bench.datasets.meta_dataset.catalogue import published
from lite_bench.datasets.meta_dataset.specification import HierarchicalSpecification
from lite_bench.harness.errors import DataError

Links = list[tuple[str, str]]


def wordnet(links: Links) -> WordNet:
    parents: dict[str, set[str]] = {}
    for parent, child in links:
        parents.setdefault(child, set()).add(parent)
    return WordNet("the test", {wn_id: f"words of {wn_id}" for link in links for wn_id in link}, parents)


def links_of(graph: Graph) -> set[tuple[str, str]]:
    return {(node.wn_id, child) for node in graph.values() for child in node.children}


def by_brute_force(links: Links, leaves: set[str], root: str | None, seed: int) -> nx.MultiDiGraph:
    """Take out nodes with one link down one at a time, in random order, until there is none."""
    whole = nx.MultiDiGraph(links)
    kept = set().union(*(nx.ancestors(whole, leaf) for leaf in leaves))
    if root is not None:
        kept &= nx.descendants(whole, root) | {root}
    graph = nx.MultiDiGraph(whole.subgraph(kept | leaves))
    order = random.Random(seed)
    while single := sorted(node for node in graph if graph.out_degree(node) == 1):
        node = order.choice(single)
        (child,) = graph.successors(node)
        graph.add_edges_from([(parent, child) for parent, _ in list(graph.in_edges(node))])
        graph.remove_node(node)
    return graph


@st.composite
def ancestries(draw: st.DrawFn) -> tuple[Links, set[str]]:
    """Draw a graph in which any node may have several parents and some have no class below, and its classes."""
    inner = draw(st.integers(3, 12))
    classes = [f"n{number:02d}" for number in range(50, 50 + draw(st.integers(2, 9)))]
    nodes = [f"n{number:02d}" for number in range(inner)]
    links = [(nodes[0], child) for child in nodes[1:3]]
    for number, node in enumerate([*nodes[1:], *classes], 1):
        parents = draw(st.sets(st.sampled_from(nodes[: min(number, inner)]), min_size=1, max_size=3))
        links += [(parent, node) for parent in sorted(parents)]
    return sorted(set(links)), set(classes)


@settings(max_examples=100, deadline=None)
@given(ancestries(), st.integers(0, 99))
def test_graph_is_that_of_taking_out_nodes_one_by_one(ancestry: tuple[Links, set[str]], seed: int) -> None:
    links, classes = ancestry
    for root in (None, "n01", "n02"):
        graph = build_graph(wordnet(links), classes, root)
        expected = by_brute_force(links, classes, root, seed)
        assert set(graph) == set(expected.nodes)
        assert links_of(graph) == set(expected.edges())
        assert list(graph) == sorted(graph)
        assert {wn_id for wn_id, node in graph.items() if not node.children} == classes
        assert all(node.parents == tuple(sorted(set(expected.predecessors(node.wn_id)))) for node in graph.values())


@settings(max_examples=60, deadline=None)
@given(ancestries(), st.integers(0, 99))
def test_graphs_of_splits_are_made_from_the_whole_graph(ancestry: tuple[Links, set[str]], seed: int) -> None:
    links, classes = ancestry
    whole = by_brute_force(links, classes, None, seed)
    inner = sorted(set(whole.nodes) - classes)
    assume(len(inner) > 1)
    roots = random.Random(seed).sample(inner, 2)
    below = [{leaf for leaf in classes if nx.has_path(whole, root, leaf)} for root in roots]
    for turn, leaf in enumerate(sorted(below[0] & below[1])):
        below[1 - turn % 2].discard(leaf)
    assume(all(below) and below[0] | below[1] != classes)
    graphs = build_graphs(wordnet(links), classes, *roots)
    again = sorted(set(whole.edges()))
    for split, leaves, root in (
        ("train", classes - below[0] - below[1], None),
        ("validation", below[0], roots[0]),
        ("test", below[1], roots[1]),
    ):
        expected = by_brute_force(again, leaves, root, seed)
        assert set(graphs[split]) == set(expected.nodes)  # type: ignore[index]  # the names above are splits
        assert links_of(graphs[split]) == set(expected.edges())  # type: ignore[index]  # as above


def test_chain_is_taken_out() -> None:
    graph = build_graph(wordnet([("top", "a"), ("a", "b"), ("b", "x"), ("top", "y")]), ["x", "y"])
    assert list(graph) == ["top", "x", "y"]
    assert graph["top"].children == ("x", "y")
    assert graph["x"].parents == ("top",)
    assert graph["x"].words == "words of x"


def test_two_links_to_one_child_keep_a_node() -> None:
    links = [("top", "gun"), ("gun", "rifle"), ("gun", "assault rifle"), ("rifle", "assault rifle"), ("top", "y")]
    graph = build_graph(wordnet(links), ["assault rifle", "y"])
    assert set(graph) == {"top", "gun", "assault rifle", "y"}
    assert graph["gun"].children == ("assault rifle",)


def test_overlap_is_assigned_alternately() -> None:
    links = [("top", "v"), ("top", "t"), ("top", "z")]
    links += [("v", leaf) for leaf in "abcdm"] + [("t", leaf) for leaf in "abcdn"]
    split = split_classes(build_graph(wordnet(links), set("abcdmnz")), "v", "t")
    assert split == {"train": {"z"}, "validation": {"a", "c", "m"}, "test": {"b", "d", "n"}}


def test_published_graphs() -> None:
    catalogue = published("ilsvrc_2012")
    graphs = build_graphs(imagenet_wordnet(), catalogue.class_names)
    specification = HierarchicalSpecification("ilsvrc_2012", catalogue.class_names, catalogue.images, graphs)
    sizes = {split: (len(graph), sum(not node.children for node in graph.values())) for split, graph in graphs.items()}
    assert sizes == {"train": (1011, 712), "validation": (200, 158), "test": (180, 130)}
    assert specification.splits == catalogue.splits
    for split, ids in catalogue.splits.items():
        leaves = {wn_id for wn_id, node in graphs[split].items() if not node.children}
        assert leaves == {catalogue.class_names[class_id] for class_id in ids}
    assert {split: len(nodes) for split, nodes in specification.eligible.items()} == {
        "train": 113,
        "validation": 18,
        "test": 15,
    }


def test_published_graph_of_all_classes() -> None:
    catalogue = published("ilsvrc_2012_v2")
    graph = build_graph(imagenet_wordnet(), catalogue.class_names)
    specification = HierarchicalSpecification("v2", catalogue.class_names, catalogue.images, {"train": graph})
    assert (len(graph), sum(bool(node.children) for node in graph.values())) == (1399, 399)
    assert len(specification.eligible["train"]) == 145
    assert len({class_id for classes in specification.eligible["train"] for class_id in classes}) == 994
    # Some nodes of google-research/meta-dataset's dataset_specs/ilsvrc_2012_v2_dataset_spec.json.
    assert graph["n00001740"].children == ("n00001930", "n00002137")
    assert graph["n00001930"].children == ("n00002684", "n00007347", "n00020827")
    assert graph["n00002137"].children == ("n00019613", "n00033020", "n09229709")
    assert graph["n00007846"].parents == ("n00004475", "n00007347")
    assert graph["n00007846"].words == "person, individual, someone, somebody, mortal, soul"
    assert graph["n00019613"].parents == ("n00002137", "n00020827")
    assert graph["n00015388"].children == ("n01317541", "n01471682", "n01905661", "n02090827", "n02153203")
    assert graph["n01632777"].words == "axolotl, mud puppy, Ambystoma mexicanum"


def test_files_of_imagenet(tmp_path: Path) -> None:
    known = imagenet_wordnet()
    is_a, words = tmp_path / "wordnet.is_a.txt", tmp_path / "words.txt"
    is_a.write_text("".join(f"{p} {child}\n" for child, parents in known.parents.items() for p in parents))
    words.write_text("".join(f"{wn_id}\t{text}\n" for wn_id, text in known.words.items()))
    classes = published("ilsvrc_2012").class_names
    assert build_graphs(read_wordnet(is_a, words), classes) == build_graphs(known, classes)


def test_bad_files(tmp_path: Path) -> None:
    is_a, words = tmp_path / "wordnet.is_a.txt", tmp_path / "words.txt"
    is_a.write_text("top x\n")
    with pytest.raises(DataError, match=r"words\.txt cannot be read .*No such file.*or remove both"):
        read_wordnet(is_a, words)
    words.write_bytes(b"x\tcaf\xe9\n")
    with pytest.raises(DataError, match=r"words\.txt cannot be read .*utf-8"):
        read_wordnet(is_a, words)
    words.write_text("x\ta thing\nx a thing\n")
    with pytest.raises(
        DataError,
        match=r"Line 2 of .*words\.txt is not two fields parted by '\\t'; get wordnet",
    ):
        read_wordnet(is_a, words)


def test_bad_classes() -> None:
    links = [("top", "a"), ("a", "x"), ("a", "y"), ("top", "z")]
    with pytest.raises(DataError, match=r"The class q \(2 in all\) is not a synset of the test; use the classes"):
        build_graph(wordnet(links), ["x", "q", "r"])
    with pytest.raises(DataError, match="The class a is an ancestor of another class in the test"):
        build_graph(wordnet(links), ["x", "a"])
    with pytest.raises(DataError, match=r"The synsets (top - a - top|a - top - a) of the test are their own ancestors"):
        build_graph(wordnet([*links, ("a", "top")]), ["x", "y", "z"])
    with pytest.raises(DataError, match=r"no common ancestor n02075296.*all 1,000 classes"):
        build_graphs(wordnet(links), ["x", "y", "z"])
