"""FGVCx Fungi: small archives in the published layout, and every way they can be wrong."""

from __future__ import annotations

import io
import json
import pickle
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lite_bench.datasets.conversion.engine import convert
from lite_bench.datasets.conversion.fungi import Fungi
from lite_bench.datasets.meta_dataset.catalogue import published
from lite_bench.harness.errors import DataError

KNOWN = published("fungi")
NAMES = (KNOWN.class_names[1200], KNOWN.class_names[3], KNOWN.class_names[1000], KNOWN.class_names[0])
# Image number and class of each list; files are named so that their order differs from that of the list.
TRAIN = [(7, 0), (3, 1), (9, 0), (1, 2), (4, 1)]
VALIDATION = [(2, 0), (8, 1), (6, 0)]


def picture(number: int, **options: Any) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (30 + number, 40, 3), np.uint8)
    image = Image.fromarray(pixels).convert(options.pop("mode", "RGB"))
    buffer = io.BytesIO()
    image.save(buffer, options.pop("format", "JPEG"), quality=90)
    return buffer.getvalue()


def file_name(number: int) -> str:
    return f"images/{9 - number}_{number}.JPG"


PICTURES = {file_name(n): picture(n) for n, _ in TRAIN + VALIDATION}
PICTURES[file_name(9)] = picture(9, mode="L")
PICTURES[file_name(6)] = picture(6, format="PNG")


def listing(members: list[tuple[int, int]]) -> dict[str, Any]:
    categories = [{"id": int(name[:4]), "name": name[5:], "supercategory": "Fungi"} for name in sorted(NAMES)]
    return {
        "info": {"year": 2018},
        "images": [{"id": n, "file_name": file_name(n), "width": 40, "height": 30 + n} for n, _ in members],
        # Annotations are in another order than images: it is the images' that counts.
        "annotations": [{"id": 100 + n, "image_id": n, "category_id": int(NAMES[c][:4])} for n, c in sorted(members)],
        "categories": categories,
    }


def files() -> dict[str, bytes]:
    lists = {"train.json": listing(TRAIN), "val.json": listing(VALIDATION)}
    return {**{name: json.dumps(content).encode() for name, content in lists.items()}, **PICTURES}


def unpacked(folder: Path) -> None:
    for name, data in files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def packed(folder: Path) -> None:
    for archive, suffix in (("fungi_train_val.tgz", ".JPG"), ("train_val_annotations.tgz", ".json")):
        with tarfile.open(folder / archive, "w:gz") as tar:
            for name, data in files().items():
                if name.endswith(suffix):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("lay_out", [unpacked, packed])
def test_plan(tmp_path: Path, lay_out: Callable[[Path], None]) -> None:
    lay_out(tmp_path)
    conversion = Fungi(check_published=False).plan(tmp_path)
    present = [NAMES[1], NAMES[2], NAMES[0]]  # in order of class id; NAMES[3] has no images
    assert conversion.specification.class_names == tuple(present)
    assert conversion.specification.images == (3, 1, 4)
    assert {split: len(ids) for split, ids in conversion.specification.splits.items()} == {
        "train": 1,
        "validation": 1,
        "test": 1,
    }
    for plan, numbers in zip(conversion.classes, ([3, 4, 8], [1], [7, 9, 2, 6]), strict=True):
        images = list(pickle.loads(pickle.dumps(plan.images))())
        assert plan.count == len(images) == len(numbers)
        for number, data in zip(numbers, images, strict=True):
            original = PICTURES[file_name(number)]
            if number in (9, 6):
                buffer = io.BytesIO()
                Image.open(io.BytesIO(original)).convert("RGB").save(buffer, "JPEG")
                original = buffer.getvalue()
            assert data == original


def test_conversion_of_packed_files_is_that_of_unpacked_ones(tmp_path: Path) -> None:
    for name, lay_out in (("one", unpacked), ("two", packed)):
        (tmp_path / name).mkdir()
        lay_out(tmp_path / name)
        report = convert(Fungi(check_published=False), tmp_path / name, tmp_path / f"records {name}")
        assert (report.classes, report.images) == (3, 8)
    for path in (tmp_path / "records one").glob("*.tfrecords"):
        assert path.read_bytes() == (tmp_path / "records two" / path.name).read_bytes()


def test_published_classes_and_counts(tmp_path: Path) -> None:
    """Lists and an archive of the published sizes, of empty files."""
    images: list[dict[str, Any]] = []
    annotations = []
    for name, count in zip(KNOWN.class_names, KNOWN.images, strict=True):
        for _ in range(count):
            annotations.append({"image_id": len(images), "category_id": int(name[:4])})
            images.append({"id": len(images), "file_name": f"images/{len(images)}.JPG"})
    categories = [{"id": int(name[:4]), "name": name[5:]} for name in KNOWN.class_names]
    for name, part in (("train.json", slice(85_578)), ("val.json", slice(85_578, None))):
        content = {"images": images[part], "annotations": annotations[part], "categories": categories}
        (tmp_path / name).write_text(json.dumps(content))
    header = tarfile.TarInfo("images/x")
    with (tmp_path / "fungi_train_val.tgz").open("wb") as stream:
        for image in images:
            header.name = image["file_name"]
            stream.write(header.tobuf(tarfile.USTAR_FORMAT))
        stream.write(bytes(2 * tarfile.BLOCKSIZE))
    conversion = Fungi().plan(tmp_path)
    assert conversion.specification == KNOWN
    assert sum(plan.count for plan in conversion.classes) == 89_760
    shorter = {"images": images[85_578:-1], "annotations": annotations[85_578:-1], "categories": categories}
    (tmp_path / "val.json").write_text(json.dumps(shorter))
    last = f"class '{KNOWN.class_names[-1]}' has {KNOWN.images[-1] - 1} images, not {KNOWN.images[-1]}"
    with pytest.raises(DataError, match=re.escape(f"{tmp_path} is not the published fungi: {last}; download")):
        Fungi().plan(tmp_path)


def spoil(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    unpacked(folder)
    content = listing(VALIDATION)
    change(content)
    (folder / "val.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("images"), r"are not images with a listed category each \(KeyError\('images'\)\)"),
        (lambda c: c["images"][0].pop("file_name"), r"are not images .*KeyError\('file_name'\)"),
        (lambda c: c.update(annotations=5), r"are not images .*TypeError"),
        (lambda c: c["categories"][0].update(id="x"), r"are not images .*ValueError"),
        (lambda c: c["annotations"][0].update(category_id=9999), r"are not images .*KeyError\(9999\)"),
        (lambda c: c["annotations"][0].update(image_id=77), r"have no image or no category of the number 2"),
        (lambda c: c["annotations"].pop(), r"have no image or no category of the number 8"),
        (lambda c: c["images"].append(c["images"][0]), r"have two entries for one image"),
        (lambda c: c["annotations"].append(c["annotations"][0]), r"have two entries for one image"),
        (lambda c: c["images"][0].update(file_name=file_name(7)), r"list images/2_7.JPG, which .*train\.json lists"),
    ],
)
def test_bad_lists(tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    spoil(tmp_path, change)
    remedy = r"; download train_val_annotations\.tgz again from https"
    with pytest.raises(DataError, match=rf"The annotations .*val\.json {message}.*{remedy}"):
        Fungi(check_published=False).plan(tmp_path)


def test_unreadable_lists(tmp_path: Path) -> None:
    unpacked(tmp_path)
    (tmp_path / "train.json").write_text('{"images": [')
    with pytest.raises(DataError, match=r"train\.json are not JSON \(.*\); download train_val_annotations\.tgz again"):
        Fungi(check_published=False).plan(tmp_path)
    (tmp_path / "train.json").unlink()
    (tmp_path / "train.json").mkdir()
    with pytest.raises(DataError, match=r"train\.json cannot be read \(Is a directory\); download"):
        Fungi(check_published=False).plan(tmp_path)


def test_missing_originals(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"fungi needs images or fungi_train_val\.tgz, which .* does not hold; get it"):
        Fungi().plan(tmp_path)
    unpacked(tmp_path)
    (tmp_path / "val.json").unlink()
    with pytest.raises(DataError, match=r"fungi needs val\.json or train_val_annotations\.tgz, which"):
        Fungi().plan(tmp_path)
    with tarfile.open(tmp_path / "train_val_annotations.tgz", "w:gz") as tar:
        tar.add(tmp_path / "train.json", "train.json")
    with pytest.raises(DataError, match=r"The file val\.json in .*train_val_annotations\.tgz is missing; download"):
        Fungi().plan(tmp_path)


def test_missing_image(tmp_path: Path) -> None:
    unpacked(tmp_path)
    (tmp_path / file_name(4)).unlink()
    with pytest.raises(DataError, match=r"images/5_4\.JPG is missing; download or unpack images again"):
        Fungi(check_published=False).plan(tmp_path)


def test_foreign_category(tmp_path: Path) -> None:
    spoil(tmp_path, lambda c: [entry.update(name="Amanita nova") for entry in c["categories"]])
    with pytest.raises(DataError, match=r"holds images of .*Amanita nova.*, which fungi does not have"):
        Fungi(check_published=False).plan(tmp_path)


def test_damaged_image(tmp_path: Path) -> None:
    unpacked(tmp_path)
    path = tmp_path / file_name(1)
    path.write_bytes(path.read_bytes()[:300])
    conversion = Fungi(check_published=False).plan(tmp_path)
    with pytest.raises(DataError, match=r"The image .*images/8_1\.JPG is damaged .*; download or unpack it again"):
        list(conversion.classes[1].images())


def test_truncated_archive(tmp_path: Path) -> None:
    packed(tmp_path)
    path = tmp_path / "fungi_train_val.tgz"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"fungi_train_val\.tgz cannot be read \(.*\); download or unpack it again"):
        Fungi(check_published=False).plan(tmp_path)
