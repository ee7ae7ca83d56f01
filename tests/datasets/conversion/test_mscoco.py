"""MSCOCO: the rule of the crops, small originals in the published layout, and every way they can be wrong."""

from __future__ import annotations

import io
import json
import math
import pickle
import random
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from lite_bench.datasets.conversion.engine import convert
from lite_bench.datasets.conversion.mscoco import MSCOCO, crop_box
from lite_bench.datasets.meta_dataset.catalogue import published
from lite_bench.harness.errors import DataError

KNOWN = published("mscoco")
CATEGORIES = {1: "person", 2: "bicycle", 18: "dog", 90: "toothbrush"}
SIZES = {9: (64, 48), 25: (50, 70), 30: (33, 20), 581929: (80, 60)}
# Image, category and box, in no particular order, several of one image in a row, and a crowd.
ANNOTATIONS: list[tuple[int, int, list[float]]] = [
    (25, 18, [10.5, 20.25, 12.0, 30.0]),
    (9, 1, [0.0, 0.0, 64.0, 48.0]),
    (581929, 1, [70.13, 40.9, 9.87, 19.1]),
    (581929, 1, [3.0, 4.0, 0.0, 0.0]),
    (9, 1, [5.5, 6.5, 10.0, 20.0]),
    (30, 2, [0.4, 0.4, 2.2, 3.3]),
    (581929, 1, [20, 10, 5, 5]),
    (25, 18, [44.0, 60.0, 6.0, 10.0]),
]


def file_name(image: int) -> str:
    return f"{image:012d}.jpg"


def photograph(image: int) -> bytes:
    width, height = SIZES[image]
    pixels = np.random.default_rng(image).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("L" if image == 30 else "RGB").save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def instances() -> dict[str, Any]:
    return {
        "info": {"year": 2017},
        "licenses": [{"id": 1}],
        "images": [
            {"id": image, "file_name": file_name(image), "width": size[0], "height": size[1]}
            for image, size in SIZES.items()
        ],
        "annotations": [
            {
                "segmentation": {"counts": [1, 2], "size": [48, 64]} if number == 4 else [[1.0, 2.0, 3.0, 4.0]],
                "area": 5.0,
                "iscrowd": int(number == 4),
                "image_id": image,
                "bbox": list(box),
                "category_id": category,
                "id": 1000 - number,
            }
            for number, (image, category, box) in enumerate(ANNOTATIONS)
        ],
        "categories": [{"supercategory": "x", "id": i, "name": name} for i, name in CATEGORIES.items()],
    }


def unpacked(folder: Path, content: Any = None, subfolder: str = "annotations") -> None:
    (folder / "train2017").mkdir(parents=True)
    for image in SIZES:
        (folder / "train2017" / file_name(image)).write_bytes(photograph(image))
    (folder / subfolder).mkdir(exist_ok=True)
    (folder / subfolder / "instances_train2017.json").write_text(json.dumps(content or instances()))


def flat(folder: Path) -> None:
    unpacked(folder, subfolder="")


def packed(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "train2017.zip", "w") as archive:
        archive.mkdir("train2017")
        for image in reversed(SIZES):
            archive.writestr(f"train2017/{file_name(image)}", photograph(image))
    with zipfile.ZipFile(folder / "annotations_trainval2017.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations/instances_val2017.json", "{}")
        archive.writestr("annotations/instances_train2017.json", json.dumps(instances()))


def half_even(value: Fraction) -> int:
    """Find the nearest whole number, of two the even one, by trying those around."""
    return min(range(math.floor(value) - 1, math.floor(value) + 3), key=lambda k: (abs(k - value), k % 2))


def expected_box(box: list[float], width: int, height: int) -> tuple[int, int, int, int]:
    """Compute the crop in exact arithmetic from the box's centre."""
    low, high = [], []
    for start, length, limit in ((box[0], box[2], width), (box[1], box[3], height)):
        centre, reach = Fraction(start) + Fraction(length) / 2, Fraction(length) * Fraction(6, 10)
        low.append(max(half_even(centre - reach - Fraction(1, 2)), 0))
        high.append(min(half_even(centre + reach - Fraction(1, 2)) + 1, limit))
    return low[0], low[1], high[0], high[1]


def near_tie(box: list[float]) -> bool:
    """Say whether rounding errors of floating-point numbers could decide."""
    edges = [box[i] + box[i + 2] / 2 + sign * 0.6 * box[i + 2] for i in (0, 1) for sign in (-1, 1)]
    return any(abs(edge - round(edge)) < 1e-9 for edge in edges) and (box[2] > 0 or box[3] > 0)


@settings(max_examples=500, deadline=None)
@given(
    st.tuples(
        st.floats(0, 640), st.floats(0, 480), st.just(0.0) | st.floats(0.01, 640), st.just(0.0) | st.floats(0.01, 480)
    ),
    st.integers(1, 640),
    st.integers(1, 480),
)
def test_crop_is_the_enlarged_box(box: tuple[float, ...], width: int, height: int) -> None:
    assume(not near_tie(list(box)))
    assert crop_box(box, width, height) == expected_box(list(box), width, height)


@pytest.mark.parametrize(
    ("box", "crop"),
    [
        ((3.0, 4.0, 0.0, 0.0), (2, 4, 3, 5)),  # 2.5 and 3.5 round to 2 and 4
        ((4.0, 5.0, 0.0, 0.0), (4, 4, 5, 5)),
        ((0.0, 1.0, 0.0, 0.0), (0, 0, 1, 1)),  # -0.5 and 0.5 round to 0
        ((10.0, 10.0, 10.0, 20.0), (8, 8, 21, 33)),  # 8.5 and 7.5 round to 8, 20.5 and 31.5 to 20 and 32
        ((0.0, 0.0, 100.0, 100.0), (0, 0, 100, 80)),  # cut at all borders
        ((90.0, 70.0, 10.0, 10.0), (88, 68, 100, 80)),
    ],
)
def test_halves_and_borders(box: tuple[float, ...], crop: tuple[int, ...]) -> None:
    assert crop_box(box, 100, 80) == crop


def test_rounding_errors_fall_as_in_meta_dataset() -> None:
    """Boxes with two decimals, as COCO's, by the published operations in numpy, which rounds halves to even."""
    draw = random.Random(0)
    boxes = np.array([[draw.randrange(64_000) / 100 for _ in range(4)] for _ in range(20_000)])
    start = boxes[:, :2] - 0.5 * boxes[:, 2:] * (1.2 - 1.0)
    end = start + boxes[:, 2:] * 1.2
    low = np.maximum(np.rint(start - 0.5), 0).astype(int)
    high = np.minimum(np.rint(end - 0.5) + 1, (640, 480)).astype(int)
    found = np.array([crop_box(box, 640, 480) for box in boxes.tolist()])
    assert (found == np.concatenate([low, high], axis=1)).all()


@pytest.mark.parametrize("lay_out", [unpacked, flat, packed])
def test_plan(tmp_path: Path, lay_out: Callable[[Path], None]) -> None:
    lay_out(tmp_path / "originals")
    conversion = MSCOCO(check_published=False).plan(tmp_path / "originals")
    present = [name for name in KNOWN.class_names if name in ("person", "bicycle", "dog")]
    assert conversion.specification.class_names == tuple(present)
    ids = {name: number for number, name in CATEGORIES.items()}
    for class_id, (name, plan) in enumerate(zip(present, conversion.classes, strict=True)):
        theirs = [(image, box) for image, category, box in ANNOTATIONS if category == ids[name]]
        images = list(pickle.loads(pickle.dumps(plan.images))())
        assert (plan.class_id, plan.count, len(images)) == (class_id, len(theirs), len(theirs))
        assert conversion.specification.images[class_id] == len(theirs)
        for (image, box), data in zip(theirs, images, strict=True):
            pixels = np.asarray(Image.open(io.BytesIO(photograph(image))).convert("RGB"))
            left, top, right, bottom = expected_box(box, *SIZES[image])
            buffer = io.BytesIO()
            Image.fromarray(pixels[top:bottom, left:right]).save(buffer, "JPEG")
            assert data == buffer.getvalue()


def test_conversion_of_packed_files_is_that_of_unpacked_ones(tmp_path: Path) -> None:
    for name, lay_out in (("one", unpacked), ("two", packed)):
        lay_out(tmp_path / name)
        report = convert(MSCOCO(check_published=False), tmp_path / name, tmp_path / f"records {name}")
        assert (report.classes, report.images) == (3, len(ANNOTATIONS))
    for path in (tmp_path / "records one").glob("*.tfrecords"):
        assert path.read_bytes() == (tmp_path / "records two" / path.name).read_bytes()


@pytest.mark.slow
def test_published_classes_and_counts(tmp_path: Path) -> None:
    """Annotations of the published number, of empty photographs."""
    (tmp_path / "train2017").mkdir()
    for image in range(10):
        (tmp_path / "train2017" / file_name(image)).touch()
    numbers = [i for i, count in enumerate(KNOWN.images) for _ in range(count)]
    random.Random(0).shuffle(numbers)
    content = {
        "images": [{"id": image, "file_name": file_name(image)} for image in range(10)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(KNOWN.class_names)],
        "annotations": [
            {"image_id": n % 10, "category_id": i, "bbox": [0, 0, 1, 1], "segmentation": [[1.5] * 20]}
            for n, i in enumerate(numbers)
        ],
    }
    path = tmp_path / "instances_train2017.json"
    path.write_text(json.dumps(content))
    conversion = MSCOCO().plan(tmp_path)
    assert conversion.specification == KNOWN
    assert sum(plan.count for plan in conversion.classes) == 860_001


def test_differing_from_the_published(tmp_path: Path) -> None:
    unpacked(tmp_path / "o")
    message = r"is not the published mscoco: class 'person' has 5 images, not 262465, .* and 77 more; download"
    with pytest.raises(DataError, match=message):
        MSCOCO().plan(tmp_path / "o")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("categories"), r"KeyError\('categories'\)"),
        (lambda c: c["annotations"][3].update(image_id=77), r"KeyError\(77\)"),
        (lambda c: c["annotations"][3].update(category_id=78), r"KeyError\(78\)"),
        (lambda c: c["annotations"][3].pop("bbox"), r"KeyError\('bbox'\)"),
        (lambda c: c["annotations"][3].update(bbox=[1, 2, 3]), r"ValueError\('not enough values"),
        (lambda c: c["annotations"][3].update(bbox="none"), r"ValueError"),
        (lambda c: c.update(annotations=None), r"TypeError"),
    ],
)
def test_bad_annotations(tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    content = instances()
    change(content)
    unpacked(tmp_path / "o", content)
    form = r"instances_train2017\.json are not objects with boxes in listed images and categories"
    with pytest.raises(DataError, match=rf"{form} \({message}.*; download annotations_trainval2017\.zip again"):
        MSCOCO(check_published=False).plan(tmp_path / "o")


def test_numbers_that_are_none(tmp_path: Path) -> None:
    content = instances()
    content["annotations"][0]["bbox"][1] = math.nan
    unpacked(tmp_path / "o", content)
    with pytest.raises(DataError, match=r"have a box of 'dog' that is not of finite numbers; download"):
        MSCOCO(check_published=False).plan(tmp_path / "o")


def test_unreadable_annotations(tmp_path: Path) -> None:
    unpacked(tmp_path / "o")
    path = tmp_path / "o" / "annotations" / "instances_train2017.json"
    path.write_text(path.read_text()[:-10])
    with pytest.raises(DataError, match=r"train2017\.json are not JSON \(.*\); download annotations_trainval2017\.zip"):
        MSCOCO(check_published=False).plan(tmp_path / "o")
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"train2017\.json are not JSON"):
        MSCOCO(check_published=False).plan(tmp_path / "o")


def test_missing_originals(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mscoco needs train2017 or train2017\.zip, which .* does not hold; get it"):
        MSCOCO().plan(tmp_path)
    packed(tmp_path)
    with zipfile.ZipFile(tmp_path / "annotations_trainval2017.zip", "w") as archive:
        archive.writestr("annotations/captions_train2017.json", "{}")
    with pytest.raises(DataError, match=r"The file instances_train2017\.json in .*trainval2017\.zip is missing; down"):
        MSCOCO().plan(tmp_path)
    (tmp_path / "annotations_trainval2017.zip").unlink()
    with pytest.raises(DataError, match=r"mscoco needs annotations/instances_train2017\.json or .*trainval2017\.zip"):
        MSCOCO().plan(tmp_path)


def test_missing_photograph(tmp_path: Path) -> None:
    unpacked(tmp_path / "o")
    (tmp_path / "o" / "train2017" / file_name(30)).unlink()
    with pytest.raises(DataError, match=r"train2017/000000000030\.jpg is missing; download or unpack train2017 again"):
        MSCOCO(check_published=False).plan(tmp_path / "o")


def test_damaged_photograph(tmp_path: Path) -> None:
    unpacked(tmp_path / "o")
    path = tmp_path / "o" / "train2017" / file_name(30)
    path.write_bytes(b"no picture")
    plans = MSCOCO(check_published=False).plan(tmp_path / "o").classes
    message = r"The image .*train2017/000000000030\.jpg is not an image that Pillow can read; download or unpack it"
    with pytest.raises(DataError, match=message):
        [list(plan.images()) for plan in plans]


def test_box_outside(tmp_path: Path) -> None:
    content = instances()
    content["annotations"][0]["bbox"][0] = 60.0
    unpacked(tmp_path / "o", content)
    plans = MSCOCO(check_published=False).plan(tmp_path / "o").classes
    message = r"The annotated box \[60\.0, .*\] lies outside the image .*25\.jpg of 50 x 70 pixels; download annot"
    with pytest.raises(DataError, match=message):
        [list(plan.images()) for plan in plans]
