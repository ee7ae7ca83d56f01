"""The stand-ins: TFDS reads them, they fit both profiles, are marked, can be learned, and never replace real data."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lite_bench.datasets.vtab.order import tfds_hash, tfds_order
from lite_bench.datasets.vtab.prepared import PreparedDataset
from lite_bench.datasets.vtab.source import VtabSource
from lite_bench.datasets.vtab.standin import standin_datasets, write_standin
from lite_bench.datasets.vtab.tasks import PROFILES, VtabTask, cut, task_named, tasks
from lite_bench.harness.errors import UnknownNameError, UsageError
from tests.datasets.vtab.conftest import WRITTEN


def contents(root: Path) -> dict[str, bytes]:
    """Read all files but those in which TFDS notes the date or an address."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != "dataset_info.json"
    }


def test_the_table_has_room_for_every_slice() -> None:
    rows = {(row.name, row.config): row for row in standin_datasets()}
    for task in tasks():
        for profile in PROFILES:
            selection = task.selections[profile]
            if selection.folder:
                continue
            sizes = rows[task.dataset.name, selection.config].splits
            parts = [part for text in (selection.support, selection.test) for part in cut(text, sizes)]
            members = [(part.split, position) for part in parts for position in part.positions]
            assert len(members) == len(set(members)) >= 1200
    assert {row.name for row in rows.values()} == {task.dataset.name for task in tasks()}


@pytest.mark.parametrize("name", ["oxford_flowers102", "sun397", "clevr", "kitti"])
def test_examples_are_in_tfds_order(name: str, standin: Path) -> None:
    (info,) = (standin / name).rglob("dataset_info.json")
    dataset = PreparedDataset(info.parent)
    feature = "image/file_name" if name == "kitti" else "file_name"
    for split, size in dataset.sizes.items():
        keys = [bytes(dataset.example(split, n, [feature])[feature]).decode() for n in range(size)]
        hashes = [tfds_hash(split, key) for key in keys]
        assert hashes == sorted(hashes)


@pytest.mark.parametrize(("split", "size"), [("train", 1200), ("test", 500)])
def test_tfds_own_writer_makes_the_same_files(split: str, size: int, standin: Path, tmp_path: Path) -> None:
    """Its shuffler hashes the keys, chooses the order and writes the shards; only their number is ours."""
    from tensorflow_datasets.core import shuffle

    features = ("image", "label_azimuth")
    ours = PreparedDataset(standin / "smallnorb" / "2.0.0")
    start = 0 if split == "train" else 1200
    keys = [str(number) for number in range(start, start + size)]
    shuffler = shuffle.Shuffler(dirpath=tmp_path, hash_salt=split, disable_shuffling=False)
    order = tfds_order(split, keys)
    for position in np.random.default_rng(0).permutation(size):
        example = ours.example(split, int(position), features)
        shuffler.add(keys[order[position]], bytes(example["image"]))
    written = [data for _, data in shuffler]
    assert written == [ours.example(split, position, features)["image"] for position in range(size)]


def test_tfds_decodes_every_feature(standin: Path) -> None:
    import tensorflow_datasets as tfds

    for name in WRITTEN:
        if name == "sun397-folder":
            continue
        (info,) = (standin / name).rglob("dataset_info.json")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            builder: Any = tfds.builder_from_directory(str(info.parent))
            for split in builder.info.splits:
                example = builder.as_data_source(split)[0]
                assert set(example) == set(builder.info.features)


def test_marked_and_reproducible(tmp_path: Path) -> None:
    for seed, folder in enumerate("ab"):
        write_standin(tmp_path / folder, seed=seed, datasets=["dsprites"])
    first, other = (contents(tmp_path / folder) for folder in "ab")
    assert first.keys() == other.keys()
    assert first != other
    marker = json.loads(first["dsprites/2.0.0/synthetic.json"])
    assert (marker["synthetic"], marker["seed"]) == (True, 0)
    assert PreparedDataset(tmp_path / "a/dsprites/2.0.0").synthetic
    write_standin(tmp_path / "b", seed=0, datasets=["dsprites"])
    assert contents(tmp_path / "b") == first


def test_real_data_is_never_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "dsprites" / "2.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("real")
    with pytest.raises(UsageError, match=r"dsprites/2\.0\.0 holds data that is no stand-in"):
        write_standin(tmp_path, datasets=["dsprites"])
    assert (folder / "dataset_info.json").read_text() == "real"
    folder.rename(folder.with_name("1.0.0"))
    with pytest.raises(UsageError, match=r"dsprites/1\.0\.0 holds data that is no stand-in"):
        write_standin(tmp_path, datasets=["dsprites"])
    (tmp_path / "sun397" / "abbey").mkdir(parents=True)
    with pytest.raises(UsageError, match="sun397 holds data that is no stand-in"):
        write_standin(tmp_path, datasets=["sun397-folder"])
    with pytest.raises(UnknownNameError, match="cifar100"):
        write_standin(tmp_path, datasets=["cifar10"])


def features(images: Tensor) -> Tensor:
    return torch.nn.functional.adaptive_avg_pool2d(images.float(), 6).flatten(1)


def accuracy(source: VtabSource) -> float:
    """Classify by the nearest class mean of small pictures."""
    images, labels = source.support()
    x, y = features(images), source.positions(labels)
    means = torch.stack([x[y == label].mean(0) for label in range(source.way)])
    right = [
        torch.cdist(features(images), means).argmin(1) == source.positions(labels)
        for images, labels in source.test_batches(200)
    ]
    return float(torch.cat(right).float().mean())


@pytest.mark.parametrize("name", ["oxford_flowers102", "dsprites_location", "smallnorb_elevation"])
def test_pixels_tell_the_class(name: str, standin: Path) -> None:
    source = VtabSource(task_named(name), "lite", 24, standin)
    assert accuracy(source) > 2 / source.way


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("all")
    write_standin(root)
    return root


@pytest.mark.slow
def test_size_of_everything(everything: Path) -> None:
    files = [path for path in everything.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 100e6


@pytest.mark.slow
@pytest.mark.parametrize("task", tasks(), ids=lambda task: task.name)
def test_every_task_of_both_profiles(task: VtabTask, everything: Path) -> None:
    for profile in PROFILES:
        source = VtabSource(task, profile, 24, everything, np.random.default_rng(0))
        assert source.examples.synthetic
        assert source.way == task.classes
        images, labels = source.support()
        assert len(images) == 1000
        tested = [(len(images), source.positions(labels)) for images, labels in source.test_batches(100)]
        assert sum(n for n, _ in tested) == source.n_test >= 200
        assert all((positions >= 0).all() for _, positions in tested)
        assert set(labels.tolist()) == set(range(task.classes))
