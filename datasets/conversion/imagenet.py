"""ILSVRC 2012's training images to Meta-Dataset's records, without those that other test sets hold.

Meta-Dataset knows two forms: ``ilsvrc_2012``, split in three with a class graph each, and ``ilsvrc_2012_v2``
(of MD-v2), all for training with one graph. Their class ids differ.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from lite_bench.datasets.conversion.jpeg import encoded, original_or_jpeg
from lite_bench.datasets.conversion.originals import Members, find_original, open_members, require_published
from lite_bench.datasets.conversion.plan import ClassPlan, Conversion, Original
from lite_bench.datasets.conversion.wordnet import (
    IS_A,
    WORDS,
    Graph,
    WordNet,
    build_graph,
    build_graphs,
    imagenet_wordnet,
    read_wordnet,
)
from lite_bench.datasets.meta_dataset.specification import HierarchicalSpecification
from lite_bench.harness.core import Split
from lite_bench.harness.errors import DataError

IMAGES = Original(
    names=("ILSVRC2012_img_train.tar", "ILSVRC2012_img_train", "ILSVRC/Data/CLS-LOC/train", "train"),
    page="https://image-net.org/download-images",
    note="138 GB, for researchers who register and accept its terms",
)
LISTS_PAGE = "https://github.com/google-research/meta-dataset/tree/main/meta_dataset/dataset_conversion"
DUPLICATES = tuple(
    Original((f"ImageNet_{other}_duplicates.txt",), LISTS_PAGE, f"it lists the images that {other} has too")
    for other in ("Caltech101", "Caltech256", "CUBirds")
)
DUPLICATE = re.compile(r"(n\d{8})/(\1_\d+\.JPEG)")
CLASS = re.compile(r"(?:^|/)(n\d{8})(?:\.tar)?$")
N_DUPLICATES = 403
PUBLISHED_GRAPHS: dict[str, dict[Split, tuple[int, int, int]]] = {
    "ilsvrc_2012": {"train": (1011, 712, 113), "validation": (200, 158, 18), "test": (180, 130, 15)},
    "ilsvrc_2012_v2": {"train": (1399, 1000, 145)},
}
"""Nodes, leaves, and nodes that can be an episode's root, of each split's graph."""

Opened = Callable[[], Members]
Kept = Callable[[], tuple[Members, tuple[str, ...]]]
"""Opens a class's folder or tar, and gives it with the images to convert, in order."""


@dataclass(frozen=True)
class ImageNet:
    """The source ``ilsvrc_2012``; records of a class are in order of file names.

    Attributes:
        check_published: require the published classes, counts and graphs.
    """

    check_published: bool = True

    @property
    def source(self) -> str:
        """Name of the source."""
        return "ilsvrc_2012"

    @property
    def originals(self) -> tuple[Original, ...]:
        """The images, as a tar of one tar a class, or unpacked once or twice; and three lists of duplicates.

        If the folder also has ``wordnet.is_a.txt`` and ``words.txt``, the graphs are made from them, and
        otherwise from the copy of WordNet that is part of this package.
        """
        return (IMAGES, *DUPLICATES)

    def graphs(self, wordnet: WordNet, classes: Collection[str]) -> dict[Split, Graph]:
        """Make the class graph of each split."""
        return build_graphs(wordnet, classes)

    def plan(self, folder: Path) -> Conversion:
        """List the images of all classes, which takes minutes, and make the class graphs.

        Raises:
            DataError: an original is missing or damaged, or they are not the published ones.
        """
        images, *lists = (find_original(folder, original, self.source) for original in self.originals)
        duplicates = self._duplicates(lists)
        classes = {name: _kept(opened, name, duplicates) for name, opened in _classes(images).items()}
        counts = {name: len(kept()[1]) for name, kept in classes.items()}
        graphs = self.graphs(_wordnet(folder, images), [name for name, count in counts.items() if count])
        names = tuple(name for graph in graphs.values() for name, node in graph.items() if not node.children)
        specification = HierarchicalSpecification(self.source, names, tuple(counts[name] for name in names), graphs)
        if self.check_published:
            require_published(specification, images)
            _require_published_graphs(specification)
        plans = (functools.partial(_jpegs, classes[name]) for name in names)
        return Conversion(specification, [ClassPlan(i, counts[names[i]], plan) for i, plan in enumerate(plans)])

    def _duplicates(self, lists: Collection[Path]) -> frozenset[str]:
        duplicates = frozenset[str]().union(*map(read_duplicates, lists))
        if self.check_published and len(duplicates) != N_DUPLICATES:
            named = ", ".join(map(str, lists))
            raise DataError(
                f"The lists of duplicates {named} name {len(duplicates)} images and not {N_DUPLICATES}; "
                f"download them again from {LISTS_PAGE}."
            )
        return duplicates


@dataclass(frozen=True)
class ImageNetV2(ImageNet):
    """The source ``ilsvrc_2012_v2``, made of the same files as ``ilsvrc_2012``."""

    @property
    def source(self) -> str:
        """Name of the source."""
        return "ilsvrc_2012_v2"

    def graphs(self, wordnet: WordNet, classes: Collection[str]) -> dict[Split, Graph]:
        """Make the one class graph."""
        return {"train": build_graph(wordnet, classes)}


def read_duplicates(path: Path) -> frozenset[str]:
    """Read the file names in a list of images to leave out.

    Its lines are such as ``n01531178/n01531178_12730.JPEG  # American_Goldfinch_0062_31921.jpg``.

    Raises:
        DataError: it cannot be read or has other lines.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The list {path} cannot be read ({error}); download it again from {LISTS_PAGE}.") from error
    names = set()
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if match := DUPLICATE.fullmatch(text):
            names.add(match[2])
        elif text:
            raise DataError(
                f"Line {number} of {path} is not of the form n01440764/n01440764_18.JPEG; "
                f"download the list again from {LISTS_PAGE}."
            )
    return frozenset(names)


def _classes(images: Path) -> dict[str, Opened]:
    """Find the folder or tar of each class; the images in it are listed later, class by class."""
    found: dict[str, Opened] = {}
    if images.is_dir():
        try:
            paths = sorted(images.iterdir(), reverse=True)
        except OSError as error:
            raise DataError(f"The folder {images} cannot be listed ({error.strerror}); make it readable.") from error
        for path in paths:  # a class's folder, where there is one, not its tar
            if match := CLASS.search(path.name):
                found[match[1]] = functools.partial(open_members, path)
    else:
        members = open_members(images)
        for name, match in members.matching(CLASS.pattern):
            found[match[1]] = functools.partial(members.only([name]).nested, name)
    if not found:
        raise DataError(
            f"{images} holds no classes named like n01440764 or n01440764.tar; download it again from {IMAGES.page}."
        )
    return found


def _kept(opened: Opened, wn_id: str, duplicates: Collection[str]) -> Kept:
    theirs = frozenset(name for name in duplicates if name.startswith(wn_id))
    return functools.partial(_list_images, opened, wn_id, theirs)


def _list_images(opened: Opened, wn_id: str, duplicates: Collection[str]) -> tuple[Members, tuple[str, ...]]:
    members = opened()
    names = (name for name, _ in members.matching(rf"(^|/){wn_id}_\d+\.JPEG$"))
    return members, tuple(name for name in names if name.rpartition("/")[2] not in duplicates)


def _jpegs(kept: Kept) -> Iterator[bytes]:
    members, names = kept()
    return encoded(members, names, original_or_jpeg)


def _wordnet(*places: Path) -> WordNet:
    """Read ImageNet's files about WordNet, which lie beside or among the classes, or else take our own copy."""
    for place in places:
        if (place / IS_A).exists() or (place / WORDS).exists():
            return read_wordnet(place / IS_A, place / WORDS)
    return imagenet_wordnet()


def _require_published_graphs(specification: HierarchicalSpecification) -> None:
    for split, sizes in PUBLISHED_GRAPHS[specification.name].items():
        graph = specification.graphs[split]
        leaves = sum(not node.children for node in graph.values())
        found = (len(graph), leaves, len(specification.eligible[split]))
        if found != sizes:
            raise DataError(
                f"The {split} graph of {specification.name} has {found[0]} nodes, {found[1]} leaves and {found[2]} "
                f"roots of episodes, not {sizes[0]}, {sizes[1]} and {sizes[2]}; remove {IS_A} and {WORDS} from the "
                "folder, so that this package's copy of WordNet is used."
            )
