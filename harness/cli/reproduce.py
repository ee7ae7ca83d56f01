"""``lite-bench reproduce``: a published table, computed again or filled from runs, and compared."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lite_bench.harness.cli import flags
from lite_bench.harness.cli.listing import object_rows
from lite_bench.harness.cli.output import Progressor, print_json, print_table
from lite_bench.harness.errors import UsageError
from lite_bench.harness.registry import REPRODUCTIONS
from lite_bench.harness.units import UNKNOWN

if TYPE_CHECKING:
    from lite_bench.harness.measurement.expense import Expense
    from lite_bench.harness.reproduction import Claim, Figure, Outcome, PlannedReproduction, Reproduction, Row, Step

LIST = "list"
TERA, PETA, HOUR = 1e12, 1e15, 3600.0
RATE = 2.5
"""T MACs/s: Simple CNAPs with EfficientNet-B0 at 224 pixels, N = 500, on an H200 in float32 (docs/gradients.md)."""
PLACEHOLDERS = {"DATA": "the folder with the data", "FILE": "a file of weights"}
"""Words in commands that the user replaces, and by what."""
HOLDS = {True: "yes", False: "no", None: ""}


def reproduce(
    name: Annotated[str, typer.Argument(help=f"What to reproduce, or `{LIST}` for what there is.")],
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Run folders, or folders that hold some at any depth, to fill the table from."),
    ] = None,
    data_dir: flags.DataDirFlag = None,
    cost: Annotated[
        bool, typer.Option("--cost/--no-cost", help="Estimate the cost of what is missing (takes half a minute).")
    ] = True,
    rate: Annotated[
        float | None,
        typer.Option(help=f"T MACs per second that a GPU is taken to do (default {RATE:g}, float32 on an H200)."),
    ] = None,
    json: flags.JsonFlag = False,
) -> None:
    """Compare a published table with ours: computed anew, or from the runs it takes, as far as they are there.

    Of runs it says which are there, what is missing, what that would cost and what to type. Exits with 1 if a figure
    that is there does not agree; a missing one is no disagreement.

    Example: `lite-bench reproduce orbit-table1-costs`
    """
    if name == LIST:
        _refuse(f"`reproduce {LIST}`", paths, rate)
        _print_list(json=json)
        return
    from lite_bench.harness.reproduction import PlannedReproduction

    table: Reproduction | PlannedReproduction = REPRODUCTIONS.load(name)(data_dir)
    if isinstance(table, PlannedReproduction):
        agrees = _planned(name, table, paths, RATE if rate is None else rate, cost=cost, json=json)
    else:
        _refuse(f"Reproduction {name}", paths, rate)
        agrees = _computed(name, table, json=json)
    if not agrees:
        raise typer.Exit(1)


def _refuse(what: str, paths: Sequence[Path] | None, rate: float | None) -> None:
    """Refuse what belongs to runs where none are needed.

    Raises:
        UsageError: something was given.
    """
    if paths or rate is not None:
        given = f"the path {paths[0]}" if paths else f"--rate {rate:g}"
        raise UsageError(f"{what} needs no runs, so {given} plays no part; leave it out.")


def _print_list(*, json: bool) -> None:
    rows = object_rows(REPRODUCTIONS)
    if json:
        print_json(rows)
        return
    print_table(["name", "description"], [[row["name"], row["description"]] for row in rows], title="reproductions")


def _computed(name: str, table: Reproduction, *, json: bool) -> bool:
    """Compute a table anew and print it; says whether it agrees."""
    from lite_bench.harness.reproduction import verdict

    with Progressor(name) as progress:
        rows = table.rows(progress.update)
    sentence = verdict(rows)
    if json:
        content = [_content(row) for row in rows]
        print_json({"reproduction": name, "source": table.source, "rows": content, "verdict": sentence})
    else:
        _print_rows(rows, table.source)
        typer.echo(sentence)
    return all(row.agrees for row in rows)


def _planned(
    name: str, table: PlannedReproduction, paths: Sequence[Path] | None, rate: float, *, cost: bool, json: bool
) -> bool:
    """Look for the runs of a plan, and print the plan and the table; says whether all that is there agrees.

    Raises:
        UsageError: the rate is not positive.
    """
    from lite_bench.harness.reproduction import verdict

    if not rate > 0:
        raise UsageError(f"--rate {rate:g} is not usable: give the T MACs per second of your GPU, such as {RATE:g}.")
    outcome = table.outcome(paths)
    expenses = estimate(name, outcome.steps) if cost else [None] * len(outcome.steps)
    sentence = verdict(outcome.rows, outcome.claims, outcome.rule)
    if json:
        facts = {"reproduction": name, "source": table.source, "rule": outcome.rule, "reported_cost": outcome.reported}
        plan = [_step_content(step, each, rate) for step, each in zip(outcome.steps, expenses, strict=True)]
        rows, claims = [_content(row) for row in outcome.rows], [_claim_content(each) for each in outcome.claims]
        print_json({**facts, "rate": rate * TERA, "plan": plan, "rows": rows, "claims": claims, "verdict": sentence})
        return outcome.agrees
    _print_plan(outcome, expenses, rate)
    _print_rows(outcome.rows, table.source)
    if outcome.claims:
        claims_shown = [[claim.text, HOLDS[claim.holds], claim.evidence] for claim in outcome.claims]
        print_table(["statement", "holds", "ours"], claims_shown, title="statements without figures")
    typer.echo(outcome.rule)
    typer.echo(sentence)
    return outcome.agrees


def estimate(name: str, steps: Sequence[Step]) -> list[Expense | None]:
    """Estimate the cost of what is missing of each step; nothing heavy is imported if nothing is."""
    if not any(step.work for step in steps):
        return [None] * len(steps)
    from lite_bench.harness.measurement.expense import Appraiser

    appraiser, found = Appraiser(), []
    with Progressor(name) as progress:
        for number, step in enumerate(steps, start=1):
            found.append(appraiser.expense(step.work) if step.work else None)
            progress.update("costs", number, len(steps), step.name)
    return found


def _print_plan(outcome: Outcome, expenses: Sequence[Expense | None], rate: float) -> None:
    columns = ["run", "state", "done", "where", "P MACs left", "GPU hours"]
    pairs = list(zip(outcome.steps, expenses, strict=True))
    cells = [
        [step.name, step.state, step.done, " ".join(step.where), *_cost_texts(step, each, rate)] for step, each in pairs
    ]
    print_table(columns, cells, title="plan")
    for step in outcome.steps:
        for note in step.notes:
            typer.echo(f"{step.name}: {note}")
    left = sum(step.state != "there" for step in outcome.steps)
    typer.echo(f"{left} of {len(outcome.steps)} runs are to be done or finished{_total(expenses, rate)}.")
    for reason in dict.fromkeys(each.unknown for each in expenses if each is not None and each.unknown):
        typer.echo(f"Not in the estimate: {reason}")
    if outcome.reported and left:
        typer.echo(f"Reported by the authors: {outcome.reported}.")
    _print_commands(outcome.steps)


def _print_commands(steps: Sequence[Step]) -> None:
    """Print what to type, each command whole on a line of its own: in a table it could not be copied."""
    if not any(step.commands for step in steps):
        return
    words = {word for step in steps for command in step.commands for word in command.replace("=", " ").split()}
    meant = ", ".join(f"{word} is {meaning}" for word, meaning in PLACEHOLDERS.items() if word in words)
    typer.echo(f"What to type for what is missing, in order{f' ({meant})' if meant else ''}:")
    for step in steps:
        if step.commands:
            typer.echo("\n".join([f"# {step.name}", *step.commands]))


def _total(expenses: Sequence[Expense | None], rate: float) -> str:
    macs = sum(each.macs for each in expenses if each is not None)
    if not macs:
        return ""
    assumed = f"at {rate:g} T MACs/s, which is an assumption (--rate)"
    cost = f"{three_digits(macs / PETA)} P MACs, {three_digits(_hours(macs, rate))} GPU hours"
    return f": about {cost} {assumed}; without reading data and validation"


def _hours(macs: float, rate: float) -> float:
    return macs / (rate * TERA) / HOUR


def _cost_texts(step: Step, expense: Expense | None, rate: float) -> list[str]:
    """Write what is missing in MACs and hours; empty if nothing is, or it was not asked for."""
    if expense is None or not step.work:
        return ["", ""]
    if expense.unknown:
        return [UNKNOWN, UNKNOWN]
    return [three_digits(expense.macs / PETA), three_digits(_hours(expense.macs, rate))]


def three_digits(value: float) -> str:
    """Write a number with three significant digits and no exponent: ``9.3``, ``44,600``, ``0.00212``."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:.6g}"


def _print_rows(rows: Sequence[Row], source: str) -> None:
    """Print the table: on a terminal with a column for each figure, elsewhere with one for each number."""
    if not sys.stdout.isatty():
        print_table(*as_table(rows))
        return
    typer.echo(f"{source}: ours, with what is published and the difference in brackets")
    print_table(*as_drawn(rows))


def as_drawn(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Arrange rows for a terminal, where a column for every number would leave each too little room."""

    def cell(figure: Figure) -> str:
        ours, *others = figure.shown
        beside = ", ".join(filter(None, others))
        return " ".join(filter(None, [ours, f"({beside})" if beside else ""]))

    columns = [*rows[0].labels, *(figure.name for figure in rows[0].figures), "agrees"]
    return columns, [[*row.labels.values(), *map(cell, row.figures), _agreement(row)] for row in rows]


def as_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Arrange rows as columns and cells of text; a published figure follows ours, and of numbers the difference."""
    columns, cells = list(rows[0].labels), [list(row.labels.values()) for row in rows]
    for figures in zip(*(row.figures for row in rows), strict=True):
        headings = _headings(figures)
        columns += headings
        for line, figure in zip(cells, figures, strict=True):
            line += figure.shown[: len(headings)]
    return [*columns, "agrees"], [[*line, _agreement(row)] for line, row in zip(cells, rows, strict=True)]


def _headings(figures: Sequence[Figure]) -> list[str]:
    """Name the columns that one figure of all rows takes."""
    name = figures[0].name
    compared = any(figure.difference is not None for figure in figures)
    published = compared or any(figure.published is not None for figure in figures)
    return [name, *[f"{name}, published"] * published, *[f"{name}, difference"] * compared]


def _agreement(row: Row) -> str:
    """Say whether a row agrees; empty if nothing of it can be compared."""
    return ("yes" if row.agrees else "no") if row.compared else ""


def _content(row: Row) -> dict[str, Any]:
    """Give a row in values that JSON can hold, ours in full precision."""
    figures = {figure.name: _figure_content(figure) for figure in row.figures}
    return {**row.labels, "figures": figures, "agrees": row.agrees if row.compared else None}


def _figure_content(figure: Figure) -> dict[str, Any]:
    content = {
        "ours": figure.ours,
        "published": figure.published,
        "difference": figure.difference,
        "tolerance": figure.tolerance,
        "agrees": figure.agrees if figure.compared or figure.published is None else None,
    }
    widths = {"half_width": figure.half_width, "published_half_width": figure.published_half_width}
    return content | {name: width for name, width in widths.items() if width is not None}


def _step_content(step: Step, expense: Expense | None, rate: float) -> dict[str, Any]:
    """Give a step in values that JSON can hold; costs are null if they are unknown, or were not asked for."""
    known = expense is not None and not expense.unknown
    macs = (expense.training, expense.evaluation, _hours(expense.macs, rate)) if expense and known else (None,) * 3
    return {
        "run": step.name,
        "state": step.state,
        "done": step.done,
        "where": list(step.where),
        "notes": list(step.notes),
        "commands": list(step.commands),
        "settings": step.settings.model_dump(mode="json", exclude_none=True),
        **dict(zip(("training_macs", "evaluation_macs", "gpu_hours"), macs, strict=True)),
        "not_estimated": expense.unknown if expense is not None else "",
    }


def _claim_content(claim: Claim) -> dict[str, Any]:
    return {"statement": claim.text, "holds": claim.holds, "ours": claim.evidence}
