"""The suite on real photographs in the benchmark's layout: episodes of every split, and an evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lite_bench.harness.assembly import assemble, build_suite
from lite_bench.harness.core import Split, Suite
from lite_bench.harness.evaluation import Evaluation, evaluate
from lite_bench.harness.records import read_results
from lite_bench.harness.settings import Settings
from lite_bench.harness.statistics import summarise
from lite_bench.harness.step import accumulate_task_gradient
from tests.datasets.orbit.photographs import CROPS, PHOTOGRAPHS_PER_VIDEO, USERS, VIDEOS, write_photographs
from tests.harness.small import small_settings

pytestmark = pytest.mark.data

SIDE = 48
FRAMES = PHOTOGRAPHS_PER_VIDEO * len(CROPS)
PADDED = 16
"""Frames of a video of 12 with the repeats of its last one."""
TASKS_PER_USER = 5
TARGETS = {"clean": 1, "clutter": VIDEOS["clutter"]}
"""Target videos of an object; in the mode `clean` all but min(5, n - 1) videos."""


def settings(mode: str, learner: str = "protonets") -> Settings:
    options = {"suite": "orbit", "suite_options": {"mode": mode}, "image_size": SIDE, "backbone": "conv4+gn"}
    return small_settings(learner=learner, lite_h=4, **options)


@pytest.fixture(scope="module")
def root(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photographs") / f"orbit_benchmark_{SIDE}"
    write_photographs(data_root / "grocery_store", root, SIDE)
    return root


def suite(root: Path, mode: str) -> Suite:
    return build_suite("orbit", SIDE, root, {"mode": mode})


def test_it_is_known_as_other_data(root: Path) -> None:
    opened = suite(root, "both")
    assert opened.id == "orbit@2021+data=other"
    assert any("is not the published benchmark" in note for note in opened.notes)  # type: ignore[attr-defined]  # optional
    assert opened.class_splits() == {split: list(users) for split, users in USERS.items()}  # type: ignore[attr-defined]  # optional
    splits: tuple[Split, ...] = ("validation", "test")
    for split in splits:
        tasks = opened.tasks(split)
        assert {source: len(listed) for source, listed in tasks.items()} == dict.fromkeys(
            ("clean", "clutter"), TASKS_PER_USER * len(USERS[split])
        )


@pytest.mark.parametrize("mode", ["clean", "clutter"])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_episodes_of_evaluations(root: Path, mode: str, split: Split) -> None:
    opened = suite(root, mode)
    for index, task in enumerate(opened.tasks(split)[mode]):
        episode = opened.episode(task)
        user, way = list(USERS[split].items())[index // TASKS_PER_USER]
        n_context = VIDEOS["clean"] - (mode == "clean")
        assert episode.cluster == user
        assert episode.support.way == way
        assert episode.support.images.shape == (8 * n_context * way, 8, 3, SIDE, SIDE)
        assert len(episode.groups) == TARGETS[mode] * way
        batches = list(episode.query)
        images, labels = torch.cat([b.images for b in batches]), torch.cat([b.labels for b in batches])
        assert len(images) == len(labels) == episode.n_query == PADDED * len(episode.groups)
        assert labels.bincount().tolist() == [PADDED * TARGETS[mode]] * way
        last = images[:PADDED]
        assert all(torch.equal(last[FRAMES - 1], repeat) for repeat in last[FRAMES:])
        assert not torch.equal(last[0], last[FRAMES - 1])


@pytest.mark.parametrize("mode", ["clean", "clutter"])
def test_a_training_task_gives_gradients(root: Path, mode: str) -> None:
    opened = suite(root, mode)
    episode = opened.episode(opened.train_task(0, 0))
    clips = torch.cat([episode.support.images, *(batch.images for batch in episode.query)])
    assert clips.shape[1:] == (8, 3, SIDE, SIDE)
    assert episode.cluster in USERS["train"]
    built = assemble(settings(mode, "simple_cnaps"), SIDE)
    generator = torch.Generator().manual_seed(0)
    accumulate_task_gradient(built.learner, episode, built.estimator, 16, generator)
    gradients = [each.grad for each in built.module.parameters() if each.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.slow
def test_an_untrained_network_tells_groceries_apart(root: Path, tmp_path: Path) -> None:
    opened, chosen = suite(root, "both"), settings("both")
    built = assemble(chosen, SIDE)
    evaluate(Evaluation(built.learner, built.module, built.estimator, chosen, built.device), opened, tmp_path)
    (results,) = read_results(tmp_path)
    summary = summarise(results.manifest, results.records)
    assert summary.complete
    assert not summary.synthetic
    n_objects = sum(USERS["test"].values())
    chance = len(USERS["test"]) / n_objects  # each user's 1 / way, weighted by way videos
    for source, score in summary.sources.items():
        assert score.estimate is not None
        assert score.estimate.n == TASKS_PER_USER * n_objects * TARGETS[source]
        assert chance + 0.1 < score.estimate.mean <= 1
        assert set(score.metrics) == {"video accuracy", "frames to recognition"}
