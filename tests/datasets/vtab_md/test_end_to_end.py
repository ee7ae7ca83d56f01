"""The whole benchmark on stand-ins through the command line: train, evaluate all 26 sources, rank."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lite_bench.datasets.vtab_md.suite import VtabMd
from lite_bench.harness.core import Task
from lite_bench.harness.loading import EpisodeStream
from lite_bench.harness.records import read_results
from lite_bench.harness.settings import recipes, resolve
from tests.datasets.suite_checks import same
from tests.harness.small import Shell, untimed

SIZE = ["--image-size", "32", "--backbone", "conv4+gn", "--no-pretrained", "--device", "cpu"]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


def timeless(run: Path) -> dict[str, list[dict[str, Any]]]:
    """All records of a run without their times."""
    (results,) = read_results(run)
    return {source: [vars(untimed(record)) for record in records] for source, records in results.records.items()}


def test_train_evaluate_and_rank(standin: Path, shell: Shell) -> None:
    train = ["train", "simple_cnaps", "--suite", "vtab_md", *SIZE, "--lite-h", "8", "--tasks", "4", "--run-name", "a"]
    validation = ["--tasks-per-step", "2", "--validate-every", "4", "--validation-tasks", "1"]
    shell(*train, *validation, "--data-dir", standin)
    run = next(Path("runs").glob("*/a"))
    out, err = shell("eval", "--limit", "1", "--data-dir", standin, "--json")
    content = json.loads(out)
    assert len(content["sources"]) == 26
    assert all(source["accuracy"] is not None for source in content["sources"].values())
    assert all(len(source["task_list"]) == 64 for source in content["sources"].values())
    assert set(content["groups"]) == {"MD-v2", "VTAB", "natural", "specialized", "structured"}
    assert "Stand-in data" in err
    (results,) = read_results(run)
    assert all(record.synthetic for records in results.records.values() for record in records)
    assert results.records["eurosat"][0].n_support == 1000
    board, _ = shell("leaderboard", "runs")
    assert "## vtab\\_md@lite (synthetic, preview of 1 task per source)" in board
    recorded = json.loads((run / "environment.json").read_text())["data"]
    assert len({recorded[f"vtab_md@lite/train/{source}"] for source in ("mnist", "ilsvrc_2012", "fungi")}) == 3
    assert recorded["vtab_md@lite/train/fungi"] == recorded["vtab_md@lite/fungi"]
    config = (run / "config.toml").read_text()
    assert 'pixel_range = "signed"' in config


def test_a_partial_copy_gives_no_mean(standin: Path, shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "some" / "records").mkdir(parents=True)
    for name in ("dtd", "mscoco"):
        (tmp_path / "some" / "records" / name).symlink_to(standin / "records" / name)
    arguments = ["eval", "protonets", "--suite", "vtab_md", *SIZE, "--limit", "2", "--run-name", "b"]
    out, err = shell(*arguments, "--data-dir", tmp_path / "some")
    rows = dict(line.split("\t", 1) for line in out.split("\n\n")[0].splitlines())
    assert rows["aircraft"].startswith("missing\t0/600")
    assert rows["dtd"].split("\t")[1] == "2/600"
    assert rows["mean: MD-v2"].startswith("–")
    assert "24 of 26 test sources are missing" in err
    run = next(Path("runs").glob("*/b"))
    first = timeless(run)["dtd"]
    shell("eval", "--checkpoint", run, "--data-dir", standin / "records", "--limit", "2", "--suite", "vtab_md")
    later = timeless(run)
    assert later["dtd"] == first
    assert [source for source, records in later.items() if records] == list(VtabMd(32, None).groups["MD-v2"])


def test_no_run_folder_is_left_by_a_training_that_has_no_data(shell: Shell) -> None:
    line = shell.fails("train", "protonets", "--suite", "vtab_md", *SIZE, code=1)
    assert "Training needs 8 sources, and 8 cannot be used" in line
    assert not Path("runs").exists()


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_do_not_show(standin: Path, workers: int) -> None:
    suite = VtabMd(24, standin)
    tasks = [Task(suite.id, source, "test", 0) for source in ("kitti", "dtd", "fungi", "svhn_cropped")]
    alone = [suite.episode(task) for task in tasks]
    for expected, found in zip(alone, EpisodeStream(VtabMd(24, standin), tasks, workers), strict=True):
        assert same(expected, found)
        assert torch.equal(expected.support.labels, found.support.labels)


@pytest.mark.slow
def test_the_same_records_twice_and_with_other_workers(standin: Path, shell: Shell) -> None:
    for name, workers in (("first", "1"), ("again", "1"), ("more", "4")):
        arguments = ["eval", "protonets", "--suite", "vtab_md", *SIZE, "--limit", "4"]
        shell(*arguments, "--data-dir", standin, "--workers", workers, "--run-name", name)
    first, again, more = (timeless(next(Path("runs").glob(f"*/{name}"))) for name in ("first", "again", "more"))
    assert first == again == more


def test_reading_needs_no_tensorflow(standin: Path) -> None:
    code = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            raise ImportError("tensorflow was asked for")
sys.meta_path.insert(0, Blocker())
from pathlib import Path
from lite_bench.datasets.vtab_md.suite import VtabMd
suite = VtabMd(16, Path({str(standin)!r}))
for name in ("dtd", "clevr_count"):
    suite.episode(suite.tasks("test")[name][0])
print("tensorflow" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "False"


LITE_RECIPES = {
    "recipes/vtab_md_simple_cnaps_224.toml": (10_000, 224, 40, None, None),
    "recipes/vtab_md_protonets_224.toml": (10_000, 224, 40, None, None),
    "recipes/vtab_md_simple_cnaps_small_tasks_224.toml": (15_000, 224, 40, 30, 40),
    "recipes/vtab_md_simple_cnaps_84.toml": (35_000, 84, 501, 40, 300),
}
"""Those of the LITE authors' models: tasks, image size, batch size, most classes and support images of a task."""


@pytest.mark.parametrize("recipe", LITE_RECIPES)
def test_recipes_are_valid_and_keep_the_published_settings(recipe: str, standin: Path) -> None:
    settings = resolve({}, Path(recipe))
    assert settings.tasks_per_step == 16
    assert settings.lr == 1e-3
    assert (settings.validate_every, settings.validate_at_end, settings.validation_tasks) == (5000, False, 200)
    options = {name: settings.suite_options.get(f"max_{name}_train") for name in ("way", "support")}
    found = (settings.tasks, settings.image_size, settings.batch_size, options["way"], options["support"])
    assert found == LITE_RECIPES[recipe]
    suite = VtabMd(settings.image_size, standin, **settings.suite_options)
    assert suite.id == "vtab_md@lite"
    assert settings.h == 40
    # without LITE all support images carry a gradient
    assert (settings.gradient == "exact") == ("small_tasks" in recipe or recipe.endswith("_84.toml"))


@pytest.mark.parametrize("recipe", [name for name in recipes() if "/vtab_md_" in name])
def test_every_recipe_opens_its_suite(recipe: str, standin: Path) -> None:
    settings = resolve({}, Path(recipe))
    suite = VtabMd(settings.image_size, standin, **settings.suite_options)
    assert suite.id.partition("@")[2] == settings.suite_options["version"]
    assert suite.image_size == settings.image_size
