"""The flags that several commands share, with one wording each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

SuiteFlag = Annotated[
    str | None,
    typer.Option("--suite", help="Benchmark to use, or folder:PATH for your own images.", rich_help_panel="Data"),
]
SuiteOptionFlag = Annotated[
    list[str] | None,
    typer.Option(
        "-S", "--suite-option", metavar="KEY=VALUE", help="Option of the suite; repeatable.", rich_help_panel="Data"
    ),
]
WayFlag = Annotated[int | None, typer.Option("--way", min=2, help="Classes per task.", rich_help_panel="Data")]
ShotFlag = Annotated[
    int | None, typer.Option("--shot", min=1, help="Support images per class.", rich_help_panel="Data")
]
QueryFlag = Annotated[
    int | None, typer.Option("--query", min=1, help="Query images per class.", rich_help_panel="Data")
]
DataDirFlag = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder with the suite's data.", rich_help_panel="Data"),
]
BackboneFlag = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        help="Feature extractor: any of `list backbones` or of timm; NAME+gn for per-image normalisation.",
        rich_help_panel="Model",
    ),
]
PretrainedFlag = Annotated[
    bool | None,
    typer.Option(
        "--pretrained/--no-pretrained", help="Start from published weights, or from scratch.", rich_help_panel="Model"
    ),
]
WeightsFlag = Annotated[
    Path | None,
    typer.Option(
        "--weights", help="Start the backbone from this file (or a run's checkpoint).", rich_help_panel="Model"
    ),
]
ImageSizeFlag = Annotated[
    int | None, typer.Option("--image-size", help="Side of the images in pixels.", rich_help_panel="Data")
]
ParamFlag = Annotated[
    list[str] | None,
    typer.Option(
        "-P", "--param", metavar="KEY=VALUE", help="Option of the learner; repeatable.", rich_help_panel="Model"
    ),
]
BatchSizeFlag = Annotated[
    int | None,
    typer.Option(
        "--batch-size", help="Images in a network at once; changes memory, never results.", rich_help_panel="Machine"
    ),
]
QueryBatchSizeFlag = Annotated[
    int | None,
    typer.Option(
        "--query-batch-size", help="Queries at a time, if other than --batch-size.", rich_help_panel="Machine"
    ),
]
PrecisionFlag = Annotated[
    str | None,
    typer.Option(
        "--precision", help="fp32, tf32 or bf16 inside networks; heads are always fp32.", rich_help_panel="Machine"
    ),
]
DeviceFlag = Annotated[
    str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N.", rich_help_panel="Machine")
]
WorkersFlag = Annotated[
    int | None, typer.Option("--workers", help="Episodes prepared ahead, in threads.", rich_help_panel="Machine")
]
SeedFlag = Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")]
OutputDirFlag = Annotated[Path, typer.Option("--output-dir", "-o", help="Folder that holds all runs.")]
RunNameFlag = Annotated[str | None, typer.Option("--run-name", help="Name of the run folder instead of the time.")]
ConfigFlag = Annotated[
    Path | None, typer.Option("--config", help="TOML file of settings; flags go over it. A run's config.toml is one.")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def suite_options(pairs: list[str] | None, way: int | None, shot: int | None, query: int | None) -> dict[str, Any]:
    """Join ``-S`` pairs with the three flags every suite of ours has."""
    from lite_bench.harness.options import split_pairs

    named = {"way": way, "shot": shot, "query": query}
    return {**split_pairs(pairs or [], "-S"), **{key: value for key, value in named.items() if value is not None}}


def learner_params(pairs: list[str] | None) -> dict[str, Any]:
    """Split ``-P`` pairs."""
    from lite_bench.harness.options import split_pairs

    return dict(split_pairs(pairs or [], "-P"))
