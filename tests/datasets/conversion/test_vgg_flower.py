"""Oxford's flowers: order, ids and bytes, the file of labels, and the check against the published counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from lite_bench.datasets.conversion.engine import convert
from lite_bench.datasets.conversion.vgg_flower import VGGFlower
from lite_bench.datasets.meta_dataset.catalogue import published
from lite_bench.datasets.meta_dataset.specification_files import read_specification
from lite_bench.harness.errors import DataError
from tests.datasets.conversion.test_engine import records
from tests.datasets.conversion.test_jpeg import file_of, picture
from tests.datasets.conversion.test_originals import pack

LABELS = (90, 10, 5, 90, 38, 10, 90)


def originals(
    folder: Path, labels: list[int], kind: str = "tgz", images: int | None = None, empty: bool = True
) -> None:
    """Write images and labels as they are published."""
    numbers = range(1, (len(labels) if images is None else images) + 1)
    files = {f"jpg/image_{n:05d}.jpg": b"" if empty else file_of(picture(seed=n), "JPEG") for n in numbers}
    pack(files, kind, folder, "102flowers.tgz")
    savemat(folder / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})


@pytest.mark.parametrize("kind", ["tgz", "folder"])
def test_conversion(tmp_path: Path, kind: str) -> None:
    originals(tmp_path / "from", list(LABELS), kind, empty=False)
    convert(VGGFlower(check_published=False), tmp_path / "from", tmp_path / "vgg_flower")
    specification = read_specification(tmp_path / "vgg_flower")
    assert specification.class_names == (
        "090.canna lily",
        "038.great masterwort",
        "010.globe thistle",
        "005.english marigold",
    )
    assert specification.splits == {"train": range(2), "validation": range(2, 3), "test": range(3, 4)}
    for class_id, numbers in enumerate([(1, 4, 7), (5,), (2, 6), (3,)]):
        expected = [(file_of(picture(seed=n), "JPEG"), class_id) for n in numbers]
        assert records(tmp_path / "vgg_flower", class_id) == expected


def test_the_published_originals_are_accepted(tmp_path: Path) -> None:
    known = published("vgg_flower")
    counted = zip(known.class_names, known.images, strict=True)
    labels = [int(name[:3]) for name, count in counted for _ in range(count)]
    assert len(labels) == 8189
    originals(tmp_path, np.random.default_rng(0).permutation(labels).tolist())
    assert VGGFlower().plan(tmp_path).specification == known


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (91, "is not the published vgg_flower: class '090.canna lily' has 2 images, not 82, .* and 99 more; download"),
        (103, "holds images of 103, which vgg_flower does not have; remove them"),
        (0, "holds images of 0, which vgg_flower does not have"),
    ],
)
def test_other_labels_are_refused_before_any_work(tmp_path: Path, changed: int, message: str) -> None:
    originals(tmp_path, [changed, *LABELS[1:]])
    with pytest.raises(DataError, match=rf"102flowers.tgz .*{message}"):
        VGGFlower().plan(tmp_path)


@pytest.mark.parametrize(
    ("images", "state"),
    [(6, "image_00007.jpg has a label but no image"), (8, "image_00008.jpg has an image but no label")],
)
def test_images_and_labels_must_correspond(tmp_path: Path, images: int, state: str) -> None:
    originals(tmp_path, list(LABELS), images=images)
    with pytest.raises(DataError, match=rf"^{state} in {tmp_path}/102flowers.tgz and .*imagelabels.mat; download "):
        VGGFlower().plan(tmp_path)


@pytest.mark.parametrize("content", ["none", "html", "other", "floats"])
def test_labels_of_another_form_are_named(tmp_path: Path, content: str) -> None:
    originals(tmp_path, list(LABELS))
    path = tmp_path / "imagelabels.mat"
    if content == "none":
        path.write_bytes(b"")
    elif content == "html":
        path.write_text("<html>moved</html>" * 50)
    else:
        savemat(path, {"setid" if content == "other" else "labels": np.array([[1.5]])})
    with pytest.raises(DataError, match=rf"^{path} is not the flowers' file of labels \(.+\); download it from https:"):
        VGGFlower().plan(tmp_path)


def test_a_missing_file_of_labels_is_named(tmp_path: Path) -> None:
    originals(tmp_path, list(LABELS))
    (tmp_path / "imagelabels.mat").unlink()
    with pytest.raises(DataError, match=r"vgg_flower needs imagelabels.mat, .*\(the link called image labels\)\.$"):
        VGGFlower().plan(tmp_path)
