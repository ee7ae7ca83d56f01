"""Episodes of VTAB tasks on stand-ins: what is in them, in which order, and what is refused."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lite_bench.datasets.vtab import source
from lite_bench.datasets.vtab.labels import label_rule
from lite_bench.datasets.vtab.pixels import resize_rule
from lite_bench.datasets.vtab.prepared import MARKER, PreparedDataset
from lite_bench.datasets.vtab.shards import write_shard
from lite_bench.datasets.vtab.source import VtabSource
from lite_bench.datasets.vtab.tasks import PROFILES, Profile, task_named
from lite_bench.harness.errors import DataError, UsageError

SIZE = 12
NAMES = ["oxford_flowers102", "clevr_distance", "dsprites_orientation", "smallnorb_azimuth", "kitti"]
# The examples of the stand-ins that support and test set are made of, written out.
Pieces = list[tuple[str, range]]
SLICES: dict[tuple[str, Profile], tuple[Pieces, Pieces]] = {
    ("oxford_flowers102", "lite"): ([("train", range(1000))], [("test", range(300))]),
    ("oxford_flowers102", "official"): ([("train", range(800)), ("validation", range(200))], [("test", range(300))]),
    ("clevr", "lite"): ([("train", range(1000))], [("validation", range(300))]),
    ("clevr", "official"): ([("train", range(800)), ("train", range(1800, 2000))], [("validation", range(300))]),
    ("dsprites", "lite"): ([("train", range(1000))], [("train", range(1000, 2000))]),
    ("dsprites", "official"): ([("train", range(800)), ("train", range(1600, 1800))], [("train", range(1800, 2000))]),
    ("smallnorb", "lite"): ([("train", range(1000))], [("test", range(500))]),
    ("smallnorb", "official"): ([("train", range(800)), ("test", range(200))], [("test", range(250, 500))]),
    ("kitti", "lite"): ([("train", range(1000))], [("test", range(300))]),
    ("kitti", "official"): ([("train", range(800)), ("validation", range(200))], [("test", range(300))]),
}


def open_source(name: str, profile: Profile, root: Path) -> VtabSource:
    return VtabSource(task_named(name), profile, SIZE, root, np.random.default_rng(0))


def gather(batches: source.TestBatches) -> tuple[Tensor, Tensor]:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", NAMES)
def test_episode(name: str, profile: Profile, standin: Path) -> None:
    task = task_named(name)
    found = open_source(name, profile, standin)
    expected_support, expected_test = SLICES[task.dataset.name, profile]
    support, support_labels = found.support()
    test, test_labels = gather(found.test_batches(64))
    assert len(support) == 1000
    assert len(test) == found.n_test == sum(len(positions) for _, positions in expected_test)
    assert found.way == len(set(support_labels.tolist())) == task.classes
    dtype = torch.uint8 if profile == "lite" else torch.float32
    assert support.dtype == test.dtype == dtype
    assert support.shape[1:] == test.shape[1:] == (3, SIZE, SIZE)
    # The first, the last and some others against the parts put together by hand.
    prepared = PreparedDataset(found.examples.folder)
    rule, resize = label_rule(task.label), resize_rule(task.selections[profile].resize)
    for images, labels, pieces in ((support, support_labels, expected_support), (test, test_labels, expected_test)):
        wheres = [(split, position) for split, positions in pieces for position in positions]
        assert len(images) == len(wheres)
        for number in (0, 1, 63, 64, 199, len(wheres) - 200, len(wheres) - 1):
            example = prepared.example(*wheres[number], ["image", *rule.features])
            assert labels[number] == rule.function(*(example[feature] for feature in rule.features))
            image = example["image"]
            assert isinstance(image, bytes)
            assert (images[number].numpy() == resize(image, SIZE)).all()


def test_sun397_of_both_profiles(standin: Path) -> None:
    lite, official = (open_source("sun397", profile, standin) for profile in PROFILES)
    assert lite.examples.synthetic
    assert official.examples.synthetic
    assert (lite.way, official.way) == (397, 397)
    assert (lite.n_test, official.n_test) == (635, 400)
    images, labels = lite.support()
    assert images.shape == (1000, 3, SIZE, SIZE)
    again = open_source("sun397", "lite", standin).support()
    assert torch.equal(images, again[0])
    assert torch.equal(labels, again[1])
    with pytest.raises(UsageError, match=r"sun397 .lite. is drawn at random: give a generator"):
        VtabSource(task_named("sun397"), "lite", SIZE, standin)
    assert VtabSource(task_named("sun397"), "official", SIZE, standin).n_test == 400


def test_batches_can_be_gone_through_again_and_left(standin: Path) -> None:
    found = open_source("kitti", "lite", standin)
    batches = found.test_batches(128)
    assert len(batches) == 3
    assert [len(labels) for _, labels in batches] == [128, 128, 44]
    first, second = gather(batches), gather(found.test_batches(7))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    iterator = iter(batches)
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]  # it is a generator
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lite-bench-vtab")]
    with pytest.raises(UsageError, match="at least 1 image, not 0"):
        found.test_batches(0)


def test_only_a_few_batches_are_decoded_ahead(standin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = open_source("kitti", "lite", standin)
    made = 0
    load = found.load

    def counted(wheres: list[source.Where]) -> tuple[Tensor, Tensor]:
        nonlocal made
        made += 1
        return load(wheres)

    monkeypatch.setattr(found, "load", counted)
    for number, _ in enumerate(found.test_batches(10)):
        assert made <= number + 1 + source.BATCHES_AHEAD
    assert made == 30


def test_classes_are_known_before_and_after_the_support_set_is_read(standin: Path) -> None:
    before, after = (open_source("smallnorb_azimuth", "lite", standin) for _ in range(2))
    after.support()
    assert before.classes.tolist() == after.classes.tolist() == list(range(18))


def test_positions_of_labels(standin: Path) -> None:
    found = open_source("kitti", "lite", standin)
    found._classes = np.array([2, 5, 9])
    assert found.way == 3
    labels = torch.tensor([9, 2, 5, 0, 3, 10, 396])
    assert found.positions(labels).tolist() == [2, 0, 1, -1, -1, -1, -1]
    assert found.positions(labels[:0]).tolist() == []


@pytest.fixture
def copy(standin: Path, tmp_path: Path) -> Path:
    """A copy of one stand-in's folder that a test may change."""
    return Path(shutil.copytree(standin / "kitti" / "3.3.0", tmp_path / "root" / "kitti" / "3.3.0"))


def open_copy(copy: Path, name: str = "kitti", profile: Profile = "official") -> VtabSource:
    return open_source(name, profile, copy.parents[1])


def test_sizes_are_checked_unless_it_is_a_stand_in(copy: Path) -> None:
    assert open_copy(copy).examples.synthetic
    (copy / MARKER).unlink()
    with pytest.raises(DataError, match=r"has 1200 examples in 'train', and kitti has 6347; delete its folder"):
        open_copy(copy)


def change_lengths(copy: Path, split: str, lengths: list[int]) -> None:
    info = json.loads((copy / "dataset_info.json").read_text())
    for entry in info["splits"]:
        if entry["name"] == split:
            entry["shardLengths"] = [str(length) for length in lengths]
    (copy / "dataset_info.json").write_text(json.dumps(info))


def test_real_sizes_pass(copy: Path) -> None:
    for split, size in {"train": 6347, "validation": 423, "test": 711}.items():
        change_lengths(copy, split, [size])
        (copy / f"kitti-{split}.array_record-00000-of-00001").touch()
    (copy / MARKER).unlink()
    found = open_copy(copy)
    assert found.n_test == 711
    assert not found.examples.synthetic


def test_too_small_or_incomplete(copy: Path) -> None:
    change_lengths(copy, "validation", [100])
    with pytest.raises(DataError, match=r"gives 900 support and 300 test images; 1000 and"):
        open_copy(copy)
    next(copy.glob("kitti-test*")).unlink()
    with pytest.raises(DataError, match="is incomplete: 1 of 4 files are missing"):
        open_copy(copy)


def test_nowhere_and_another_version(copy: Path) -> None:
    with pytest.raises(DataError, match=r"cifar100 was not found in .*data prepare cifar100"):
        open_copy(copy, "cifar100")
    copy.rename(copy.with_name("2.0.0"))
    with pytest.raises(DataError, match=r"2\.0\.0 was found, and the version must be 3\.1\.0 or 3\.2\.0 or 3\.3\.0"):
        open_copy(copy)


def rewrite_test(copy: Path, **changes: Any) -> VtabSource:
    """Change features of the test image 70."""
    from lite_bench.datasets.tfrecords.examples import encode_example

    dataset = PreparedDataset(copy)
    features = ["image", "objects/type", "objects/location"]
    examples = [dict(dataset.example("test", n, features)) for n in range(300)]
    examples[70].update(changes)
    write_shard(dataset.file_paths(["test"])[0], "array_record", [encode_example(example) for example in examples])
    return open_copy(copy)


def test_an_image_that_does_not_decode(copy: Path) -> None:
    png = PreparedDataset(copy).example("test", 70, ["image"])["image"]
    found = rewrite_test(copy, image=bytes(png[: len(png) // 2]))
    iterator = iter(found.test_batches(50))
    next(iterator)
    with pytest.raises(
        DataError, match=r"image of kitti at position 70 of 'test' in .*3\.3\.0 does not decode \("
    ) as caught:
        next(iterator)
    assert str(caught.value).endswith("; copy the dataset again, or delete its folder and prepare it.")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lite-bench-vtab")]


def test_labels_that_are_none(copy: Path) -> None:
    found = rewrite_test(copy, **{"objects/location": np.zeros(4, np.float32)})
    with pytest.raises(DataError, match=r"Example 70 of kitti, split 'test', .* no usable objects/type and obj"):
        gather(found.test_batches(100))
    found = rewrite_test(copy, **{"objects/location": np.array([0, 0, -200], np.float32), "objects/type": [0]})
    with pytest.raises(DataError, match=r"position 70 of 'test' in .* has the label -1, outside 0\.\.3"):
        gather(found.test_batches(100))
