"""How the learner of a run was made, read from the run's own files; each may be absent."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lite_bench.harness.errors import DataError

UNTRAINED = "untrained"
ON_STAND_INS = "Trained on stand-in data."
WITHOUT_H = ("exact", "full")
"""Gradients for which the resolved configuration still holds an H that nothing uses."""


@dataclass(frozen=True)
class Training:
    """What a reader of the table should know about how a row's learner was made.

    Attributes:
        text: all of its training in one cell, such as ``lite H=40, 10000 tasks``.
        notes: what makes the row less than it seems.
        pretraining: where the backbone's first weights came from; ``none`` for random ones, empty if unknown.
        gradient: name of the gradient estimator; empty if not meta-trained or unknown.
        h: LITE's H, the support images that carried a gradient; None where the gradient has none.
        tasks: tasks it was meta-trained on; None if not meta-trained or unknown.
        on: the suite's options that it was trained with, and a seed that is not 0.
        options: options of the learner, as they were given.
        pixels: range of values that networks see, if it is said.
        versions: of the packages that the run was made with.
        command: that made the run; empty if unknown.
    """

    text: str
    notes: tuple[str, ...] = ()
    pretraining: str = ""
    gradient: str = ""
    h: int | None = None
    tasks: int | None = None
    on: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    pixels: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""


def read_training(run: Path, checkpoint: str) -> Training:
    """Describe the training of run folder ``run``.

    Args:
        run: the run folder; reads ``config.toml`` and ``run.json`` where they exist.
        checkpoint: the manifest's; ``untrained`` weights have no training, whatever the run did.

    Raises:
        DataError: a file is there but damaged.
    """
    config = _read_table(run / "config.toml")
    environment = _read_table(run / "environment.json")
    about: dict[str, Any] = {
        "pretraining": _pretraining(config, environment),
        "options": {str(name): str(value) for name, value in _table(config.get("params")).items()},
        "pixels": _text(config.get("pixel_range")),
        "versions": {str(name): str(value) for name, value in _table(environment.get("versions")).items() if value},
        "command": _text(environment.get("command")),
    }
    if checkpoint == UNTRAINED:
        text = ", ".join(filter(None, [UNTRAINED, _seed(config)]))
        return Training(text, ("Not meta-trained.",), on=_seed(config), **about)
    progress = _read_table(run / "run.json")
    done, asked = _count(progress, "tasks"), _count(config, "tasks")
    tasks = asked if done is None else done
    gradient, h = _gradient(config)
    method = gradient if h is None else f"{gradient} H={h}"
    parts = [_options(config), method, f"{tasks} tasks" if tasks is not None else "", _seed(config)]
    text = ", ".join(filter(None, parts)) or "trained"
    notes = _unfinished(progress, done, asked) + ((ON_STAND_INS,) if environment.get("synthetic") is True else ())
    on = ", ".join(filter(None, [_options(config), _seed(config)]))
    return Training(text, notes, gradient=gradient, h=h, tasks=tasks, on=on, **about)


def _pretraining(config: dict[str, Any], environment: dict[str, Any]) -> str:
    """Say where the backbone's first weights came from, as far as the run recorded it."""
    recorded = _text(environment.get("pretraining"))
    if recorded:
        return recorded
    weights = _text(config.get("weights"))
    if weights:
        return f"file {Path(weights).name}"
    return {True: "published weights", False: "none"}.get(config.get("pretrained", ""), "")


def _options(config: dict[str, Any]) -> str:
    """Say which tasks of the suite were trained on; its version is in the table's title."""
    options = config.get("suite_options")
    own = options.items() if isinstance(options, dict) else ()
    return " ".join(f"{name}={value}" for name, value in own if name != "version")


def _gradient(config: dict[str, Any]) -> tuple[str, int | None]:
    """Give the name of the gradient estimator and its H, if it has one."""
    gradient = _text(config.get("gradient"))
    return gradient, None if not gradient or gradient in WITHOUT_H else _count(config, "lite_h")


def _seed(config: dict[str, Any]) -> str:
    seed = _count(config, "seed")
    return f"seed {seed}" if seed else ""


def _unfinished(progress: dict[str, Any], done: int | None, asked: int | None) -> tuple[str, ...]:
    """Say how far training came, if not to its end; an evaluation may have reset the status since."""
    if done is not None and asked is not None and done < asked:
        return (f"Training is not finished: {done} of {asked} tasks.",)
    status = progress.get("status", "finished")
    return () if status == "finished" else (f"Training is not finished: {status}.",)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _table(value: object) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


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
