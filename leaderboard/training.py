"""How the learner of a run was trained, read from the run's own files; each may be absent."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lite_bench.harness.errors import DataError

UNTRAINED = "untrained"
WITHOUT_H = ("exact", "full")
"""Gradients for which the resolved configuration still holds an H that nothing uses."""


@dataclass(frozen=True)
class Training:
    """What a reader of the table should know about a row's training.

    Attributes:
        text: the table's cell, such as ``lite H=40, 10000 tasks``.
        notes: what makes the row less than it seems.
    """

    text: str
    notes: tuple[str, ...] = ()


def read_training(run: Path, checkpoint: str) -> Training:
    """Describe the training of run folder ``run``.

    Args:
        run: the run folder; reads ``config.toml`` and ``run.json`` where they exist.
        checkpoint: the manifest's; ``untrained`` weights have no training, whatever the run did.

    Raises:
        DataError: a file is there but damaged.
    """
    if checkpoint == UNTRAINED:
        return Training(UNTRAINED, ("Not meta-trained.",))
    config = _read_table(run / "config.toml")
    progress = _read_table(run / "run.json")
    done, asked = _count(progress, "tasks"), _count(config, "tasks")
    tasks = asked if done is None else done
    parts = [_options(config), _gradient(config), f"{tasks} tasks" if tasks is not None else "", _seed(config)]
    return Training(", ".join(filter(None, parts)) or "trained", _unfinished(progress, done, asked))


def _options(config: dict[str, Any]) -> str:
    """Say which tasks of the suite were trained on; its version is in the table's title."""
    options = config.get("suite_options")
    own = options.items() if isinstance(options, dict) else ()
    return " ".join(f"{name}={value}" for name, value in own if name != "version")


def _gradient(config: dict[str, Any]) -> str:
    gradient, h = config.get("gradient"), _count(config, "lite_h")
    if not isinstance(gradient, str):
        return ""
    return gradient if h is None or gradient in WITHOUT_H else f"{gradient} H={h}"


def _seed(config: dict[str, Any]) -> str:
    seed = _count(config, "seed")
    return f"seed {seed}" if seed else ""


def _unfinished(progress: dict[str, Any], done: int | None, asked: int | None) -> tuple[str, ...]:
    """Say how far training came, if not to its end; an evaluation may have reset the status since."""
    if done is not None and asked is not None and done < asked:
        return (f"Training is not finished: {done} of {asked} tasks.",)
    status = progress.get("status", "finished")
    return () if status == "finished" else (f"Training is not finished: {status}.",)


def _count(table: dict[str, Any], key: str) -> int | None:
    value = table.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _read_table(path: Path) -> dict[str, Any]:
    """Read a TOML or JSON file of named values; empty if there is no such file."""
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (ValueError, OSError) as error:
        raise DataError(f"{path} is damaged: {error}; restore it or remove it.") from error
    if not isinstance(table, dict):
        raise DataError(f"{path} is damaged: it holds no named values; restore it or remove it.")
    return table
