"""Runs small enough for a test: letters of 28 pixels, the four-block network, a handful of tasks."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lite_bench.harness.assembly import Assembly, assemble, build_estimator, build_suite
from lite_bench.harness.cli import main
from lite_bench.harness.core import Encode, Record, Suite, Support
from lite_bench.harness.records import file_name
from lite_bench.harness.runs import RunFolder, create_run
from lite_bench.harness.settings import Settings, validate
from lite_bench.harness.training import StepMetrics, Training

TASK = {"way": 3, "shot": 2, "query": 2}
FLAGS = ["--suite", "glyphs", "--image-size", "28", "--backbone", "conv4", "--no-pretrained", "--device", "cpu"]
FLAGS += ["--way", "3", "--shot", "2", "--query", "2", "--workers", "1"]
TIMES = ("seconds", "images_per_second", "data_wait")


def small_settings(**changes: Any) -> Settings:
    """A training run of four tasks, two to a step."""
    values: dict[str, Any] = {
        "learner": "protonets",
        "backbone": "conv4",
        "pretrained": False,
        "suite": "glyphs",
        "suite_options": TASK,
        "image_size": 28,
        "lite_h": 3,
        "tasks": 4,
        "tasks_per_step": 2,
        "validate_every": 0,
        "validation_tasks": 1,
        "device": "cpu",
        "workers": 1,
    }
    return validate({**values, **changes})


def small_suite(settings: Settings | None = None) -> Suite:
    settings = settings or small_settings()
    assert settings.suite is not None
    return build_suite(settings.suite, settings.image_size, None, settings.suite_options)


class Killed(BaseException):
    """Stands for a kill: nothing in the program expects it."""


@dataclass
class Listener:
    """A reporter that remembers, and may kill the run once a step is reported."""

    kill_at: int | None = None
    steps: list[StepMetrics] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def step(self, metrics: StepMetrics, total_tasks: int) -> None:
        assert metrics.tasks <= total_tasks
        self.steps.append(metrics)
        if metrics.step == self.kill_at:
            raise Killed

    def note(self, text: str) -> None:
        self.notes.append(text)


@dataclass(frozen=True)
class Means:
    means: Tensor


class Dropping(nn.Module):
    """Class means of a small network with dropout and, in its sum, stochastic depth."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(3 * 7 * 7, 16), nn.Dropout(0.3))
        self.branch = nn.Linear(16, 16)

    def features(self, images: Tensor) -> Tensor:
        values: Tensor = self.stem(images.float() / 255)
        kept = (torch.rand(len(values), 1) < 0.5).float() if self.training else torch.full((1,), 0.5)
        summed: Tensor = values + self.branch(values) * kept.to(values.device)
        return summed

    def adapt(self, support: Support, encode: Encode) -> Means:
        features = encode(self.features, support.images)
        return Means(torch.stack([features[support.labels == c].mean(0) for c in range(support.way)]))

    def classify(self, state: Means, images: Tensor) -> Tensor:
        return -torch.cdist(self.features(images), state.means).square()


def dropping(settings: Settings) -> Assembly:
    """Assemble `Dropping` as a plug-in's learner would be."""
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        learner = Dropping()
    return Assembly(learner, learner, build_estimator(settings), torch.device("cpu"))


def prepare(
    settings: Settings, folder: Path, *, listener: Listener | None = None, assembly: Assembly | None = None
) -> Training:
    """Make a run folder below ``folder`` and all that trains in it; one that exists is resumed."""
    suite = small_suite(settings)
    path = folder / file_name(f"{settings.learner}-{settings.backbone}-{suite.image_size}") / "run"
    resumed = path.is_dir()
    run = RunFolder(path) if resumed else create_run(folder, settings, suite.image_size, "train", "run")
    assert run.path == path
    training = Training(assembly or assemble(settings, suite.image_size), suite, settings, run, listener or Listener())
    if resumed:
        training.resume()
    return training


def trained(settings: Settings, folder: Path, assembly: Assembly | None = None) -> RunFolder:
    training = prepare(settings, folder, assembly=assembly)
    training.execute()
    return training.run


def timeless(run: RunFolder) -> list[dict[str, Any]]:
    """The metrics of a run without its times."""
    lines = [json.loads(line) for line in run.metrics.read_text("utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def untimed(record: Record) -> Record:
    """A record without what the machine has a part in: times and memory."""
    assert record.cost is not None
    cost = replace(record.cost, peak_bytes=None)
    return replace(record, adapt_seconds=0.0, classify_seconds=0.0, cost=cost)


@dataclass(frozen=True)
class Shell:
    """Runs the command line in this process."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str | Path, code: int = 0) -> tuple[str, str]:
        """Give stdout and stderr of a command that ends with ``code``."""
        self.monkeypatch.setattr(sys, "argv", ["lite-bench", *map(str, arguments)])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self.capsys.readouterr()
        assert (ended.value.code or 0) == code, f"{arguments}\n{out}\n{err}"
        assert "Traceback" not in err or "--debug" in arguments
        return out, err

    def fails(self, *arguments: str | Path, code: int = 2) -> str:
        """Give the one sentence or two on stderr of a command that prints nothing else."""
        out, err = self(*arguments, code=code)
        assert out == ""
        line = err.strip().splitlines()[-1]
        assert line.startswith("Error: ")
        return line
