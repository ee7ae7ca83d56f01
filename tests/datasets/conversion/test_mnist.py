"""MNIST: LITE's numbering, size and filter, the IDX files, and the check against the published counts."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lite_bench.datasets.conversion.engine import convert
from lite_bench.datasets.conversion.mnist import IMAGES, LABELS, MNIST
from lite_bench.datasets.meta_dataset.catalogue import published
from lite_bench.datasets.meta_dataset.specification_files import read_specification
from lite_bench.harness.errors import DataError
from tests.datasets.conversion.test_engine import records

COUNTS = (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)


def idx(array: np.ndarray) -> bytes:
    """Write unsigned bytes in MNIST's format."""
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def originals(counts: tuple[int, ...], side: int = 28) -> dict[str, bytes]:
    """Make digits that are told apart by two pixels, in a mixed order."""
    generator = np.random.default_rng(0)
    labels = generator.permutation(np.repeat(np.arange(len(counts)), counts))
    digits = generator.integers(0, 256, (len(labels), 4, 4)).repeat(side // 4, 1).repeat(side // 4, 2)
    return {IMAGES: idx(digits), LABELS: idx(labels)}


def write(folder: Path, files: dict[str, bytes], layout: str) -> None:
    for name, data in files.items():
        path = folder / {"torchvision": f"MNIST/raw/{name}", "dots": name.replace("-idx", ".idx")}.get(layout, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if layout == "packed":
            path.with_name(f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            path.write_bytes(data)


@pytest.mark.parametrize("layout", ["packed", "plain", "dots", "torchvision"])
def test_conversion(tmp_path: Path, layout: str) -> None:
    files = originals((12, 0, 3, 105))
    write(tmp_path / "from", files, layout)
    convert(MNIST(check_published=False), tmp_path / "from", tmp_path / "mnist")
    specification = read_specification(tmp_path / "mnist")
    assert specification.class_names == ("class_0", "class_2", "class_3")
    assert specification.images == (12, 3, 105)
    for class_id, label in enumerate((0, 2, 3)):
        expected = by_way_of_files(files, label, tmp_path / f"class_{label}")
        assert records(tmp_path / "mnist", class_id) == [(image, class_id) for image in expected]


def by_way_of_files(files: dict[str, bytes], label: int, folder: Path) -> list[bytes]:
    """Do it as LITE's instructions do: write a folder of numbered PNG files, then convert the folder by name."""
    folder.mkdir()
    labels = np.frombuffer(files[LABELS][8:], np.uint8)
    digits = np.frombuffer(files[IMAGES][16:], np.uint8).reshape(-1, 28, 28)
    for number, digit in enumerate(digits[labels == label]):
        image = Image.fromarray(np.stack([digit] * 3, axis=-1)).resize((84, 84), Image.Resampling.LANCZOS)
        image.save(folder / f"image_{number}.png")
    jpegs = []
    for path in sorted(folder.iterdir()):
        buffer = io.BytesIO()
        with Image.open(path) as image:
            image.save(buffer, "JPEG")
        jpegs.append(buffer.getvalue())
    return jpegs


def test_the_published_originals_are_accepted(tmp_path: Path) -> None:
    write(tmp_path, originals(COUNTS), "packed")
    specification = MNIST().plan(tmp_path).specification
    assert specification == published("mnist")
    assert specification.splits["train"] == range(10)
    assert specification.images == COUNTS


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((979, *COUNTS[1:]), r"is not the published mnist: class 'class_0' has 979 images, not 980; download"),
        ((*COUNTS, 1), "holds images of class_10, which mnist does not have"),
    ],
)
def test_other_originals_are_refused_before_any_work(tmp_path: Path, counts: tuple[int, ...], message: str) -> None:
    write(tmp_path, originals(counts), "packed")
    with pytest.raises(DataError, match=f"^{tmp_path} {message}"):
        MNIST().plan(tmp_path)


@pytest.mark.parametrize("name", [IMAGES, LABELS])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"<html>moved</html>", "is not an IDX file of bytes in [13] dimensions; download it again"),
        (lambda data: b"", "is not an IDX file of bytes"),
        (lambda data: data[:-1], r"has \d+ bytes of content, not \(.*\); download it again"),
        (lambda data: data + b"\0", r"has \d+ bytes of content, not"),
        (lambda data: gzip.compress(data)[:-9], r"cannot be read \(.+\); download it again"),
        (lambda data: gzip.compress(data)[:-8] + bytes(8), r"cannot be read \(CRC check failed.*\); download it"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, change: object, message: str) -> None:
    files = originals((3, 2))
    assert callable(change)
    write(tmp_path, files | {name: change(files[name])}, "plain")
    with pytest.raises(DataError, match=f"^{tmp_path}/{name} {message}"):
        MNIST(check_published=False).plan(tmp_path)


def test_images_and_labels_must_correspond(tmp_path: Path) -> None:
    files = originals((3, 2)) | {LABELS: idx(np.zeros(4))}
    write(tmp_path, files, "plain")
    with pytest.raises(DataError, match=rf"^{tmp_path}/{IMAGES} has 5 images but .*/{LABELS} 4 labels; get both again"):
        MNIST(check_published=False).plan(tmp_path)


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    write(tmp_path, originals((3, 2), side=32), "plain")
    with pytest.raises(DataError, match=f"^{tmp_path}/{IMAGES} has images of 32 x 32 pixels, not 28 x 28; download"):
        MNIST(check_published=False).plan(tmp_path)
