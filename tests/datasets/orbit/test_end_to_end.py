"""The benchmark through the command line: train in a mode, evaluate, rank, and write the challenge's file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lite_bench.datasets.orbit.standin import write_standin
from lite_bench.harness.records import read_results
from tests.datasets.orbit.trees import Users, write_tree
from tests.harness.small import Shell, untimed

SIDE = 32
SIZE = ["--suite", "orbit", "--image-size", str(SIDE), "--backbone", "conv4+gn", "--no-pretrained", "--device", "cpu"]
QUICK = "test_byobnet+gn"
"""A very small network of timm's."""
USERS: Users = {
    "train": {
        "P100": {"blue mug": ((9, 8, 4), (10,)), "keys": ((3, 12), (5, 9))},
        "P106": {"cane": ((8, 8), (7,)), "dog toy": ((20, 9), (11,)), "fridge": ((5, 6), (8,))},
    },
    "validation": {"P189": {"bag": ((6, 9), (7,)), "mouse": ((8, 10), (9,))}},
    "test": {
        "P177": {"front door": ((9, 16), (10,)), "keys": ((8, 9, 10), (6, 12))},
        "P198": {"bag": ((10, 8), (9,)), "tin": ((7, 11), (8,)), "watch": ((12, 9), (5,))},
    },
}
VIDEOS = {"clean": {"P177": 2, "P198": 3}, "clutter": {"P177": 3, "P198": 3}}
"""Target videos of the test users."""
TRAINED: dict[str, list[str | Path]] = {
    "protonets": [],
    "simple_cnaps": [],
    "fomaml": ["-P", "steps=2", "-P", "inner_lr=0.1"],
}


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / f"orbit_benchmark_{SIDE}", USERS, SIDE)


def timeless(run: Path) -> dict[str, list[dict[str, Any]]]:
    """All records of a run without their times."""
    (results,) = read_results(run)
    return {source: [vars(untimed(record)) for record in records] for source, records in results.records.items()}


@pytest.mark.parametrize(
    ("learner", "mode"), [*((learner, "clean") for learner in TRAINED), ("simple_cnaps", "clutter")]
)
def test_train_and_evaluate_in_a_mode(learner: str, mode: str, tree: Path, shell: Shell) -> None:
    training = ["--tasks", "3", "--tasks-per-step", "2", "--validate-every", "2", "--validation-tasks", "1"]
    own: list[str | Path] = ["-S", f"mode={mode}", "--data-dir", tree, *TRAINED[learner]]
    shell("train", learner, *SIZE, *own, *training, "--lite-h", "4", "--run-name", "a")
    out, err = shell("eval", "--limit", "6", "--json")
    content = json.loads(out)["sources"]
    assert list(content) == [mode]
    assert content[mode]["scores"] == 5 * VIDEOS[mode]["P177"] + VIDEOS[mode]["P198"]
    assert list(content[mode]["metrics"]) == ["video accuracy", "frames to recognition"]
    assert "is not the published benchmark" in err
    run = next(Path("runs").glob("*/a"))
    board, _ = shell("leaderboard", "runs")
    (line,) = [line for line in board.splitlines() if "lite-importance" in line and "| Learner" not in line]
    cells = [cell.strip() for cell in line.split("|")]
    assert [*cells[-4:-2], cells[-2].split(" ")[0]] == ["4", "3", f"mode={mode}"]
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [step["tasks"] for step in steps] == [2, 3]
    assert steps[0]["validation"] is not None


def test_the_machine_does_not_show(tree: Path, shell: Shell) -> None:
    for name, changes in (("a", ["--workers", "1"]), ("b", ["--workers", "3", "--batch-size", "17"])):
        arguments: list[str | Path] = ["eval", "finetuner", *SIZE, "--data-dir", tree, "-P", "steps=3", "--limit", "6"]
        shell(*arguments, *changes, "--run-name", name)
    first, second = (timeless(next(Path("runs").glob(f"*/{name}"))) for name in ("a", "b"))
    assert list(first) == ["clean", "clutter"]
    assert first == second


def test_a_run_takes_up_the_other_mode_later(tree: Path, shell: Shell) -> None:
    for mode in ("clean", "clutter"):
        fresh = (
            ["protonets", *SIZE, "--run-name", "a"] if mode == "clean" else ["--checkpoint", *Path("runs").glob("*/a")]
        )
        shell("eval", *fresh, "-S", f"mode={mode}", "--data-dir", tree, "--limit", "1")
    assert {source: len(records) for source, records in timeless(next(Path("runs").glob("*/a"))).items()} == {
        "clean": 1,
        "clutter": 1,
    }
    board, _ = shell("leaderboard", "runs")
    assert "lower is better" in board
    assert "clean: video accuracy" in board
    assert "clutter: frames to recognition" in board


def clutter(tree: Path) -> list[str | Path]:
    """An evaluation of a learner that needs no training."""
    own: list[str | Path] = ["-S", "mode=clutter", "--data-dir", tree, "--run-name", "a"]
    return ["eval", "protonets", *SIZE, *own]


def test_the_file_of_the_challenge(tree: Path, shell: Shell) -> None:
    shell(*clutter(tree), "--keep-predictions", "--limit", "6")
    _, err = shell("predictions", *Path("runs").glob("*/a"), "--output", "results.json")
    assert "6 of 10 tasks; the evaluation is not finished" in err
    content = json.loads(Path("results.json").read_text())
    assert {user: len(tasks) for user, tasks in content.items()} == {"P177": 5, "P198": 1}
    first = content["P177"][0]
    assert first["task_object_list"] == ["front door", "keys"]
    assert sorted(len(frames) for frames in first["task_videos"].values()) == [6, 10, 12]
    assert all(list(frames) == [str(n + 1) for n in range(len(frames))] for frames in first["task_videos"].values())
    assert all(label in (0, 1) for frames in first["task_videos"].values() for label in frames.values())
    costs = [task["task_macs_to_personalise"] for tasks in content.values() for task in tasks]
    assert all(cost.endswith("G") and float(cost[:-1]) > 1 for cost in costs)
    assert "do not say what adapting cost" not in err


def test_the_file_of_a_mode_that_was_not_trained_on(tree: Path, shell: Shell) -> None:
    shell("eval", "protonets", *SIZE, "-S", "mode=clean", "--data-dir", tree, "--run-name", "a", "--limit", "1")
    run = next(Path("runs").glob("*/a"))
    shell("eval", "--checkpoint", run, "-S", "mode=clutter", "--keep-predictions", "--limit", "1")
    line = shell.fails("predictions", run, "--output", "results.json", code=1)
    assert "holds no predictions on orbit@2021+data=other" in line
    shell("predictions", run, "-S", "mode=clutter", "--output", "results.json")
    assert list(json.loads(Path("results.json").read_text())) == ["P177"]


def test_a_data_folder_that_is_not_there_is_named(shell: Shell, monkeypatch: pytest.MonkeyPatch, tree: Path) -> None:
    monkeypatch.setenv("ORBIT_BENCHMARK_ROOT", str(tree))
    line = shell.fails("eval", "protonets", *SIZE, "--data-dir", "typo", "--limit", "1")
    assert "--data-dir typo does not exist" in line


def test_a_frame_that_does_not_decode_leaves_the_finished_tasks(tree: Path, shell: Shell) -> None:
    broken = sorted(tree.glob("test/P198/*/clutter/*/*-00005.jpg"))[0]
    broken.write_bytes(broken.read_bytes()[:60])
    _, err = shell(*clutter(tree), code=1)
    assert str(broken) in err.splitlines()[-1]
    assert "Go on with: lite-bench eval --checkpoint" in err
    assert len(timeless(next(Path("runs").glob("*/a")))["clutter"]) == 5


def test_pretraining_needs_published_objects(tree: Path, shell: Shell) -> None:
    arguments: list[str | Path] = [
        "train",
        "finetuner",
        *SIZE,
        "-S",
        "mode=clean",
        "-S",
        "train_labels=cluster",
        "--data-dir",
        tree,
    ]
    line = shell.fails(*arguments, "-P", "pretrain_classes=100", "--tasks", "2", code=1)
    assert "No cluster is published for the object" in line


@pytest.mark.slow
def test_the_whole_benchmark_on_its_stand_in(tmp_path: Path, shell: Shell) -> None:
    """Every learner in both modes: all 85 tasks of the quickest, the first three of the others; the same twice."""
    root = tmp_path / f"orbit_benchmark_{SIDE}"
    write_standin(root, image_size=SIDE, workers=2)
    for mode, scores in (("clean", 905), ("clutter", 1500)):
        own: list[str | Path] = [*SIZE, "--backbone", QUICK, "-S", f"mode={mode}", "--data-dir", root]
        own += ["--batch-size", "256"]
        out, err = shell("eval", "protonets", *own, "--json")
        content = json.loads(out)["sources"][mode]
        assert (content["scores"], content["done"]) == (scores, 85)
        assert "Stand-in data" in err
        for learner in (*TRAINED, "finetuner"):
            for name, workers in (("first", "1"), ("again", "3")):
                steps = TRAINED.get(learner, [])
                arguments = ["eval", learner, *own, *steps, "--limit", "3", "--workers", workers]
                shell(*arguments, "--run-name", f"{name}-{mode}")
            folder = Path("runs") / f"{learner}-{QUICK}-{SIDE}"
            assert timeless(folder / f"first-{mode}") == timeless(folder / f"again-{mode}")
