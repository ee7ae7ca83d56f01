"""``lite-bench predictions``: what adapting cost goes with them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lite_bench.harness.cli import predictions as command
from lite_bench.harness.core import Cost, Task
from lite_bench.harness.records import (
    Manifest,
    append_predictions,
    append_record,
    predictions_path,
    records_path,
    results_folder,
    write_manifest,
)
from tests.harness.test_records import MANIFEST_VALUES, make_record

TASKS = [Task("letters@1", "Latin", "test", index) for index in range(3)]


@dataclass(frozen=True)
class Letters:
    """A suite with a file of predictions of its own: what it was given."""

    id: str = "letters@1"

    def tasks(self, split: str) -> dict[str, list[Task]]:
        assert split == "test"
        return {"Latin": TASKS, "Old Italic": []}

    def predictions(self, tasks: Any, macs: Any) -> dict[str, Any]:
        assert list(tasks) == list(macs)
        return {str(task): [groups, macs[task]] for task, groups in tasks.items()}


def write_run(run: Path, *costs: Cost | None) -> Path:
    write_manifest(results_folder(run, "letters@1"), Manifest(**MANIFEST_VALUES))
    for index, cost in enumerate(costs):
        append_record(records_path(run, "letters@1", "Latin"), make_record(index, cost=cost))
        append_predictions(predictions_path(run, "letters@1", "Latin"), str(TASKS[index]), {"video": [index]})
    return run


def test_costs_are_read_from_the_records(tmp_path: Path) -> None:
    run = write_run(tmp_path, Cost(published_macs=5 * 10**12, macs=7), Cost(macs=7), None)
    found = command.macs_to_adapt(run, Letters(), TASKS)
    assert found == {TASKS[0]: 5 * 10**12, TASKS[1]: None, TASKS[2]: None}


def test_a_task_without_a_record_has_none(tmp_path: Path) -> None:
    assert command.macs_to_adapt(tmp_path, Letters(), TASKS[:1]) == {TASKS[0]: None}


@pytest.mark.parametrize(("second", "missing"), [(Cost(published_macs=6), 0), (Cost(), 1)])
def test_the_file_holds_them_and_the_command_says_what_is_missing(
    second: Cost, missing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", Cost(published_macs=5), second)
    folder = SimpleNamespace(path=run, settings=lambda: None)
    monkeypatch.setattr("lite_bench.harness.runs.open_run", lambda _: folder)
    monkeypatch.setattr("lite_bench.harness.cli.evaluate.on_suite", lambda *_: None)
    monkeypatch.setattr("lite_bench.harness.cli.train.open_suite", lambda _: ("letters", Letters()))
    command.predictions(run, tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    assert content == {
        str(TASKS[0]): [{"video": [0]}, 5],
        str(TASKS[1]): [{"video": [1]}, None if missing else 6],
    }
    said = capsys.readouterr().err
    assert "2 of 3 tasks" in said
    assert ("The records of 1 tasks do not say what adapting cost" in said) == bool(missing)
