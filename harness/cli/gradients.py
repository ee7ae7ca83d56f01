"""``lite-bench gradients``: bias, noise, time and memory of gradient estimators, before a day of GPU time is spent."""

from __future__ import annotations

import re
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lite_bench.harness.cli import flags
from lite_bench.harness.cli.output import Progressor, say
from lite_bench.harness.cli.reports import publish
from lite_bench.harness.cli.words import names_of, numbers_of, precisions_of
from lite_bench.harness.environment import device_text
from lite_bench.harness.errors import InterruptedRunError
from lite_bench.harness.interruption import interruptible
from lite_bench.harness.records import file_name

if TYPE_CHECKING:
    from lite_bench.harness.assembly import Assembly
    from lite_bench.harness.core import Suite
    from lite_bench.harness.settings import Settings

DEFAULT_H = "1,5,10,20,40,80"
DEFAULT_GRADIENTS = "exact,lite,lite-stratified,lite-importance,subsample,lite-code,lite-paper"
DEFAULT_DRAWS = 64
PANEL = "Study"
TASK_SIZE = {"way": 10, "shot": 10}
"""Of tasks that the command line does not say the size of."""


def gradients(
    learner: Annotated[
        str | None, typer.Argument(help="See `lite-bench list learners`; not needed with --checkpoint.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint", help="A trained run or checkpoint to take the weights from.", rich_help_panel="Model"
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
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", help="Side of the images in pixels (default 84).", rich_help_panel="Data"),
    ] = None,
    param: flags.ParamFlag = None,
    gradient: Annotated[
        str, typer.Option("--gradient", help="Estimators to compare, with commas.", rich_help_panel=PANEL)
    ] = DEFAULT_GRADIENTS,
    h: Annotated[
        str, typer.Option("--h", help="Support images with a gradient, with commas.", rich_help_panel=PANEL)
    ] = DEFAULT_H,
    draws: Annotated[
        int, typer.Option("--draws", min=2, help="Random draws per estimator, H and task.", rich_help_panel=PANEL)
    ] = DEFAULT_DRAWS,
    tasks: Annotated[
        int, typer.Option("--tasks", min=1, help="Training tasks to compare on.", rich_help_panel=PANEL)
    ] = 1,
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            help="fp32, tf32, bf16 or several with commas; the reference is always fp32.",
            rich_help_panel="Machine",
        ),
    ] = "fp32",
    batch_size: flags.BatchSizeFlag = None,
    device: flags.DeviceFlag = None,
    seed: flags.SeedFlag = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir", "-o", help="Folder for table, plot and figures (default: gradients/<learner>...)."
        ),
    ] = None,
    json: flags.JsonFlag = False,
) -> None:
    """Compare gradient estimators with the exact gradient of the same tasks: bias, noise, cosine, time, memory.

    Example: `lite-bench gradients protonets --backbone conv4+gn --no-pretrained --image-size 28`
    """
    from lite_bench.harness.measurement.plots import plot_gradients

    cases_asked = {"gradient": names_of(gradient), "h": numbers_of(h, "--h"), "precision": precisions_of(precision)}
    given: dict[str, Any] = {
        "suite": suite, "data_dir": data_dir, "backbone": backbone, "pretrained": pretrained, "weights": weights,
        "suite_options": with_task_size(
            suite or suite_of(checkpoint), flags.suite_options(suite_option, way, shot, query)
        ),
        "params": flags.learner_params(param), "batch_size": batch_size, "device": device, "seed": seed,
        "image_size": image_size or (None if checkpoint else 84),
    }  # fmt: skip
    settings, opened, assembly = _subject(learner, checkpoint, given)
    content = study(settings, opened, assembly, cases_asked, draws, tasks)
    folder = output_dir or Path("gradients") / file_name(f"{settings.learner}-{settings.backbone}-{opened.image_size}")
    publish(folder, "gradients", content, markdown, plot_gradients, as_json=json)


def suite_of(checkpoint: Path | None) -> str | None:
    """Name the suite of the run that ``checkpoint`` belongs to, if there is one."""
    from lite_bench.harness.runs import open_run

    return open_run(checkpoint).settings().suite if checkpoint is not None else None


def with_task_size(suite: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Add the default way and shot to a suite's options; one that has no such options makes tasks of its own size."""
    from lite_bench.harness.options import option_parameters
    from lite_bench.harness.registry import SUITES

    known = TASK_SIZE if suite is None else option_parameters(SUITES.load(re.split("[:@]", suite)[0]))
    return {**{name: value for name, value in TASK_SIZE.items() if name in known}, **options}


def _subject(learner: str | None, checkpoint: Path | None, given: dict[str, Any]) -> tuple[Settings, Suite, Assembly]:
    """Build the learner to study, from settings or from a trained run."""
    from lite_bench.harness.assembly import assemble
    from lite_bench.harness.cli.evaluate import restored
    from lite_bench.harness.cli.train import open_suite
    from lite_bench.harness.settings import resolve
    from lite_bench.harness.training import trainable

    if checkpoint is None:
        settings, suite = open_suite(resolve({**given, "learner": learner}, None))
        assembly = assemble(settings, suite.image_size)
    else:
        settings, suite, assembly, _ = restored(learner, checkpoint, given)
    trainable(assembly.module, settings.learner)
    return settings, suite, assembly


def study(
    settings: Settings, suite: Suite, assembly: Assembly, asked: dict[str, Any], draws: int, n_tasks: int
) -> dict[str, Any]:
    """Run the comparison; gives values that JSON can hold."""
    import torch

    from lite_bench.harness.assembly import training_notes
    from lite_bench.harness.cli.train import trains_on_stand_ins
    from lite_bench.harness.measurement.gradients import Study, check_tasks_alike, make_cases

    episodes = [suite.episode(suite.train_task(index, settings.seed)) for index in range(n_tasks)]
    n_support, way = check_tasks_alike(episodes)
    cases, notes = make_cases(asked["gradient"], asked["h"], n_support, way, asked["precision"])
    notes = [*training_notes(assembly), *notes]
    for note in notes:
        say(note)
    with Progressor("gradients") as progress, interruptible() as stop:
        studied = Study(
            assembly, settings.query_batch, settings.batch_size, draws, settings.seed,
            lambda done, total, what: progress.update("draws", done, total, what), stop,
        )  # fmt: skip
        findings = studied.run(islice(episodes, n_tasks), cases, n_tasks)
    if not findings:
        raise InterruptedRunError("Stopped before anything was finished.")
    return {
        "learner": settings.learner,
        "backbone": settings.backbone,
        "image_size": suite.image_size,
        "suite": suite.id,
        "synthetic": trains_on_stand_ins(suite),
        "tasks": [str(each.task) for each in episodes],
        "n_support": n_support,
        "way": way,
        "n_query": episodes[0].n_query,
        "batch_size": settings.batch_size,
        "device": device_text(assembly.device),
        "torch": torch.__version__,
        "notes": notes,
        "interrupted": stop.is_set(),
        "findings": [asdict(finding) for finding in findings],
    }


def markdown(content: dict[str, Any]) -> str:
    """Write the comparison as a Markdown table with what its columns mean."""
    what = [content["learner"], content["backbone"], f"{content['image_size']} px", content["suite"]]
    what += [f"{content['way']}-way", f"N = {content['n_support']}", f"M = {content['n_query']}"]
    what += [f"tasks: {len(content['tasks'])}", content["device"], f"torch {content['torch']}"]
    lines = [
        ", ".join(what),
        "",
        "| estimator | H | part | bias | p | gain | direction | RMSE | cosine | ms | peak MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for finding in content["findings"]:
        lines += [f"| {' | '.join(row)} |" for row in rows_of(finding)]
    lines += ["", LEGEND.format(draws=max(f["draws"] for f in content["findings"]))]
    return "\n".join(lines)


LEGEND = """\
All relative to the size of the exact gradient of the same tasks. bias: distance of the mean over {draws} draws per \
task, corrected for their noise, ± its Monte-Carlo error; p: the chance of so large a bias if there were none (sign \
flips of blocks of draws); gain: length of the mean along the exact gradient; direction: cosine of their angle; RMSE: \
root mean squared distance of one draw; ms: one task; peak: memory of tensors."""


def rows_of(finding: dict[str, Any]) -> list[list[str]]:
    """Lay a finding out in one row per part."""
    case = finding["case"]
    name = case["estimator"] + ("" if case["precision"] == "fp32" else f" ({case['precision']})")
    rows: list[list[str]] = []
    for part, found in finding["parts"].items():
        error = "" if found["bias_error"] is None else f" ± {found['bias_error']:.2g}"
        p = "–" if found["p_value"] is None else f"{found['p_value']:.2g}"
        figures = [f"{found['bias']:.2g}{error}", p, f"{found['gain']:.3f}"]
        figures += [f"{found['direction']:.3f}", f"{found['rmse']:.3g}"]
        cost = [f"{1000 * finding['seconds']:.0f}", f"{finding['peak_bytes'] / 1e6:.0f}"] if not rows else ["", ""]
        rows.append(
            [name, "–" if case["h"] is None else str(case["h"]), part, *figures, f"{found['cosine']:.3f}", *cost]
        )
    return rows
