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
