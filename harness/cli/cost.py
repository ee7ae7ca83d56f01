"""``lite-bench cost``: what adapting to a task of given sizes costs a learner; needs no data."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lite_bench.harness.cli import flags
from lite_bench.harness.cli.info import NETWORK_COLUMNS, macs_of_networks, network_rows
from lite_bench.harness.cli.output import print_json, print_table, say
from lite_bench.harness.cli.results import cost_rows
from lite_bench.harness.errors import UsageError
from lite_bench.harness.units import scaled

if TYPE_CHECKING:
    from lite_bench.harness.core import TaskSizes
    from lite_bench.harness.measurement.counting import Count
    from lite_bench.harness.settings import Settings

PANEL = "Task"


def cost(
    learner: Annotated[str, typer.Argument(help="See `lite-bench list learners`.")],
    support: Annotated[
        int, typer.Option("--support", min=1, help="Support images, or clips.", rich_help_panel=PANEL)
    ] = 100,
    way: Annotated[int, typer.Option("--way", min=2, help="Classes.", rich_help_panel=PANEL)] = 10,
    frames: Annotated[
        int, typer.Option("--frames", min=1, help="Images of a clip; 1 for images.", rich_help_panel=PANEL)
    ] = 1,
    image_size: Annotated[
        int, typer.Option("--image-size", help="Side of the images in pixels.", rich_help_panel=PANEL)
    ] = 224,
    backbone: flags.BackboneFlag = None,
    param: flags.ParamFlag = None,
    batch_size: flags.BatchSizeFlag = None,
    precision: flags.PrecisionFlag = None,
    device: flags.DeviceFlag = None,
    repeats: Annotated[
        int, typer.Option("--repeats", min=0, help="Times to run the task; 0 counts only.", rich_help_panel="Machine")
    ] = 3,
    json: flags.JsonFlag = False,
) -> None:
    """Count and measure what adapting to one task costs: MACs, passes, seconds, parameters, memory.

    Counting takes seconds whatever the task; measuring runs it on random pixels.

    Example: `lite-bench cost simple_cnaps --support 1000 --way 50 --repeats 0`
    """
    from lite_bench.harness.settings import resolve

    given: dict[str, Any] = {
        "learner": learner, "backbone": backbone, "pretrained": False, "image_size": image_size,
        "params": flags.learner_params(param), "batch_size": batch_size, "precision": precision, "device": device,
    }  # fmt: skip
    content = measure(resolve(given, None), sizes_for(support, way, frames), repeats, quiet=json)
    if json:
        print_json(content)


def sizes_for(support: int, way: int, frames: int) -> TaskSizes:
    """Spread support items over classes as evenly as they go.

    Raises:
        UsageError: there are fewer items than classes.
    """
    from lite_bench.harness.core import TaskSizes

    if support < way:
        raise UsageError(
            f"--support {support} does not give every one of --way {way} classes an image; raise --support or lower "
            "--way."
        )
    return TaskSizes(tuple(support // way + (label < support % way) for label in range(way)), frames)


def measure(settings: Settings, sizes: TaskSizes, repeats: int, *, quiet: bool) -> dict[str, Any]:
    """Measure a task and print the tables; gives values that JSON can hold."""
    from lite_bench.harness.answers import FAILURES, Setting
    from lite_bench.harness.assembly import assemble, precision_context
    from lite_bench.harness.measurement.trials import Trial

    side = settings.image_size or 224
    assembly = assemble(settings, side)
    assembly.estimator.chunk = settings.batch_size
    context = precision_context(settings.precision, assembly.device)
    setting = Setting(assembly.learner, assembly.estimator, settings.batch_size, assembly.device, context)
    trial = Trial(setting, assembly.module.eval(), sizes, side)
    counts = trial.count()
    kinds = kinds_of(counts.adapt, counts.query)
    networks = macs_of_networks(assembly.module, side)
    if not quiet:
        clips = f" clips of {sizes.frames} frames" if sizes.frames > 1 else " images"
        title = f"{settings.learner}, {settings.backbone}, {side} pixels: {sizes.way} classes, {sizes.items}{clips}"
        rows = [[kind, scaled(adapt), scaled(query)] for kind, (adapt, query) in kinds.items()]
        print_table(NETWORK_COLUMNS, network_rows(networks), title="networks")
        print_table(["MACs by kind", "to adapt", "per classified image"], rows, title=title)
        if repeats:
            say(f"\nRunning the task {repeats} times, and once more to measure memory ...")
    try:
        summary = trial.summary(counts, repeats)
    except FAILURES as error:
        say(f"The task failed, so there are no times: {error}")
        summary = trial.summary(counts, 0)
    if not quiet:
        print_table(["cost", "of this task"], cost_rows(summary), title="cost")
    return {
        "learner": settings.learner,
        "params": settings.params,
        "backbone": settings.backbone,
        "image_size": side,
        "way": sizes.way,
        "support": sizes.items,
        "frames": sizes.frames,
        "device": str(assembly.device),
        "precision": settings.precision,
        "networks": networks,
        "macs_by_kind": {kind: {"adapt": adapt, "query": query} for kind, (adapt, query) in kinds.items()},
        "costs": asdict(summary),
    }


def kinds_of(adapt: Count | None, query: Count | None) -> dict[str, tuple[int | None, int | None]]:
    """Join two counts by kind; what could not be counted is None in all."""
    names = sorted({kind for count in (adapt, query) if count for kind in count.by_kind})

    def of(count: Count | None, name: str) -> int | None:
        return None if count is None else count.by_kind.get(name, 0)

    return {name: (of(adapt, name), of(query, name)) for name in names}
