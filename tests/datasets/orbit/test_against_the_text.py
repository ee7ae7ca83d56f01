"""The suite against a second implementation, which knows only the protocol's text (2.1 to 2.3, 3.1 to 3.3).

It is lists, loops and names of files: nothing of the sampler, of the moving window or of the scoring is used. What is
random in the suite is checked to be a possible outcome of the text; all else must be equal.
"""

from __future__ import annotations

import math
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lite_bench.datasets.orbit.sampling import Clip
from lite_bench.datasets.orbit.suite import Orbit
from lite_bench.harness.assembly import assemble
from lite_bench.harness.core import GroupScore, Task
from lite_bench.harness.evaluation import Evaluation, evaluate
from lite_bench.harness.records import predictions_path, read_predictions, read_results
from lite_bench.harness.statistics import summarise
from lite_bench.models.protonets import ProtoNets
from tests.datasets.orbit.made_up import SIDE, video, write_tree
from tests.harness.small import small_settings

LONG = 1003
"""Frames of a clutter video, of which the first 1,000 count."""
TASKS_PER_USER = 5


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the made-up tree with a long video besides, whose frames repeat those of another."""
    root = write_tree(tmp_path_factory.mktemp("text"))
    home = root / "test" / "P177" / "cane" / "clutter"
    (other,) = home.iterdir()
    frames = sorted(other.iterdir())
    long = video("P177", "cane", "clutter", 1, LONG)
    (home / long.name).mkdir()
    for position in range(LONG):
        shutil.copyfile(frames[position % len(frames)], home / long.name / long.frame(position))
    return root


# --- the text


def frames_that_count(folder: Path) -> list[str]:
    """2.3, step 1."""
    return sorted(os.listdir(folder))[:1000]  # noqa: PTH208  # names, as the text has them


def pad(names: list[str]) -> list[str]:
    """2.3, step 2."""
    return names + [names[-1]] * (8 - len(names) % 8)


def videos_of_modes(folder: Path, mode: str) -> tuple[list[Path], list[Path]]:
    """2.1: context and target videos of an object."""
    clean = sorted((folder / "clean").iterdir(), key=lambda path: path.name)
    if mode == "clutter":
        return clean, sorted((folder / "clutter").iterdir(), key=lambda path: path.name)
    k = min(5, len(clean) - 1)
    return clean[:k], clean[k:]


def possible_clips(folder: Path, clips: list[list[str]]) -> bool:
    """2.3, step 4: say whether eight clips may have been drawn from a context video."""
    names = frames_that_count(folder)
    padded = pad(names)
    if len(padded) >= 64:
        windows = Counter(tuple(padded[start : start + 8]) for start in range(0, len(padded), 8))
        return not Counter(map(tuple, clips)) - windows
    # All 8 windows of the 64 frames are drawn; in order of their names they are the sorted list again.
    together = [name for clip in sorted(clips) for name in clip]
    fill = Counter(together)
    fill.subtract(padded)
    lacking = 64 - len(padded)
    return (
        together == sorted(together)
        and min(fill.values()) >= 0
        and sum(fill.values()) == lacking
        and set(together) <= set(names)
        and (lacking > len(names) or max(fill.values()) == 1)
    )


def windows_of(names: list[str]) -> list[list[str]]:
    """3.1: the frames that each frame is classified from."""
    history = [names[0]] * 7 + names
    return [history[t : t + 8] for t in range(len(names))]


def score(name: str, predicted: list[int], label: int) -> GroupScore:
    """3.2."""
    right = [t for t, each in enumerate(predicted) if each == label]
    votes = {each: predicted.count(each) for each in predicted}
    winner = min(each for each, n in votes.items() if n == max(votes.values()))
    first = right[0] / len(predicted) if right else 1.0
    return GroupScore(name, len(predicted), len(right) / len(predicted), float(winner == label), first)


def pooled(scores: list[float]) -> tuple[float, float]:
    """3.3."""
    mean = sum(scores) / len(scores)
    deviation = math.sqrt(sum((each - mean) ** 2 for each in scores) / len(scores))
    return mean, 1.96 * deviation / math.sqrt(len(scores))


# --- plans


def names_of(clip: Clip) -> list[str]:
    return [clip.video.frame(position) for position in clip.positions]


@pytest.mark.parametrize("mode", ["clean", "clutter"])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_every_task_is_one_of_the_text(root: Path, split: str, mode: str) -> None:
    suite = Orbit(SIDE, root, mode="both")
    tasks = suite.tasks("test" if split == "test" else "validation")[mode]
    users = sorted(os.listdir(root / split))  # noqa: PTH208  # as above
    assert len(tasks) == TASKS_PER_USER * len(users)
    for number, task in enumerate(tasks):
        user, plan = suite.plan(task)
        assert user == users[number // TASKS_PER_USER]
        objects = sorted(os.listdir(root / split / user))  # noqa: PTH208  # as above
        target = []
        clips: dict[str, list[list[str]]] = {}
        for clip in plan.context:
            clips.setdefault(clip.video.name, []).append(names_of(clip))
        for label, name in enumerate(objects):
            context_videos, target_videos = videos_of_modes(root / split / user / name, mode)
            target += [(folder.name, label, pad(frames_that_count(folder))) for folder in target_videos]
            for folder in context_videos:
                own = clips.pop(folder.name)
                assert len(own) == 8
                assert possible_clips(folder, own)
        assert not clips
        assert [(each.video.name, each.label, names_of(each)) for each in plan.target] == target
        labels = {clip.video.name.split("--")[1]: clip.label for clip in plan.context}
        assert labels == {name.replace(" ", "-"): label for label, name in enumerate(objects)}


def test_clips_that_cannot_be_are_told_apart(root: Path) -> None:
    """The check itself is not blind: what the text forbids is refused."""
    short = next(path for path in (root / "test/P177/my mug/clean").iterdir() if len(list(path.iterdir())) == 8)
    long = next(path for path in (root / "test/P177/my mug/clean").iterdir() if len(list(path.iterdir())) == 70)
    names = pad(frames_that_count(long))
    windows = [names[start : start + 8] for start in range(0, len(names), 8)]
    assert possible_clips(long, windows[:8])
    assert not possible_clips(long, [windows[0], *windows[:7]])  # one twice
    assert not possible_clips(long, [names[1:9], *windows[1:8]])  # not aligned
    own = frames_that_count(short)
    assert len(pad(own)) == 16
    everything = sorted(pad(own) + own * 6)
    assert possible_clips(short, [everything[start : start + 8] for start in range(0, 64, 8)])
    shuffled = [*everything[1:], everything[0]]
    assert not possible_clips(short, [shuffled[start : start + 8] for start in range(0, 64, 8)])


# --- scores


class Literal:
    """ProtoNets as section 5.4 has them, over files of frames."""

    def __init__(self, root: Path, learner: ProtoNets) -> None:
        self.backbone = learner.backbone.eval()
        self.pixels = {path.name: np.asarray(Image.open(path)) for path in (root / "test").rglob("*.jpg")}
        self.features: dict[str, Tensor] = {}
        """Of each target video's windows; they do not depend on the task."""

    def clip(self, names: list[str]) -> Tensor:
        """5.2: the mean over the features of the frames."""
        pixels = torch.from_numpy(np.stack([self.pixels[name] for name in names]))
        with torch.no_grad():
            return torch.as_tensor(self.backbone(pixels.permute(0, 3, 1, 2)).mean(0))

    def video(self, name: str, names: list[str]) -> Tensor:
        if name not in self.features:
            self.features[name] = torch.stack([self.clip(window) for window in windows_of(names)])
        return self.features[name]

    def task(self, suite: Orbit, task: Task) -> dict[str, tuple[list[int], int]]:
        """Predict all frames of a task: video -> classes and label."""
        _, plan = suite.plan(task)
        of_class: dict[int, list[Tensor]] = {}
        for clip in plan.context:
            of_class.setdefault(clip.label, []).append(self.clip(names_of(clip)))
        mean = torch.stack([torch.stack(of_class[label]).mean(0) for label in sorted(of_class)])
        found = {}
        for each in plan.target:
            x = self.video(each.video.name, names_of(each))
            found[each.video.name] = (2 * x @ mean.T - (mean**2).sum(1)).argmax(1).tolist(), each.label
        return found


def test_records_and_means_are_those_of_the_text(root: Path, tmp_path: Path) -> None:
    suite = Orbit(SIDE, root)
    chosen = small_settings(suite="orbit", suite_options={}, image_size=SIDE, batch_size=48)
    built = assemble(chosen, SIDE)
    assert isinstance(built.learner, ProtoNets)
    ready = Evaluation(built.learner, built.module, built.estimator, chosen, built.device)
    evaluate(ready, suite, tmp_path, keep_predictions=True)
    (results,) = read_results(tmp_path)
    summary = summarise(results.manifest, results.records)
    literal = Literal(root, built.learner)
    for mode, n_videos in {"clean": 7, "clutter": 9}.items():
        kept = read_predictions(predictions_path(tmp_path, suite.id, mode))
        everything: list[GroupScore] = []
        for task, record in zip(suite.tasks("test")[mode], results.records[mode], strict=True):
            assert record.task == str(task)
            expected = literal.task(suite, task)
            assert kept[record.task] == {name: classes for name, (classes, _) in expected.items()}
            scores = [score(name, classes, label) for name, (classes, label) in expected.items()]
            assert [vars(each) for each in record.groups] == [pytest.approx(vars(each)) for each in scores]
            everything += scores
        found = summary.sources[mode]
        assert found.estimate is not None
        measured = {"frame accuracy": found.estimate, **found.metrics}
        for metric, estimate in measured.items():
            mean, half_width = pooled([each.metric(metric) for each in everything])
            assert estimate.n == len(everything) == TASKS_PER_USER * n_videos
            assert estimate.mean == pytest.approx(mean)
            assert estimate.half_width == pytest.approx(half_width)
    lengths = {group.n for group in results.records["clutter"][0].groups}
    assert lengths == {56, 64, 136, 1008}  # 50 and 52, 57, 130, and 1,000 of 1,003 frames
