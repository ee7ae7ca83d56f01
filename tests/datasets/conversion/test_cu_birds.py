"""CUB-200-2011: order, ids and bytes from a folder or an archive, and the check against the published counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from lite_bench.datasets.conversion.cu_birds import CUBirds
from lite_bench.datasets.conversion.engine import convert
from lite_bench.datasets.meta_dataset.catalogue import published
from lite_bench.harness.errors import DataError
from tests.datasets.conversion.test_jpeg import file_of, picture
from tests.datasets.conversion.test_originals import pack

# In order of the published ids: two of training, then one of validation and one of test.
BIRDS = ("190.Red_cockaded_Woodpecker", "144.Common_Tern", "044.Frigatebird", "008.Rhinoceros_Auklet")


def small_originals() -> dict[str, bytes]:
    files = {"CUB_200_2011/README": b"birds", "CUB_200_2011/classes.txt": b"1 001.Black_footed_Albatross\n"}
    for c, bird in enumerate(BIRDS):
        for n in range(c + 2):
            image = picture("L" if n == 1 else "RGB", (50 + n, 40), 10 * c + n)
            files[f"CUB_200_2011/images/{bird}/{bird[4:]}_{9 - n:04d}_{n}.jpg"] = file_of(image, "JPEG", quality=90)
    return files


def test_the_published_originals_are_accepted(tmp_path: Path) -> None:
    known = published("cu_birds")
    counts = zip(known.class_names, known.images, strict=True)
    files = {f"CUB_200_2011/images/{name}/{n:04d}.jpg": b"" for name, count in counts for n in range(count)}
    pack(files, "tgz", tmp_path, "CUB_200_2011.tgz")
    assert len(files) == 11_788
    assert CUBirds().plan(tmp_path).specification == known


def test_other_originals_are_refused_before_any_work(tmp_path: Path) -> None:
    path = pack(small_originals(), "tgz", tmp_path, "CUB_200_2011.tgz")
    message = (
        f"^{path} is not the published cu_birds: class '190.Red_cockaded_Woodpecker' has 2 images, not 58, "
        "class '144.Common_Tern' has 3 images, not 60, .* and 197 more; download or unpack it again"
    )
    with pytest.raises(DataError, match=message):
        CUBirds().plan(tmp_path)
    dodo = {"CUB_200_2011/images/201.Dodo/1.jpg": b""}
    pack(small_originals() | dodo, "tgz", tmp_path, "CUB_200_2011.tgz")
    with pytest.raises(DataError, match=f"^{path} holds images of 201.Dodo, which cu_birds does not have; remove them"):
        CUBirds(check_published=False).plan(tmp_path)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    files = small_originals()
    name = "CUB_200_2011/images/144.Common_Tern/Common_Tern_0009_0.jpg"
    pack(files | {name: files[name][:300]}, "folder", tmp_path, "")
    with pytest.raises(DataError, match=rf"The image {tmp_path}/{name} is damaged .*; download or unpack it again"):
        convert(CUBirds(check_published=False), tmp_path, tmp_path / "cu_birds")
