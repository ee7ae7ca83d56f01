"""Recipes: each is valid for the learner, backbone, estimator and suite that it names, and holds what was published."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import pytest
import timm

from lite_bench.harness.options import check_options, option_parameters
from lite_bench.harness.registry import BACKBONES, ESTIMATORS, LEARNERS, SUITES
from lite_bench.harness.settings import DEFAULT_GRADIENT, RECIPES, Settings, recipes, resolve, validate

FRAMES = 8
"""Frames of a clip; the published batch sizes count clips."""
NOTHING = ("tasks", "tasks_per_step", "epoch", "lr", "backbone_lr_scale", "validate_every", "validate_from")


class Row(NamedTuple):
    """A row of Table 1 of the LITE paper and of the commands in its authors' README.

    Attributes:
        figures: clean frame and video accuracy, clutter frame and video accuracy, in percent.
        batch: clips at a time.
        lr: of Adam, outside the backbone.
        scale: factor on it inside the backbone; 1 where that is frozen.
        h: clips with a gradient, or None without LITE.
    """

    figures: tuple[float, float, float, float]
    batch: int
    lr: float | None
    scale: float
    h: int | None


TABLE = {
    "finetuner_resnet18_84": Row((69.5, 79.7, 53.7, 63.1), 256, 1e-4, 0.1, None),
    "finetuner_resnet18_224": Row((72.2, 81.9, 56.7, 61.3), 16, None, 1, None),
    "finetuner_efficientnet_b0_224": Row((78.1, 85.9, 63.1, 66.9), 16, None, 1, None),
    "fomaml_resnet18_84": Row((70.6, 80.9, 51.7, 57.9), 256, 1e-5, 0.1, None),
    "fomaml_resnet18_224": Row((75.7, 86.1, 59.3, 64.3), 16, 1e-5, 0.1, None),
    "fomaml_efficientnet_b0_224": Row((79.3, 87.5, 64.6, 69.4), 16, 1e-5, 0.1, None),
    "protonets_resnet18_84": Row((65.2, 81.9, 50.3, 59.9), 256, 1e-4, 0.1, None),
    "protonets_resnet18_224": Row((76.7, 86.4, 61.4, 68.5), 8, 1e-4, 0.1, 16),
    "protonets_efficientnet_b0_224": Row((82.1, 91.2, 66.3, 72.9), 8, 1e-4, 0.1, 16),
    "cnaps_resnet18_84": Row((66.2, 79.6, 51.5, 59.5), 256, 1e-4, 1, None),
    "cnaps_resnet18_224": Row((76.0, 84.9, 58.2, 62.5), 8, 1e-4, 1, 8),
    "cnaps_efficientnet_b0_224": Row((79.6, 87.6, 63.3, 69.2), 8, 1e-4, 1, 8),
    "simple_cnaps_resnet18_84": Row((70.3, 83.0, 53.9, 62.0), 256, 1e-4, 1, None),
    "simple_cnaps_resnet18_224": Row((76.5, 86.4, 57.5, 64.6), 8, 1e-4, 1, 8),
    "simple_cnaps_efficientnet_b0_224": Row((82.7, 91.8, 65.6, 71.9), 8, 1e-4, 1, 8),
}


def recipe(name: str) -> tuple[Settings, str]:
    """Give the settings and the text of a recipe of ORBIT."""
    path = f"recipes/orbit_{name}.toml"
    return resolve({}, Path(path)), files(RECIPES).joinpath(Path(path).name).read_text("utf-8")


@pytest.mark.parametrize("path", recipes())
def test_a_recipe_fits_what_it_names(path: str) -> None:
    settings = resolve({}, Path(path))
    assert settings.suite is not None
    check_options(LEARNERS.load(settings.learner), settings.params, settings.learner, "-P")
    check_options(SUITES.load(settings.suite), settings.suite_options, settings.suite, "-S")
    assert settings.gradient in ESTIMATORS.names()
    network = settings.backbone.removesuffix("+gn")
    assert network in BACKBONES.names() or timm.is_model(network)
    assert settings.image_size in (28, 84, 126, 224, 512)
    text = files(RECIPES).joinpath(Path(path).name).read_text("utf-8")
    assert f" --config {path} " in text
    for gradient in re.findall(r"--gradient\s+(?:# )?([a-z-]+)", text):
        assert gradient in ESTIMATORS.names()
    for option in re.findall(r"-P\s+(?:# )?([a-z_]+)=", text):
        assert option in option_parameters(LEARNERS.load(settings.learner))


def test_every_row_of_the_table_has_a_recipe() -> None:
    assert {f"recipes/orbit_{name}.toml" for name in TABLE} == {name for name in recipes() if "/orbit_" in name}


@pytest.mark.parametrize("name", TABLE)
def test_a_recipe_of_orbit_holds_the_published_settings(name: str) -> None:
    settings, text = recipe(name)
    row, small = TABLE[name], name.endswith("_84")
    network = settings.backbone.removesuffix("_84").removesuffix("_orbit")
    assert f"{settings.learner}_{network}_{settings.image_size}" == name
    assert settings.backbone.endswith("_84") == small
    assert settings.backbone.endswith("_orbit") == name.endswith("_resnet18_224")
    figure, comment = r"([\d.]+)(?: \([\d.]+\))?", " ".join(text.replace("#", " ").split())
    found = re.search(f"clean {figure} and {figure} %, clutter {figure} and {figure} %", comment)
    assert found is not None
    assert tuple(map(float, found.groups())) == row.figures
    assert settings.batch_size == row.batch * FRAMES
    assert (settings.lr, settings.backbone_lr_scale) == (row.lr, row.scale)
    assert (settings.gradient == "full") == (row.h is None and row.lr is not None)
    if row.h is not None:
        assert (settings.h, settings.gradient) == (row.h, DEFAULT_GRADIENT)
    assert settings.pretrained is (None if small else True)
    assert ("--weights FILE" in text) == small


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.lr is not None])
def test_a_recipe_of_orbit_trains_for_ten_epochs_and_validates_after_the_last_six(name: str) -> None:
    settings, text = recipe(name)
    assert (settings.tasks, settings.epoch, settings.tasks_per_step) == (22_000, 44 * 50, 16)
    assert (settings.validate_every, settings.validate_from, settings.validate_at_end) == (2200, 5 * 2200, True)
    assert settings.validation_tasks == 6 * 5
    assert settings.suite_options["caps"] == ("84" if name.endswith("_84") else "lite")
    assert "lite-bench train " in text
    merged = resolve({"suite_options": {"mode": "clutter"}}, Path(f"recipes/orbit_{name}.toml"))
    assert merged.suite_options == {**settings.suite_options, "mode": "clutter"}


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.lr is None])
def test_a_recipe_without_training_is_for_evaluation(name: str) -> None:
    settings, text = recipe(name)
    defaults = validate({"learner": settings.learner})
    assert all(getattr(settings, each) == getattr(defaults, each) for each in NOTHING)
    assert "lite-bench eval " in text
    assert "lite-bench train" not in text


@pytest.mark.parametrize("name", [name for name in TABLE if "cnaps" in name])
def test_the_penalty_is_that_of_a_code_that_does_not_divide_it(name: str) -> None:
    """0.001 for every task; here the gradient of all that a task adds is divided by the tasks of a step."""
    settings, _ = recipe(name)
    assert settings.params["gate_penalty"] / settings.tasks_per_step == pytest.approx(0.001)


@pytest.mark.parametrize("name", [name for name in TABLE if "fomaml" in name])
def test_the_clamp_is_that_of_a_code_that_divides_first(name: str) -> None:
    """10 for a gradient that is divided by the tasks of a step; here it is divided after."""
    settings, _ = recipe(name)
    assert settings.params["clamp"] / settings.tasks_per_step == 10
