"""``lite-bench profile``: seconds and memory of a training task by part, and the floor that its arithmetic sets."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lite_bench.harness.cli import flags
from lite_bench.harness.cli.output import say
from lite_bench.harness.cli.reports import publish
from lite_bench.harness.cli.words import names_of, numbers_of
from lite_bench.harness.environment import device_text
from lite_bench.harness.interruption import interruptible
from lite_bench.harness.records import file_name

if TYPE_CHECKING:
    from lite_bench.harness.measurement.profiling import Work
    from lite_bench.harness.settings import Settings

PANEL = "Measurement"


def profile(
    learner: Annotated[str, typer.Argument(help="See `lite-bench list learners`.")],
    backbone: flags.BackboneFlag = None,
    weights: flags.WeightsFlag = None,
    param: flags.ParamFlag = None,
    image_size: Annotated[int, typer.Option("--image-size", help="Side of the images in pixels.")] = 224,
    support: Annotated[
        str, typer.Option("--support", help="Support images per task, with commas.", rich_help_panel=PANEL)
    ] = "100,200,500,1000",
    queries: Annotated[int, typer.Option("--queries", min=1, help="Queries per task.", rich_help_panel=PANEL)] = 100,
    way: Annotated[int, typer.Option("--way", min=2, help="Classes per task.", rich_help_panel=PANEL)] = 10,
    gradient: Annotated[
        str, typer.Option("--gradient", help="Estimators, with commas.", rich_help_panel=PANEL)
    ] = "lite-importance,lite,exact",
    lite_h: Annotated[
        str, typer.Option("--lite-h", help="Support images with a gradient, with commas.", rich_help_panel=PANEL)
    ] = "40",
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="Tasks timed per case; the median counts.", rich_help_panel=PANEL)
    ] = 3,
    batch_size: flags.BatchSizeFlag = None,
    query_batch_size: flags.QueryBatchSizeFlag = None,
    precision: flags.PrecisionFlag = None,
    device: flags.DeviceFlag = None,
    output_dir: Annotated[
        Path | None,
        typer.Option("--output-dir", "-o", help="Folder for table, plot and figures (default: profile/<learner>...)."),
    ] = None,
    json: flags.JsonFlag = False,
) -> None:
    """Measure a training task of random pixels: seconds by part, images per second, peak memory, and its floor.

    Example: `lite-bench profile protonets --backbone conv4 --image-size 28 --support 50,100 --repeats 1`
    """
    from lite_bench.harness.measurement.plots import plot_profile
    from lite_bench.harness.settings import resolve

    given: dict[str, Any] = {
        "learner": learner, "backbone": backbone, "weights": weights, "pretrained": False, "image_size": image_size,
        "params": flags.learner_params(param), "batch_size": batch_size, "query_batch_size": query_batch_size,
        "precision": precision, "device": device,
    }  # fmt: skip
    if weights is not None:
        given["pretrained"] = None
    supports = numbers_of(support, "--support", least=way)
    works = make_works(names_of(gradient), numbers_of(lite_h, "--lite-h"), supports)
    content = measure(resolve(given, None), works, way, queries, repeats)
    folder = output_dir or Path("profile") / file_name(f"{learner}-{content['backbone']}-{image_size}")
    publish(folder, "profile", content, markdown, plot_profile, as_json=json)


def make_works(estimators: list[str], h: list[int], supports: list[int]) -> list[Work]:
    """List the tasks to measure."""
    from lite_bench.harness.measurement.profiling import Work
    from lite_bench.harness.registry import ESTIMATORS

    works = []
    for name in estimators:
        uses_h = getattr(ESTIMATORS.load(name), "uses_h", True)
        works += [Work(name, each, n) for each in (h if uses_h else [None]) for n in supports]
    return works


def measure(settings: Settings, works: list[Work], way: int, queries: int, repeats: int) -> dict[str, Any]:
    """Measure ``works``; gives values that JSON can hold."""
    import torch

    from lite_bench.harness.assembly import assemble, check_estimator_fits
    from lite_bench.harness.measurement.profiling import Profiler
    from lite_bench.harness.memory import BatchSizes
    from lite_bench.harness.registry import ESTIMATORS
    from lite_bench.harness.training import trainable

    image_size = settings.image_size or 224
    assembly = assemble(settings, image_size)
    trainable(assembly.module, settings.learner)
    for name in {work.estimator for work in works}:
        check_estimator_fits(assembly.module.train(), ESTIMATORS.load(name)(1, 1))
    sizes = BatchSizes(settings.batch_size, settings.query_batch)
    profiler = Profiler(assembly, image_size, way, queries, sizes, settings.precision, repeats)
    costs = profiler.count()
    profiles = []
    with interruptible() as stop:
        for work in works:
            if stop.is_set():
                break
            found = profiler.measure(work, costs)
            say(f"{describe(work)}: {found.failed or f'{found.seconds:.2f} s, {found.peak_bytes / 1e9:.2f} GB'}")
            profiles.append(found)
    return {
        "learner": settings.learner,
        "backbone": settings.backbone,
        "image_size": image_size,
        "way": way,
        "n_query": queries,
        "batch_size": sizes.chunk,
        "query_batch_size": sizes.query,
        "precision": settings.precision,
        "device": device_text(assembly.device),
        "torch": torch.__version__,
        "macs_per_image": asdict(costs),
        "interrupted": len(profiles) < len(works),
        "profiles": [{**asdict(each), "seconds": each.seconds} for each in profiles],
    }


def describe(work: Work) -> str:
    """Name a task in a few words."""
    return f"{work.estimator}{'' if work.h is None else f' H={work.h}'} N={work.n_support}"


COLUMNS = ["gradient", "H", "N", "seconds", "images/s", "support forward", "query", "support gradient", "optimizer"]
COLUMNS += ["floor", "seconds / floor", "peak GB"]


def markdown(content: dict[str, Any]) -> str:
    """Write the profile as a Markdown table with what its columns mean."""
    costs = content["macs_per_image"]
    what = [content["learner"], content["backbone"], f"{content['image_size']} px", f"{content['way']}-way"]
    batches = f"batches of {content['batch_size']} support images and {content['query_batch_size']} queries"
    what += [f"M = {content['n_query']}", batches, content["precision"], content["device"]]
    per_image = ", ".join(f"{name.replace('_', ' ')} {macs / 1e9:.3g}" for name, macs in costs.items())
    lines = [
        f"{', '.join(what)}, torch {content['torch']}",
        "",
        f"GMACs per image: {per_image}.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
    ]
    lines += [f"| {' | '.join(row_of(each, content['n_query']))} |" for each in content["profiles"]]
    return "\n".join([*lines, "", LEGEND])


LEGEND = """\
Seconds of one training task, synchronised. images/s: support images and queries. floor: forward of N support images, \
backward of H, forward and backward of the queries, at the rate of the plain forward of the support set. peak: memory \
of tensors above model and optimizer, on a GPU with the task's images."""


def row_of(found: dict[str, Any], n_query: int) -> list[str]:
    """Lay a profile out in one row."""
    work = found["work"]
    row = [work["estimator"], "–" if work["h"] is None else str(work["h"]), str(work["n_support"])]
    if found["failed"]:
        return [*row, found["failed"], *[""] * 8]
    total = found["seconds"]
    row += [f"{total:.3g}", f"{(work['n_support'] + n_query) / total:.0f}"]
    row += [f"{seconds:.3g}" for seconds in found["parts"].values()]
    floor = found["floor_seconds"]
    return [*row, f"{floor:.3g}", f"{total / floor:.2f}", f"{found['peak_bytes'] / 1e9:.2f}"]
