"""Run folders: made once, found again, never mistaken for each other."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lite_bench.harness.cli.train import class_splits
from lite_bench.harness.errors import LiteBenchError, RunError, UsageError
from lite_bench.harness.runs import RunFolder, create_run, newest_finished, open_run
from tests.harness.small import small_settings, small_suite

SETTINGS = small_settings()


def make(folder: Path, name: str | None = None, **changes: Any) -> RunFolder:
    return create_run(folder, small_settings(**changes), 28, "train", name)


def test_a_run_folder_is_enough_to_repeat_the_run(tmp_path: Path) -> None:
    run = make(tmp_path, "first")
    assert run.path == tmp_path / "protonets-conv4-28/first"
    assert run.settings() == SETTINGS
    status = run.status()
    assert (status["kind"], status["status"]) == ("train", "running")
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["versions"]["torch"]


def test_the_size_the_suite_chose_is_recorded(tmp_path: Path) -> None:
    assert make(tmp_path, image_size=None).settings().image_size == 28


def test_the_class_splits_are_recorded(tmp_path: Path) -> None:
    splits = class_splits(small_suite())
    run = create_run(tmp_path, SETTINGS, 28, "eval", "run", splits)
    recorded = json.loads((run.path / "splits.json").read_text())
    assert recorded == splits
    assert set(recorded) == {"train", "validation", "test"}
    assert not set(recorded["train"]) & set(recorded["test"])
    assert class_splits(object()) is None  # type: ignore[arg-type]
    assert not (make(tmp_path, "without").path / "splits.json").exists()


def test_the_data_fingerprint_is_recorded(tmp_path: Path) -> None:
    run = create_run(tmp_path, SETTINGS, 28, "eval", "run", data={"glyphs@1": "abc"})
    assert json.loads((run.path / "environment.json").read_text())["data"] == {"glyphs@1": "abc"}


def test_runs_are_named_by_the_time(tmp_path: Path) -> None:
    names = [make(tmp_path).path.name for _ in range(2)]
    assert names == sorted(set(names))


def test_names_that_files_cannot_have_are_spelt(tmp_path: Path) -> None:
    run = make(tmp_path, "run", backbone="timm:resnet18/x")
    assert run.path.parent.parent == tmp_path


@pytest.mark.parametrize(
    ("kind", "remedy"), [("train", "lite-bench train --resume"), ("eval", "lite-bench eval --checkpoint")]
)
def test_an_existing_folder_is_not_touched(kind: Any, remedy: str, tmp_path: Path) -> None:
    run = create_run(tmp_path, SETTINGS, 28, kind, "run")
    before = sorted(path.read_bytes() for path in run.path.glob("*.*"))
    with pytest.raises(RunError, match=f"{run.path} exists; continue it with `{remedy} {run.path}`, .*--run-name"):
        create_run(tmp_path, small_settings(seed=9), 28, kind, "run")
    assert sorted(path.read_bytes() for path in run.path.glob("*.*")) == before


@pytest.mark.parametrize("name", ["a/b", "..", ".", "", " ", "/tmp/x"])
def test_a_run_name_is_the_name_of_one_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--run-name"):
        make(tmp_path / "runs", name)
    assert not (tmp_path / "runs").exists()


def test_an_output_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(RunError, match="cannot be made: Not a directory; choose another --output-dir"):
        make(tmp_path / "runs")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="cannot be made: Permission denied"):
        make(tmp_path / "runs")
    tmp_path.chmod(0o700)


def test_a_run_is_opened_by_its_folder_or_a_checkpoint(tmp_path: Path) -> None:
    run = make(tmp_path, "run")
    run.checkpoint("last").write_bytes(b"")
    assert open_run(run.path) == open_run(run.checkpoint("last")) == run


@pytest.mark.parametrize("path", ["absent", "empty", "empty/checkpoints/last.safetensors"])
def test_a_folder_that_is_no_run(path: str, tmp_path: Path) -> None:
    (tmp_path / "empty/checkpoints").mkdir(parents=True)
    (tmp_path / "empty/checkpoints/last.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match=r"There is no run folder .*--output-dir"):
        open_run(tmp_path / path)
    with pytest.raises(RunError, match="not a run folder"):
        RunFolder(tmp_path / "empty").settings()


def test_the_best_checkpoint_is_preferred(tmp_path: Path) -> None:
    run = make(tmp_path, "run")
    with pytest.raises(RunError, match="holds no checkpoint"):
        run.chosen_checkpoint()
    run.checkpoint("last").write_bytes(b"")
    assert run.chosen_checkpoint() == run.checkpoint("last")
    run.checkpoint("best").write_bytes(b"")
    assert run.chosen_checkpoint() == run.checkpoint("best")


def finish(run: RunFolder, at: str) -> RunFolder:
    run.set_status("finished", finished=at)
    return run


def test_the_newest_finished_training_is_found(tmp_path: Path) -> None:
    finish(make(tmp_path, "old"), "2024-01-01T00:00:00+00:00")
    newest = finish(make(tmp_path, "a", learner="cnaps"), "2024-03-01T00:00:00+00:00")
    finish(make(tmp_path, "z"), "2024-02-01T00:00:00+00:00")
    finish(create_run(tmp_path, SETTINGS, 28, "eval", "evaluated"), "2024-04-01T00:00:00+00:00")
    make(tmp_path, "unfinished")
    make(tmp_path, "stopped").set_status("interrupted")
    (make(tmp_path, "damaged").path / "run.json").write_text("[1")
    (make(tmp_path, "odd").path / "run.json").write_text("[1]")
    assert newest_finished(tmp_path) == newest


def test_no_finished_run_is_explained(tmp_path: Path) -> None:
    make(tmp_path, "unfinished")
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(LiteBenchError, match=r"no finished training run under .*lite-bench train"):
            newest_finished(folder)


def test_what_a_run_was_made_of_is_recorded(tmp_path: Path) -> None:
    run = create_run(tmp_path, SETTINGS, 28, "train", "run", pretraining="timm resnet18", synthetic=True)
    facts = json.loads((run.path / "environment.json").read_text())
    assert (facts["pretraining"], facts["synthetic"]) == ("timm resnet18", True)
