"""Quick, Draw!: files of bitmaps in the published form, made up, and every way they can be wrong."""

from __future__ import annotations

import io
import pickle
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lite_bench.datasets.conversion.quickdraw import Quickdraw, images
from lite_bench.datasets.meta_dataset.catalogue import published
from lite_bench.harness.errors import DataError

CLASSES = {"zigzag": 3, "The Eiffel Tower": 4, "ant": 2, "animal migration": 5}


def rows(name: str) -> np.ndarray:
    """Draw white blots on black."""
    rng = np.random.default_rng(len(name))
    drawings = (rng.random((CLASSES[name], 7, 7)) < 0.3).repeat(4, 1).repeat(4, 2)
    return (drawings * rng.integers(128, 256, drawings.shape)).astype(np.uint8).reshape(-1, 784)


def write(folder: Path, prefix: str = "", names: Iterable[str] = CLASSES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        np.save(folder / f"{prefix}{name}.npy", rows(name))
    return folder


def as_jpeg(row: np.ndarray) -> bytes:
    """Encode a bitmap another way: three equal channels."""
    buffer = io.BytesIO()
    Image.fromarray(np.stack([row.reshape(28, 28)] * 3, axis=-1)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("subfolder", "prefix"),
    [("", ""), ("", "full_numpy_bitmap_"), ("numpy_bitmap", ""), ("quickdraw", ""), ("full/numpy_bitmap", "")],
)
def test_plan(tmp_path: Path, subfolder: str, prefix: str) -> None:
    write(tmp_path / subfolder, prefix)
    conversion = Quickdraw(check_published=False).plan(tmp_path)
    specification = conversion.specification
    known = published("quickdraw").class_names
    assert specification.class_names == tuple(sorted(CLASSES, key=known.index))
    assert specification.images == tuple(CLASSES[name] for name in specification.class_names)
    for class_id, (plan, name) in enumerate(zip(conversion.classes, specification.class_names, strict=True)):
        assert (plan.class_id, plan.count) == (class_id, CLASSES[name])
        again = pickle.loads(pickle.dumps(plan.images))
        assert list(plan.images()) == list(again()) == [as_jpeg(row) for row in rows(name)]


def test_pixels(tmp_path: Path) -> None:
    write(tmp_path)
    for data, row in zip(images(tmp_path / "ant.npy"), rows("ant"), strict=True):
        image = Image.open(io.BytesIO(data))
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (28, 28))
        pixels = np.asarray(image).astype(float)
        assert np.abs(pixels - row.reshape(28, 28, 1)).mean() < 20
        assert np.corrcoef(pixels.mean(-1).ravel(), row)[0, 1] > 0.95


def test_rows_are_not_held(tmp_path: Path) -> None:
    path = tmp_path / "ant.npy"
    np.save(path, np.zeros((20_000, 784), np.uint8))
    encoded = images(path)
    next(encoded)
    tracemalloc.start()
    for _ in range(500):
        next(encoded)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1 << 20


def test_published_classes_and_counts(tmp_path: Path) -> None:
    """Files of the published sizes, which occupy nothing because they are all holes."""
    known = published("quickdraw")
    for name, count in zip(known.class_names, known.images, strict=True):
        with (tmp_path / f"{name}.npy").open("wb") as stream:
            header = {"descr": "|u1", "fortran_order": False, "shape": (count, 784)}
            np.lib.format.write_array_header_1_0(stream, header)
            stream.truncate(stream.tell() + count * 784)
    conversion = Quickdraw().plan(tmp_path)
    assert conversion.specification == known
    assert sum(plan.count for plan in conversion.classes) == 50_426_266
    (tmp_path / "ant.npy").unlink()
    with pytest.raises(DataError, match=r"not the published quickdraw: class 'ant' has 0 images, not 124612; download"):
        Quickdraw().plan(tmp_path)


def test_differing_from_the_published(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(DataError, match=r"not the published quickdraw: class .* has 0 images, .* and 342 more"):
        Quickdraw().plan(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"quickdraw needs \*\.npy or numpy_bitmap/\*\.npy .*gsutil -m cp"):
        Quickdraw().plan(tmp_path)


def test_foreign_class(tmp_path: Path) -> None:
    write(tmp_path)
    np.save(tmp_path / "labels.npy", np.zeros((3, 784), np.uint8))
    with pytest.raises(DataError, match=r"holds images of labels, which quickdraw does not have; remove"):
        Quickdraw(check_published=False).plan(tmp_path)


def test_class_twice(tmp_path: Path) -> None:
    write(write(tmp_path), "full_numpy_bitmap_", ["ant"])
    with pytest.raises(DataError, match=r"Both .*ant\.npy and .*ant\.npy hold the class 'ant'; remove one"):
        Quickdraw(check_published=False).plan(tmp_path)


@pytest.mark.parametrize(
    ("array", "form"),
    [
        (np.zeros((3, 784), np.float32), r"float32 \[3, 784\]"),
        (np.zeros((3, 28, 28), np.uint8), r"uint8 \[3, 28, 28\]"),
        (np.zeros(784, np.uint8), r"uint8 \[784\]"),
    ],
)
def test_other_arrays(tmp_path: Path, array: np.ndarray, form: str) -> None:
    np.save(tmp_path / "ant.npy", array)
    with pytest.raises(DataError, match=rf"ant\.npy are {form} and not uint8 \[n, 784\]; download the file again"):
        Quickdraw(check_published=False).plan(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 60, 500])
def test_truncated_file(tmp_path: Path, kept: int) -> None:
    path = write(tmp_path, names=["ant"]) / "ant.npy"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"The bitmaps .*ant\.npy cannot be read \(.*\); download the file again"):
        Quickdraw(check_published=False).plan(tmp_path)


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "ant.npy"
    np.save(path, np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(DataError, match=r"ant\.npy cannot be read"):
        Quickdraw(check_published=False).plan(tmp_path)
    with path.open("wb") as stream:
        np.savez(stream, np.zeros((3, 784), np.uint8))
    with pytest.raises(DataError, match=r"ant\.npy are an archive of arrays and not uint8"):
        Quickdraw(check_published=False).plan(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=r"ant\.npy cannot be read"):
        Quickdraw(check_published=False).plan(tmp_path)
