"""``lite-bench leaderboard``: from run folders to tables."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lite_bench.harness.errors import IncompatibleError, RunError, UnknownNameError
from lite_bench.harness.files import write_atomically
from lite_bench.harness.records import MANIFEST, Results, read_results
from lite_bench.leaderboard.render import csv_text, json_text, markdown
from lite_bench.leaderboard.tables import make_tables

RUNS = Path("runs")


class Format(StrEnum):
    """How to write the tables."""

    markdown = "markdown"
    csv = "csv"
    json = "json"


RENDERERS = {Format.markdown: markdown, Format.csv: csv_text, Format.json: json_text}
SUFFIXES = {".csv": Format.csv, ".json": Format.json}


def leaderboard(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Run folders, or folders that hold some at any depth.", show_default="runs"),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="Only this suite, with its version (glyphs@1) or without (glyphs).")
    ] = None,
    layout: Annotated[
        Format | None,
        typer.Option("--format", help="Form of the tables; by default the one --output's ending names."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    output: Annotated[Path | None, typer.Option(help="Write to this file instead of printing.")] = None,
) -> None:
    """Compare evaluated learners: one table per suite version, with intervals and ranks.

    Missing scores are shown as missing and never averaged over.

    Example: lite-bench leaderboard runs --suite glyphs --output leaderboard.md
    """
    form = choose_format(layout, as_json, output)
    results = select_suite(find_results(paths or [RUNS]), suite)
    text = RENDERERS[form](make_tables(results))
    if output is None:
        typer.echo(text, nl=False)
        return
    write_atomically(output, text)
    typer.echo(f"Wrote {output}.", err=True)


def choose_format(layout: Format | None, as_json: bool, output: Path | None) -> Format:
    """Settle the form of the tables.

    Raises:
        IncompatibleError: ``--json`` and another ``--format`` are both given.
    """
    if as_json and layout not in {None, Format.json}:
        raise IncompatibleError(f"--json and --format {layout} ask for different forms; give one of them.")
    if as_json or layout:
        return layout or Format.json
    return SUFFIXES.get(output.suffix.lower(), Format.markdown) if output else Format.markdown


def find_results(paths: Iterable[Path]) -> list[Results]:
    """Read the results of every run at or below ``paths``, each run once.

    Raises:
        RunError: a path does not exist or holds no results.
        DataError: a file of results is damaged.
    """
    runs: dict[Path, Path] = {}
    for path in paths:
        for run in _find_runs(path):
            runs.setdefault(run.resolve(), run)
    return [results for run in runs.values() for results in read_results(run)]


def select_suite(results: Sequence[Results], suite: str | None) -> list[Results]:
    """Keep the results of ``suite``, named with or without its version; all of them for None.

    Raises:
        UnknownNameError: there are none.
    """
    ids = {each.manifest.suite for each in results}
    wanted = {name for name in ids if suite in {None, name, name.partition("@")[0]}}
    if not wanted:
        raise UnknownNameError("suite with results called", str(suite), ids)
    return [each for each in results if each.manifest.suite in wanted]


def _find_runs(path: Path) -> list[Path]:
    """List the run folders at or below ``path``, in order."""
    remedy = "Name run folders or a folder of them; `lite-bench eval` makes results."
    if not path.exists():
        raise RunError(f"There is no folder {path}. {remedy}")
    runs = sorted({manifest.parents[2] for manifest in path.rglob(f"results/*/{MANIFEST}")})
    if not runs:
        raise RunError(f"{path} holds no results (results/<suite>/{MANIFEST} at any depth). {remedy}")
    return runs
