"""The published classes and image counts of Meta-Dataset's sources.

``catalogue.json`` beside this file holds them in class-id order; its ``origin`` says where they are from.
"""

from __future__ import annotations

import functools
import json
from importlib.resources import files
from typing import Any

from lite_bench.datasets.meta_dataset.specification import BiLevelSpecification, FlatSpecification
from lite_bench.harness.core import Split
from lite_bench.harness.errors import UnknownNameError

IMAGENET, IMAGENET_V2, IMAGENET_LITE = "ilsvrc_2012", "ilsvrc_2012_v2", "ilsvrc_2012_lite"


@functools.cache
def _tables() -> dict[str, Any]:
    text = files(__package__).joinpath("catalogue.json").read_text(encoding="utf-8")
    tables: dict[str, Any] = json.loads(text)["sources"]
    return tables


def published_sources() -> tuple[str, ...]:
    """Name every source whose classes are known, ImageNet in its three forms."""
    return (*_tables(), IMAGENET_V2, IMAGENET_LITE)


@functools.cache
def published(source: str) -> FlatSpecification | BiLevelSpecification:
    """Give the published classes of ``source``.

    The three forms of ImageNet are given without their graph: ``ilsvrc_2012`` with Meta-Dataset's splits,
    ``ilsvrc_2012_v2`` with all classes for training in order of WordNet id, and ``ilsvrc_2012_lite``, the form
    of the LITE authors' code: the class ids of ``ilsvrc_2012``, all for training.

    Raises:
        UnknownNameError: its classes are not known.
    """
    if source not in published_sources():
        raise UnknownNameError("Meta-Dataset source called", source, published_sources())
    if source in (IMAGENET_V2, IMAGENET_LITE):
        first = published(IMAGENET)
        pairs = list(zip(first.class_names, first.images, strict=True))
        return _flat(source, {"train": dict(sorted(pairs) if source == IMAGENET_V2 else pairs)})
    table = _tables()[source]
    return _bi_level(source, table) if table["kind"] == "bilevel" else _flat(source, table["classes"])


def _flat(source: str, classes: dict[Split, dict[str, int]]) -> FlatSpecification:
    counts = [pair for split in classes.values() for pair in split.items()]
    sizes = {split: len(members) for split, members in classes.items()}
    return FlatSpecification(source, tuple(name for name, _ in counts), tuple(n for _, n in counts), sizes)


def _bi_level(source: str, table: dict[str, Any]) -> BiLevelSpecification:
    groups = [pair for split in table["superclasses"].values() for pair in split.items()]
    names = tuple(f"{group}-character{number:02d}" for group, size in groups for number in range(1, size + 1))
    return BiLevelSpecification(
        name=source,
        class_names=names,
        images=(table["images_per_class"],) * len(names),
        superclass_names=tuple(group for group, _ in groups),
        classes_per_superclass=tuple(size for _, size in groups),
        superclasses_per_split={split: len(members) for split, members in table["superclasses"].items()},
    )
