"""The data commands on stand-ins and on what may be wrong with data."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from lite_bench.datasets.meta_dataset.specification_files import read_specification
from lite_bench.datasets.tfrecords.framing import scan
from lite_bench.datasets.vtab.tasks import tasks, used_splits
from lite_bench.datasets.vtab_md.data import VtabMdData, standin_jobs
from lite_bench.datasets.vtab_md.standins import standin_specification
from lite_bench.harness.data import SourceStatus
from lite_bench.harness.errors import DataError, UsageError
from tests.harness.small import Shell

KEEPER = VtabMdData()
SOURCES = {each.source for each in KEEPER.status(None)}


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


@pytest.fixture
def copied(tmp_path: Path, standin: Path) -> Path:
    """A data folder with two small sources that may be spoiled."""
    for name in ("records/dtd", "tfds/kitti"):
        shutil.copytree(standin / name, tmp_path / name)
    return tmp_path


def silent(name: str, done: int, total: int, detail: str) -> None:
    assert 0 <= done <= total, (name, detail)


def status_of(source: str, data_dir: Path) -> SourceStatus:
    return next(each for each in KEEPER.status(data_dir) if each.source == source)


def problems_of(source: str, data_dir: Path, *, decode: bool = True) -> list[str]:
    return KEEPER.verify([source], data_dir, decode=decode, workers=2, notify=silent)[source]


# --- status


def test_all_sources_of_both_versions_are_listed() -> None:
    assert len(SOURCES) == 28  # 11 of Meta-Dataset, 15 data sets of TFDS (one in two configs), and SUN397's folder
    used = {each.source: each.used_for for each in KEEPER.status(None)}
    assert used["omniglot"] == ("train", "validation", "test")
    assert used["traffic_sign"] == ("test",)
    assert used["ilsvrc_2012_v2"] == ("train (official)",)
    assert used["diabetic_retinopathy_detection/original"] == ("test (lite)",)


def test_stand_ins_are_found_as_such(standin: Path, shell: Shell) -> None:
    assert {each.state for each in KEEPER.status(standin)} == {"stand-in"}
    out, err = shell("data", "status", "vtab_md", "--data-dir", standin, "--json")
    assert {each["source"] for each in json.loads(out)["vtab_md"]} == SOURCES
    out, err = shell("data", "status", "vtab_md", "--data-dir", standin)
    assert len(out.splitlines()) == 29
    assert "28 of 28 sources found" in err


def test_what_is_missing_comes_with_the_next_step(tmp_path: Path, shell: Shell) -> None:
    for each in KEEPER.status(tmp_path):
        assert (each.state, each.where) == ("missing", None)
        assert each.next_step.startswith(f"lite-bench data prepare {each.source} ")
        assert "https://" in each.next_step
        assert each.source in KEEPER.preparable()
        assert tmp_path in {place if place == tmp_path else place.parent for place in each.looked}
    _, err = shell("data", "status", "--data-dir", tmp_path)
    assert "0 of 28 sources found" in err


def test_incomplete_records_are_told_from_missing_ones(copied: Path) -> None:
    (copied / "records/dtd/3.tfrecords").unlink()
    status = status_of("dtd", copied)
    assert status.state == "incomplete"
    assert "3.tfrecords is missing (1 of the 47 class files" in status.problem
    (copied / "records/dtd/dataset_spec.json").unlink()
    status = status_of("dtd", copied)
    assert (status.state, status.where) == ("incomplete", copied / "records/dtd")
    assert status.problem.endswith("not finished; go on with it:")
    assert status.next_step.startswith("lite-bench data prepare dtd")


def test_records_of_other_classes_or_counts_are_not_taken_for_the_published_ones(copied: Path) -> None:
    (copied / "records/dtd/synthetic.json").unlink()
    status = status_of("dtd", copied)
    assert (status.state, status.where) == ("incomplete", copied / "records/dtd")
    assert status.problem.endswith("class 0 (chequered) has 24 images and should have 120.")
    assert "into another folder: lite-bench data prepare dtd" in status.next_step


def test_incomplete_or_old_tfds_copies_are_told_from_missing_ones(copied: Path) -> None:
    (folder,) = (copied / "tfds/kitti").iterdir()
    shard = next(folder.glob("*test.array_record*"))
    shard.rename(copied / "kept")
    status = status_of("kitti", copied)
    assert status.state == "incomplete"
    assert shard.name in status.problem
    (copied / "kept").rename(shard)
    assert status_of("kitti", copied).state == "stand-in"
    folder.rename(folder.with_name("1.0.0"))
    status = status_of("kitti", copied)
    assert status.state == "incomplete"
    assert "1.0.0 was found, and the version must be" in status.problem


def test_sources_of_meta_dataset_that_the_benchmark_has_no_use_for_can_be_converted_too(standin: Path) -> None:
    assert "102flowers.tgz and imagelabels.mat from https://" in KEEPER.preparable()["vgg_flower"]
    assert "vgg_flower" not in SOURCES
    assert problems_of("vgg_flower", standin)[0].startswith("vgg_flower was not found; lite-bench data prepare")


def test_a_source_checkout_in_place_of_records_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "meta_dataset").mkdir()
    (tmp_path / "setup.py").touch()
    monkeypatch.setenv("META_DATASET_ROOT", str(tmp_path))
    problem = status_of("dtd", tmp_path).problem
    assert problem.startswith(f"META_DATASET_ROOT names {tmp_path}, a checkout of Meta-Dataset's source code")
    assert "set RECORDS to the folder of converted records" in problem


# --- verify and index


def test_good_data_verifies(standin: Path, shell: Shell) -> None:
    out, _ = shell("data", "verify", "vtab_md", "--data-dir", standin, "--source", "dtd", "--source", "kitti")
    assert out.splitlines()[1:] == ["dtd\tok", "kitti\tok"]


def test_a_flipped_bit_is_found_with_file_and_offset(copied: Path, shell: Shell) -> None:
    path = copied / "records/dtd/5.tfrecords"
    data = bytearray(path.read_bytes())
    start = int(scan(path)[2])
    data[start + 100] ^= 4
    path.write_bytes(data)
    (problem,) = problems_of("dtd", copied)
    assert str(path) in problem
    assert f"byte {start}" in problem
    _, err = shell("data", "verify", "--data-dir", copied, "--source", "dtd", code=1)
    assert f"Problem: {problem}" in err


def test_counts_are_compared_with_the_published_ones(copied: Path) -> None:
    (copied / "records/dtd/synthetic.json").unlink()
    (first, *_) = problems_of("dtd", copied, decode=False)
    assert "class 0 (chequered) has 24 images and should have 120" in first


def test_a_wrong_class_order_is_found(copied: Path) -> None:
    spec = copied / "records/dtd/dataset_spec.json"
    stored = json.loads(spec.read_text())
    stored["class_names"]["0"], stored["class_names"]["1"] = stored["class_names"]["1"], stored["class_names"]["0"]
    spec.write_text(json.dumps(stored))
    (copied / "records/dtd/synthetic.json").unlink()
    (first, *_) = problems_of("dtd", copied, decode=False)
    assert "class 0 is" in first
    assert "should be 'chequered'" in first


def test_a_missing_class_file_is_a_problem(copied: Path) -> None:
    (copied / "records/dtd/7.tfrecords").unlink()
    assert any("7.tfrecords" in problem for problem in problems_of("dtd", copied))


def test_nobody_calls_absent_data_fine(tmp_path: Path, shell: Shell) -> None:
    assert "No data was found to check" in shell.fails("data", "verify", "--data-dir", tmp_path, code=1)
    assert "no source called 'dttd'" in shell.fails("data", "verify", "--data-dir", tmp_path, "--source", "dttd")
    _, err = shell("data", "verify", "--data-dir", tmp_path, "--source", "dtd", code=1)
    assert "dtd was not found; lite-bench data prepare dtd" in err


def test_what_is_incomplete_is_a_problem_even_if_nobody_asked(copied: Path, shell: Shell) -> None:
    shutil.rmtree(copied / "tfds/kitti/3.3.0")
    (copied / "tfds/kitti/1.0.0").mkdir()
    (copied / "records/dtd/dataset_spec.json").unlink()
    found = KEEPER.verify([], copied, decode=False, workers=2, notify=silent)
    assert set(found) == {"dtd", "kitti"}
    assert "not finished; go on with it: lite-bench data prepare dtd" in found["dtd"][0]
    assert "1.0.0 was found, and the version must be" in found["kitti"][0]
    shell("data", "verify", "--data-dir", copied, code=1)


def test_indexing_counts_files_and_records(standin: Path, shell: Shell) -> None:
    out, _ = shell("data", "index", "--data-dir", standin, "--source", "dtd", "--source", "traffic_sign")
    assert out.splitlines()[1:] == ["dtd\t47\t1128", "traffic_sign\t43\t1032"]


def test_a_source_without_an_index_is_not_called_unknown(standin: Path, shell: Shell) -> None:
    line = shell.fails("data", "index", "--data-dir", standin, "--source", "kitti", code=1)
    assert "kitti has nothing to index" in line
    assert "No data was found to index" in shell.fails("data", "index", "--data-dir", "nowhere", code=1)


def test_a_broken_file_is_one_problem(copied: Path) -> None:
    (folder,) = (copied / "tfds/kitti").iterdir()
    shard = next(folder.glob("*test.array_record*"))
    shard.write_bytes(shard.read_bytes()[:1000])
    (problem,) = problems_of("kitti", copied)
    assert shard.name in problem


def test_splits_that_no_task_reads_need_not_be_there() -> None:
    read = {task.dataset.name: used_splits(task.dataset, task.selections["official"].config) for task in tasks()}
    assert read["svhn_cropped"] == ["train", "test"]  # and not extra
    assert read["clevr"] == ["train", "validation"]
    assert set(read["smallnorb"]) == {"train", "test"}
    assert set(read["diabetic_retinopathy_detection"]) == {"train", "validation", "test"}


# --- prepare and synth


def test_preparing_needs_originals_and_says_which(tmp_path: Path, shell: Shell) -> None:
    line = shell.fails("data", "prepare", "omniglot", "--output-dir", tmp_path)
    assert "needs --from FOLDER with images_background.zip and images_evaluation.zip from https://" in line
    line = shell.fails("data", "prepare", "omniglot", "--from", tmp_path / "no", "--output-dir", tmp_path, code=1)
    assert "images_background" in line
    assert "Did you mean omniglot" in shell.fails("data", "prepare", "omniglott", "--output-dir", tmp_path)
    with pytest.raises(UsageError, match=r"needs --from FOLDER with SUN397\.tar\.gz"):
        KEEPER.prepare("sun397", None, tmp_path, workers=1, notify=silent)


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed")
def test_preparing_with_tfds_names_the_extra(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"needs TensorFlow .* pip install 'lite-bench\[tfds-prepare\]'"):
        KEEPER.prepare("cifar100", None, tmp_path, workers=1, notify=silent)


def test_stand_ins_go_into_an_empty_folder(tmp_path: Path, shell: Shell) -> None:
    (tmp_path / "photograph.jpg").touch()
    line = shell.fails("data", "synth", "vtab_md", "--output-dir", tmp_path, code=1)
    assert "is not an empty folder" in line
    assert "no data keeper 'vtab'. Did you mean vtab_md?" in shell.fails("data", "synth", "vtab", "--output-dir", "x")


@pytest.mark.parametrize("source", ["omniglot", "ilsvrc_2012", "ilsvrc_2012_v2", "fungi", "mscoco"])
def test_stand_ins_have_the_published_classes(standin: Path, source: str) -> None:
    assert read_specification(standin / "records" / source) == standin_specification(source)
    marker = json.loads((standin / "records" / source / "synthetic.json").read_text())
    assert marker["synthetic"] is True


def test_one_process_writes_the_same_stand_ins(standin: Path, tmp_path: Path) -> None:
    root = tmp_path / "alone"
    for job in standin_jobs(root, 0):
        if {"kitti", "dtd"} & {str(value) for value in (*job.args, *job.keywords.get("datasets", ()))}:
            job()
    written = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    assert len(written) > 50
    for path in written:
        assert (root / path).read_bytes() == (standin / path).read_bytes(), path
