"""``dataset_spec.json``: a source's classes in the form of Meta-Dataset, read and written.

The form is that of google-research/meta-dataset (``dataset_spec.py``, commit 16760950). The folder stored under
``path`` is ignored, because records move.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lite_bench.datasets.meta_dataset.specification import (
    SPLITS,
    BiLevelSpecification,
    FlatSpecification,
    HierarchicalSpecification,
    Node,
    Specification,
)
from lite_bench.harness.core import Split
from lite_bench.harness.errors import DataError
from lite_bench.harness.files import write_atomically

SPECIFICATION = "dataset_spec.json"
FILE_PATTERN = "{}.tfrecords"
SPLIT_KEYS: dict[str, Split] = {"TRAIN": "train", "VALID": "validation", "TEST": "test"}
KEYS_OF_SPLITS = {split: key for key, split in SPLIT_KEYS.items()}
KINDS = {dict: "JSON object", list: "list", int: "whole number", str: "text"}
CHECKOUT_MARKS = ("meta_dataset", "setup.py")
MAX_COUNT = 1 << 40
"""More than any class has, and far from the limit of sums in 64 bits."""


class _ContradictionError(Exception):
    """What is wrong with a specification, without the file's name."""


def read_specification(folder: Path) -> Specification:
    """Read the specification in a folder of records.

    Args:
        folder: holds ``dataset_spec.json`` and the class files.

    Raises:
        DataError: there is none, it is not Meta-Dataset's JSON, or it contradicts itself.
    """
    path = folder / SPECIFICATION
    try:
        stored = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_duplicates)
        return _parse(stored)
    except OSError as error:
        raise _missing(folder, error) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"The specification {path} is not valid JSON ({error}); convert the source again.") from error
    except _ContradictionError as error:
        raise DataError(f"The specification {path} {error}; convert the source again.") from error


def _missing(folder: Path, error: OSError) -> DataError:
    path = folder / SPECIFICATION
    if is_checkout(folder):
        return DataError(
            f"{folder} belongs to a checkout of Meta-Dataset's source code, which holds no data; RECORDS must "
            "name the folder of converted records, which has a sub-folder per source."
        )
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return DataError(f"The specification {path} cannot be read ({error.strerror or error}); check its permissions.")
    return DataError(
        f"The specification {path} is missing; RECORDS must name the folder of converted records, which has a "
        "sub-folder per source, or convert the source again."
    )


def is_checkout(folder: Path) -> bool:
    """Tell whether ``folder`` is a checkout of Meta-Dataset's source code, or lies directly in one."""
    # os.access instead of Path.exists, which would raise where one may not look.
    return any(all(os.access(place / mark, os.F_OK) for mark in CHECKOUT_MARKS) for place in (folder, folder.parent))


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _ContradictionError(f"has the key {twice!r} twice")
    return members


def _parse(stored: Any) -> Specification:
    kind = stored.get("__class__") if isinstance(stored, dict) else None
    if not isinstance(kind, str) or kind not in READERS:
        raise _ContradictionError(f"has the kind {kind!r} instead of one of {', '.join(READERS)}")
    if (pattern := stored.get("file_pattern")) != FILE_PATTERN:
        raise _ContradictionError(f"has the file pattern {pattern!r}, but only {FILE_PATTERN!r} is in use")
    return READERS[kind](stored)


def _read_flat(stored: dict[str, Any]) -> FlatSpecification:
    names = _by_id(stored, "class_names", str)
    images = _by_id(stored, "images_per_class", int)
    sizes = _split_sizes(stored, "classes_per_split")
    _agree(len(names), "class names", len(images), "image counts")
    _agree(sum(sizes.values()), "classes in its splits", len(names), "class names")
    return FlatSpecification(_name(stored), names, images, sizes)


def _read_bi_level(stored: dict[str, Any]) -> BiLevelSpecification:
    names = _by_id(stored, "class_names", str)
    images = _by_id(stored, "images_per_class", int)
    groups = _by_id(stored, "superclass_names", str)
    members = _by_id(stored, "classes_per_superclass", int)
    sizes = _split_sizes(stored, "superclasses_per_split")
    _agree(len(names), "class names", len(images), "image counts")
    _agree(len(groups), "superclass names", len(members), "superclass sizes")
    _agree(sum(sizes.values()), "superclasses in its splits", len(groups), "superclass names")
    _agree(sum(members), "classes in its superclasses", len(names), "class names")
    return BiLevelSpecification(_name(stored), names, images, groups, members, sizes)


def _read_hierarchical(stored: dict[str, Any]) -> HierarchicalSpecification:
    names = _by_id(stored, "class_names", str)
    graphs = {split: _graph(nodes, split) for split, nodes in _by_split(stored, "split_subgraphs", list).items()}
    counts = _by_split(stored, "images_per_class", dict)
    specification = HierarchicalSpecification(_name(stored), names, (), graphs)
    _agree(sum(map(len, specification.splits.values())), "leaves in its graphs", len(names), "class names")
    images = [0] * len(names)
    for split, ids in specification.splits.items():
        below = specification.leaves(split)
        _check_leaves({names[i] for i in ids}, below, split)
        stated = counts.get(split, {})
        if odd := set(stated) ^ set(below):
            raise _ContradictionError(f"has a node or an image count, but not both, for {min(odd)} in {split}")
        for wn_id, leaves in below.items():
            total = sum(_count(stated[leaf], f"images of {leaf}") for leaf in leaves)
            _agree(_count(stated[wn_id], f"images of {wn_id}"), f"images of {wn_id}", total, "images in its leaves")
        for class_id in ids:
            images[class_id] = stated[names[class_id]]
    return HierarchicalSpecification(specification.name, names, tuple(images), graphs)


READERS: dict[str, Callable[[dict[str, Any]], Specification]] = {
    "DatasetSpecification": _read_flat,
    "BiLevelDatasetSpecification": _read_bi_level,
    "HierarchicalDatasetSpecification": _read_hierarchical,
}


def _graph(stored: list[Any], split: Split) -> dict[str, Node]:
    """Read a split's graph and check that links are mutual and lead in no circle."""
    nodes = [_node(item, split) for item in stored]
    graph = {node.wn_id: node for node in sorted(nodes, key=lambda node: node.wn_id)}
    _agree(len(nodes), f"nodes in {split}", len(graph), "different WordNet ids of them")
    down = {(node.wn_id, child) for node in nodes for child in node.children}
    up = {(parent, node.wn_id) for node in nodes for parent in node.parents}
    if odd := down ^ up:
        parent, child = min(odd)
        raise _ContradictionError(f"has only one end of the link from {parent} to {child} in {split}")
    _check_no_circle(graph, split)
    return graph


def _check_no_circle(graph: Mapping[str, Node], split: Split) -> None:
    """Take away nodes without parents again and again; a circle remains."""
    waiting = {wn_id: len(set(node.parents)) for wn_id, node in graph.items()}
    free = [wn_id for wn_id, n_parents in waiting.items() if not n_parents]
    while free:
        wn_id = free.pop()
        del waiting[wn_id]
        for child in set(graph[wn_id].children):
            waiting[child] -= 1
            if not waiting[child]:
                free.append(child)
    if waiting:
        raise _ContradictionError(f"has a circle of links through {min(waiting)} in {split}")


def _node(stored: Any, split: Split) -> Node:
    try:
        wn_id, words = stored["wn_id"], stored["words"]
        children, parents = stored["children_ids"], stored["parents_ids"]
        texts = [wn_id, words, *children, *parents]
    except (KeyError, TypeError) as error:
        raise _ContradictionError(f"has a malformed node in {split}: {str(stored)[:80]}") from error
    if not all(isinstance(text, str) for text in texts):
        raise _ContradictionError(f"has a malformed node in {split}: {str(stored)[:80]}")
    return Node(wn_id, words, tuple(children), tuple(parents))


def _check_leaves(names: set[str], below: Mapping[str, frozenset[str]], split: Split) -> None:
    leaves = {leaf for found in below.values() for leaf in found}
    if odd := names ^ leaves:
        raise _ContradictionError(f"has a leaf or a class, but not both, for {min(odd)} in {split}")


def _member(stored: Mapping[str, Any], key: str, kind: type) -> Any:
    if not isinstance(value := stored.get(key), kind):
        raise _ContradictionError(f"has no {KINDS[kind]} {key!r}, as a {stored['__class__']} must")
    return value


def _name(stored: Mapping[str, Any]) -> str:
    name: str = _member(stored, "name", str)
    return name


def _by_id(stored: Mapping[str, Any], key: str, kind: type) -> tuple[Any, ...]:
    """Read a mapping from ids, in any order but without gaps, as a tuple."""
    members = _member(stored, key, dict)
    for number in range(len(members)):
        if str(number) not in members:
            raise _ContradictionError(f"has {len(members)} entries in {key!r} but none for id {number}")
    values = [members[str(number)] for number in range(len(members))]
    if kind is int:
        return tuple(_count(value, f"{key!r} of id {number}") for number, value in enumerate(values))
    for number, value in enumerate(values):
        if not isinstance(value, str):
            raise _ContradictionError(f"has {value!r} as {key!r} of id {number} where a text belongs")
    return tuple(values)


def _by_split(stored: Mapping[str, Any], key: str, kind: type) -> dict[Split, Any]:
    members = _member(stored, key, dict)
    if unknown := set(members) - set(SPLIT_KEYS):
        raise _ContradictionError(f"has the split {min(unknown)!r} in {key!r} beside {', '.join(SPLIT_KEYS)}")
    for name, value in members.items():
        if not isinstance(value, kind):
            raise _ContradictionError(f"has {str(value)[:40]} as {key!r} of {name} where a {KINDS[kind]} belongs")
    return {split: members[key] for key, split in SPLIT_KEYS.items() if key in members}


def _split_sizes(stored: Mapping[str, Any], key: str) -> dict[Split, int]:
    sizes = _by_split(stored, key, int)
    return {split: _count(sizes.get(split, 0), f"{key!r} of {split}") for split in SPLITS}


def _count(value: Any, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_COUNT:
        raise _ContradictionError(f"has {str(value)[:40]} as {what} where a count belongs")
    return value


def _agree(first: int, of_first: str, second: int, of_second: str) -> None:
    if first != second:
        raise _ContradictionError(f"states {first} {of_first} but {second} {of_second}")


def write_specification(specification: Specification, folder: Path) -> None:
    """Write ``dataset_spec.json`` in one step.

    As ``path`` the folder's name is stored, so that the same conversion gives the same bytes anywhere.

    Raises:
        RunError: the file cannot be written.
    """
    stored = {**as_json(specification), "path": folder.name, "file_pattern": FILE_PATTERN}
    stored["__class__"] = stored.pop("__class__")
    write_atomically(folder / SPECIFICATION, json.dumps(stored, indent=2) + "\n")


def as_json(specification: Specification) -> dict[str, Any]:
    """Give a specification in Meta-Dataset's form, without place and pattern of the files."""
    names = _ids(specification.class_names)
    if isinstance(specification, HierarchicalSpecification):
        return {
            "name": specification.name,
            "split_subgraphs": _upper(specification.graphs, _nodes),
            "images_per_class": _node_images(specification),
            "class_names": names,
            "__class__": "HierarchicalDatasetSpecification",
        }
    images = _ids(specification.images)
    if isinstance(specification, BiLevelSpecification):
        return {
            "name": specification.name,
            "superclasses_per_split": _all_sizes(specification.superclasses_per_split),
            "classes_per_superclass": _ids(specification.classes_per_superclass),
            "images_per_class": images,
            "superclass_names": _ids(specification.superclass_names),
            "class_names": names,
            "__class__": "BiLevelDatasetSpecification",
        }
    return {
        "name": specification.name,
        "classes_per_split": _all_sizes(specification.classes_per_split),
        "images_per_class": images,
        "class_names": names,
        "__class__": "DatasetSpecification",
    }


def _ids(values: Sequence[Any]) -> dict[str, Any]:
    return {str(number): value for number, value in enumerate(values)}


def _upper(members: Mapping[Split, Any], convert: Callable[[Any], Any]) -> dict[str, Any]:
    return {KEYS_OF_SPLITS[split]: convert(members[split]) for split in SPLITS if split in members}


def _all_sizes(sizes: Mapping[Split, int]) -> dict[str, int]:
    return {key: sizes.get(split, 0) for key, split in SPLIT_KEYS.items()}


def _nodes(graph: Mapping[str, Node]) -> list[dict[str, Any]]:
    return [_node_json(graph[wn_id]) for wn_id in sorted(graph)]


def _node_json(node: Node) -> dict[str, Any]:
    links: dict[str, Iterable[str]] = {"children_ids": list(node.children), "parents_ids": list(node.parents)}
    return {"wn_id": node.wn_id, "words": node.words, **links}


def _node_images(specification: HierarchicalSpecification) -> dict[str, dict[str, int]]:
    """Count the images of every node: those of the leaves below it."""
    images = dict(zip(specification.class_names, specification.images, strict=True))
    return {
        KEYS_OF_SPLITS[split]: {
            wn_id: sum(images[leaf] for leaf in below) for wn_id, below in sorted(specification.leaves(split).items())
        }
        for split in SPLITS
        if split in specification.graphs
    }
