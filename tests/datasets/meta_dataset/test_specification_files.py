"""``dataset_spec.json``: Meta-Dataset's own form is read, written as read, and every contradiction is named."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite_bench.datasets.meta_dataset.catalogue import published, published_sources
from lite_bench.datasets.meta_dataset.specification import (
    BiLevelSpecification,
    FlatSpecification,
    HierarchicalSpecification,
    Node,
    Specification,
)
from lite_bench.datasets.meta_dataset.specification_files import (
    SPECIFICATION,
    read_specification,
    write_specification,
)
from lite_bench.harness.errors import DataError, RunError

FLAT: dict[str, Any] = {
    "name": "coins",
    "classes_per_split": {"TRAIN": 2, "VALID": 0, "TEST": 1},
    "images_per_class": {"0": 12, "1": 7, "2": 9},
    "class_names": {"0": "penny/old", "1": "crown", "2": "florin"},
    "path": "/path/to/records/coins",
    "file_pattern": "{}.tfrecords",
    "__class__": "DatasetSpecification",
}
BI_LEVEL: dict[str, Any] = {
    "name": "letters",
    "superclasses_per_split": {"TRAIN": 1, "VALID": 1, "TEST": 1},
    "classes_per_superclass": {"0": 2, "1": 1, "2": 1},
    "images_per_class": {"0": 20, "1": 20, "2": 20, "3": 20},
    "superclass_names": {"0": "Greek", "1": "Latin", "2": "Tagalog"},
    "class_names": {
        "0": "Greek-character01",
        "1": "Greek-character02",
        "2": "Latin-character01",
        "3": "Tagalog-character01",
    },
    "path": "/path/to/records/letters",
    "file_pattern": "{}.tfrecords",
    "__class__": "BiLevelDatasetSpecification",
}


def node(wn_id: str, words: str, children: list[str], parents: list[str]) -> dict[str, Any]:
    return {"wn_id": wn_id, "words": words, "children_ids": children, "parents_ids": parents}


HIERARCHICAL: dict[str, Any] = {
    "name": "animals",
    "split_subgraphs": {
        "TRAIN": [
            node("n01", "entity", ["n02", "n03"], []),
            node("n02", "pet", ["n04", "n05"], ["n01"]),
            node("n03", "carnivore, predator", ["n05", "n06"], ["n01"]),
            node("n04", "rabbit", [], ["n02"]),
            node("n05", "cat", [], ["n02", "n03"]),
            node("n06", "wolf", [], ["n03"]),
        ],
        "VALID": [],
        "TEST": [
            node("n07", "bird", ["n08", "n09"], []),
            node("n08", "owl", [], ["n07"]),
            node("n09", "", [], ["n07"]),
        ],
    },
    "images_per_class": {
        "TRAIN": {"n01": 60, "n02": 30, "n03": 50, "n04": 10, "n05": 20, "n06": 30},
        "VALID": {},
        "TEST": {"n07": 9, "n08": 4, "n09": 5},
    },
    "class_names": {"0": "n04", "1": "n05", "2": "n06", "3": "n08", "4": "n09"},
    "path": "/path/to/records/animals",
    "file_pattern": "{}.tfrecords",
    "__class__": "HierarchicalDatasetSpecification",
}
KINDS = {"flat": FLAT, "bilevel": BI_LEVEL, "hierarchical": HIERARCHICAL}


def store(stored: Any, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SPECIFICATION).write_text(json.dumps(stored), encoding="utf-8")
    return folder


def test_flat_form(tmp_path: Path) -> None:
    assert read_specification(store(FLAT, tmp_path)) == FlatSpecification(
        "coins", ("penny/old", "crown", "florin"), (12, 7, 9), {"train": 2, "validation": 0, "test": 1}
    )


def test_bi_level_form(tmp_path: Path) -> None:
    assert read_specification(store(BI_LEVEL, tmp_path)) == BiLevelSpecification(
        "letters",
        ("Greek-character01", "Greek-character02", "Latin-character01", "Tagalog-character01"),
        (20,) * 4,
        ("Greek", "Latin", "Tagalog"),
        (2, 1, 1),
        {"train": 1, "validation": 1, "test": 1},
    )


def test_hierarchical_form(tmp_path: Path) -> None:
    found = read_specification(store(HIERARCHICAL, tmp_path))
    assert isinstance(found, HierarchicalSpecification)
    assert found.class_names == ("n04", "n05", "n06", "n08", "n09")
    assert found.images == (10, 20, 30, 4, 5)
    assert found.splits == {"train": range(3), "validation": range(3, 3), "test": range(3, 5)}
    assert list(found.graphs["train"]) == ["n01", "n02", "n03", "n04", "n05", "n06"]
    assert found.graphs["train"]["n05"] == Node("n05", "cat", (), ("n02", "n03"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_written_file_is_the_one_read_but_for_its_path(kind: str, tmp_path: Path) -> None:
    specification = read_specification(store(KINDS[kind], tmp_path / "first"))
    folder = tmp_path / "a" / "source"
    write_specification(specification, folder)
    text = (folder / SPECIFICATION).read_text(encoding="utf-8")
    assert text == json.dumps({**KINDS[kind], "path": "source"}, indent=2) + "\n"
    assert read_specification(folder) == specification


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_keys_does_not_matter(kind: str, tmp_path: Path) -> None:
    def reverse(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: reverse(value[key]) for key in reversed(value)}
        return value

    first = read_specification(store(KINDS[kind], tmp_path / "first"))
    assert read_specification(store(reverse(KINDS[kind]), tmp_path / "second")) == first


@pytest.mark.parametrize("source", published_sources())
def test_published_sources_survive_writing(source: str, tmp_path: Path) -> None:
    write_specification(published(source), tmp_path)
    assert read_specification(tmp_path) == published(source)


@given(
    classes=st.lists(st.tuples(st.text(max_size=6), st.integers(0, 2**40)), max_size=12),
    first=st.integers(0, 12),
    second=st.integers(0, 12),
)
@settings(max_examples=50, deadline=None)
def test_any_flat_source_survives_writing(
    classes: list[tuple[str, int]], first: int, second: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    first, second = sorted((min(first, len(classes)), min(second, len(classes))))
    specification: Specification = FlatSpecification(
        "any",
        tuple(name for name, _ in classes),
        tuple(count for _, count in classes),
        {"train": first, "validation": second - first, "test": len(classes) - second},
    )
    folder = tmp_path_factory.mktemp("any")
    write_specification(specification, folder)
    assert read_specification(folder) == specification


def test_splits_left_out_are_empty(tmp_path: Path) -> None:
    stored = copy.deepcopy(HIERARCHICAL)
    for key in ("split_subgraphs", "images_per_class"):
        del stored[key]["VALID"]
    assert read_specification(store(stored, tmp_path / "a")) == read_specification(store(HIERARCHICAL, tmp_path / "b"))


def test_a_child_named_twice_is_one_child(tmp_path: Path) -> None:
    stored = copy.deepcopy(HIERARCHICAL)
    stored["split_subgraphs"]["TRAIN"][1]["children_ids"].append("n05")
    found = read_specification(store(stored, tmp_path))
    assert isinstance(found, HierarchicalSpecification)
    assert found.leaves("train")["n02"] == frozenset({"n04", "n05"})


PLAIN, TWO, TREE = KINDS
WRONG: dict[str, tuple[str, tuple[Any, ...], Any, str]] = {
    "kind": (PLAIN, ("__class__",), "BenchmarkSpecification", "has the kind 'BenchmarkSpecification' instead of one"),
    "kind of another type": (PLAIN, ("__class__",), ["x"], "has the kind"),
    "sharded files": (PLAIN, ("file_pattern",), "{}_{}.tfrecords", "file pattern"),
    "no name": (PLAIN, ("name",), None, "has no text 'name'"),
    "no class names": (
        PLAIN,
        ("class_names",),
        None,
        "has no JSON object 'class_names', as a DatasetSpecification must",
    ),
    "gap in ids": (
        "flat",
        ("class_names",),
        {"0": "a", "1": "b", "3": "c"},
        "3 entries in 'class_names' but none .* 2",
    ),
    "gap in counts": (PLAIN, ("images_per_class",), {"0": 1, "1": 2, "5": 3}, "'images_per_class' but none for id 2"),
    "padded ids": (PLAIN, ("images_per_class",), {"00": 1, "01": 2, "02": 3}, "none for id 0"),
    "fewer counts": (PLAIN, ("images_per_class",), {"0": 1}, "states 3 class names but 1 image counts"),
    "split sizes": (PLAIN, ("classes_per_split", "TEST"), 2, "states 4 classes in its splits but 3 class names"),
    "split's name": (PLAIN, ("classes_per_split",), {"train": 3}, "has the split 'train'"),
    "fraction of classes": (PLAIN, ("classes_per_split", "TRAIN"), 1.5, "has 1.5 as 'classes_per_split' of TRAIN"),
    "negative split": (PLAIN, ("classes_per_split", "TRAIN"), -1, "has -1 as 'classes_per_split' of train"),
    "more images than there are": (PLAIN, ("images_per_class", "1"), 10**30, "of id 1 where a count belongs"),
    "pools": (
        "flat",
        ("images_per_class", "1"),
        {"train": 3, "test": 4},
        "as 'images_per_class' of id 1 where a count",
    ),
    "negative count": (PLAIN, ("images_per_class", "1"), -7, "has -7 as 'images_per_class' of id 1"),
    "truth as a count": (PLAIN, ("images_per_class", "1"), True, "has True as 'images_per_class' of id 1"),
    "number as a name": (PLAIN, ("class_names", "1"), 5, "has 5 as 'class_names' of id 1 where a text belongs"),
    "superclass sizes": (
        "bilevel",
        ("classes_per_superclass", "1"),
        2,
        "5 classes in its superclasses but 4 class names",
    ),
    "superclass names": (TWO, ("superclass_names",), {"0": "a"}, "1 superclass names but 3 superclass sizes"),
    "superclass splits": (TWO, ("superclasses_per_split", "TEST"), 4, "6 superclasses in its splits but 3"),
    "image counts": (TWO, ("images_per_class",), {"0": 20}, "4 class names but 1 image counts"),
    "no graph": (TREE, ("split_subgraphs",), [], "has no JSON object 'split_subgraphs'"),
    "graph as an object": (TREE, ("split_subgraphs", "TEST"), {}, "where a list belongs"),
    "node without children": (
        TREE,
        ("split_subgraphs", "TEST", 0),
        {"wn_id": "n07"},
        "malformed node in test",
    ),
    "node as a text": (TREE, ("split_subgraphs", "TEST", 0), "n07", "malformed node in test"),
    "number as a child": (
        TREE,
        ("split_subgraphs", "TEST", 0, "children_ids"),
        [8],
        "malformed node in test",
    ),
    "node twice": (TREE, ("split_subgraphs", "TEST", 2, "wn_id"), "n08", "3 nodes in test but 2 different"),
    "one-sided link": (
        TREE,
        ("split_subgraphs", "TEST", 1, "parents_ids"),
        [],
        "link from n07 to n08 in test",
    ),
    "unknown child": (
        TREE,
        ("split_subgraphs", "TEST", 1, "children_ids"),
        ["n99"],
        "from n08 to n99 in test",
    ),
    "fewer classes": (TREE, ("class_names",), {"0": "n04"}, "5 leaves in its graphs but 1 class names"),
    "other class": (
        TREE,
        ("class_names", "0"),
        "n02",
        "has a leaf or a class, but not both, for n02 in train",
    ),
    "class of another split": (TREE, ("class_names", "0"), "n08", "not both, for n04 in train"),
    "count of no node": (TREE, ("images_per_class", "TEST", "n99"), 4, "not both, for n99 in test"),
    "sum of leaves": (
        TREE,
        ("images_per_class", "TRAIN", "n01"),
        80,
        "states 80 images of n01 but 60 images in its leaves",
    ),
    "text as a node's count": (TREE, ("images_per_class", "TEST", "n08"), "4", "has 4 as images of n08"),
}


def changed(stored: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Copy ``stored`` with another value, or none, at a place."""
    result = copy.deepcopy(stored)
    inner: Any = result
    for key in place[:-1]:
        inner = inner[key]
    if value is None:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return result


@pytest.mark.parametrize("case", WRONG)
def test_contradictions_are_named(case: str, tmp_path: Path) -> None:
    kind, place, value, message = WRONG[case]
    store(changed(KINDS[kind], place, value), tmp_path)
    with pytest.raises(DataError, match=rf"dataset_spec\.json .*{message}.*; convert the source again\."):
        read_specification(tmp_path)


def test_a_circle_of_links_is_named(tmp_path: Path) -> None:
    stored = copy.deepcopy(HIERARCHICAL)
    nodes = stored["split_subgraphs"]["TEST"]
    nodes[1]["children_ids"], nodes[2]["children_ids"] = ["n09"], ["n08"]
    nodes[1]["parents_ids"].append("n09")
    nodes[2]["parents_ids"].append("n08")
    with pytest.raises(DataError, match="has a circle of links through n08 in test"):
        read_specification(store(stored, tmp_path))


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '"text"', "null", "[" * 100_000, "\udcff"])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / SPECIFICATION).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"dataset_spec\.json .*; convert the source again"):
        read_specification(tmp_path)


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    text = json.dumps(FLAT).replace('"0": 12, ', '"0": 12, "0": 13, ')
    (tmp_path / SPECIFICATION).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="has the key '0' twice"):
        read_specification(tmp_path)


@pytest.mark.parametrize("folder", [".", "absent"])
def test_a_missing_file_says_what_records_must_name(folder: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dataset_spec\.json is missing; RECORDS must name the folder"):
        read_specification(tmp_path / folder)


@pytest.mark.parametrize("folder", [".", "aircraft"])
def test_a_checkout_of_the_source_code_is_recognised(folder: str, tmp_path: Path) -> None:
    (tmp_path / "meta_dataset").mkdir()
    (tmp_path / "setup.py").touch()
    with pytest.raises(DataError, match=r"checkout of Meta-Dataset's source code, .* RECORDS must name the folder"):
        read_specification(tmp_path / folder)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / SPECIFICATION).mkdir()
    with pytest.raises(DataError, match=r"dataset_spec\.json cannot be read"):
        read_specification(tmp_path)


def test_writing_where_one_cannot_is_a_run_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="Could not write"):
        write_specification(published("mnist"), tmp_path / "file")
