"""TFDS's storage order: vectors, TFDS's own code, and what the order implies for VTAB's support sets."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_datasets.core import hashing

from lite_bench.datasets.vtab import labels
from lite_bench.datasets.vtab.order import sprite_latents, tfds_hash, tfds_order

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("order_vectors.json").read_text())["vectors"]
KEYS = {"clevr": "CLEVR_train_{:06d}.png", "patch_camelyon": "train_{}"}
VALIDATION = {"smallnorb": ("test", "{}", 24300), "patch_camelyon": ("validation", "valid_{}", 32768)}


@functools.cache
def order(split: str, template: str, n: int) -> np.ndarray:
    return tfds_order(split, (template.format(i) for i in range(n)))


def digest(order: np.ndarray) -> str:
    return hashlib.sha256(",".join(map(str, order.tolist())).encode()).hexdigest()


@pytest.mark.parametrize("name", VECTORS)
def test_vectors(name: str) -> None:
    vector = VECTORS[name]
    train = order("train", KEYS.get(name, "{}"), vector["n"])
    assert train[:10].tolist() == vector["first10"]
    assert digest(train[:800]) == vector["sha_800"]
    assert digest(train[:1000]) == vector["sha_1000"]
    start = vector.get("val200_start", 0)
    rest = order(*VALIDATION[name]) if name in VALIDATION else train
    assert rest[start : start + 5].tolist() == vector["val200_first5"]
    assert digest(rest[start : start + 200]) == vector["sha_val200"]


def test_cifar100_test() -> None:
    assert tfds_order("test", range(10000))[:5].tolist() == [9933, 5669, 163, 6686, 4747]


@settings(deadline=None)
@given(split=st.sampled_from(["train", "validation", "test"]), key=st.text(max_size=30) | st.integers(0, 10**9))
def test_hash_is_that_of_tfds(split: str, key: str | int) -> None:
    assert int.from_bytes(tfds_hash(split, key), "big") == hashing.Hasher(split).hash_key(key)


def test_equal_keys_and_no_keys() -> None:
    with pytest.raises(ValueError, match="same key"):
        tfds_order("train", ["a", 1, "b", "1"])
    assert tfds_order("train", []).tolist() == []


def test_sprite_latents() -> None:
    index = np.arange(737280)
    latents = sprite_latents(index)
    names = ("shape", "scale", "orientation", "x", "y")
    for name, values in zip(names, np.unravel_index(index, (3, 6, 40, 32, 32)), strict=True):
        assert (latents[name] == values).all()


LITE_LOCATION = [65, 53, 55, 61, 65, 64, 67, 64, 70, 58, 59, 71, 63, 61, 69, 55]
LITE_ORIENTATION = [80, 54, 79, 65, 66, 52, 65, 51, 78, 49, 68, 52, 70, 46, 74, 51]
OFFICIAL_LOCATION = [68, 53, 57, 54, 60, 62, 62, 63, 69, 65, 63, 68, 66, 60, 69, 61]
OFFICIAL_ORIENTATION = [74, 56, 75, 58, 68, 55, 73, 51, 79, 48, 75, 50, 67, 40, 78, 53]


def test_classes_of_the_sprites_in_the_support_sets() -> None:
    train = order("train", "{}", 737280)
    lite, official = train[:1000], np.concatenate([train[:800], train[589824:590024]])
    for support, location, orientation in (
        (lite, LITE_LOCATION, LITE_ORIENTATION),
        (official, OFFICIAL_LOCATION, OFFICIAL_ORIENTATION),
    ):
        latents = sprite_latents(support)
        found = [labels.horizontal_position(x) for x in latents["x"][:, None]]
        assert np.bincount(found, minlength=16).tolist() == location
        found = [labels.orientation(x) for x in latents["orientation"][:, None]]
        assert np.bincount(found, minlength=16).tolist() == orientation


def test_classes_of_sun397_in_the_support_sets() -> None:
    """309 of 397 classes in train[:800], as google-research/task_adaptation #21 found too."""
    folder = Path(tfds.core.tfds_path("image_classification"))
    lists = {
        split: (folder / f"sun397_tfds_{name}.txt").read_text().split()
        for split, name in (("train", "tr"), ("validation", "va"), ("test", "te"))
    }
    assert {split: len(keys) for split, keys in lists.items()} == {"train": 76128, "validation": 10875, "test": 21750}
    classes = {
        split: [lists[split][n].rpartition("/")[0] for n in tfds_order(split, lists[split])]
        for split in ("train", "validation")
    }
    first, second = set(classes["train"][:800]), set(classes["validation"][:200])
    counts = [len(first), len(second), len(first | second), len(set(classes["train"][:1000]))]
    assert counts == [309, 136, 325, 338]
