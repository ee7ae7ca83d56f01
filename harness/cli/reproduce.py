"""``lite-bench reproduce``: a published table, computed again and compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lite_bench.harness.cli import flags
from lite_bench.harness.cli.listing import object_rows
from lite_bench.harness.cli.output import Progressor, print_json, print_table
from lite_bench.harness.registry import REPRODUCTIONS

if TYPE_CHECKING:
    from lite_bench.harness.reproduction import Figure, Reproduction, Row

LIST = "list"


def reproduce(
    name: Annotated[str, typer.Argument(help=f"What to reproduce, or `{LIST}` for what there is.")],
    data_dir: flags.DataDirFlag = None,
    json: flags.JsonFlag = False,
) -> None:
    """Compute a published table again and compare: every figure beside the published one, and whether they agree.

    Exits with 1 if one does not.

    Example: `lite-bench reproduce orbit-table1-costs`
    """
    if name == LIST:
        _print_list(json=json)
        return
    from lite_bench.harness.reproduction import verdict

    table: Reproduction = REPRODUCTIONS.load(name)(data_dir)
    with Progressor(name) as progress:
        rows = table.rows(progress.update)
    sentence = verdict(rows)
    if json:
        content = [_content(row) for row in rows]
        print_json({"reproduction": name, "source": table.source, "rows": content, "verdict": sentence})
    else:
        columns, cells = as_table(rows)
        print_table(columns, cells, title=table.source)
        typer.echo(sentence)
    if not all(row.agrees for row in rows):
        raise typer.Exit(1)


def _print_list(*, json: bool) -> None:
    rows = object_rows(REPRODUCTIONS)
    if json:
        print_json(rows)
        return
    print_table(["name", "description"], [[row["name"], row["description"]] for row in rows], title="reproductions")


def as_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Arrange rows as columns and cells of text; a published figure follows ours, and of numbers the difference."""
    columns, cells = list(rows[0].labels), [list(row.labels.values()) for row in rows]
    for figures in zip(*(row.figures for row in rows), strict=True):
        headings = _headings(figures)
        columns += headings
        for line, figure in zip(cells, figures, strict=True):
            line += figure.shown[: len(headings)]
    return [*columns, "agrees"], [[*line, _yes(row.agrees)] for line, row in zip(cells, rows, strict=True)]


def _headings(figures: Sequence[Figure]) -> list[str]:
    """Name the columns that one figure of all rows takes."""
    name = figures[0].name
    compared = any(figure.difference is not None for figure in figures)
    published = compared or any(figure.published is not None for figure in figures)
    return [name, *[f"{name}, published"] * published, *[f"{name}, difference"] * compared]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _content(row: Row) -> dict[str, Any]:
    """Give a row in values that JSON can hold, ours in full precision."""
    figures = {
        figure.name: {
            "ours": figure.ours,
            "published": figure.published,
            "difference": figure.difference,
            "tolerance": figure.tolerance,
            "agrees": figure.agrees,
        }
        for figure in row.figures
    }
    return {**row.labels, "figures": figures, "agrees": row.agrees}
