"""FGVC-Aircraft: order, ids and crops, the text files, and the check against the published counts."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lite_bench.datasets.conversion.aircraft import Aircraft
from lite_bench.datasets.conversion.engine import convert
from lite_bench.datasets.meta_dataset.catalogue import published
from lite_bench.datasets.meta_dataset.specification_files import read_specification
from lite_bench.harness.errors import DataError
from tests.datasets.conversion.test_engine import records
from tests.datasets.conversion.test_jpeg import file_of, picture
from tests.datasets.conversion.test_originals import pack

ROOT = "fgvc-aircraft-2013b/"
ARCHIVE = "fgvc-aircraft-2013b.tar.gz"
# In order of the published ids; a slash and a blank in the names.
VARIANTS = ("Falcon 2000", "F-16A/B", "737-900", "737-400")
Entry = tuple[int, str, tuple[int, int, int, int]]


def entries() -> list[Entry]:
    """List image number, variant and box; numbers do not follow the order of the variants or lists."""
    numbers = np.random.default_rng(5).permutation(np.arange(0, 2_000_000, 166_667)).tolist()
    return [(number, VARIANTS[i % 4], (1 + i, 2 + i, 30 + 2 * i, 40 + i)) for i, number in enumerate(numbers)]


def originals(listed: list[Entry], root: str = ROOT) -> dict[str, bytes]:
    """Write the text files and, for small ones, the images as they are published."""
    files = {f"{root}README.md": b"", f"{root}data/images_family_train.txt": b"", f"{root}data/variants.txt": b""}
    boxes = [f"{number:07d} {' '.join(map(str, box))}\n" for number, _, box in sorted(listed)]
    files[f"{root}data/images_box.txt"] = "".join(boxes).encode()
    for place, part in enumerate(("train", "val", "test")):
        lines = [f"{number:07d} {variant}\n" for number, variant, _ in listed[place::3]]
        files[f"{root}data/images_variant_{part}.txt"] = "".join(lines).encode()
    for number, _, _ in listed:
        data = file_of(picture(size=(90, 70), seed=number), "JPEG", quality=95) if len(listed) < 100 else b""
        files[f"{root}data/images/{number:07d}.jpg"] = data
    return files


@pytest.mark.parametrize(("kind", "root"), [("tgz", ROOT), ("folder", ROOT), ("folder", "")])
def test_conversion(tmp_path: Path, kind: str, root: str) -> None:
    files = originals(entries(), root)
    pack(files, kind, tmp_path / "from", ARCHIVE)
    convert(Aircraft(check_published=False), tmp_path / "from", tmp_path / "aircraft")
    specification = read_specification(tmp_path / "aircraft")
    assert specification.class_names == VARIANTS
    assert specification.splits == {"train": range(2), "validation": range(2, 3), "test": range(3, 4)}
    for class_id, variant in enumerate(VARIANTS):
        expected = []
        for number, _, (left, top, right, bottom) in sorted(entry for entry in entries() if entry[1] == variant):
            with Image.open(io.BytesIO(files[f"{root}data/images/{number:07d}.jpg"])) as image:
                pixels = np.asarray(image)[top:bottom, left:right]
            expected.append((file_of(Image.fromarray(pixels), "JPEG"), class_id))
        assert records(tmp_path / "aircraft", class_id) == expected


def full_size() -> list[Entry]:
    names = [name for name in published("aircraft").class_names for _ in range(100)]
    order = np.random.default_rng(1).permutation(len(names)).tolist()
    return [(number, names[i], (1, 1, 20, 20)) for number, i in enumerate(order)]


def test_the_published_originals_are_accepted(tmp_path: Path) -> None:
    pack(originals(full_size()), "tgz", tmp_path, ARCHIVE)
    specification = Aircraft().plan(tmp_path).specification
    assert specification == published("aircraft")
    assert sum(specification.images) == 10_000


def test_other_originals_are_refused_before_any_work(tmp_path: Path) -> None:
    path = pack(originals(entries()), "tgz", tmp_path, ARCHIVE)
    with pytest.raises(DataError, match=f"^{path} is not the published aircraft: class 'A340-300' has 0 images"):
        Aircraft().plan(tmp_path)
    pack(originals([(1, "Concorde", (0, 0, 9, 9))]), "tgz", tmp_path, ARCHIVE)
    with pytest.raises(DataError, match=f"^{path} holds images of Concorde, which aircraft does not have; remove them"):
        Aircraft(check_published=False).plan(tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("images_box.txt", "0000000 1 2 30\n", "Line 1 of .*images_box.txt.* has no box of four numbers; unpack"),
        ("images_box.txt", "0000000 1 2 x 4\n", "Line 1 of .*images_box.txt.* has no box of four numbers"),
        ("images_box.txt", "0000000 9 2 9 4\n", r"Line 1 of .*images_box.txt.* has an empty box \(9 2 9 4\)"),
        ("images_box.txt", "a 1 2 3 4\n", "Line 1 of .* is 'a 1 2 3 4', not an image number and its entry"),
        ("images_box.txt", "", "names image [0-9]{7}, which has no box; unpack"),
        (
            "images_variant_val.txt",
            "0000000 A318\n\n",
            "Line 2 of .*images_variant_val.txt.* is '', not an image",
        ),
        ("images_variant_test.txt", "0000000\n", "Line 1 of .* is '0000000', not an image number and its entry"),
        (
            "images_variant_train.txt",
            "0000000 A318\n7654321 A318\n",
            "Line 2 of .* names image 7654321, which has no image",
        ),
        ("images_variant_val.txt", None, "holds no data/images_variant_val.txt; download fgvc-aircraft-2013b.tar.gz"),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "tgz"])
def test_bad_text_files_are_named(tmp_path: Path, kind: str, file: str, text: str | None, message: str) -> None:
    files = originals(entries())
    name = f"{ROOT}data/{file}"
    changed = {name: text.encode()} if text is not None else {}
    pack({other: data for other, data in files.items() if other != name} | changed, kind, tmp_path, ARCHIVE)
    with pytest.raises(DataError, match=message):
        Aircraft(check_published=False).plan(tmp_path)
