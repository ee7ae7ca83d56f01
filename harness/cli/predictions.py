"""``lite-bench predictions``: what a learner predicted, in a benchmark's own form of a file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lite_bench.harness.cli import flags
from lite_bench.harness.cli.output import say
from lite_bench.harness.errors import RunError, UsageError
from lite_bench.harness.files import write_atomically

if TYPE_CHECKING:
    from lite_bench.harness.core import Task


def predictions(
    run: Annotated[Path, typer.Argument(help="A run that was evaluated with `lite-bench eval --keep-predictions`.")],
    output: Annotated[Path, typer.Option("--output", help="File to write.")],
    suite: flags.SuiteFlag = None,
    suite_option: flags.SuiteOptionFlag = None,
    source: Annotated[str | None, typer.Option("--source", help="Source, where several were evaluated.")] = None,
    data_dir: flags.DataDirFlag = None,
) -> None:
    """Write the predictions of an evaluation in the form that the benchmark's evaluation server takes.

    Example: `lite-bench predictions runs/protonets-efficientnet_b0-224/20260301-120000 --output results.json`
    """
    from lite_bench.harness.cli.evaluate import on_suite
    from lite_bench.harness.cli.train import open_suite
    from lite_bench.harness.runs import open_run

    folder = open_run(run)
    options = flags.suite_options(suite_option, None, None, None)
    given = {"suite": suite, "suite_options": options, "data_dir": data_dir}
    _, opened = open_suite(on_suite(folder.settings(), given))
    form = getattr(opened, "predictions", None)
    if form is None:
        raise UsageError(f"Suite {opened.id} has no file of predictions of its own; name another by --suite.")
    content, done, expected = collect(folder.path, opened, source)
    macs = macs_to_adapt(folder.path, opened, content)
    write_atomically(output, json.dumps(form(content, macs), ensure_ascii=False) + "\n")
    say(f"Wrote {output}: {done} of {expected} tasks{'' if done == expected else '; the evaluation is not finished'}.")
    if unknown := sum(each is None for each in macs.values()):
        say(
            f"The records of {unknown} tasks do not say what adapting cost as published tables count it; that is left "
            "open in the file."
        )


def macs_to_adapt(run: Path, suite: Any, tasks: Iterable[Task]) -> dict[Task, int | None]:
    """Read from the records what adapting to each of ``tasks`` cost, as published tables count it."""
    from lite_bench.harness.records import read_records, records_path

    wanted = list(tasks)
    paths = [records_path(run, suite.id, source) for source in sorted({task.source for task in wanted})]
    costs = {record.task: record.cost for path in paths for record in read_records(path)}
    found = [(task, costs.get(str(task))) for task in wanted]
    return {task: None if cost is None else cost.published_macs for task, cost in found}


def collect(run: Path, suite: Any, source: str | None) -> tuple[dict[Any, dict[str, list[int]]], int, int]:
    """Read the predictions that were kept of one source; gives them with the tasks there are and should be.

    Raises:
        RunError: none were kept, or tasks failed, which have none.
        UsageError: there are several sources and none, or an unknown one, is named.
    """
    from lite_bench.harness.core import Task
    from lite_bench.harness.records import (
        predictions_path,
        read_manifest,
        read_predictions,
        read_records,
        records_path,
        results_folder,
    )

    kept = {}
    for name in suite.tasks("test"):
        if found := read_predictions(predictions_path(run, suite.id, name)):
            kept[name] = found
    if not kept:
        raise RunError(
            f"{run} holds no predictions on {suite.id}; evaluate it with: lite-bench eval --checkpoint {run} "
            "--keep-predictions (and --overwrite, if it was evaluated without)."
        )
    if source is None and len(kept) == 1:
        source = next(iter(kept))
    if source is None or source not in kept:
        raise UsageError(f"Predictions of {', '.join(kept)} were kept; name one of them by --source.")
    failed = [record for record in read_records(records_path(run, suite.id, source)) if record.failed]
    if failed:
        raise RunError(
            f"{len(failed)} tasks of {source} failed and have no predictions (the first: {failed[0].failed}); a file "
            "needs those of all tasks, so evaluate a learner or options that do not fail, with --overwrite."
        )
    expected = read_manifest(results_folder(run, suite.id)).sources[source]
    return {Task.parse(task): groups for task, groups in kept[source].items()}, len(kept[source]), expected
