"""A source's folder of records: images by class and number, its fingerprint, and a full check of its files."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lite_bench.datasets.meta_dataset import source as source_module
from lite_bench.datasets.meta_dataset.source import MOST_PROBLEMS, RecordSource
from lite_bench.datasets.meta_dataset.specification import FlatSpecification
from lite_bench.datasets.meta_dataset.specification_files import write_specification
from lite_bench.datasets.tfrecords.examples import encode_example
from lite_bench.datasets.tfrecords.framing import frame, scan
from lite_bench.datasets.tfrecords.reading import RecordReader
from lite_bench.harness.errors import DataError

COUNTS = (6, 4, 5)
SPECIFICATION = FlatSpecification("coins", ("penny", "crown", "florin"), COUNTS, {"train": 2, "test": 1})


def jpeg(class_id: int, item: int) -> bytes:
    pixels = np.random.default_rng((class_id, item)).integers(0, 256, (9 + item, 12, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def record(class_id: int, item: int) -> bytes:
    return frame(encode_example({"image": jpeg(class_id, item), "label": class_id}))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LITE_BENCH_HOME", str(tmp_path / "home"))
    made = tmp_path / "coins"
    write_specification(SPECIFICATION, made)
    for class_id, count in enumerate(COUNTS):
        data = b"".join(record(class_id, item) for item in range(count))
        (made / f"{class_id}.tfrecords").write_bytes(data)
    return made


def test_images_come_by_class_and_number(folder: Path) -> None:
    source = RecordSource(folder)
    assert source.folder == folder
    assert source.specification == SPECIFICATION
    assert source.path(2) == folder / "2.tfrecords"
    for class_id, count in enumerate(COUNTS):
        items = [*reversed(range(count)), 0]
        assert source.images(class_id, items) == [jpeg(class_id, item) for item in items]


def test_a_reader_and_a_specification_can_be_given(folder: Path) -> None:
    (folder / "dataset_spec.json").unlink()
    with RecordReader(2) as reader:
        sources = [RecordSource(folder, reader, SPECIFICATION) for _ in range(2)]
        assert sources[0].images(1, [3]) == sources[1].images(1, [3]) == [jpeg(1, 3)]
    with pytest.raises(DataError, match=r"dataset_spec\.json is missing"):
        RecordSource(folder)


def test_numbers_outside_a_class_are_refused(folder: Path) -> None:
    with pytest.raises(IndexError, match="0 to 3, not 4"):
        RecordSource(folder).images(1, [4])


def test_opening_a_source_opens_no_class_file(folder: Path) -> None:
    for class_id in range(len(COUNTS)):
        (folder / f"{class_id}.tfrecords").unlink()
    source = RecordSource(folder)
    with pytest.raises(DataError, match=r"0\.tfrecords is missing; copy or convert it again"):
        source.images(0, [0])


def test_fingerprint_is_of_the_content_alone(folder: Path, tmp_path: Path) -> None:
    first = RecordSource(folder).fingerprint
    assert len(first) == 64
    moved = tmp_path / "elsewhere" / "other_name"
    shutil.copytree(folder, moved)
    for path in moved.iterdir():
        os.utime(path, (0, 0))
    write_specification(SPECIFICATION, moved)
    assert RecordSource(moved).fingerprint == first


def append_record(folder: Path) -> None:
    with (folder / "1.tfrecords").open("ab") as stream:
        stream.write(record(1, 9))


def rename_class(folder: Path) -> None:
    write_specification(FlatSpecification("coins", ("penny", "crown", "x"), COUNTS, {"train": 2, "test": 1}), folder)


def move_split(folder: Path) -> None:
    names = SPECIFICATION.class_names
    write_specification(FlatSpecification("coins", names, COUNTS, {"train": 1, "test": 2}), folder)


@pytest.mark.parametrize("change", [append_record, rename_class, move_split])
def test_fingerprint_changes_with_the_content(folder: Path, change: Callable[[Path], None]) -> None:
    first = RecordSource(folder).fingerprint
    change(folder)
    assert RecordSource(folder).fingerprint != first


def test_fingerprint_names_missing_files(folder: Path) -> None:
    for class_id in (1, 2):
        (folder / f"{class_id}.tfrecords").unlink()
    with pytest.raises(DataError, match=r"1\.tfrecords is missing \(2 of the 3 class files of coins are\)"):
        _ = RecordSource(folder).fingerprint


@pytest.mark.parametrize("count", [3, 5])
def test_another_number_of_records_is_refused(folder: Path, count: int) -> None:
    (folder / "1.tfrecords").write_bytes(b"".join(record(1, item) for item in range(count)))
    source = RecordSource(folder)
    message = rf"1\.tfrecords holds {count} records, but the specification says 4 for class 1 \(crown\)"
    with pytest.raises(DataError, match=message + "; convert the source again"):
        source.images(1, [0])
    (problem,) = source.verify(1)
    size = source.path(1).stat().st_size
    assert f"1.tfrecords, byte {size}: holds {count} records" in problem


BAD = {
    "another label": ({"image": b"x", "label": 2}, "has label 2 in the file of class 1"),
    "no label": ({"image": b"x"}, "has 0 values of 'label' instead of one"),
    "two labels": ({"image": b"x", "label": [1, 1]}, "has 2 values of 'label' instead of one"),
    "no image": ({"label": 1}, "has 0 values of 'image' instead of one"),
    "two images": ({"image": [b"x", b"y"], "label": 1}, "has 2 values of 'image' instead of one"),
    "image of numbers": ({"image": 5, "label": 1}, "has an image that is not stored as bytes"),
    "label of bytes": ({"image": b"x", "label": b"1"}, "has a label that is not stored as an integer"),
    "label of floats": ({"image": b"x", "label": 1.0}, "has a label that is not stored as an integer"),
}


def replace_record(folder: Path, payload: bytes) -> int:
    """Replace record 2 of class 1, and give the byte it starts at."""
    records = [record(1, item) for item in range(COUNTS[1])]
    records[2] = frame(payload)
    (folder / "1.tfrecords").write_bytes(b"".join(records))
    return sum(map(len, records[:2]))


@pytest.mark.parametrize("case", BAD)
def test_records_that_are_no_image_of_the_class_are_refused(folder: Path, case: str) -> None:
    features, message = BAD[case]
    start = replace_record(folder, encode_example(features))  # type: ignore[arg-type]  # the values' types differ
    source = RecordSource(folder)
    assert source.images(1, [0, 1, 3]) == [jpeg(1, 0), jpeg(1, 1), jpeg(1, 3)]
    with pytest.raises(DataError, match=rf"Record 2 of .*1\.tfrecords {message}; convert the source again"):
        source.images(1, [3, 2])
    assert source.verify(1, decode=False) == [f"{source.path(1)}, byte {start}: {message}"]


def test_records_that_are_no_example_are_refused(folder: Path) -> None:
    replace_record(folder, b"\x0a\xff")
    source = RecordSource(folder)
    with pytest.raises(DataError, match=r"Record 2 .* is not a tf\.train\.Example"):
        source.images(1, [2])
    (problem,) = source.verify(1)
    assert "is not a tf.train.Example" in problem


def test_sound_files_have_no_problems(folder: Path) -> None:
    source = RecordSource(folder)
    assert [source.verify(class_id) for class_id in range(3)] == [[], [], []]


def test_every_problem_is_listed(folder: Path) -> None:
    source = RecordSource(folder)
    path = source.path(0)
    starts = scan(path).tolist()
    data = bytearray(path.read_bytes())
    data[starts[1] + 40] ^= 1
    data[starts[3] + 40] ^= 1
    path.write_bytes(data[:-3])
    assert [problem.removeprefix(f"{path}, byte ") for problem in source.verify(0)] == [
        f"{starts[1]}: has a record whose content fails its checksum",
        f"{starts[3]}: has a record whose content fails its checksum",
        f"{starts[5]}: ends in the middle of a record (3 of its {starts[6] - starts[5]} bytes are missing)",
        f"{starts[5]}: holds 5 records, but the specification says 6 for class 0 (penny)",
    ]


@pytest.mark.parametrize("image", [b"", b"text", jpeg(1, 2)[:-100]])
def test_images_that_do_not_decode_are_listed(folder: Path, image: bytes) -> None:
    start = replace_record(folder, encode_example({"image": image, "label": 1}))
    source = RecordSource(folder)
    assert source.images(1, [2]) == [image]
    assert source.verify(1, decode=False) == []
    (problem,) = source.verify(1)
    assert problem.startswith(f"{source.path(1)}, byte {start}: has an image that does not decode (")


def test_long_lists_of_problems_are_cut(folder: Path) -> None:
    source = RecordSource(folder)
    source.path(1).write_bytes(frame(encode_example({"image": b"x", "label": 0})) * (MOST_PROBLEMS - 1))
    assert len(source.verify(1)) == MOST_PROBLEMS
    source.path(1).write_bytes(frame(encode_example({"image": b"x", "label": 0})) * 500)
    problems = source.verify(1)
    assert len(problems) == MOST_PROBLEMS + 1
    assert problems[-1] == f"{source.path(1)}: and more, which are not listed"


def test_missing_and_unreadable_files_are_problems(folder: Path) -> None:
    source = RecordSource(folder)
    source.path(0).unlink()
    (problem,) = source.verify(0)
    assert "0.tfrecords is missing" in problem
    source.path(0).mkdir()
    (problem,) = source.verify(0)
    assert "cannot be read" in problem
    with pytest.raises(DataError, match="cannot be read"):
        source.images(0, [0])


def test_records_come_in_the_order_of_the_file(folder: Path) -> None:
    """The source must not shuffle, so that drawing elsewhere is reproducible; nobody may rely on files being mixed."""
    tracks = b"".join(frame(encode_example({"image": bytes([item // 2]), "label": 1})) for item in range(COUNTS[1]))
    (folder / "1.tfrecords").write_bytes(tracks)
    assert RecordSource(folder).images(1, range(4)) == [b"\0", b"\0", b"\1", b"\1"]


def test_a_failing_disk_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: bytes) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(source_module, "unframe", fail)
    (problem,) = RecordSource(folder).verify(0)
    assert "0.tfrecords cannot be read (Input/output error)" in problem


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "coins").touch()
    with pytest.raises(DataError, match="cannot be read"):
        _ = RecordSource(tmp_path / "coins", specification=SPECIFICATION).fingerprint
