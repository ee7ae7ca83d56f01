"""``lite-bench gradients``, ``profile`` and ``train --memory-budget``, as typed."""

from __future__ import annotations

import json
import signal
import tomllib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lite_bench.harness.cli.gradients import with_task_size
from lite_bench.harness.measurement.gradients import Study
from lite_bench.harness.measurement.profiling import Profiler
from tests.harness.small import FLAGS, Shell

STUDY = [*FLAGS[:-2], "--draws", "16", "--h", "1,4,9"]


def test_a_default_task_size_is_only_for_suites_that_have_one() -> None:
    assert with_task_size("glyphs", {"shot": 3}) == {"way": 10, "shot": 3}
    assert with_task_size("folder:photographs", {}) == {"way": 10, "shot": 10}
    assert with_task_size(None, {}) == {"way": 10, "shot": 10}
    assert with_task_size("orbit@2021", {"mode": "clean"}) == {"mode": "clean"}


def test_a_study_is_printed_and_written(shell: Shell) -> None:
    out, err = shell("gradients", "protonets", *STUDY, "-o", "study")
    assert "| lite-importance | 4 | backbone |" in out
    assert "--h 9: tasks have 6 support images, so H = 6 is used" in err
    assert "subsample takes at least one image of every class" in err
    assert out.rstrip() == Path("study/gradients.md").read_text().rstrip()
    with Image.open("study/gradients.png") as picture:
        assert picture.width > picture.height > 300
    content = json.loads(Path("study/gradients.json").read_text())
    exact = next(f for f in content["findings"] if f["case"]["estimator"] == "exact")
    assert exact["parts"]["backbone"]["rmse"] < 1e-5


def test_a_study_as_json_of_a_trained_run(shell: Shell) -> None:
    shell("train", "protonets", *FLAGS, "--tasks", "2", "--tasks-per-step", "1", "--validate-every", "0")
    run = next(Path("runs").glob("*/*"))
    asked = ["--gradient", "lite", "--h", "2", "--draws", "2", "--way", "3", "--shot", "2", "--json"]
    out, err = shell("gradients", "--checkpoint", run, *asked)
    content = json.loads(out)
    assert f"Using the weights of {run}" in err
    assert [f["case"] for f in content["findings"]] == [{"estimator": "lite", "h": 2, "precision": "fp32"}]
    assert content["n_support"] == 6
    message = shell.fails("gradients", "--checkpoint", run, "--backbone", "conv4")
    assert "--backbone is fixed by the run" in message


def test_an_interrupted_study_writes_what_is_finished(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def draw(self: Study, *arguments: Any, **options: Any) -> Any:
        seen.append("")
        if len(seen) == 3:
            signal.raise_signal(signal.SIGINT)
        return original(self, *arguments, **options)

    original = Study._draw
    monkeypatch.setattr(Study, "_draw", draw)
    out, err = shell("gradients", "protonets", *STUDY, "-o", "study", code=130)
    assert "Stopped; study holds what was finished" in err
    content = json.loads(Path("study/gradients.json").read_text())
    assert content["interrupted"] is True
    assert len(content["findings"]) == 2
    assert out.rstrip() == Path("study/gradients.md").read_text().rstrip()


@pytest.mark.parametrize("learner", ["protonets", "simple_cnaps"])
def test_a_profile_is_printed_and_written(learner: str, shell: Shell) -> None:
    flags = ["--backbone", "conv4+gn", "--image-size", "32", "--way", "3", "--support", "6,9", "--queries", "6"]
    out, _ = shell("profile", learner, *flags, "--repeats", "1", "--lite-h", "2", "--device", "cpu", "-o", "p")
    assert "| lite-importance | 2 | 6 |" in out
    assert "| exact | – | 9 |" in out
    assert out.rstrip() == Path("p/profile.md").read_text().rstrip()
    with Image.open("p/profile.png") as picture:
        assert picture.width > picture.height > 300
    content = json.loads(Path("p/profile.json").read_text())
    assert [p["work"]["n_support"] for p in content["profiles"]] == [6, 9] * 3
    assert json.loads(shell("profile", learner, *flags, "--repeats", "1", "--gradient", "exact", "--json")[0])


def test_an_interrupted_profile_writes_what_is_finished(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Profiler.measure

    def measure(self: Profiler, work: Any, costs: Any) -> Any:
        if work.n_support == 9:
            signal.raise_signal(signal.SIGTERM)
        return original(self, work, costs)

    monkeypatch.setattr(Profiler, "measure", measure)
    flags = ["--backbone", "conv4", "--image-size", "28", "--way", "3", "--support", "6,9,12", "--queries", "3"]
    _, err = shell("profile", "protonets", *flags, "--repeats", "1", "--gradient", "exact", "-o", "p", code=130)
    assert "Stopped; p holds what was finished" in err
    assert len(json.loads(Path("p/profile.json").read_text())["profiles"]) == 2


def test_a_budget_is_chosen_printed_and_recorded(shell: Shell) -> None:
    short = ["--tasks", "2", "--tasks-per-step", "1", "--validate-every", "0"]
    _, err = shell("train", "protonets", *FLAGS, *short, "--memory-budget", "20GB", "--lite-h", "auto")
    run = next(Path("runs").glob("*/*"))
    config = tomllib.loads((run / "config.toml").read_text())
    plan = json.loads((run / "memory.json").read_text())
    assert "Chosen for 20 GB:" in err
    assert config["lite_h"] == plan["h"] > 0
    assert config["batch_size"] == plan["sizes"]["chunk"]
    assert config["query_batch_size"] == plan["sizes"]["query"]
    assert config["memory_budget"] == "20GB"
    assert plan["trials"]
    _, err = shell("train", "protonets", "--config", run / "config.toml", "--limit", "1", "--gradient", "exact")
    assert "Chosen for 20 GB:" in err
