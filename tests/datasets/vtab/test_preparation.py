"""Preparing data: what TFDS is asked for, and SUN397's archive into class folders."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import sys
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from lite_bench.datasets.vtab import preparation, sun397
from lite_bench.datasets.vtab.preparation import prepare, prepare_sun397_folder, sun397_classes
from lite_bench.datasets.vtab.prepared import PreparedDataset
from lite_bench.datasets.vtab.standin import write_standin
from lite_bench.datasets.vtab.sun397 import Sun397Folder, find_folder
from lite_bench.datasets.vtab.tasks import dataset_named
from lite_bench.harness.errors import DataError, UnknownNameError


def test_without_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"Preparing eurosat/rgb needs TensorFlow .*lite-bench\[tfds-prepare\]"):
        prepare("eurosat/rgb", manual=None, output=tmp_path)
    with pytest.raises(UnknownNameError, match="eurosat"):
        prepare("eurosats/rgb", manual=None, output=tmp_path)


class Recorder(ModuleType):
    """Stands in for TFDS and TensorFlow, which the tests' environment need not have."""

    def __init__(self, fail: bool) -> None:
        super().__init__("tensorflow_datasets")
        self.fail, self.calls = fail, list[tuple[str, dict[str, Any]]]()
        self.download = self

    def DownloadConfig(self, **options: Any) -> dict[str, Any]:  # noqa: N802  # the name of TFDS
        return options

    def builder(self, name: str, **options: Any) -> Recorder:
        self.calls.append((name, options))
        return self

    def download_and_prepare(self, **options: Any) -> None:
        self.calls.append(("prepare", options))
        if self.fail:
            raise AssertionError("Manual directory\n does not exist")


@pytest.mark.parametrize("fail", [False, True])
def test_what_tfds_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: bool) -> None:
    recorder = Recorder(fail)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", recorder)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    if fail:
        with pytest.raises(DataError, match=r"not prepare resisc45 in .* \(Manual directory does not exist\); "):
            prepare("resisc45", manual=tmp_path / "manual", output=tmp_path)
    else:
        prepare("resisc45", manual=tmp_path / "manual", output=tmp_path)
    assert recorder.calls == [
        ("resisc45", {"data_dir": tmp_path, "file_format": "array_record"}),
        ("prepare", {"download_config": {"manual_dir": str(tmp_path / "manual")}}),
    ]


def test_classes() -> None:
    classes = sun397_classes()
    assert len(classes) == len(set(classes)) == 397
    assert classes[:2] == ("abbey", "airplane_cabin")
    assert "apse_indoor" in classes
    assert not any("/" in name for name in classes)


def archive_names() -> list[str]:
    """Name the images of a small archive, two of each class."""
    import tensorflow_datasets as tfds

    lines = Path(tfds.core.tfds_path("image_classification/sun397_labels.txt")).read_text().split()
    return [f"SUN397{line}/sun_{letter}.jpg" for line in lines for letter in "ab"]


@pytest.fixture(params=["archive", "folder", "inner folder"])
def original(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SUN397 in its original layout, with other files that are no images of it."""
    monkeypatch.setattr(preparation, "N_IMAGES", 794)
    others = ["SUN397/ClassName.txt", "SUN397/README.txt", "SUN397/a/abbey/notes.txt", "SUN397/x/other/sun_a.jpg"]
    path = tmp_path / "SUN397.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name in (*archive_names(), *others):
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    if request.param == "archive":
        return path
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    return tmp_path / "unpacked" / ("SUN397" if request.param == "inner folder" else "")


def test_flattening(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "data" / "sun397"
    # What an interrupted call has left: some images, one of which has another content to show that it is kept.
    (output / "abbey").mkdir(parents=True)
    (output / "abbey" / "sun_a.jpg").write_text("kept")
    assert prepare_sun397_folder(original, output) == 794
    assert sorted(path.name for path in output.iterdir()) == sorted(sun397_classes())
    assert (output / "abbey" / "sun_a.jpg").read_text() == "kept"
    assert (output / "apse_indoor" / "sun_b.jpg").read_text() == "SUN397/a/apse/indoor/sun_b.jpg"
    assert len(list(output.rglob("*"))) == 397 * 3
    monkeypatch.setattr(sun397, "N_IMAGES", 794)
    assert Sun397Folder(find_folder(tmp_path / "data"), np.random.default_rng(0)).sizes["test"] == 794 - 556 - 79


def test_what_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no .*SUN397\.tar\.gz"):
        prepare_sun397_folder(tmp_path / "SUN397.tar.gz", tmp_path / "out")
    (tmp_path / "junk.tar.gz").write_bytes(b"junk" * 1000)
    with pytest.raises(DataError, match=r"junk\.tar\.gz cannot be read .*download SUN397\.tar\.gz again"):
        prepare_sun397_folder(tmp_path / "junk.tar.gz", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds 0 images of SUN397's classes and should hold 108754"):
        prepare_sun397_folder(tmp_path / "empty", tmp_path / "out")


def test_a_truncated_archive(tmp_path: Path) -> None:
    names = archive_names()
    with tarfile.open(tmp_path / "SUN397.tar.gz", "w:gz") as archive:
        for name in names:
            content = np.random.default_rng(len(name)).bytes(500)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    whole = (tmp_path / "SUN397.tar.gz").read_bytes()
    (tmp_path / "SUN397.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"SUN397\.tar\.gz (cannot be read|holds)"):
        prepare_sun397_folder(tmp_path / "SUN397.tar.gz", tmp_path / "out")


def test_what_is_there_already(tmp_path: Path) -> None:
    write_standin(tmp_path, datasets=["smallnorb"])
    folder = tmp_path / "smallnorb" / "2.0.0"
    with pytest.raises(DataError, match=r"2\.0\.0 is a stand-in; delete it, or prepare smallnorb in another folder"):
        prepare("smallnorb", manual=None, output=tmp_path)
    PreparedDataset(folder).file_paths()[0].unlink()
    with pytest.raises(DataError, match=r"files are missing.* Delete .*2\.0\.0 first"):
        prepare("smallnorb", manual=None, output=tmp_path)
    (folder / "synthetic.json").unlink()
    with pytest.raises(DataError, match=r"has 1200 examples in 'train'.* Delete .*2\.0\.0 first"):
        prepare("smallnorb", manual=None, output=tmp_path)


def test_a_whole_copy_needs_no_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_standin(tmp_path, datasets=["smallnorb"])
    (tmp_path / "smallnorb" / "2.0.0" / "synthetic.json").unlink()
    small = dataclasses.replace(dataset_named("smallnorb"), splits={"train": (1200,), "test": (500,)})
    monkeypatch.setattr(preparation, "dataset_named", lambda _: small)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    prepare("smallnorb", manual=None, output=tmp_path)
