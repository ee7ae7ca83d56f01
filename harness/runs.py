"""Run folders: one per training or evaluation, holding all that is needed to repeat and to report it.

runs/<learner>-<backbone>-<size>/<timestamp>/
  config.toml, environment.json, splits.json, run.json, metrics.jsonl, checkpoints/, results/, leaderboard.md
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from lite_bench.harness.core import Split
from lite_bench.harness.environment import describe_environment
from lite_bench.harness.errors import RunError, UsageError
from lite_bench.harness.files import write_atomically, write_errors
from lite_bench.harness.records import file_name
from lite_bench.harness.settings import Settings, dump, read_config, validate

Status = Literal["running", "finished", "interrupted", "failed"]
Kind = Literal["train", "eval"]
Which = Literal["last", "best"]
RESUMED_BY: dict[Kind, str] = {"train": "lite-bench train --resume", "eval": "lite-bench eval --checkpoint"}


@dataclass(frozen=True)
class RunFolder:
    """One run's folder.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved settings, TOML."""
        return self.path / "config.toml"

    @property
    def metrics(self) -> Path:
        """One JSON line per optimizer step."""
        return self.path / "metrics.jsonl"

    def checkpoint(self, kind: Which) -> Path:
        """The latest checkpoint, or the one with the best validation accuracy."""
        return self.path / "checkpoints" / f"{kind}.safetensors"

    def chosen_checkpoint(self) -> Path:
        """The checkpoint to evaluate: the best if validation chose one, else the last.

        Raises:
            RunError: there is none.
        """
        kinds: tuple[Which, ...] = ("best", "last")
        for path in map(self.checkpoint, kinds):
            if path.is_file():
                return path
        raise RunError(f"{self.path} holds no checkpoint; train it first or name another run with --checkpoint.")

    def settings(self) -> Settings:
        """Read the settings the run was made with.

        Raises:
            RunError: the folder is not a run folder.
        """
        if not self.config.is_file():
            raise RunError(f"{self.path} is not a run folder (it has no config.toml); name a folder that `train` made.")
        return validate(read_config(self.config))

    def data(self) -> dict[str, str]:
        """Read the hashes of the data that the run began with, by suite or source; empty if there are none."""
        try:
            content = json.loads((self.path / "environment.json").read_text(encoding="utf-8"))
            return {str(name): str(value) for name, value in content["data"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def status(self) -> dict[str, Any]:
        """Read ``run.json``: kind, status, and how far the run came; empty if it is missing."""
        try:
            content = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def set_status(self, status: Status, **facts: object) -> None:
        """Update ``run.json``."""
        content = {**self.status(), "status": status, **facts, "updated": _now().isoformat(timespec="milliseconds")}
        write_atomically(self.path / "run.json", json.dumps(content, indent=2) + "\n")


def create_run(
    output_dir: Path,
    settings: Settings,
    image_size: int,
    kind: Kind,
    name: str | None = None,
    splits: Mapping[Split, list[str]] | None = None,
    data: Mapping[str, str] | None = None,
    pretraining: str = "",
    *,
    synthetic: bool = False,
) -> RunFolder:
    """Make a new run folder and write settings, environment and class splits into it.

    Args:
        output_dir: the folder that holds all runs.
        settings: what the run does.
        image_size: side of the images in pixels.
        kind: ``train`` or ``eval``.
        name: last part of the folder's name instead of the time.
        splits: the classes of each split, if the suite can list them.
        data: fingerprints of the data by suite.
        pretraining: where the backbone's first weights came from; empty if unknown.
        synthetic: whether it trains on stand-in data.

    Raises:
        UsageError: ``name`` is not the name of one folder.
        RunError: the folder exists or cannot be made.
    """
    if name is not None and (not name.strip() or name == ".." or Path(name).name != name):
        raise UsageError(f"--run-name {name!r} is not a plain folder name; leave out slashes and dots alone.")
    family = file_name(f"{settings.learner}-{settings.backbone}-{image_size}")
    path = output_dir / family / (name or _now().strftime("%Y%m%d-%H%M%S-%f")[:-3])
    try:
        path.mkdir(parents=True)
    except FileExistsError as error:
        raise RunError(
            f"The run folder {path} exists; continue it with `{RESUMED_BY[kind]} {path}`, or choose another --run-name."
        ) from error
    except OSError as error:
        raise RunError(
            f"The run folder {path} cannot be made: {error.strerror}; choose another --output-dir."
        ) from error
    run = RunFolder(path)
    if kind == "train":
        with write_errors(path):
            (path / "checkpoints").mkdir()
    write_atomically(run.config, dump(settings.changed(image_size=image_size)))
    if splits:
        write_atomically(path / "splits.json", json.dumps(splits, indent=1, ensure_ascii=False) + "\n")
    facts = {**describe_environment(), "data": dict(data or {}), "pretraining": pretraining, "synthetic": synthetic}
    environment = json.dumps(facts, indent=2, default=str) + "\n"
    write_atomically(path / "environment.json", environment)
    run.set_status("running", kind=kind, started=_now().isoformat(timespec="milliseconds"))
    return run


def open_run(path: Path) -> RunFolder:
    """Open an existing run folder, given itself or one of its checkpoints.

    Raises:
        RunError: there is none.
    """
    folder = path.parent.parent if path.is_file() and path.parent.name == "checkpoints" else path
    if not (folder / "config.toml").is_file():
        raise RunError(f"There is no run folder {path}; see what exists under --output-dir (default: runs).")
    return RunFolder(folder)


def newest_finished(output_dir: Path) -> RunFolder:
    """Find the training run that finished last.

    Raises:
        RunError: there is none.
    """
    finished = []
    for path in output_dir.glob("*/*/run.json"):
        run = RunFolder(path.parent)
        status = run.status()
        if status.get("kind") == "train" and status.get("status") == "finished":
            finished.append((str(status.get("finished")), run))
    if not finished:
        raise RunError(
            f"There is no finished training run under {output_dir}; train one (`lite-bench train protonets`), "
            "name a learner to evaluate it untrained, or give --checkpoint."
        )
    return max(finished, key=lambda pair: pair[0])[1]


def now_text() -> str:
    """The present time, UTC, ISO 8601."""
    return _now().isoformat(timespec="milliseconds")


def _now() -> datetime:
    return datetime.now(UTC)
