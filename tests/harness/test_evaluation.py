"""Evaluation: the same records in one go, in pieces, and whatever the machine."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from lite_bench.harness.assembly import assemble
from lite_bench.harness.core import Record, Suite
from lite_bench.harness.errors import RunError
from lite_bench.harness.evaluation import Evaluation, evaluate
from lite_bench.harness.records import read_manifest, read_records, read_results, records_path, results_folder
from lite_bench.harness.scoring import Score
from lite_bench.harness.settings import Settings
from tests.harness.small import TASK, Killed, small_settings, small_suite, untimed

SETTINGS = small_settings(suite_options={**TASK, "tasks": 4}, limit=3)


@pytest.fixture(scope="module")
def suite() -> Suite:
    return small_suite(SETTINGS)


def evaluation(settings: Settings = SETTINGS, checkpoint: str = "untrained") -> Evaluation:
    built = assemble(settings, 28)
    return Evaluation(built.learner, built.module, built.estimator, settings, built.device, checkpoint)


def results(run: Path, suite: Suite) -> dict[str, list[Record]]:
    """Records by source in file order, without their times and memory."""
    found = {}
    for source in suite.tasks("test"):
        listed = read_records(records_path(run, suite.id, source))
        assert all(record.cost and record.cost.peak_bytes for record in listed)
        found[source] = [untimed(record) for record in listed]
    return found


@pytest.fixture(scope="module")
def whole(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Record]]:
    """What one uninterrupted evaluation writes."""
    run = tmp_path_factory.mktemp("whole")
    evaluate(evaluation(), suite, run)
    return results(run, suite)


def test_every_task_asked_for_has_a_record_in_order(suite: Suite, whole: dict[str, list[Record]]) -> None:
    for source, tasks in suite.tasks("test").items():
        assert [record.task for record in whole[source]] == [str(task) for task in tasks[:3]]
        for record in whole[source]:
            assert (record.way, record.n_support, record.n_query) == (3, 6, 6)
            assert record.accuracy is not None
            assert (record.accuracy * 6) % 1 == pytest.approx(0)
            assert (record.checkpoint, record.data, record.image_size) == ("untrained", suite.fingerprint, 28)


@pytest.mark.parametrize("changes", [{"batch_size": 1}, {"batch_size": 4}, {"workers": 3}, {"gradient": "exact"}])
def test_the_machine_does_not_show(
    changes: dict[str, Any], suite: Suite, whole: dict[str, list[Record]], tmp_path: Path
) -> None:
    evaluate(evaluation(SETTINGS.changed(**changes)), suite, tmp_path)
    assert results(tmp_path, suite) == whole


@pytest.mark.parametrize("tasks", [1, 4, 7])
@pytest.mark.parametrize("torn", [False, True])
def test_a_killed_evaluation_goes_on(
    tasks: int, torn: bool, suite: Suite, whole: dict[str, list[Record]], tmp_path: Path
) -> None:
    made: list[Record] = []

    def kill(source: str, done: int, total: int, record: Record | None) -> None:
        made.extend([record] if record else [])
        if len(made) == tasks:
            raise Killed

    with pytest.raises(Killed):
        evaluate(evaluation(), suite, tmp_path, notify=kill)
    if torn:
        path = records_path(tmp_path, suite.id, made[-1].source)
        path.write_bytes(path.read_bytes()[:-20])
    again: list[Record] = []
    evaluate(evaluation(), suite, tmp_path, notify=lambda s, d, t, record: again.extend([record] if record else []))
    assert len(again) == 9 - tasks + torn
    assert results(tmp_path, suite) == whole


def test_progress_counts_what_was_there(suite: Suite, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    evaluate(evaluation(SETTINGS.changed(limit=1)), suite, tmp_path)
    evaluate(evaluation(), suite, tmp_path, notify=lambda source, done, total, _: calls.append((source, done, total)))
    first = next(iter(suite.tasks("test")))
    assert calls[:3] == [(first, 1, 3), (first, 2, 3), (first, 3, 3)]


def test_a_limit_is_extended_later_and_never_taken_back(
    suite: Suite, whole: dict[str, list[Record]], tmp_path: Path
) -> None:
    assert evaluate(evaluation(SETTINGS.changed(limit=1)), suite, tmp_path).limit == 1
    assert evaluate(evaluation(), suite, tmp_path).limit == 3
    assert results(tmp_path, suite) == whole
    assert evaluate(evaluation(SETTINGS.changed(limit=2)), suite, tmp_path).limit == 3
    assert evaluate(evaluation(SETTINGS.changed(limit=None)), suite, tmp_path).limit is None
    assert evaluate(evaluation(), suite, tmp_path).limit is None
    (found,) = read_results(tmp_path)
    assert {len(records) for records in found.records.values()} == {4}


@pytest.mark.parametrize(
    ("changes", "checkpoint", "seed", "named"),
    [({}, "abc", 0, "checkpoint"), ({"precision": "bf16"}, "untrained", 0, "precision"), ({}, "untrained", 1, "seed")],
)
def test_another_evaluation_does_not_mix(
    changes: dict[str, Any], checkpoint: str, seed: int, named: str, suite: Suite, tmp_path: Path
) -> None:
    evaluate(evaluation(SETTINGS.changed(limit=1)), suite, tmp_path)
    other = evaluation(SETTINGS.changed(limit=1, **changes), checkpoint)
    before = results(tmp_path, suite)
    with pytest.raises(RunError, match=f"another {named} .*--overwrite"):
        evaluate(other, suite, tmp_path, seed=seed)
    assert results(tmp_path, suite) == before
    evaluate(other, suite, tmp_path, seed=seed, overwrite=True)
    (found,) = read_results(tmp_path)
    assert (found.manifest.checkpoint, found.manifest.seed) == (checkpoint, seed)
    assert all(len(records) == 1 for records in found.records.values())


def test_the_learner_is_left_as_it_was(suite: Suite, tmp_path: Path) -> None:
    ready = evaluation(SETTINGS.changed(limit=1))
    ready.module.train()
    before = {key: value.clone() for key, value in ready.module.state_dict().items()}
    evaluate(ready, suite, tmp_path)
    assert ready.module.training
    assert all(torch.equal(value, before[key]) for key, value in ready.module.state_dict().items())
    assert all(parameter.grad is None for parameter in ready.module.parameters())


def test_a_full_disk_keeps_the_records_before_it(suite: Suite, whole: dict[str, list[Record]], tmp_path: Path) -> None:
    def fill(source: str, done: int, total: int, record: Record | None) -> None:
        if done == 2:
            disk.setattr(os, "write", no_space)

    def no_space(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (
        pytest.MonkeyPatch.context() as disk,
        pytest.raises(RunError, match=r"The disk is full.*\.jsonl.*Nothing already written is lost"),
    ):
        evaluate(evaluation(), suite, tmp_path, notify=fill)
    first = next(iter(suite.tasks("test")))
    assert len(read_records(records_path(tmp_path, suite.id, first))) == 2
    evaluate(evaluation(), suite, tmp_path)
    assert results(tmp_path, suite) == whole


def test_the_manifest_says_what_was_evaluated(suite: Suite, tmp_path: Path) -> None:
    evaluate(evaluation(), suite, tmp_path)
    manifest = read_manifest(results_folder(tmp_path, suite.id))
    assert manifest.sources == dict.fromkeys(suite.tasks("test"), 4)
    assert (manifest.limit, manifest.learner, manifest.backbone) == (3, "protonets", "conv4")
    assert {name: tuple(members) for name, members in manifest.groups.items()} == suite.groups


def test_scores_stop_with_their_reader(suite: Suite) -> None:
    ready = evaluation()
    ready.module.train()
    source = next(iter(suite.tasks("test")))
    scores: Iterator[Any] = ready.scores(suite, suite.tasks("test")[source])
    next(scores)
    assert not ready.module.training
    del scores
    assert ready.module.training


def test_accuracy_is_the_share_of_correct_queries() -> None:
    assert Score(3, 4, 0.0, 0.0).accuracy == 0.75


def test_the_manifest_names_versions_and_commands_of_every_part(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An evaluation that went on elsewhere was made by both."""
    monkeypatch.setattr("sys.argv", ["/somewhere/lite-bench", "eval", "one"])
    evaluate(evaluation(SETTINGS.changed(limit=1)), suite, tmp_path)
    monkeypatch.setattr("sys.argv", ["/elsewhere/lite-bench", "eval", "two"])
    monkeypatch.setattr("lite_bench.harness.evaluation.installed_versions", lambda: {"torch": "99"})
    evaluate(evaluation(SETTINGS.changed(limit=2)), suite, tmp_path)
    manifest = read_manifest(results_folder(tmp_path, suite.id))
    assert manifest.commands == ["lite-bench eval one", "lite-bench eval two"]
    assert manifest.versions["torch"] == [version("torch"), "99"]
    assert manifest.versions["lite-bench"] == [version("lite-bench")]


def test_a_label_names_the_row_and_stays_until_another_is_given(suite: Suite, tmp_path: Path) -> None:
    assert evaluate(evaluation(), suite, tmp_path, label="mine").label == "mine"
    assert evaluate(evaluation(), suite, tmp_path).label == "mine"
    assert evaluate(evaluation(), suite, tmp_path, label="").label == ""
    assert read_manifest(results_folder(tmp_path, suite.id)).label == ""
