"""Omniglot: order, ids, polarity and size, the two sets, and the facts of the real archives."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lite_bench.datasets.conversion.engine import convert
from lite_bench.datasets.conversion.omniglot import Omniglot
from lite_bench.datasets.meta_dataset.catalogue import published
from lite_bench.datasets.meta_dataset.specification import BiLevelSpecification
from lite_bench.datasets.meta_dataset.specification_files import read_specification
from lite_bench.datasets.tfrecords.framing import scan
from lite_bench.harness.errors import DataError
from tests.datasets.conversion.test_engine import records
from tests.datasets.conversion.test_originals import pack

# Characters by alphabet; of the published order the validating alphabets are not sorted.
ALPHABETS = {
    "background": {"Tagalog": 2, "Ojibwe_(Canadian_Aboriginal_Syllabics)": 1, "Latin": 3, "Greek": 11},
    "evaluation": {"Atlantean": 1, "Angelic": 2},
}
ORDER = ("Greek", "Latin", "Ojibwe_(Canadian_Aboriginal_Syllabics)", "Tagalog", "Angelic", "Atlantean")


def drawing(seed: int) -> bytes:
    """Draw strokes, black on white, as the official files do it: 105 x 105, one bit deep."""
    pixels = np.random.default_rng(seed).random((15, 15)).repeat(7, 0).repeat(7, 1) > 0.1
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def small_originals(part: str, n_drawings: int = 3) -> dict[str, bytes]:
    files = {}
    for a, (alphabet, size) in enumerate(ALPHABETS[part].items()):
        for c in range(1, size + 1):
            for d in range(1, n_drawings + 1):
                name = f"images_{part}/{alphabet}/character{c:02d}/{100 * a + c:04d}_{d:02d}.png"
                files[name] = drawing(10_000 * len(part) + 1000 * a + 10 * c + d)
    return files


@pytest.fixture(params=["zip", "folder"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for part in ALPHABETS:
        pack(small_originals(part), request.param, tmp_path / "from", f"images_{part}.zip")
    return tmp_path / "from"


def test_conversion(folder: Path, tmp_path: Path) -> None:
    convert(Omniglot(check_published=False), folder, tmp_path / "omniglot")
    specification = read_specification(tmp_path / "omniglot")
    assert isinstance(specification, BiLevelSpecification)
    assert specification.superclass_names == ORDER
    assert specification.classes_per_superclass == (11, 3, 1, 2, 2, 1)
    assert specification.superclasses == {"train": range(2), "validation": range(2, 4), "test": range(4, 6)}
    assert specification.class_names[8:13] == (
        "Greek-character09",
        "Greek-character10",
        "Greek-character11",
        "Latin-character01",
        "Latin-character02",
    )
    files = {**small_originals("background"), **small_originals("evaluation")}
    for class_id, name in enumerate(specification.class_names):
        character = f"/{name.replace('-', '/')}/"
        expected = [(white_on_black(files[file]), class_id) for file in sorted(files) if character in file]
        assert len(expected) == 3
        assert records(tmp_path / "omniglot", class_id) == expected


def white_on_black(data: bytes) -> bytes:
    """Turn a drawing over without Pillow's inversion."""
    with Image.open(io.BytesIO(data)) as image:
        strokes = ~np.asarray(image)
    buffer = io.BytesIO()
    Image.fromarray(np.stack([strokes * np.uint8(255)] * 3, axis=-1)).save(buffer, "JPEG")
    return buffer.getvalue()


def full_size(part: str) -> Iterable[str]:
    known = published("omniglot")
    assert isinstance(known, BiLevelSpecification)
    test = known.superclasses["test"]
    for s, (alphabet, size) in enumerate(zip(known.superclass_names, known.classes_per_superclass, strict=True)):
        if (s in test) == (part == "evaluation"):
            for c in range(1, size + 1):
                yield from (f"images_{part}/{alphabet}/character{c:02d}/0001_{d:02d}.png" for d in range(1, 21))


def test_the_published_originals_are_accepted(tmp_path: Path) -> None:
    for part in ALPHABETS:
        pack(dict.fromkeys(full_size(part), b""), "zip", tmp_path, f"images_{part}.zip")
    assert Omniglot().plan(tmp_path).specification == published("omniglot")


def test_other_originals_are_refused_before_any_work(folder: Path) -> None:
    message = rf"^{folder} is not the published omniglot: class 'Anglo-Saxon_Futhorc-character01' has 0 images, not 20"
    with pytest.raises(DataError, match=message):
        Omniglot().plan(folder)


@pytest.mark.parametrize(
    ("part", "alphabet"), [("background", "Klingon"), ("background", "Angelic"), ("evaluation", "Greek")]
)
def test_a_foreign_alphabet_is_named(tmp_path: Path, part: str, alphabet: str) -> None:
    for each in ALPHABETS:
        foreign = {f"images_{part}/{alphabet}/character01/0001_01.png": b""} if each == part else {}
        pack({**small_originals(each), **foreign}, "zip", tmp_path, f"images_{each}.zip")
    with pytest.raises(DataError, match=rf"The {part} set of omniglot in .* has the alphabet {alphabet}, which is "):
        Omniglot(check_published=False).plan(tmp_path)


def test_an_archive_of_something_else_is_named(tmp_path: Path) -> None:
    pack({"images_background/read-me.txt": b""}, "zip", tmp_path, "images_background.zip")
    with pytest.raises(DataError, match=r"images_background.zip holds no drawings named like images_background/"):
        Omniglot().plan(tmp_path)


def test_a_damaged_drawing_is_named(tmp_path: Path) -> None:
    name = "images_evaluation/Angelic/character02/0102_02.png"
    pack(small_originals("background"), "zip", tmp_path, "images_background.zip")
    pack({**small_originals("evaluation"), name: b"\x89PNG"}, "zip", tmp_path, "images_evaluation.zip")
    with pytest.raises(DataError, match=rf"The image {name} in {tmp_path}/images_evaluation.zip is not an image"):
        convert(Omniglot(check_published=False), tmp_path, tmp_path / "omniglot")


@pytest.mark.slow
@pytest.mark.data
def test_the_real_archives(data_root: Path, tmp_path: Path) -> None:
    report = convert(Omniglot(), data_root / "omniglot", tmp_path / "omniglot", workers=2)
    assert (report.classes, report.images, report.written) == (1623, 32_460, 1623)
    specification = read_specification(tmp_path / "omniglot")
    assert specification == published("omniglot")
    assert {split: len(ids) for split, ids in specification.splits.items()} == {
        "train": 883,
        "validation": 81,
        "test": 659,
    }
    assert all(len(scan(tmp_path / "omniglot" / f"{i}.tfrecords")) == 21 for i in range(1623))
    means = []
    for class_id in range(0, 1623, 54):
        for image, label in records(tmp_path / "omniglot", class_id):
            assert label == class_id
            with Image.open(io.BytesIO(image)) as opened:
                assert (opened.format, opened.mode, opened.size) == ("JPEG", "RGB", (105, 105))
                means.append(np.asarray(opened).mean())
    assert 18 < np.mean(means) < 22
