"""Describable Textures: order, ids and bytes, the stray file, and the check against the published counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from lite_bench.datasets.conversion.dtd import DTD
from lite_bench.datasets.conversion.engine import convert
from lite_bench.datasets.meta_dataset.catalogue import published
from lite_bench.datasets.meta_dataset.specification_files import read_specification
from lite_bench.harness.errors import DataError
from tests.datasets.conversion.test_engine import records
from tests.datasets.conversion.test_jpeg import file_of, picture
from tests.datasets.conversion.test_originals import pack

TEXTURES = ("chequered", "braided", "waffled", "gauzy", "banded")


def small_originals(root: str = "dtd/") -> dict[str, bytes]:
    files = {f"{root}images/waffled/.directory": b"[Dolphin]", f"{root}labels/train1.txt": b"banded/banded_0002.jpg\n"}
    for c, texture in enumerate(TEXTURES):
        for n in (2, 11, 1):
            files[f"{root}images/{texture}/{texture}_{n:04d}.jpg"] = file_of(picture(seed=100 * c + n), "JPEG")
    return files


@pytest.mark.parametrize(("kind", "root"), [("folder", "dtd/"), ("folder", ""), ("tgz", "dtd/")])
def test_conversion(tmp_path: Path, kind: str, root: str) -> None:
    pack(small_originals(root), kind, tmp_path / "from", "dtd-r1.0.1.tar.gz")
    convert(DTD(check_published=False), tmp_path / "from", tmp_path / "dtd")
    specification = read_specification(tmp_path / "dtd")
    order = ("chequered", "braided", "waffled")
    assert set(specification.class_names[:3]) == set(order)
    assert specification.class_names[3:] == ("gauzy", "banded")
    assert specification.images == (3,) * 5
    for class_id, texture in enumerate(specification.class_names):
        expected = [file_of(picture(seed=100 * TEXTURES.index(texture) + n), "JPEG") for n in (1, 2, 11)]
        assert records(tmp_path / "dtd", class_id) == [(image, class_id) for image in expected]


def test_the_published_originals_are_accepted(tmp_path: Path) -> None:
    names = [f"dtd/images/{name}/{name}_{n:04d}.jpg" for name in published("dtd").class_names for n in range(120)]
    pack(dict.fromkeys([*names, "dtd/images/waffled/.directory"], b""), "tgz", tmp_path, "dtd-r1.0.1.tar.gz")
    specification = DTD().plan(tmp_path).specification
    assert specification == published("dtd")
    assert sum(specification.images) == 5640


def test_a_missing_image_is_noticed_before_any_work(tmp_path: Path) -> None:
    names = [f"dtd/images/{name}/{n:04d}.jpg" for name in published("dtd").class_names for n in range(120)]
    path = pack(dict.fromkeys(set(names) - {"dtd/images/banded/0007.jpg"}, b""), "tgz", tmp_path, "dtd-r1.0.1.tar.gz")
    message = f"^{path} is not the published dtd: class 'banded' has 119 images, not 120; download or unpack it again"
    with pytest.raises(DataError, match=message):
        convert(DTD(), tmp_path, tmp_path / "records")
    assert not list((tmp_path / "records").glob("*.tfrecords"))


def test_an_extra_class_is_named(tmp_path: Path) -> None:
    path = pack(small_originals() | {"dtd/images/tartan/1.jpg": b""}, "tgz", tmp_path, "dtd-r1.0.1.tar.gz")
    with pytest.raises(DataError, match=f"^{path} holds images of tartan, which dtd does not have; remove them"):
        DTD(check_published=False).plan(tmp_path)
