"""``lite-bench train``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lite_bench.harness.cli import flags
from lite_bench.harness.cli.output import Progressor, say
from lite_bench.harness.errors import RunError, UsageError
from lite_bench.harness.files import write_atomically

if TYPE_CHECKING:
    from lite_bench.harness.assembly import Assembly
    from lite_bench.harness.core import SourceData, Split, Suite
    from lite_bench.harness.measurement.planning import Plan
    from lite_bench.harness.runs import RunFolder
    from lite_bench.harness.settings import Settings

PANEL = "Training"
LOOKED_AT = 8
"""Training tasks of which the largest is measured for a memory budget."""
MOVABLE = ("data_dir", "device", "workers")
"""Settings that may differ when a run goes on elsewhere; they change no result."""


def train(
    learner: Annotated[str | None, typer.Argument(help="What to train; see `lite-bench list learners`.")] = None,
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
    gradient: Annotated[
        str | None,
        typer.Option(
            "--gradient",
            help="How the gradient through the support set is obtained; see `lite-bench list estimators`.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    lite_h: Annotated[
        str | None,
        typer.Option(
            "--lite-h",
            metavar="INTEGER|auto",
            help="Support images with a gradient (default 40); auto for as many as --memory-budget allows.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    tasks: Annotated[
        int | None, typer.Option("--tasks", help="Training tasks (default 10000).", rich_help_panel=PANEL)
    ] = None,
    tasks_per_step: Annotated[
        int | None,
        typer.Option("--tasks-per-step", help="Tasks per optimizer step (default 16).", rich_help_panel=PANEL),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option("--lr", help="Learning rate (default: the learner's, or 0.001).", rich_help_panel=PANEL),
    ] = None,
    lr_decay_every: Annotated[
        int | None,
        typer.Option(
            "--lr-decay-every",
            help="Halve it after every so many tasks (lr_decay in a --config file sets another factor).",
            rich_help_panel=PANEL,
        ),
    ] = None,
    validate_every: Annotated[
        int | None,
        typer.Option("--validate-every", help="Tasks between validations; 0 for none.", rich_help_panel=PANEL),
    ] = None,
    validation_tasks: Annotated[
        int | None, typer.Option("--validation-tasks", help="Validation tasks per source.", rich_help_panel=PANEL)
    ] = None,
    batch_size: flags.BatchSizeFlag = None,
    query_batch_size: flags.QueryBatchSizeFlag = None,
    memory_budget: Annotated[
        str | None,
        typer.Option(
            "--memory-budget",
            metavar="AMOUNT",
            help="Stay within this memory, such as 16GB: batch sizes (and --lite-h auto) are chosen by measuring.",
            rich_help_panel="Machine",
        ),
    ] = None,
    precision: flags.PrecisionFlag = None,
    device: flags.DeviceFlag = None,
    workers: flags.WorkersFlag = None,
    seed: flags.SeedFlag = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Stop after this many tasks; a quick look.")] = None,
    output_dir: flags.OutputDirFlag = Path("runs"),
    run_name: flags.RunNameFlag = None,
    config: flags.ConfigFlag = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", help="Go on with this run folder, with its own settings (data and device may move)."),
    ] = None,
) -> None:
    """Meta-train a learner.

    Example: `lite-bench train simple_cnaps --image-size 224 --backbone efficientnet_b0+gn --no-pretrained --tasks 200`
    """
    given: dict[str, Any] = {
        "learner": learner, "suite": suite, "suite_options": flags.suite_options(suite_option, way, shot, query),
        "data_dir": data_dir, "backbone": backbone, "pretrained": pretrained, "weights": weights,
        "image_size": image_size, "params": flags.learner_params(param), "gradient": gradient,
        "lite_h": number_or_auto(lite_h), "tasks": tasks, "tasks_per_step": tasks_per_step, "lr": lr,
        "lr_decay_every": lr_decay_every, "validate_every": validate_every, "validation_tasks": validation_tasks,
        "batch_size": batch_size, "query_batch_size": query_batch_size, "memory_budget": memory_budget,
        "precision": precision, "device": device, "workers": workers, "seed": seed,
    }  # fmt: skip
    if resume is not None:
        given |= {"limit": limit, "run_name": run_name, "config": config}
        resume_training(resume, {key: value for key, value in given.items() if value not in (None, {})})
        return
    from lite_bench.harness.settings import resolve

    refuse_both(given)
    settings = resolve(given, config)
    if limit is not None:
        settings = settings.changed(tasks=min(limit, settings.tasks))
    start_training(settings, output_dir, run_name)


def number_or_auto(text: str | None) -> int | str | None:
    """Read ``--lite-h``.

    Raises:
        UsageError: it is neither a number from 0 nor ``auto``.
    """
    if text is None or text == "auto":
        return text
    if not text.isdecimal():
        raise UsageError(f"--lite-h {text} is not usable: give a whole number from 0, or auto with --memory-budget.")
    return int(text)


def refuse_both(given: dict[str, Any]) -> None:
    """Refuse batch sizes beside a budget that is to choose them.

    Raises:
        UsageError: both are given.
    """
    for name in ("batch_size", "query_batch_size"):
        if given["memory_budget"] is not None and given[name] is not None:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"--memory-budget chooses {flag} by measuring; leave one of them out.")


def start_training(settings: Settings, output_dir: Path, run_name: str | None = None) -> RunFolder:
    """Train from the beginning in a new run folder, which is returned."""
    from lite_bench.harness.runs import create_run

    settings, suite = open_suite(settings)
    suite.train_task(0, settings.seed)  # a suite without data to train on says so before anything is built or written
    plan = None
    if settings.budget_bytes is None:
        assembly = assemble_for_training(settings, suite)
    else:
        settings, assembly, plan = fit_to_budget(settings, suite)
    run = create_run(
        output_dir,
        settings,
        suite.image_size,
        "train",
        run_name,
        class_splits(suite),
        fingerprints(suite),
        assembly.pretraining,
        synthetic=trains_on_stand_ins(suite),
    )
    if plan is not None:
        write_atomically(run.path / "memory.json", json.dumps(plan.plain(), indent=1) + "\n")
    _execute(assembly, suite, settings, run, resume=False)
    return run


def fit_to_budget(settings: Settings, suite: Suite) -> tuple[Settings, Assembly, Plan]:
    """Choose batch sizes, and H if it is ``auto``, by measuring; gives the settings with them.

    Raises:
        UsageError: the learner's results depend on the batch sizes.
    """
    from dataclasses import replace

    from lite_bench.harness.assembly import build_estimator, limit_memory
    from lite_bench.harness.loading import EpisodeStream
    from lite_bench.harness.measurement.planning import choose_sizes

    start = settings.changed(lite_h=1) if settings.lite_h == "auto" else settings
    assembly = assemble_for_training(start, suite)
    if getattr(assembly.learner, "fixed_batches", False):
        raise UsageError(
            "--memory-budget chooses batch sizes, but this learner's options make its results depend on them; leave it "
            "out and give --batch-size."
        )
    tasks = [suite.train_task(index, settings.seed) for index in range(LOOKED_AT)]
    say(f"Measuring what fits into {settings.memory_budget} (the largest of the first {LOOKED_AT} training tasks):")
    episodes = EpisodeStream(suite, tasks, settings.workers)
    plan = choose_sizes(settings, assembly, episodes, lambda text: say(f"  {text}"))
    say(str(plan))
    chosen = settings.changed(batch_size=plan.sizes.chunk, query_batch_size=plan.sizes.query, lite_h=plan.h)
    limit_memory(assembly.device, plan.budget)
    return chosen, replace(assembly, estimator=build_estimator(chosen)), plan


def resume_training(path: Path, given: dict[str, Any]) -> None:
    """Go on with the run in ``path``.

    Args:
        path: the run folder.
        given: settings from the command line; only those of `MOVABLE` may be given.

    Raises:
        UsageError: other settings are given; a resumed run keeps its own.
    """
    from lite_bench.harness.runs import open_run
    from lite_bench.harness.settings import flag

    fixed = [key for key in given if key not in MOVABLE]
    if fixed:
        raise UsageError(f"--resume keeps the run's own settings; leave out {flag(fixed[0])}.")
    run = open_run(path)
    status = run.status()
    if status.get("kind") == "eval":
        raise RunError(f"{run.path} is an evaluation; go on with it by: lite-bench eval --checkpoint {run.path}")
    if status.get("status") == "finished":
        say(f"{run.path} is finished; evaluate it with: lite-bench eval --checkpoint {run.path}")
        return
    settings, suite = open_suite(run.settings().changed(**given))
    refuse_other_data(run, suite)
    if settings.budget_bytes is not None:
        from lite_bench.harness.assembly import choose_device, limit_memory

        limit_memory(choose_device(settings.device), settings.budget_bytes)
    _execute(assemble_for_training(settings, suite), suite, settings, run, resume=True)


def open_suite(settings: Settings) -> tuple[Settings, Suite]:
    """Open the suite of ``settings``, choosing one if none is named and saying which and why.

    Raises:
        UsageError: ``--data-dir`` does not exist, so that data from elsewhere would be used without a word.
    """
    from lite_bench.harness.assembly import build_suite, choose_suite

    if settings.data_dir is not None and not settings.data_dir.expanduser().exists():
        raise UsageError(
            f"--data-dir {settings.data_dir} does not exist; name the folder of the data, or leave it out."
        )
    name = settings.suite
    if name is None:
        name, reason = choose_suite(settings.data_dir)
        say(f"Suite: {name}, because {reason}.")
        settings = settings.changed(suite=name)
    suite = build_suite(name, settings.image_size, settings.data_dir, settings.suite_options)
    if settings.pixel_range is None:
        settings = settings.changed(pixel_range=getattr(suite, "pixel_range", "backbone"))
    for note in getattr(suite, "notes", ()):
        say(note)
    return settings, suite


def trains_on_stand_ins(suite: Suite) -> bool:
    """Say whether any data that ``suite`` trains on is a stand-in."""
    return any(each.synthetic for each in training_data(suite).values())


def fingerprints(suite: Suite) -> dict[str, str]:
    """List the hashes of the data that ``suite`` found: its own, and those of its test and training sources."""
    from lite_bench.harness.evaluation import source_data

    tested = {f"{suite.id}/{name}": data for name, data in source_data(suite).items()}
    found = {**tested, **training_data(suite)}
    return {suite.id: suite.fingerprint, **{name: data.fingerprint for name, data in found.items() if not data.missing}}


def training_data(suite: Suite) -> dict[str, SourceData]:
    """Give what ``suite`` found of its training sources, if it has several, under the names that a run records."""
    return {f"{suite.id}/train/{name}": data for name, data in getattr(suite, "train_data", {}).items()}


def refuse_other_data(run: RunFolder, suite: Suite) -> None:
    """Refuse to go on with a training on other data than it began with.

    Raises:
        RunError: the data has changed.
    """
    now = {name: data.fingerprint for name, data in training_data(suite).items()} or {suite.id: suite.fingerprint}
    for name, earlier in run.data().items():
        if now.get(name, earlier) != earlier:
            raise RunError(
                f"The data of {name} is not what {run.path} was trained on so far; put the earlier data back (or name "
                "it by --data-dir), or train anew."
            )


def class_splits(suite: Suite) -> dict[Split, list[str]] | None:
    """List the classes of each split, if the suite can."""
    splits: dict[Split, list[str]] | None = getattr(suite, "class_splits", lambda: None)()
    return splits


def assemble_for_training(settings: Settings, suite: Suite) -> Assembly:
    """Build what is trained, and check that its parts belong together before anything is written."""
    from lite_bench.harness.assembly import assemble, check_estimator_fits
    from lite_bench.harness.training import trainable

    assembly = assemble(settings, suite.image_size)
    trainable(assembly.module, settings.learner)
    check_estimator_fits(assembly.module.train(), assembly.estimator)
    return assembly


def _execute(assembly: Assembly, suite: Suite, settings: Settings, run: RunFolder, *, resume: bool) -> None:
    from lite_bench.harness.assembly import training_notes
    from lite_bench.harness.training import Training

    with Progressor("training") as progress:
        training = Training(assembly, suite, settings, run, progress)
        if resume:
            training.resume()
        for note in training_notes(assembly):
            progress.note(note)
        training.execute()
    say(f"Run folder: {run.path}\nNext: lite-bench eval --checkpoint {run.path}")
