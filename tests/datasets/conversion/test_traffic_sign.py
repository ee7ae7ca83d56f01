"""GTSRB: order, ids and pixels from the zip or its folder, and the check against the published counts."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lite_bench.datasets.conversion.engine import convert
from lite_bench.datasets.conversion.traffic_sign import TrafficSign
from lite_bench.datasets.meta_dataset.catalogue import published
from lite_bench.datasets.meta_dataset.specification_files import read_specification
from lite_bench.harness.errors import DataError
from tests.datasets.conversion.test_engine import records
from tests.datasets.conversion.test_jpeg import file_of, picture
from tests.datasets.conversion.test_originals import pack

ARCHIVE = "GTSRB_Final_Training_Images.zip"
COUNTS = {0: 7, 2: 33, 42: 4}


def file_names(class_id: int, count: int, root: str = "GTSRB/Final_Training") -> list[str]:
    """Name the images of a class: tracks of 30 frames."""
    folder = f"{root}/Images/{class_id:05d}"
    return [f"{folder}/{n // 30:05d}_{n % 30:05d}.ppm" for n in range(count)]


def small_originals(root: str) -> dict[str, bytes]:
    files = {"GTSRB/Readme-Images.txt": b"", "GTSRB/Final_Test/Images/00000.ppm": b""} if root[0] == "G" else {}
    for class_id, count in COUNTS.items():
        files[f"{root}/Images/{class_id:05d}/GT-{class_id:05d}.csv"] = b"Filename;Width;Height\n"
        for n, name in enumerate(file_names(class_id, count, root)):
            files[name] = file_of(picture(size=(20 + n, 25), seed=1000 * class_id + n), "PPM")
    return files


@pytest.mark.parametrize(
    ("kind", "root"),
    [("zip", "GTSRB/Final_Training"), ("folder", "GTSRB/Final_Training"), ("folder", "Final_Training")],
)
def test_conversion(tmp_path: Path, kind: str, root: str) -> None:
    pack(small_originals(root), kind, tmp_path / "from", ARCHIVE)
    convert(TrafficSign(check_published=False), tmp_path / "from", tmp_path / "traffic_sign")
    specification = read_specification(tmp_path / "traffic_sign")
    assert [name[:2] for name in specification.class_names] == ["00", "02", "42"]
    assert specification.splits == {"train": range(0), "validation": range(0), "test": range(3)}
    for class_id, (sign, count) in enumerate(COUNTS.items()):
        order = list(range(count))
        np.random.RandomState(23).shuffle(order)
        pictures = [picture(size=(20 + n, 25), seed=1000 * sign + n) for n in order]
        expected = [(file_of(image, "JPEG"), class_id) for image in pictures]
        assert records(tmp_path / "traffic_sign", class_id) == expected


def test_tracks_are_torn_apart(tmp_path: Path) -> None:
    """The reason for the shuffle: the first 100 records of a class are of many tracks, not of four."""
    with zipfile.ZipFile(tmp_path / ARCHIVE, "w") as archive:
        for number, name in enumerate(file_names(0, 600)):
            image = Image.new("RGB", (16, 16), (8 * (number // 30), 0, 0))
            archive.writestr(name, file_of(image, "PPM"))
    convert(TrafficSign(check_published=False), tmp_path, tmp_path / "records")
    first = [image for image, _ in records(tmp_path / "records", 0)[:100]]
    tracks = {round(float(np.asarray(Image.open(io.BytesIO(image)))[..., 0].mean()) / 8) for image in first}
    assert len(tracks) == 20


def test_the_published_originals_are_accepted(tmp_path: Path) -> None:
    known = published("traffic_sign")
    files = {name: b"" for class_id, count in enumerate(known.images) for name in file_names(class_id, count)}
    pack(files, "zip", tmp_path, ARCHIVE)
    assert len(files) == 39_209
    assert TrafficSign().plan(tmp_path).specification == known


def test_other_originals_are_refused_before_any_work(tmp_path: Path) -> None:
    pack(dict.fromkeys(file_names(0, 150), b""), "zip", tmp_path, ARCHIVE)
    with pytest.raises(DataError, match=r"'00.Speed limit \(20km/h\)' has 150 images, not 210, .* and 40 more"):
        TrafficSign().plan(tmp_path)
    for foreign in (43, 10042):
        pack(dict.fromkeys(file_names(foreign, 2), b""), "zip", tmp_path, ARCHIVE)
        with pytest.raises(DataError, match=f"holds images of {foreign:05d}, which traffic_sign does not have; remove"):
            TrafficSign(check_published=False).plan(tmp_path)
