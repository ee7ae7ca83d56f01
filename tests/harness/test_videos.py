"""Suites of videos: clips as support, a moving window over the queries, scores by video, users as clusters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lite_bench.harness.assembly import Assembly, assemble
from lite_bench.harness.checkpoints import restore
from lite_bench.harness.cli.predictions import collect
from lite_bench.harness.clips import per_item
from lite_bench.harness.core import FeatureLearner, Record
from lite_bench.harness.errors import IncompatibleError, RunError, UsageError
from lite_bench.harness.evaluation import Evaluation, evaluate
from lite_bench.harness.records import predictions_path, read_predictions, read_records, read_results, records_path
from lite_bench.harness.runs import create_run
from lite_bench.harness.settings import Settings
from lite_bench.harness.statistics import summarise
from lite_bench.harness.training import Training
from lite_bench.leaderboard.data_formats import csv_text, json_text
from lite_bench.leaderboard.markdown import markdown
from lite_bench.leaderboard.tables import make_tables
from tests.harness.small import Dropping, Listener, small_settings, untimed
from tests.harness.videos import LENGTHS, SIDE, TASKS_PER_USER, WAY, Videos, frames

LEARNERS = ("protonets", "cnaps", "simple_cnaps", "finetuner", "fomaml")
FRAMES = {user: sum(lengths) for user, lengths in LENGTHS.items()}


def settings(learner: str = "protonets", **changes: Any) -> Settings:
    return small_settings(learner=learner, suite="glyphs", suite_options={}, image_size=SIDE, **changes)


def evaluation(chosen: Settings) -> Evaluation:
    built = assemble(chosen, SIDE)
    return Evaluation(built.learner, built.module, built.estimator, chosen, built.device)


def records(run: Path, suite: Videos) -> list[Record]:
    return [untimed(each) for each in read_records(records_path(run, suite.id, "own"))]


def literal_predictions(built: Assembly, suite: Videos, number: int) -> dict[str, list[int]]:
    """Classify every frame by running the network on each of the frames of its window, as the protocol reads."""
    task = suite.tasks("test")["own"][number]
    learner = built.learner
    assert isinstance(learner, FeatureLearner)
    built.module.eval()

    class Plain:
        chunk = 100

        def __call__(self, network: Any, images: Tensor) -> Tensor:
            return per_item(network, images)

    with torch.no_grad():
        state = learner.adapt(suite.support(task), Plain())
        user = list(LENGTHS)[number // TASKS_PER_USER]
        found = {}
        for video, length in enumerate(LENGTHS[user]):
            images = frames(user, video, length)
            classes = []
            for t in range(length):
                window = images[[max(0, t - back) for back in range(suite.window)]]
                logits = learner.logits(state, learner.features(state, window).mean(0, keepdim=True))
                classes.append(int(logits.argmax()))
            found[f"{user}-{video}"] = classes
    return found


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("window", [1, 4])
def test_the_moving_window_is_the_literal_one(learner: str, window: int, tmp_path: Path) -> None:
    suite, chosen = Videos(window=window), settings(learner)
    evaluate(evaluation(chosen), suite, tmp_path, keep_predictions=True)
    kept = read_predictions(predictions_path(tmp_path, suite.id, "own"))
    built = assemble(chosen, SIDE)
    for number in (0, 1, 3):
        task = suite.tasks("test")["own"][number]
        assert kept[str(task)] == literal_predictions(built, suite, number)


@pytest.mark.parametrize("learner", ["protonets", "simple_cnaps"])
@pytest.mark.parametrize("changes", [{"batch_size": 1}, {"batch_size": 5}, {"workers": 3}, {"query_batch_size": 64}])
def test_the_machine_does_not_show(learner: str, changes: dict[str, Any], tmp_path: Path) -> None:
    suite = Videos()
    evaluate(evaluation(settings(learner)), suite, tmp_path / "a")
    evaluate(evaluation(settings(learner, **changes)), Videos(batch=3), tmp_path / "b")
    assert records(tmp_path / "a", suite) == records(tmp_path / "b", suite)


@pytest.mark.parametrize(("learner", "shared"), [(name, name in {"protonets", "finetuner"}) for name in LEARNERS])
def test_features_that_no_task_changes_are_computed_once_for_a_user(learner: str, shared: bool, tmp_path: Path) -> None:
    suite = Videos()
    evaluate(evaluation(settings(learner)), suite, tmp_path)
    read = sum(stream.read for stream in suite.streams)
    assert read == sum(FRAMES.values()) * (1 if shared else TASKS_PER_USER)


def test_an_evaluation_taken_up_within_a_user_gives_the_same(tmp_path: Path) -> None:
    suite = Videos()
    evaluate(evaluation(settings(limit=1)), suite, tmp_path / "a")
    evaluate(evaluation(settings()), suite, tmp_path / "a")
    evaluate(evaluation(settings()), suite, tmp_path / "b")
    assert records(tmp_path / "a", suite) == records(tmp_path / "b", suite)


def test_records_hold_every_video_and_the_user(tmp_path: Path) -> None:
    suite = Videos()
    evaluate(evaluation(settings()), suite, tmp_path)
    first, *_, last = records(tmp_path, suite)
    assert [(group.name, group.n) for group in first.groups] == [
        (f"anna-{i}", n) for i, n in enumerate(LENGTHS["anna"])
    ]
    assert (first.cluster, last.cluster) == ("anna", "bert")
    assert (first.n_support, first.n_query, first.way) == (4, FRAMES["anna"], WAY)
    assert first.accuracy == pytest.approx(sum(group.frame_accuracy for group in first.groups) / 4)


def test_scores_are_pooled_over_tasks_and_videos(tmp_path: Path) -> None:
    suite = Videos()
    evaluate(evaluation(settings()), suite, tmp_path)
    (results,) = read_results(tmp_path)
    score = summarise(results.manifest, results.records).sources["own"]
    pooled = [group for record in results.records["own"] for group in record.groups]
    expected = TASKS_PER_USER * sum(len(lengths) for lengths in LENGTHS.values())
    assert score.estimate is not None
    assert (len(pooled), score.estimate.n) == (expected, expected)
    assert score.estimate.mean == pytest.approx(sum(group.frame_accuracy for group in pooled) / expected)
    votes = score.metrics["video accuracy"]
    assert votes.mean * expected == pytest.approx(round(votes.mean * expected))
    p = votes.mean
    assert votes.half_width == pytest.approx(1.96 * (p * (1 - p) / expected) ** 0.5)
    assert list(score.metrics) == ["video accuracy", "frames to recognition"]
    assert score.estimate.clustered is not None


def test_tables_show_all_that_is_reported(tmp_path: Path) -> None:
    evaluate(evaluation(settings()), Videos(), tmp_path)
    tables = make_tables(read_results(tmp_path))
    text = markdown(tables)
    assert "own: video accuracy" in text
    assert "own: frames to recognition" in text
    assert "resamples whole users" in text
    (row,) = json.loads(json_text(tables))["tables"][0]["rows"]
    assert [score["column"] for score in row["scores"]] == ["own", "own: video accuracy", "own: frames to recognition"]
    assert all(score["clustered_low"] <= score["mean"] <= score["clustered_high"] for score in row["scores"])
    assert csv_text(tables).count("metric") == 2


def test_validation_is_the_mean_over_all_videos_of_all_tasks(tmp_path: Path) -> None:
    """The users have different numbers of videos, so that a mean over tasks would be another."""
    chosen, suite = settings(tasks=2, validate_every=2, validation_tasks=4), Videos()
    run = create_run(tmp_path, chosen, SIDE, "train", "run")
    training = Training(assemble(chosen, SIDE), suite, chosen, run, Listener())
    training.execute()
    trained = evaluation(chosen)
    restore(run.checkpoint("last"), "protonets", trained.module)
    scores = [score for _, score in trained.scores(suite, suite.tasks("validation")["own"])]
    videos = [group.frame_accuracy for score in scores for group in score.groups]
    (line,) = [json.loads(text) for text in run.metrics.read_text("utf-8").splitlines()]
    assert line["validation"] == pytest.approx(sum(videos) / len(videos))
    assert line["validation"] != pytest.approx(sum(score.accuracy or 0.0 for score in scores) / len(scores))
    assert training.info.best_accuracy == line["validation"]


class TestPredictions:
    def test_a_task_with_a_record_has_its_predictions(self, tmp_path: Path) -> None:
        suite = Videos()
        evaluate(evaluation(settings(limit=2)), suite, tmp_path, keep_predictions=True)
        content, done, expected = collect(tmp_path, suite, None)
        assert (done, expected) == (2, 4)
        (first, second) = content
        assert [first, second] == suite.tasks("test")["own"][:2]
        assert {name: len(classes) for name, classes in content[first].items()} == {
            f"anna-{number}": length for number, length in enumerate(LENGTHS["anna"])
        }
        torn = predictions_path(tmp_path, suite.id, "own")
        torn.write_bytes(torn.read_bytes() + b'{"task": "videos@1/own')
        evaluate(evaluation(settings()), suite, tmp_path, keep_predictions=True)
        assert collect(tmp_path, suite, "own")[1:] == (4, 4)

    def test_they_are_not_added_to_an_evaluation_without(self, tmp_path: Path) -> None:
        evaluate(evaluation(settings(limit=1)), Videos(), tmp_path)
        with pytest.raises(RunError, match=r"holds 1 tasks whose predictions were not kept .*--overwrite"):
            evaluate(evaluation(settings()), Videos(), tmp_path, keep_predictions=True)

    def test_without_any_the_remedy_is_named(self, tmp_path: Path) -> None:
        evaluate(evaluation(settings(limit=1)), Videos(), tmp_path)
        with pytest.raises(RunError, match=r"holds no predictions on videos@1.*--keep-predictions"):
            collect(tmp_path, Videos(), None)

    def test_an_unknown_source_is_named(self, tmp_path: Path) -> None:
        evaluate(evaluation(settings(limit=1)), Videos(), tmp_path, keep_predictions=True)
        with pytest.raises(UsageError, match="Predictions of own were kept; name one of them by --source"):
            collect(tmp_path, Videos(), "other")


def test_a_learner_that_classifies_in_one_step_is_refused(tmp_path: Path) -> None:
    class OneStep(Dropping):
        features = None  # type: ignore[assignment]  # as if it had none

    chosen = settings()
    built = assemble(chosen, SIDE)
    ready = Evaluation(OneStep(), OneStep(), built.estimator, chosen, built.device)
    ready.learner.adapt = lambda support, encode: None  # type: ignore[method-assign]  # never gets to it
    with pytest.raises(IncompatibleError, match=r"OneStep classifies images in one step.*features\(state, images\)"):
        evaluate(ready, Videos(), tmp_path)
