"""``lite-bench eval``."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lite_bench.harness.cli import flags
from lite_bench.harness.cli.output import Progressor, say
from lite_bench.harness.cli.results import report
from lite_bench.harness.errors import DataError, InterruptedRunError, LiteBenchError, RunError, UsageError

if TYPE_CHECKING:
    from lite_bench.harness.assembly import Assembly
    from lite_bench.harness.core import Record, Suite
    from lite_bench.harness.evaluation import Evaluation
    from lite_bench.harness.records import Manifest
    from lite_bench.harness.runs import RunFolder, Status
    from lite_bench.harness.settings import Settings


def evaluate_command(
    learner: Annotated[
        str | None,
        typer.Argument(help="A learner to evaluate as it is, untrained; without one, the newest finished run."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            help="A run folder or one of its checkpoints; an interrupted evaluation goes on where it was.",
            rich_help_panel="Model",
        ),
    ] = None,
    suite: flags.SuiteFlag = None,
    suite_option: flags.SuiteOptionFlag = None,
    way: flags.WayFlag = None,
    shot: flags.ShotFlag = None,
    query: flags.QueryFlag = None,
    data_dir: flags.DataDirFlag = None,
    backbone: flags.BackboneFlag = None,
    pretrained: flags.PretrainedFlag = None,
    weights: flags.WeightsFlag = None,
    image_size: flags.ImageSizeFlag = None,
    param: flags.ParamFlag = None,
    batch_size: flags.BatchSizeFlag = None,
    precision: flags.PrecisionFlag = None,
    device: flags.DeviceFlag = None,
    workers: flags.WorkersFlag = None,
    seed: Annotated[
        int, typer.Option("--seed", help="Seed of the list of tasks; 0 is the list everybody evaluates on.")
    ] = 0,
    limit: Annotated[
        int | None, typer.Option("--limit", help="At most this many tasks per source; flagged as partial.")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            "--label",
            help="What leaderboards call this row; two models with one label and no source in common are one row.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results of another evaluation in the same run.")
    ] = False,
    keep_predictions: Annotated[
        bool,
        typer.Option("--keep-predictions", help="Keep the predicted classes of videos; see `lite-bench predictions`."),
    ] = False,
    output_dir: flags.OutputDirFlag = Path("runs"),
    run_name: flags.RunNameFlag = None,
    config: flags.ConfigFlag = None,
    json: flags.JsonFlag = False,
) -> None:
    """Evaluate a trained run, or a learner that needs no meta-training, on the test tasks of a suite.

    Example: `lite-bench eval --suite glyphs --limit 20`
    """
    given: dict[str, Any] = {
        "suite": suite, "suite_options": flags.suite_options(suite_option, way, shot, query), "data_dir": data_dir,
        "backbone": backbone, "pretrained": pretrained, "weights": weights, "image_size": image_size,
        "params": flags.learner_params(param), "batch_size": batch_size, "precision": precision, "device": device,
        "workers": workers, "limit": limit,
    }  # fmt: skip
    run, manifest = run_evaluation(
        learner, checkpoint, given, config, output_dir, run_name,
        seed=seed, overwrite=overwrite, keep_predictions=keep_predictions, label=label,
    )  # fmt: skip
    report(run, manifest, as_json=json)


def run_evaluation(
    learner: str | None,
    checkpoint: Path | None,
    given: dict[str, Any],
    config: Path | None,
    output_dir: Path,
    run_name: str | None = None,
    *,
    seed: int = 0,
    overwrite: bool = False,
    keep_predictions: bool = False,
    label: str | None = None,
) -> tuple[RunFolder, Manifest]:
    """Find what to evaluate, evaluate it, and give the run folder and what was measured.

    Args:
        learner: to evaluate untrained, if there is no ``checkpoint``.
        checkpoint: a run folder, trained or an earlier evaluation to go on with, or one of its checkpoints.
        given: settings from the command line.
        config: a file of settings for an untrained learner, which it may name.
        output_dir: the folder that holds all runs.
        run_name: name of the run folder of an untrained learner.
        seed: seed of the list of tasks.
        overwrite: replace results of another evaluation.
        keep_predictions: keep the predicted classes of groups of queries.
        label: what leaderboards call it; None leaves it as it is.

    Raises:
        UsageError: arguments contradict each other.
        InterruptedRunError: by Ctrl-C; finished tasks are kept.
    """
    if checkpoint is None and (learner is not None or config is not None):
        run, evaluation, suite = _untrained(learner, given, config, output_dir, run_name)
    elif config is not None or run_name is not None:
        name = "--config" if config is not None else "--run-name"
        raise UsageError(f"{name} belongs to a new run; an existing one is evaluated in its own folder. Leave it out.")
    else:
        run, evaluation, suite = _existing(learner, checkpoint, given, output_dir)
    try:
        manifest = _evaluate(
            evaluation, suite, run, seed, overwrite=overwrite, keep_predictions=keep_predictions, label=label
        )
    except KeyboardInterrupt as error:
        _close(run, "interrupted")
        raise InterruptedRunError(f"Stopped; the finished tasks are kept. {_how_to_go_on(run)}") from error
    except LiteBenchError as error:
        _close(run, "failed")
        if isinstance(error.__cause__, OSError) or isinstance(error, DataError):
            say(_how_to_go_on(run))
        raise
    _close(run, "finished")
    return run, manifest


def _how_to_go_on(run: RunFolder) -> str:
    return f"Go on with: lite-bench eval --checkpoint {run.path} (and the same --limit, --seed and suite)"


def _close(run: RunFolder, status: Status) -> None:
    """Note how an evaluation ended; a training run keeps the status of its training."""
    from lite_bench.harness.runs import now_text

    if run.status().get("kind") == "eval":
        with suppress(RunError):
            run.set_status(status, finished=now_text())


def _evaluate(
    evaluation: Evaluation,
    suite: Suite,
    run: RunFolder,
    seed: int,
    *,
    overwrite: bool,
    keep_predictions: bool,
    label: str | None,
) -> Manifest:
    from lite_bench.harness.evaluation import evaluate

    with Progressor("evaluating") as progress:
        correct: dict[str, list[float]] = {}
        failed: dict[str, int] = {}

        def notify(source: str, done: int, total: int, record: Record | None) -> None:
            accuracies = correct.setdefault(source, [])
            if record is not None:
                own = [] if record.accuracy is None else [record.accuracy]
                accuracies += [group.frame_accuracy for group in record.groups] or own
            if record is not None and record.failed:
                failed[source] = failed.get(source, 0) + 1
            detail = f"acc {sum(accuracies) / len(accuracies):.1%}" if accuracies else ""
            detail += f"  {failed[source]} failed" if source in failed else ""
            progress.update(source, done, total, detail)

        return evaluate(
            evaluation, suite, run.path,
            seed=seed, overwrite=overwrite, keep_predictions=keep_predictions, label=label, notify=notify,
        )  # fmt: skip


def _untrained(
    learner: str | None, given: dict[str, Any], config: Path | None, output_dir: Path, run_name: str | None
) -> tuple[RunFolder, Evaluation, Suite]:
    """Build a learner from settings alone, in a run folder of its own."""
    from lite_bench.harness.assembly import assemble
    from lite_bench.harness.cli.train import class_splits, fingerprints, open_suite
    from lite_bench.harness.evaluation import refuse_without_data
    from lite_bench.harness.runs import create_run
    from lite_bench.harness.settings import resolve

    settings, suite = open_suite(resolve({**given, "learner": learner}, config))
    assembly = assemble(settings, suite.image_size)
    refuse_without_data(suite)
    name = settings.learner
    if any(p.requires_grad for p in assembly.module.parameters()):
        say(f"{name} is evaluated as it is, without meta-training; `lite-bench train {name}` trains it.")
    run = create_run(
        output_dir,
        settings,
        suite.image_size,
        "eval",
        run_name,
        class_splits(suite),
        fingerprints(suite),
        assembly.pretraining,
    )
    return run, _evaluation(assembly, settings), suite


def _existing(
    learner: str | None, checkpoint: Path | None, given: dict[str, Any], output_dir: Path
) -> tuple[RunFolder, Evaluation, Suite]:
    """Rebuild a learner from its run folder; flags change where and on what it is evaluated, not what it is."""
    from lite_bench.harness.assembly import assemble
    from lite_bench.harness.checkpoints import file_sha256
    from lite_bench.harness.cli.train import open_suite
    from lite_bench.harness.runs import newest_finished, open_run

    run = open_run(checkpoint) if checkpoint is not None else newest_finished(output_dir)
    own = run.settings()
    refuse_fixed(run, given)
    if run.status().get("kind") == "eval":
        if learner not in (None, own.learner):
            raise UsageError(f"{run.path} is an evaluation of {own.learner}, not of {learner}; name another run.")
        settings, suite = open_suite(on_suite(own, given))
        return run, _evaluation(assemble(settings, suite.image_size), settings), suite
    settings, suite, assembly, path = restored(learner, checkpoint or run.path, given)
    return run, _evaluation(assembly, settings, file_sha256(path)), suite


def restored(learner: str | None, checkpoint: Path, given: dict[str, Any]) -> tuple[Settings, Suite, Assembly, Path]:
    """Rebuild a trained learner from a run folder or one of its checkpoints; gives the checkpoint's path too.

    Raises:
        UsageError: a flag is given that the run fixes.
    """
    from lite_bench.harness.assembly import assemble
    from lite_bench.harness.checkpoints import check_learner_of, restore
    from lite_bench.harness.cli.train import open_suite
    from lite_bench.harness.runs import open_run

    run = open_run(checkpoint)
    own = run.settings()
    refuse_fixed(run, given)
    path = checkpoint if checkpoint.is_file() else run.chosen_checkpoint()
    check_learner_of(path, learner or own.learner)
    settings, suite = open_suite(on_suite(own, given))
    say(f"Using the weights of {path}")
    assembly = assemble(settings, suite.image_size, weights_follow=True)
    restore(path, settings.learner, assembly.module)
    return settings, suite, assembly, path


def refuse_fixed(run: RunFolder, given: dict[str, Any]) -> None:
    """Refuse flags that would change what a run's weights are.

    Raises:
        UsageError: one is given.
    """
    from lite_bench.harness.settings import flag

    for key in ("backbone", "pretrained", "weights", "params", "image_size"):
        if given.get(key) not in (None, {}):
            raise UsageError(f"{flag(key)} is fixed by the run {run.path}; leave it out.")


def on_suite(own: Settings, given: dict[str, Any]) -> Settings:
    """Lay flags over a run's own settings; the suite's options are kept only for the same suite."""
    changes = {key: value for key, value in given.items() if value not in (None, {})}
    if "batch_size" in changes:
        changes["query_batch_size"] = None  # what the run chose for its own batches
    asked = changes.get("suite") or own.suite
    if without_version(asked) == without_version(own.suite):
        renamed = asked != own.suite and "@" in (asked or "")
        kept = {key: value for key, value in own.suite_options.items() if not (renamed and key == "version")}
        changes["suite_options"] = {**kept, **changes.get("suite_options", {})}
    else:
        changes = {"suite_options": {}, "data_dir": None, **changes}
    # weights go with the pixels they were trained on; runs from before this was recorded had the backbone's
    return own.changed(**changes, pixel_range=own.pixel_range or "backbone")


def without_version(suite: str | None) -> str | None:
    """Give a suite's name without ``@version``; a path after it stays as it is."""
    name, colon, path = (suite or "").partition(":")
    return suite and f"{name.partition('@')[0]}{colon}{path}"


def _evaluation(assembly: Assembly, settings: Settings, checkpoint: str | None = None) -> Evaluation:
    from lite_bench.harness.evaluation import UNTRAINED, Evaluation

    return Evaluation(
        assembly.learner, assembly.module, assembly.estimator, settings, assembly.device, checkpoint or UNTRAINED, say
    )
