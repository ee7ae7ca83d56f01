"""Everything that decides a run, as one validated object: flags over a TOML file over defaults.

The object is saved in the run folder as ``config.toml``, which is itself a valid ``--config`` file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lite_bench.harness.errors import UnknownNameError, UsageError

Precision = Literal["fp32", "tf32", "bf16"]
PixelRange = Literal["backbone", "signed"]
DEFAULT_BACKBONE = "efficientnet_b0"
DEFAULT_GRADIENT = "lite-importance"
DEFAULT_LR = 1e-3
RECIPES = "lite_bench.recipes"


class Settings(BaseModel):
    """Settings of a run.

    Attributes:
        learner: entry-point name.
        params: options of the learner (``-P key=value``).
        backbone: name of the feature extractor.
        pretrained: start from published weights; None means if the backbone has any.
        weights: file to start the backbone from.
        suite: name of the suite; a name may carry a path, as in ``folder:photos``.
        suite_options: options of the suite (``-S key=value``).
        data_dir: folder with the suite's data.
        image_size: side of the images in pixels; None means the suite's own.
        pixel_range: values that networks see: ``backbone`` for the mean and deviation its weights were trained with,
            ``signed`` for [-1, 1]; None means as the suite's protocol says, or ``backbone``.
        gradient: name of the gradient estimator.
        lite_h: support images that carry a gradient; ``auto`` for as many as ``memory_budget`` allows.
        batch_size: images that travel through a network at once, queries and support alike.
        query_batch_size: queries at a time; None means ``batch_size``.
        memory_budget: memory to stay within, such as ``16GB``; batch sizes are then chosen by measuring.
        tasks: training tasks in all.
        tasks_per_step: tasks per optimizer step.
        optimizer: of meta-training, ``adam`` or ``sgd`` without momentum.
        lr: its learning rate; None means the learner's own or 0.001.
        lr_decay: factor on the learning rate after every ``lr_decay_every`` tasks.
        lr_decay_every: tasks between two such drops; 0 never drops it.
        lr_linear: let the learning rate fall linearly from the first task on, to 0 after the last.
        backbone_lr_scale: factor on the learning rate of the backbone's parameters, where they are learned.
        epoch: training tasks of an epoch: an optimizer step ends with it even with fewer tasks than
            ``tasks_per_step``, and every step divides its summed gradient by ``tasks_per_step`` all the same. With 0
            there are no epochs, and a step takes the mean over its tasks.
        validate_every: training tasks between validations; 0 never validates.
        validate_from: no validation is due before this many tasks; the first is at a multiple of ``validate_every``.
        validation_tasks: validation tasks per source.
        validate_at_end: validate after the last task too, if it is due.
        checkpoint_seconds: least time between two checkpoints.
        precision: of the networks: ``fp32``, ``tf32`` (convolutions of a GPU round their inputs to 10 bits) or
            ``bf16``; heads and statistics are in float32 always.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        workers: episodes prepared ahead, in as many threads.
        seed: seed of initialisation, task order and gradient estimates.
        limit: evaluate at most this many tasks per source; None means all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    learner: str
    params: dict[str, Any] = Field(default_factory=dict)
    backbone: str = DEFAULT_BACKBONE
    pretrained: bool | None = None
    weights: Path | None = None
    suite: str | None = None
    suite_options: dict[str, Any] = Field(default_factory=dict)
    data_dir: Path | None = None
    image_size: int | None = Field(None, ge=8, le=4096)
    pixel_range: PixelRange | None = None
    gradient: str = DEFAULT_GRADIENT
    lite_h: Annotated[int, Field(ge=0)] | Literal["auto"] = 40
    batch_size: int = Field(40, ge=1)
    query_batch_size: int | None = Field(None, ge=1)
    memory_budget: str | None = None
    tasks: int = Field(10_000, ge=1)
    tasks_per_step: int = Field(16, ge=1)
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float | None = Field(None, gt=0)
    lr_decay: float = Field(0.5, gt=0, le=1)
    lr_decay_every: int = Field(0, ge=0)
    lr_linear: bool = False
    backbone_lr_scale: float = Field(1.0, gt=0, allow_inf_nan=False)
    epoch: int = Field(0, ge=0)
    validate_every: int = Field(1000, ge=0)
    validate_from: int = Field(0, ge=0)
    validation_tasks: int = Field(50, ge=1)
    validate_at_end: bool = True
    checkpoint_seconds: float = Field(60.0, ge=0)
    precision: Precision = "fp32"
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    workers: int = Field(2, ge=1, le=64)
    seed: int = Field(0, ge=0)
    limit: int | None = Field(None, ge=1)

    @property
    def query_batch(self) -> int:
        """Queries at a time."""
        return self.query_batch_size or self.batch_size

    @property
    def h(self) -> int:
        """LITE's H, once it is a number.

        Raises:
            UsageError: it is still ``auto``.
        """
        if self.lite_h == "auto":
            raise UsageError(
                "--lite-h auto is settled by measuring against a budget; give --memory-budget, such as 16GB, or a "
                "number."
            )
        return self.lite_h

    @property
    def budget_bytes(self) -> int | None:
        """The memory budget in bytes, or None."""
        return None if self.memory_budget is None else parse_bytes(self.memory_budget)

    def changed(self, **changes: Any) -> Settings:
        """Give a copy with some settings replaced, validated anew."""
        return validate({**self.model_dump(), **changes})


UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_bytes(text: str) -> int:
    """Read an amount of memory, such as ``16GB``, ``15.5 GiB`` or ``800MB``.

    Raises:
        UsageError: it is none, or not positive.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.strip(), flags=re.IGNORECASE)
    amount = float(match[1]) * UNITS.get(match[2].upper(), 0) if match else 0.0
    if amount < 1:
        raise UsageError(f"--memory-budget {text!r} is not usable: give a number and a unit, such as 16GB or 800MB.")
    return int(amount)


def flag(name: str) -> str:
    """Spell a setting as its command-line flag."""
    special = {"params": "-P", "suite_options": "-S", "learner": "LEARNER"}
    return special.get(name, "--" + name.replace("_", "-"))


RENAMED = {"lr_halve_every": "lr_decay_every"}
"""Settings of runs from before 0.1.0 by their names of today."""


def validate(values: Mapping[str, Any]) -> Settings:
    """Build settings from plain values.

    Raises:
        UnknownNameError: a key that is not a setting.
        UsageError: a value of the wrong type or range.
    """
    values = {RENAMED.get(key, key): value for key, value in values.items()}
    unknown = [key for key in values if key not in Settings.model_fields]
    if unknown:
        raise UnknownNameError("setting", unknown[0], Settings.model_fields)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        if first["type"] == "missing":
            raise UsageError(f"No {name} is named; give {flag(name)} (see `lite-bench list {name}s`).") from error
        raise UsageError(f"{flag(name)} {first['input']} is not usable: {first['msg']}.") from error
    if settings.memory_budget is not None:
        parse_bytes(settings.memory_budget)
    return settings


def recipes() -> list[str]:
    """List the installed recipes, as ``--config`` takes them."""
    return sorted(f"recipes/{entry.name}" for entry in files(RECIPES).iterdir() if entry.name.endswith(".toml"))


def read_config(path: Path) -> dict[str, Any]:
    """Read a TOML file of settings; keys may be written with ``-`` or ``_``. Relative paths stay relative.

    ``recipes/NAME.toml`` names an installed recipe where there is no such file.

    Raises:
        UsageError: the file is missing or is not TOML.
    """
    recipe = files(RECIPES) / path.name
    installed = not path.exists() and path.parent == Path("recipes") and recipe.is_file()
    try:
        content = tomllib.loads((recipe if installed else path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"--config {path} cannot be read: {error.strerror}; give a TOML file, or one of {', '.join(recipes())}."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is not valid TOML: {error}.") from error
    return {key.replace("-", "_"): value for key, value in content.items()}


def resolve(flags: Mapping[str, Any], config: Path | None) -> Settings:
    """Lay the flags that were given (not None, not empty) over a config file, over the defaults."""
    values = read_config(config) if config is not None else {}
    for key, value in flags.items():
        if value is None or value in ({}, []):
            continue
        earlier = values.get(key)
        values[key] = {**earlier, **value} if isinstance(value, dict) and isinstance(earlier, dict) else value
    return validate(values)


def dump(settings: Settings) -> str:
    """Write settings as TOML; settings that are None are left out."""
    return tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True))
