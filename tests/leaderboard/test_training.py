"""What the table says about a run's training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lite_bench.harness.errors import DataError
from lite_bench.leaderboard.training import read_training


def test_configuration_becomes_the_cell(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('gradient = "lite"\nlite_h = 40\ntasks = 100\nseed = 3\n')
    assert read_training(tmp_path, "abc").text == "lite H=40, 100 tasks, seed 3"


def test_an_unused_h_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('gradient = "exact"\nlite_h = 40\nseed = 0\n')
    assert read_training(tmp_path, "abc").text == "exact"


@pytest.mark.parametrize("status", ["running", "finished"])
def test_unfinished_training_is_noted(tmp_path: Path, status: str) -> None:
    (tmp_path / "config.toml").write_text("tasks = 100\n")
    (tmp_path / "run.json").write_text(json.dumps({"status": status, "step": 2, "tasks": 32}))
    training = read_training(tmp_path, "abc")
    assert training.text == "32 tasks"
    assert training.notes == ("Training is not finished: 32 of 100 tasks.",)


def test_untrained_weights_stay_untrained_whatever_the_run_did(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('gradient = "lite"\ntasks = 100\n')
    assert read_training(tmp_path, "untrained").text == "untrained"


def test_nothing_known_is_said_plainly(tmp_path: Path) -> None:
    assert read_training(tmp_path, "abc").text == "trained"


def test_values_of_another_kind_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("gradient = 3\nlite_h = true\n[tasks]\n")
    assert read_training(tmp_path, "abc").text == "trained"


@pytest.mark.parametrize(
    ("name", "text"),
    [("config.toml", "tasks ="), ("run.json", "{"), ("run.json", "[1]"), ("run.json", "\xff")],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=f"{name} is damaged"):
        read_training(tmp_path, "abc")


def test_what_the_run_recorded_of_itself_is_kept(tmp_path: Path) -> None:
    facts = {
        "pretraining": "timm resnet18.a1_in1k",
        "command": "lite-bench train",
        "versions": {"torch": "2.9", "x": None},
    }
    (tmp_path / "environment.json").write_text(json.dumps(facts))
    (tmp_path / "config.toml").write_text('pixel_range = "signed"\n[params]\nsteps = 5\n')
    training = read_training(tmp_path, "abc")
    assert (training.pretraining, training.command) == ("timm resnet18.a1_in1k", "lite-bench train")
    assert (training.versions, training.options, training.pixels) == ({"torch": "2.9"}, {"steps": "5"}, "signed")


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ("", ""),
        ("pretrained = true", "published weights"),
        ("pretrained = false", "none"),
        ('weights = "a/w.pt"', "file w.pt"),
    ],
)
def test_pretraining_of_runs_that_did_not_record_it(tmp_path: Path, lines: str, text: str) -> None:
    (tmp_path / "config.toml").write_text(lines)
    assert read_training(tmp_path, "untrained").pretraining == text


def test_the_gradient_and_its_h_are_apart(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('gradient = "lite"\nlite_h = 40\ntasks = 100\n')
    training = read_training(tmp_path, "abc")
    assert (training.gradient, training.h, training.tasks) == ("lite", 40, 100)
    untrained = read_training(tmp_path, "untrained")
    assert (untrained.gradient, untrained.h, untrained.tasks) == ("", None, None)


def test_training_on_stand_ins_is_noted(tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text('{"synthetic": true}')
    assert read_training(tmp_path, "abc").notes == ("Trained on stand-in data.",)
    assert read_training(tmp_path, "untrained").notes == ("Not meta-trained.",)
