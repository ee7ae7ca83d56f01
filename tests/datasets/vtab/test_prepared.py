"""Prepared datasets: against TFDS's own reader, in three formats, without TensorFlow, and everything that breaks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lite_bench.datasets.vtab import prepared
from lite_bench.datasets.vtab.pixels import decode_rgb
from lite_bench.datasets.vtab.prepared import NotPrepared, PreparedDataset, find_prepared, search_roots
from lite_bench.datasets.vtab.shards import FORMATS, Format, ParquetShard, write_shard
from lite_bench.datasets.vtab.standin import write_standin
from lite_bench.harness.errors import DataError

NORB = ("smallnorb", "2.0.0")
LABELS = ("label_azimuth", "label_elevation")


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory, standin: Path) -> dict[Format, Path]:
    """The same stand-in in each format."""
    folders: dict[Format, Path] = {"array_record": standin.joinpath(*NORB)}
    for file_format in ("tfrecord", "parquet"):
        root = tmp_path_factory.mktemp(file_format)
        write_standin(root, file_format=file_format, datasets=["smallnorb"])
        folders[file_format] = root.joinpath(*NORB)
    return folders


@pytest.fixture
def copy(formats: dict[Format, Path], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy that a test may break, in the format of its parameter."""
    return Path(shutil.copytree(formats[getattr(request, "param", "array_record")], tmp_path.joinpath("root", *NORB)))


def data_source(folder: Path, split: str) -> Any:
    import tensorflow_datasets as tfds

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tfds.builder_from_directory(str(folder)).as_data_source(split)


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("oxford_flowers102/2.1.1", ["label", "file_name"]),
        ("sun397/tfds/4.0.0", ["label", "file_name"]),
        ("dsprites/2.0.0", ["label_x_position", "label_orientation", "value_scale"]),
        ("clevr/3.1.0", ["objects/pixel_coords", "objects/size", "file_name"]),
        ("kitti/3.3.0", ["objects/location", "objects/type"]),
    ],
)
def test_reads_what_tfds_reads(standin: Path, name: str, features: list[str]) -> None:
    ours = PreparedDataset(standin / name)
    assert f"{ours.name}/{f'{ours.config}/' if ours.config else ''}{ours.version}" == name
    assert (ours.format, ours.synthetic) == ("array_record", True)
    for split, size in ours.sizes.items():
        theirs = data_source(standin / name, split)
        assert len(theirs) == ours.n_examples(split) == size
        for position in (*range(0, size, 167), size - 1):
            expected = theirs[position]
            found = ours.example(split, position, ["image", *features])
            assert list(found) == ["image", *features]
            image = found["image"]
            assert isinstance(image, bytes)
            assert (np.asarray(decode_rgb(image)) == expected["image"]).all()
            for feature in features:
                group, _, member = feature.partition("/")
                value: Any = expected[group]
                if isinstance(value, dict):
                    value = value[member]
                if isinstance(found[feature], bytes):
                    assert found[feature] == value
                else:
                    np.testing.assert_array_equal(found[feature], np.ravel(value))


def test_three_formats_are_one_dataset(formats: dict[Format, Path]) -> None:
    copies = {file_format: PreparedDataset(folder) for file_format, folder in formats.items()}
    assert {copy.format for copy in copies.values()} == set(FORMATS)
    assert len({copy.fingerprint for copy in copies.values()}) == 1
    assert len(copies["array_record"].fingerprint) == 64
    for split in ("train", "test"):
        for position in (0, 1, 99, 100, 499):
            first, *others = (copy.example(split, position, ["image", *LABELS]) for copy in copies.values())
            assert all(other == first for other in others)
    reference = [data_source(formats["array_record"], "train")[n]["label_azimuth"] for n in range(0, 1200, 100)]
    for folder in formats.values():
        source = PreparedDataset(folder)
        found = [int(source.example("train", n, LABELS)["label_azimuth"][0]) for n in range(0, 1200, 100)]
        assert found == reference


def test_fingerprint_depends_on_version_splits_and_bytes(copy: Path) -> None:
    prints = {PreparedDataset(copy).fingerprint}
    changes = [
        ('"2.0.0"', '"2.1.0"'),
        ('"test"', '"rest"'),
        ('"600"', '"599"'),
        ('"numBytes": "', '"numBytes": "1'),
    ]
    for old, new in changes:
        text = (copy / "dataset_info.json").read_text()
        assert old in text
        (copy / "dataset_info.json").write_text(text.replace(old, new))
        prints.add(PreparedDataset(copy).fingerprint)
    assert len(prints) == 5


def test_many_threads_and_few_open_files(formats: dict[Format, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "OPEN_FILES", 1)
    for folder in formats.values():
        dataset = PreparedDataset(folder)
        positions = np.random.default_rng(0).integers(0, 1200, 600).tolist()
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda n, d=dataset: d.example("train", n, ["image"]), positions))
        assert found == [dataset.example("train", n, ["image"]) for n in positions]


BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "tensorflow_datasets"):
            raise ImportError(name)

sys.meta_path.insert(0, Block())
from pathlib import Path
import numpy as np
from lite_bench.datasets.vtab.source import VtabSource
from lite_bench.datasets.vtab.tasks import task_named

for root in sys.argv[1:]:
    source = VtabSource(task_named("smallnorb_azimuth"), "official", 8, Path(root))
    total = sum(int(labels.sum()) + float(images.double().sum()) for images, labels in source.test_batches(100))
    print(source.examples.folder.parent.parent.name, source.way, source.n_test, total)
"""


def test_reading_needs_no_tensorflow(formats: dict[Format, Path]) -> None:
    roots = [str(folder.parents[1]) for folder in formats.values()]
    done = subprocess.run([sys.executable, "-c", BLOCKED, *roots], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == [Path(root).name for root in roots]
    assert len({line[2] for line in lines}) == 1
    assert lines[0][2].startswith("18 250 ")


def test_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert search_roots(None) == [Path.home() / "tensorflow_datasets"]
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "x"))
    home = Path(os.environ["HOME"])
    assert search_roots(Path("d")) == [Path("d"), Path("d/tfds"), tmp_path / "x", home / "tensorflow_datasets"]


def folder_of(root: Path, *parts: str) -> Path:
    folder = root.joinpath(*parts)
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    return folder


def reason(found: Path | NotPrepared, *, present: bool = True) -> str:
    assert isinstance(found, NotPrepared)
    assert found.present == present
    assert found.reason.endswith(".")
    return found.reason


def test_finding(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    text = reason(find_prepared([one, two], "kitti", None, ["3.1.0", "3.2.0"]), present=False)
    assert f"kitti was not found in {one}, {two}" in text
    assert "`lite-bench data prepare kitti --output-dir DATA`" in text
    old = folder_of(two, "kitti", "1.0.0")
    text = reason(find_prepared([one, two], "kitti", None, ["3.1.0", "3.2.0"]))
    assert f"only {old} was found, and the version must be 3.1.0 or 3.2.0" in text
    folder_of(two, "kitti", "3.1.0")
    newer = folder_of(two, "kitti", "3.2.0")
    assert find_prepared([one, two], "kitti", None, ["3.1.0", "3.2.0"]) == newer
    first = folder_of(one, "kitti", "3.1.0")
    assert find_prepared([one, two], "kitti", None, ["3.1.0", "3.2.0"]) == first


def test_finding_a_config(tmp_path: Path) -> None:
    folder_of(tmp_path, "diabetic_retinopathy_detection", "original", "3.0.0")
    text = reason(find_prepared([tmp_path], "diabetic_retinopathy_detection", "btgraham-300", ["3.0.0"]), present=False)
    assert "diabetic_retinopathy_detection/btgraham-300 was not found" in text
    assert "data prepare diabetic_retinopathy_detection/btgraham-300" in text


@pytest.mark.parametrize("name", ["2.0.1.incompleteAB12CD", "incomplete.AB12CD_2.0.1"])  # of older and newer TFDS
def test_finding_what_is_incomplete(tmp_path: Path, name: str) -> None:
    (tmp_path / "dmlab" / name).mkdir(parents=True)
    text = reason(find_prepared([tmp_path], "dmlab", None, ["2.0.1"]))
    assert f"{name} is what an interrupted preparation left; delete it" in text
    shutil.rmtree(tmp_path / "dmlab")
    (tmp_path / "dmlab" / "2.0.1").mkdir(parents=True)
    assert "has no dataset_info.json" in reason(find_prepared([tmp_path], "dmlab", None, ["2.0.1"]))


def change_info(folder: Path, **changes: object) -> None:
    info = json.loads((folder / "dataset_info.json").read_text())
    info.update(changes)
    (folder / "dataset_info.json").write_text(json.dumps(info))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "does not describe a dataset"),
        ("{}", "does not describe a dataset"),
        (
            '{"name": "a", "version": "1.0.0", "splits": [{"name": "train", "shardLengths": ["x"]}]}',
            "does not describe",
        ),
        ('{"name": "a", "version": "1.0.0", "splits": [4]}', "does not describe a dataset"),
        ('{"name": "a", "version": "1.0.0", "splits": [], "fileFormat": "riegeli"}', "in riegeli format"),
    ],
)
def test_broken_info(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "dataset_info.json").write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        PreparedDataset(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_info_of_an_old_copy(formats: dict[Format, Path], tmp_path: Path) -> None:
    """Before 2022 neither the format, which was tfrecord, nor the names of files were written down."""
    folder = Path(shutil.copytree(formats["tfrecord"], tmp_path / "smallnorb" / "2.0.0"))
    info = json.loads((folder / "dataset_info.json").read_text())
    del info["fileFormat"]
    for split in info["splits"]:
        del split["filepathTemplate"]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    old, new = PreparedDataset(folder), PreparedDataset(formats["tfrecord"])
    assert old.example("train", 700, ["image"]) == new.example("train", 700, ["image"])
    assert [path.name for path in old.file_paths(["train"])] == [
        "smallnorb-train.tfrecord-00000-of-00002",
        "smallnorb-train.tfrecord-00001-of-00002",
    ]
    assert all(path.is_file() for path in old.file_paths())


def test_missing_files(copy: Path) -> None:
    dataset = PreparedDataset(copy)
    dataset.check_files(["train", "test"])
    gone = dataset.file_paths(["train"])[1]
    gone.unlink()
    dataset.check_files(["test"])
    with pytest.raises(DataError, match=f"is incomplete: 1 of 2 files are missing, such as {gone.name}"):
        dataset.check_files(["train"])
    dataset.example("train", 599, ["image"])
    with pytest.raises(DataError, match=f"{gone.name} is missing"):
        dataset.example("train", 600, ["image"])


@pytest.mark.parametrize("copy", FORMATS, indirect=True)
@pytest.mark.parametrize("damage", ["truncated", "empty", "junk"])
def test_damaged_files(copy: Path, damage: str) -> None:
    (path,) = PreparedDataset(copy).file_paths(["test"])
    data = path.read_bytes()
    path.write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "junk": b"\x00junk" * 5000}[damage])
    with pytest.raises(DataError, match=r"smallnorb-test\.") as caught:
        PreparedDataset(copy).example("test", 499, ["image"])
    assert "again" in str(caught.value)


@pytest.mark.parametrize("copy", FORMATS, indirect=True)
def test_other_numbers_of_examples(copy: Path) -> None:
    dataset = PreparedDataset(copy)
    write_shard(dataset.file_paths(["test"])[0], dataset.format, [b""] * 7)
    with pytest.raises(DataError, match=r"holds 7 of 500 examples.* in array_record format"):
        dataset.example("test", 0, ["image"])


@pytest.mark.parametrize("copy", FORMATS, indirect=True)
@pytest.mark.parametrize("content", [b"no Example", b"\x0a\x05ab"])
def test_records_that_are_no_examples(copy: Path, content: bytes) -> None:
    dataset = PreparedDataset(copy)
    write_shard(dataset.file_paths(["test"])[0], dataset.format, [content] * 500)
    with pytest.raises(DataError, match=r"smallnorb-test\..* is damaged"):
        dataset.example("test", 3, ["image"])


def test_a_flipped_byte_of_an_array_record(copy: Path) -> None:
    dataset = PreparedDataset(copy)
    (path,) = dataset.file_paths(["test"])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"smallnorb-test\..* is damaged"):
        [dataset.example("test", position, ["image"]) for position in range(500)]


def test_parquet_written_by_tfds_itself(copy: Path) -> None:
    """The writer of TFDS 4.9.10 drops most examples."""
    from tensorflow_datasets.core.file_adapters import ParquetFileAdapter

    shutil.rmtree(copy)
    copy.mkdir()
    split = {"name": "test", "shardLengths": ["500"], "numBytes": "1"}
    info = {"name": "smallnorb", "version": "2.0.0", "fileFormat": "parquet", "splits": [split]}
    (copy / "dataset_info.json").write_text(json.dumps(info))
    dataset = PreparedDataset(copy)
    (path,) = dataset.file_paths()
    ParquetFileAdapter.write_examples(path, ((n, b"") for n in range(500)))
    if ParquetShard(path).n_records == 500:
        pytest.skip("this version of tensorflow-datasets writes all examples")
    with pytest.raises(DataError, match=r"of 500 examples \(the Parquet writer of tensorflow-datasets 4\.9\.10 drops"):
        dataset.example("test", 499, [])


def test_what_is_not_there(formats: dict[Format, Path]) -> None:
    dataset = PreparedDataset(formats["array_record"])
    with pytest.raises(DataError, match="no split 'validation' but train, test"):
        dataset.n_examples("validation")
    with pytest.raises(DataError, match=r"Example 3 of smallnorb, split 'test', in .* has no feature 'label'"):
        dataset.example("test", 3, ["label"])
    for position in (-1, 500):
        with pytest.raises(IndexError):
            dataset.example("test", position, [])
