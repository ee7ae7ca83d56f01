"""Costs and failures of an evaluation: counted beside the timed run, unknown where they are, never in silence."""

from __future__ import annotations

import json
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lite_bench.harness.answers import Setting, SharedFeatures, score_task, warm_up
from lite_bench.harness.assembly import Assembly, assemble, build_estimator
from lite_bench.harness.core import Cost, Encode, Record, Support, TaskSizes
from lite_bench.harness.cost_statistics import summarise_costs
from lite_bench.harness.errors import DivergedError
from lite_bench.harness.evaluation import Evaluation, evaluate
from lite_bench.harness.measurement.costs import CostMeter, NetworkCost, count_task, sizes_of
from lite_bench.harness.measurement.counting import count
from lite_bench.harness.measurement.peak import live_peak, measure_peak
from lite_bench.harness.measurement.trials import Trial
from lite_bench.harness.records import read_records, read_results, records_path
from lite_bench.harness.registry import LEARNERS, OWN_DISTRIBUTION, distribution_of
from lite_bench.harness.scoring import Score
from lite_bench.harness.statistics import summarise
from tests.harness.small import FLAGS, TASK, Means, Shell, dropping, prepare, small_settings, small_suite
from tests.harness.videos import Videos

SETTINGS = small_settings(suite_options={**TASK, "tasks": 4}, limit=3)


def setting_of(built: Assembly, batch_size: int = 40) -> Setting:
    built.estimator.chunk = batch_size
    built.module.eval()
    return Setting(built.learner, built.estimator, batch_size, built.device, torch.no_grad)


def evaluated(built: Assembly, folder: Path, settings: Any = SETTINGS) -> list[Record]:
    suite = small_suite(settings)
    evaluate(Evaluation(built.learner, built.module, built.estimator, settings, built.device), suite, folder)
    return [record for source in suite.tasks("test") for record in read_records(records_path(folder, suite.id, source))]


FEW_STEPS: dict[str, Any] = {name: {"steps": 2} for name in ("fomaml", "proto_maml", "md_transfer", "bit")}
FEW_STEPS["reptile"] = {"test_steps": 2}
CONV4 = 28 * 28 * 64 * 9 + 64 * 64 * 9 * (14 * 14 + 7 * 7 + 3 * 3)
"""MACs of the four-block network on a grey image of 28 pixels, by hand."""


def test_costs_of_prototypical_networks_are_those_of_the_formula(tmp_path: Path) -> None:
    n, way, features = 6, 3, 64
    for record in evaluated(assemble(SETTINGS, 28), tmp_path):
        assert record.cost is not None
        assert record.cost.macs == n * CONV4 + way * n * features
        assert record.cost.macs_per_query == CONV4 + way * features
        assert record.cost.uncounted == ()
        assert (record.cost.passes, record.cost.adapted) == ("1F", way * features)
        assert record.cost.parameters == record.cost.trainable == 111_936
        assert record.cost.published_macs is not None
        assert record.cost.published_macs > n * CONV4
        assert (record.cost.peak_bytes or 0) > 28 * 28 * 64 * 4 * n


def test_a_learner_that_reports_nothing_is_counted_and_the_rest_is_unknown(tmp_path: Path) -> None:
    (record, *_) = evaluated(dropping(SETTINGS), tmp_path)
    assert record.cost is not None
    assert (record.cost.passes, record.cost.published_macs) == ("", None)
    assert record.cost.macs == 6 * (147 * 16 + 16 * 16)
    assert record.cost.uncounted == ()


class Curious(nn.Module):
    """A learner that looks at its values on the way, which cannot be counted without computing them."""

    def adapt(self, support: Support, encode: Encode) -> Means:
        features = encode(lambda images: images.flatten(1).float(), support.images)
        bright = features[features.mean(1) > features.mean()]
        return Means(torch.stack([bright.mean(0) * 0 + c for c in range(support.way)]))

    def classify(self, state: Means, images: Tensor) -> Tensor:
        return images.flatten(1).float() @ state.means.T


def test_what_cannot_be_counted_is_unknown_with_the_reason(tmp_path: Path) -> None:
    learner = Curious()
    built = Assembly(learner, learner, build_estimator(SETTINGS), torch.device("cpu"))
    (record, *_) = evaluated(built, tmp_path)
    assert record.cost is not None
    assert (record.cost.macs, record.cost.macs_per_query, record.cost.adapted) == (None, None, None)
    (reason,) = record.cost.uncounted
    assert reason.startswith("adapt (")
    (results,) = read_results(tmp_path)
    costs = summarise(results.manifest, results.records).costs
    assert costs is not None
    assert (costs.macs, costs.uncounted) == (None, (reason,))


class Unstable(nn.Module):
    """Fails on some of its tasks, in a way of its choice."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.seen = how, 0

    def adapt(self, support: Support, encode: Encode) -> Means:
        means = encode(lambda images: images.flatten(1).float(), support.images)[: support.way]
        if int(support.images.sum()) % 2 == 0 or support.images.stride(0) == 0:
            return Means(means)
        if self.how == "diverges":
            raise DivergedError("The inner loop diverged: the loss is nan at step 3 of 15; use lower rates.")
        if self.how == "singular":
            torch.linalg.cholesky(-torch.eye(2))
        return Means(means * float("nan"))

    def classify(self, state: Means, images: Tensor) -> Tensor:
        return images.flatten(1).float() @ state.means.T


@pytest.mark.parametrize(
    ("how", "reason"),
    [("diverges", "nan at step 3 of 15"), ("singular", "cholesky"), ("NaN", "logits are not finite")],
)
def test_a_failed_task_is_recorded_and_the_run_goes_on(how: str, reason: str, tmp_path: Path) -> None:
    learner = Unstable(how)
    settings = small_settings(suite_options={**TASK, "tasks": 6})
    built = Assembly(learner, learner, build_estimator(settings), torch.device("cpu"))
    found = evaluated(built, tmp_path, settings)
    failed = [record for record in found if record.failed]
    assert 0 < len(failed) < len(found)
    assert all(record.accuracy is None and reason in record.failed for record in failed)
    assert all(record.accuracy is not None for record in found if not record.failed)
    (results,) = read_results(tmp_path)
    summary = summarise(results.manifest, results.records)
    assert summary.failed == len(failed)
    assert all((score.estimate is None) == bool(score.failed) for score in summary.sources.values())
    again = evaluated(built, tmp_path, settings)
    assert again == found


def test_a_diverging_inner_loop_fails_its_tasks_and_the_report_says_how_many(shell: Shell, tmp_path: Path) -> None:
    out, err = shell(
        "eval", "fomaml", *FLAGS, "-P", "backbone_lr=1e30", "-P", "inner_lr=1e30", "-P", "steps=3",
        "--limit", "2", "-o", str(tmp_path),
    )  # fmt: skip
    assert "2 of 2 tasks of" in err
    assert "failed, so there is no mean" in err
    assert "The inner loop diverged: the loss is" in err
    assert "unknown" not in out.split("cost")[0]
    (run,) = tmp_path.glob("*/*")
    (results,) = read_results(run)
    assert all(record.failed for records in results.records.values() for record in records)
    board = (run / "leaderboard.md").read_text("utf-8")
    assert "2 of 2 tasks failed" in board


def test_a_failed_validation_task_counts_as_nothing_right(tmp_path: Path) -> None:
    settings = small_settings(learner="fomaml", tasks=2, tasks_per_step=2, validate_every=2)
    training = prepare(settings, tmp_path)
    training.execute()
    assert training.info.best_accuracy is not None
    training.learner.backbone_lr = training.learner.inner_lr = 1e30  # type: ignore[attr-defined]  # of this learner
    metrics = replace(training.reporter.steps[-1], step=2, tasks=4)  # type: ignore[attr-defined]  # a Listener
    assert training._validate(metrics, threading.Event()) == 0.0
    assert any("failed and counts as 0 %" in note for note in training.reporter.notes)  # type: ignore[attr-defined]  # a Listener


def test_reading_data_is_in_no_time(tmp_path: Path) -> None:
    """Queries that take long to read change neither time; the network's own delay shows in full."""
    built = assemble(SETTINGS, 28)
    suite = small_suite(SETTINGS)
    episode = suite.episode(next(iter(suite.tasks("test").values()))[0])

    class Slow:
        def __iter__(self) -> Any:
            for batch in episode.query:
                time.sleep(0.3)
                yield batch

    warm_up(setting_of(built), episode.support)
    score = score_task(setting_of(built), replace(episode, query=Slow()))
    assert score.adapt_seconds + score.classify_seconds < 0.25


def test_features_that_are_shared_count_in_every_task() -> None:
    settings = small_settings(learner="protonets")
    built = assemble(settings, 28)
    suite = Videos(28, None)
    (tasks, *_) = suite.tasks("test").values()
    shared = SharedFeatures()
    first, second = (score_task(setting_of(built), suite.episode(task), shared) for task in tasks[:2])
    assert shared.seconds > 0
    assert second.classify_seconds >= shared.seconds
    assert first.classify_seconds >= shared.seconds


def test_memory_is_measured_for_the_largest_tasks_so_far() -> None:
    settings = small_settings()
    built = assemble(settings, 28)
    meter = CostMeter(setting_of(built), built.module, 28)
    suite = small_suite(settings)
    large = suite.episode(next(iter(suite.tasks("test").values()))[0])
    large = replace(large, n_query=1)
    few = [0, 1, 2]
    small = replace(large, support=Support(large.support.images[few], torch.tensor([0, 1, 2]), 3))
    score = Score(1, 1, 0.1, 0.1)
    peaks = [meter.cost(each, score).peak_bytes for each in (large, small, large)]
    assert peaks[0] == peaks[2]
    assert peaks[1] is None
    meter.next_source()
    assert (meter.cost(small, score).peak_bytes or 0) < (peaks[0] or 0)
    assert meter.cost(small, replace(score, peak_bytes=5)).peak_bytes == 5
    meter.next_source()
    meter.peaks.clear()
    assert meter.cost(small, replace(score, adapt_seconds=61.0)).peak_bytes is None


def test_live_memory_is_that_of_the_profiler() -> None:
    """Of an evaluation without a gradient, where hardly anything is taken inside an operation; and again in a loop."""
    built = assemble(small_settings(), 28)
    images = torch.randint(0, 256, (50, 3, 28, 28), dtype=torch.uint8)

    @torch.no_grad()
    def work() -> None:
        for _ in range(3):
            built.module.backbone(images)  # type: ignore[operator]  # a module

    work()
    found = live_peak(work)
    assert found == pytest.approx(measure_peak(work, torch.device("cpu")).tensors, rel=0.2)
    assert live_peak(lambda: [torch.zeros(1000) + 1 for _ in range(10)]) == pytest.approx(40_000, rel=0.15)
    assert live_peak(lambda: [(torch.zeros(1000) + 1).sum() for _ in range(10)]) < 10_000


def test_sizes_do_not_depend_on_the_order_of_classes() -> None:
    labels = torch.tensor([2, 2, 2, 0, 1, 1])
    assert sizes_of(Support(torch.zeros(6, 3, 8, 8), labels, 3)) == TaskSizes((1, 2, 3))
    clips = TaskSizes((1, 2, 3), 4)
    assert sizes_of(Support(torch.zeros(6, 4, 3, 8, 8), labels, 3)) == clips
    assert (clips.way, clips.items, clips.images) == (3, 6, 24)


def test_counting_leaves_the_batch_size_and_the_learner_alone() -> None:
    settings = small_settings(learner="simple_cnaps", image_size=32)
    built = assemble(settings, 32)
    before = {name: value.clone() for name, value in built.module.state_dict().items()}
    setting = setting_of(built, batch_size=3)
    state = torch.get_rng_state()
    count_task(setting, TaskSizes((2, 2, 3)), 32)
    assert built.estimator.chunk == 3
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in built.module.state_dict().items())


BODY = 64 * 9 * 32**2 + 64 * 64 * 9 * (16**2 + 8**2 + 4**2)
"""MACs of the four-block network on a grey image of 32 pixels; D = 64 channels at 2 x 2 positions."""
BODY_STEP = 3 * BODY - 64 * 9 * 32**2
"""Forward, and backward to weights and to inputs, but for the image itself."""
SET_ENCODER = 3 * 64 * 9 * 32**2 + 64 * 64 * 9 * (16**2 + 8**2 + 4**2 + 2**2)
N, C, D = 9, 3, 256
PROTOTYPES = HEAD = N * C * D
R = N + C  # rows of the centred features in Woodbury's form
GENERATORS = 4 * 2 * 2 * 64 * 64  # for four sites, two each, of two layers
CLOSED_FORMS: dict[str, tuple[int, int]] = {
    "protonets": (N * BODY + PROTOTYPES, BODY + C * D),
    "cnaps": (
        N * (SET_ENCODER + BODY) + GENERATORS + PROTOTYPES + C * (3 * D**2 + D + 2),
        BODY + C * D,
    ),
    "simple_cnaps": (
        N * (SET_ENCODER + BODY) + GENERATORS + PROTOTYPES + R**2 * D + R * C * D + C * R * (R + 1) * (R + 2) // 6,
        BODY + R * D + C * R * (R + 1) // 2,
    ),
    "finetuner": (N * BODY + 50 * 2 * HEAD, BODY + C * D),  # the features of a frozen body take no gradient
    "fomaml": (2 * (N * BODY_STEP + 3 * HEAD), BODY + C * D),
    "proto_maml": (N * BODY + PROTOTYPES + 2 * (N * BODY_STEP + 3 * HEAD), BODY + C * D),
    "md_transfer": (2 * (N * BODY_STEP + 3 * HEAD), BODY + C * D),
    "bit": (2 * (N * BODY_STEP + 3 * HEAD), BODY + C * D),
    "reptile": (2 * (N * BODY_STEP + 3 * HEAD), BODY + C * D),
    # prototypes, inner products with them, and 40 steps of weighing one extractor's products and lengths
    "sur": (N * BODY + 2 * PROTOTYPES + 40 * 2 * (N * C + N + C), BODY + C * D + 2 * C + 1),
    "ctx": (N * (BODY + 4 * 64 * 256), BODY + 4 * 64 * 256 + 4 * (4 * N) * 256),
}


@pytest.mark.parametrize("learner", CLOSED_FORMS)
def test_every_learner_of_ours_costs_what_its_formula_says(learner: str) -> None:
    settings = small_settings(learner=learner, image_size=32, params=FEW_STEPS.get(learner, {}))
    built = assemble(settings, 32)
    found = count_task(setting_of(built), TaskSizes((2, 3, 4)), 32)
    assert found.adapt is not None
    assert found.query is not None
    assert (found.adapt.macs, found.query.macs) == CLOSED_FORMS[learner]
    assert found.adapt.uncounted == found.query.uncounted == ()


def test_no_learner_of_ours_is_without_a_formula() -> None:
    ours = [entry.name for entry in LEARNERS.entries() if distribution_of(entry)[0] == OWN_DISTRIBUTION]
    assert set(ours) == set(CLOSED_FORMS)


@pytest.mark.parametrize("learner", LEARNERS.names())
def test_networks_that_are_known_count_the_same(learner: str) -> None:
    """A second count, which skips the networks, equals a first one and a real run of another size under the counter."""
    settings = small_settings(learner=learner, image_size=32, params=FEW_STEPS.get(learner, {}))
    built = assemble(settings, 32)
    setting, known = setting_of(built), dict[object, NetworkCost]()
    for counts in ((1, 2, 2), (2, 3, 3, 1)):
        sizes = TaskSizes(counts, frames=2)
        found = count_task(setting, sizes, 32, known)
        assert found == count_task(setting, sizes, 32)
        assert found.problem == ""
        support = Trial(setting, built.module, sizes, 32).support()
        assert found.adapt == count(partial(setting.adapt, support))


class Strange(nn.Module):
    """A plug-in that does one thing in a way of its own."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.network = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 8))

    def adapt(self, support: Support, encode: Encode) -> Any:
        features = encode(lambda images: self.network(images.float()), support.images)
        if self.how == "reads":
            while float(features.norm()) > 1e-3:
                features = features / 2
        if self.how == "numpy":
            features = torch.from_numpy(features.numpy() * 2)
        state = Means(torch.stack([features[support.labels == c].mean(0) for c in range(support.way)]))
        return Odd(state.means, np.zeros(2)) if self.how == "state" else state

    def classify(self, state: Any, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images.float()) @ state.means.T
        return logits

    def published_macs(self, sizes: TaskSizes, network_macs: Any) -> Any:
        return 1 // 0 if self.how == "published" else None


@dataclass
class Odd:
    means: Tensor
    other: Any


@pytest.mark.parametrize(
    ("how", "reason", "known"),
    [
        ("reads", "adapt (item cannot be followed", False),
        ("numpy", "adapt (numpy cannot be followed", False),
        ("state", "classify (PluginError", True),
        ("published", "published counting (ZeroDivisionError", True),
    ],
)
def test_no_plugin_ends_an_evaluation_by_how_it_counts(how: str, reason: str, known: bool, tmp_path: Path) -> None:
    learner = Strange(how)
    (record, *_) = evaluated(Assembly(learner, learner, build_estimator(SETTINGS), torch.device("cpu")), tmp_path)
    assert record.accuracy is not None
    assert record.cost is not None
    assert any(each.startswith(reason) for each in record.cost.uncounted)
    assert (record.cost.macs is not None) == known
    assert record.cost.published_macs is None


class Twice(nn.Module):
    """Runs one network at two sizes and in two ways, which a cache must tell apart."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Deep()

    def adapt(self, support: Support, encode: Encode) -> Means:
        small = nn.functional.avg_pool2d(support.images.float(), 2)
        passes = [encode(self.network, support.images), encode(self.network, small)]
        passes.append(encode(partial(self.network, deep=True), support.images))
        features = torch.stack(passes).sum(0)
        return Means(torch.stack([features[support.labels == c].mean(0) for c in range(support.way)]))

    def classify(self, state: Means, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images) @ state.means.T
        return logits


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, images: Tensor, deep: bool = False) -> Tensor:
        maps: Tensor = self.first(images.float())
        return (self.second(maps) if deep else maps).mean((2, 3))


def test_a_network_that_is_run_in_several_ways_is_counted_in_each() -> None:
    learner = Twice()
    setting = Setting(learner, build_estimator(SETTINGS), 40, torch.device("cpu"), nullcontext)
    known: dict[object, NetworkCost] = {}
    image = 4 * 27 * (30**2 + 14**2 + 30**2) + 4 * 36 * 28**2
    for counts in ((1, 1), (2, 3), (4, 4)):
        found = count_task(setting, TaskSizes(counts), 32, known)
        assert found.adapt is not None
        assert found.adapt.macs == sum(counts) * image
    assert len(known) == 3


def test_an_evaluation_by_features_goes_on_with_smaller_batches_of_shared_ones() -> None:
    settings = small_settings(learner="protonets")
    built = assemble(settings, 28)
    suite = Videos(28, None)
    (tasks, *_) = suite.tasks("test").values()
    shared = SharedFeatures()
    whole = [score_task(setting_of(built), suite.episode(task), shared) for task in tasks[:2]]
    again = SharedFeatures()
    first = score_task(setting_of(built), suite.episode(tasks[0]), again)
    second = score_task(setting_of(built, batch_size=1), suite.episode(tasks[1]), again)
    assert [first.predictions, second.predictions] == [each.predictions for each in whole]


def test_times_of_several_devices_have_no_median() -> None:
    found = summarise_costs({"a": [bare_record("CPU, 2 threads"), bare_record("H100")]})
    assert found is not None
    assert found.adapt_seconds is found.query_seconds is None
    assert found.devices == ("CPU, 2 threads", "H100")


def bare_record(device: str) -> Record:
    name = ("letters@1/a/test/0", "letters@1", "a", "l", "b")
    return Record(*name, 84, 0.5, 5, 5, 10, 1.0, 2.0, "untrained", "d", "0", cost=Cost(device=device))


def test_the_cost_of_a_task_that_fails_is_counted_without_times(shell: Shell) -> None:
    flags = ["--backbone", "conv4", "--image-size", "28", "--support", "6", "--way", "3", "--device", "cpu"]
    out, err = shell("cost", "fomaml", *flags, "-P", "backbone_lr=1e30", "-P", "inner_lr=1e30", "--json")
    assert "The task failed, so there are no times: The inner loop diverged" in err
    costs = json.loads(out)["costs"]
    assert costs["adapt_seconds"] is None
    assert costs["macs"] > 0


def test_the_cost_command_needs_no_data(shell: Shell) -> None:
    flags = ["--backbone", "conv4", "--image-size", "28", "--support", "7", "--way", "3", "--device", "cpu"]
    out, _ = shell("cost", "protonets", *flags, "--repeats", "2", "--json")
    found = json.loads(out)
    assert found["costs"]["macs"] == 7 * CONV4 + 3 * 7 * 64
    assert found["macs_by_kind"]["convolution"] == {"adapt": 7 * CONV4, "query": CONV4}
    assert found["costs"]["adapt_seconds"]["median"] > 0
    assert found["costs"]["peak_bytes"] > 0
    out, _ = shell("cost", "protonets", *flags, "--repeats", "0")
    assert "time to adapt" in out
    assert "unknown" in out


def test_the_cost_command_refuses_classes_without_images(shell: Shell) -> None:
    err = shell.fails("cost", "protonets", "--support", "3", "--way", "5")
    assert "--support 3 does not give every one of --way 5 classes an image" in err


def test_costs_reach_the_leaderboard_in_every_form(shell: Shell, tmp_path: Path) -> None:
    shell("eval", "finetuner", *FLAGS, "--limit", "1", "-o", str(tmp_path))
    out, _ = shell("leaderboard", str(tmp_path))
    header = next(line for line in out.splitlines() if "Steps" in line)
    assert [cell.strip() for cell in header.strip("|").split("|")][1:] == [
        "Steps", "MACs", "Published MACs", "Adapt", "Per image", "Params", "Adapted", "Peak memory", "Device",
    ]  # fmt: skip
    (row,) = json.loads(shell("leaderboard", str(tmp_path), "--json")[0])["tables"][0]["rows"]
    assert row["costs"]["passes"] == "1F"
    csv = shell("leaderboard", str(tmp_path), "--format", "csv")[0].splitlines()
    assert "published_macs" in csv[0]
    assert "adapt_seconds_p95" in csv[0]
