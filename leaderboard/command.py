"""``lite-bench leaderboard``: from run folders to tables, pictures and a page."""

import shlex
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lite_bench.harness.errors import IncompatibleError
from lite_bench.harness.files import write_atomically
from lite_bench.harness.records import Results
from lite_bench.leaderboard.data_formats import csv_text, json_text
from lite_bench.leaderboard.evaluations import find_results, select_suite
from lite_bench.leaderboard.intervals import Kind
from lite_bench.leaderboard.latex import latex, latex_pairs
from lite_bench.leaderboard.markdown import markdown, markdown_pairs
from lite_bench.leaderboard.pairs import Pair, find_pairs, pairs_csv, pairs_json
from lite_bench.leaderboard.tables import Table, make_tables
from lite_bench.leaderboard.terminal import print_pairs, print_tables, terminal_pairs, terminal_text

RUNS = Path("runs")


class Format(StrEnum):
    """How to write the tables."""

    terminal = "terminal"
    markdown = "markdown"
    html = "html"
    csv = "csv"
    json = "json"
    latex = "latex"


RENDERERS: dict[Format, Callable[[Sequence[Table]], str]] = {
    Format.terminal: terminal_text,
    Format.markdown: markdown,
    Format.csv: csv_text,
    Format.json: json_text,
    Format.latex: latex,
}
PAIR_RENDERERS: dict[Format, Callable[[Sequence[Pair]], str]] = {
    Format.terminal: terminal_pairs,
    Format.markdown: markdown_pairs,
    Format.csv: pairs_csv,
    Format.json: pairs_json,
    Format.latex: latex_pairs,
}
SUFFIXES = {
    ".csv": Format.csv,
    ".json": Format.json,
    ".html": Format.html,
    ".htm": Format.html,
    ".tex": Format.latex,
    ".txt": Format.terminal,
}


def leaderboard(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Run folders, folders that hold some at any depth, or files of records.", show_default="runs"
        ),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="Only this suite, with its version (glyphs@1) or without (glyphs).")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Add the rows that others published, apart from ours and without ranks.")
    ] = False,
    interval: Annotated[
        Kind,
        typer.Option(help="Which 95 % interval: the protocol's own, Student's t, or a bootstrap of tasks or clusters."),
    ] = Kind.protocol,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Compare just these two rows, named by label or learner, task by task.", metavar="A B"),
    ] = None,
    layout: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="Form of the tables; by default the one --output's ending names, else terminal on a terminal and "
            "markdown elsewhere.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    output: Annotated[Path | None, typer.Option(help="Write to this file instead of printing.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Write pictures (SVG and PNG) to this folder too.")] = None,
) -> None:
    """Compare evaluated learners: one table per suite version, with intervals, ranks and costs.

    Missing scores are shown as missing and never averaged over; results of different versions, tasks or data never
    share a table, nor do stand-ins and real data.

    Example: lite-bench leaderboard runs --suite glyphs --output leaderboard.html
    """
    form = choose_format(layout, as_json, output)
    results = select_suite(find_results(paths or [RUNS]), suite)
    tell_unfinished(results)
    options = [*(["--suite", suite] if suite else []), *(["--published"] if published else [])]
    options += ["--interval", interval] if interval is not Kind.protocol else []
    options += ["--compare", *compare] if compare else []
    options += ["--format", form, *(["--output", output.as_posix()] if output else [])]
    command = make_command(paths or [RUNS], options)
    tables = make_tables(results, interval=interval, published=published, command=command)
    if plots is not None:
        draw(tables, plots)
    if compare is not None:
        _write_pairs(find_pairs(tables, *compare), form, output)
    elif form is Format.terminal and output is None:
        print_tables(tables)
    elif form is Format.html:
        _write(_page(tables, output), output)
    else:
        _write(RENDERERS[form](tables), output)


def choose_format(layout: Format | None, as_json: bool, output: Path | None) -> Format:
    """Settle the form of the tables.

    Raises:
        IncompatibleError: ``--json`` and another ``--format`` are both given.
    """
    if as_json and layout not in {None, Format.json}:
        raise IncompatibleError(f"--json and --format {layout} ask for different forms; give one of them.")
    if as_json or layout:
        return layout or Format.json
    if output is None:
        return Format.terminal if sys.stdout.isatty() else Format.markdown
    return SUFFIXES.get(output.suffix.lower(), Format.markdown)


def make_command(paths: Sequence[Path], options: Sequence[str]) -> str:
    """Spell the command that makes the same tables again."""
    return shlex.join(["lite-bench", "leaderboard", *(path.as_posix() for path in paths), *options])


def tell_unfinished(results: Sequence[Results]) -> None:
    """Name on stderr the files whose last line is cut short."""
    for path in (path for each in results for path in each.unfinished):
        typer.echo(f"{path}: the last line is cut short, as by a kill; all before it are used.", err=True)


def draw(tables: Sequence[Table], folder: Path) -> None:
    """Write the pictures of all tables to ``folder``, and say on stderr which and why others are left out."""
    from lite_bench.leaderboard.plots import write_plots  # imported here: matplotlib takes half a second

    written, skipped = write_plots(tables, folder)
    for path in written:
        typer.echo(f"Wrote {path}.", err=True)
    for reason in skipped:
        typer.echo(reason, err=True)


def _page(tables: Sequence[Table], output: Path | None) -> str:
    """Render tables, with their pictures, as one page; it links to the runs from where it will lie."""
    from lite_bench.leaderboard.page.builder import html  # imported here: only the page needs its parts

    return html(tables, folder=(Path.cwd() if output is None else output.parent).resolve())


def _write_pairs(pairs: Sequence[Pair], form: Format, output: Path | None) -> None:
    """Print or write comparisons.

    Raises:
        IncompatibleError: there is no such form of them.
    """
    if form not in PAIR_RENDERERS:
        raise IncompatibleError(f"--compare has no form {form}; give --format {', '.join(PAIR_RENDERERS)}.")
    if form is Format.terminal and output is None:
        print_pairs(pairs)
    else:
        _write(PAIR_RENDERERS[form](pairs), output)


def _write(text: str, output: Path | None) -> None:
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")  # a path need not be UTF-8, and may be in it
    if output is None:
        typer.echo(text, nl=False)
        return
    write_atomically(output, text)
    typer.echo(f"Wrote {output}.", err=True)
