"""The published classes: numbers that Meta-Dataset, its paper and the LITE code state elsewhere."""

from __future__ import annotations

import pytest

from lite_bench.datasets.meta_dataset.catalogue import published, published_sources
from lite_bench.datasets.meta_dataset.specification import BiLevelSpecification
from lite_bench.harness.errors import UnknownNameError

FACTS = {
    "aircraft": ((70, 15, 15), (7000, 1500, 1500), 100, 100),
    "cu_birds": ((140, 30, 30), (8239, 1779, 1770), 41, 60),
    "dtd": ((33, 7, 7), (3960, 840, 840), 120, 120),
    "quickdraw": ((241, 52, 52), (34776331, 7939640, 7710295), 113613, 340029),
    "fungi": ((994, 200, 200), (64449, 12195, 13116), 6, 442),
    "traffic_sign": ((0, 0, 43), (0, 0, 39209), 210, 2250),
    "mscoco": ((0, 40, 40), (0, 513021, 346980), 198, 262465),
    "omniglot": ((883, 81, 659), (17660, 1620, 13180), 20, 20),
    "ilsvrc_2012_v2": ((1000, 0, 0), (1280764, 0, 0), 732, 1300),
    "ilsvrc_2012_lite": ((1000, 0, 0), (1280764, 0, 0), 732, 1300),
    "mnist": ((10, 0, 0), (10000, 0, 0), 892, 1135),
}
"""Classes and images of train, validation and test, and the fewest and most images of a class."""
MORE_FACTS = {"vgg_flower": ((71, 15, 16), 8189), "ilsvrc_2012": ((712, 158, 130), 1280764)}
FIRST_VERSION = (
    "aircraft",
    "cu_birds",
    "dtd",
    "quickdraw",
    "fungi",
    "traffic_sign",
    "mscoco",
    "omniglot",
    "vgg_flower",
    "ilsvrc_2012",
)


def sizes(source: str) -> tuple[int, ...]:
    return tuple(map(len, published(source).splits.values()))


def test_every_source_is_checked() -> None:
    assert set(published_sources()) == set(FACTS) | set(MORE_FACTS)


@pytest.mark.parametrize("source", FACTS)
def test_classes_and_images(source: str) -> None:
    specification = published(source)
    classes, images, fewest, most = FACTS[source]
    assert sizes(source) == classes
    assert tuple(sum(specification.images[i] for i in ids) for ids in specification.splits.values()) == images
    assert (min(specification.images), max(specification.images)) == (fewest, most)


@pytest.mark.parametrize("source", MORE_FACTS)
def test_classes_and_all_images(source: str) -> None:
    classes, images = MORE_FACTS[source]
    assert sizes(source) == classes
    assert sum(published(source).images) == images


@pytest.mark.parametrize("source", published_sources())
def test_names_and_counts_belong_to_all_ids(source: str) -> None:
    specification = published(source)
    assert specification.name == source
    assert len(specification.class_names) == len(specification.images) == sum(sizes(source))
    assert len(set(specification.class_names)) == len(specification.class_names)
    assert published(source) is specification


def test_first_version_has_4934_classes() -> None:
    assert sum(sum(sizes(source)) for source in FIRST_VERSION) == 4934


def test_alphabets_of_omniglot() -> None:
    omniglot = published("omniglot")
    assert isinstance(omniglot, BiLevelSpecification)
    counts = {split: [omniglot.classes_per_superclass[i] for i in ids] for split, ids in omniglot.superclasses.items()}
    assert {split: len(found) for split, found in counts.items()} == {"train": 25, "validation": 5, "test": 20}
    assert (min(counts["train"]), max(counts["train"])) == (22, 55)
    assert counts["validation"] == [14, 14, 16, 17, 20]
    assert (min(counts["test"]), max(counts["test"])) == (20, 47)
    assert [omniglot.superclass_names[i] for i in omniglot.superclasses["validation"]] == [
        "Blackfoot_(Canadian_Aboriginal_Syllabics)",
        "Ojibwe_(Canadian_Aboriginal_Syllabics)",
        "Inuktitut_(Canadian_Aboriginal_Syllabics)",
        "Tagalog",
        "Alphabet_of_the_Magi",
    ]
    for split in ("train", "test"):
        names = [omniglot.superclass_names[i] for i in omniglot.superclasses[split]]
        assert names == sorted(names)
    for ids in omniglot.members:
        names = [omniglot.class_names[i] for i in ids]
        assert names == sorted(names)
        assert len({name.rpartition("-")[0] for name in names}) == 1


def test_forms_of_imagenet() -> None:
    first, second, lite = (published(f"ilsvrc_2012{form}") for form in ("", "_v2", "_lite"))
    assert lite.class_names == first.class_names
    assert lite.images == first.images
    assert list(second.class_names) == sorted(first.class_names)
    counts = dict(zip(first.class_names, first.images, strict=True))
    assert [counts[name] for name in second.class_names] == list(second.images)
    for ids in first.splits.values():
        names = [first.class_names[i] for i in ids]
        assert names == sorted(names)


def test_digits_of_the_lite_authors() -> None:
    mnist = published("mnist")
    assert mnist.images == (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
    assert mnist.class_names[0] == "class_0"
    assert mnist.class_names[9] == "class_9"


def test_first_textures_are_in_published_order() -> None:
    assert published("dtd").class_names[:4] == ("chequered", "braided", "interlaced", "matted")


def test_unknown_sources_get_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean aircraft"):
        published("aircrafts")
