"""All pictures of tables: as files, and as SVG for a page."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lite_bench.harness.errors import DataError
from lite_bench.harness.files import write_atomically
from lite_bench.harness.records import file_name
from lite_bench.leaderboard.pictures.bars import accuracy_by_group
from lite_bench.leaderboard.pictures.costs import accuracy_against_macs
from lite_bench.leaderboard.pictures.ranks import rank_diagram
from lite_bench.leaderboard.pictures.support import accuracy_against_h
from lite_bench.leaderboard.pictures.svg import png_of, svg_file_of, svg_of
from lite_bench.leaderboard.tables import Table
from lite_bench.leaderboard.text import title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST = 120
"""Characters of a suite's id that go into the names of files."""


@dataclass(frozen=True)
class Kind:
    """A kind of picture.

    Attributes:
        name: for files.
        title: in words.
        description: what it shows, for those who cannot see it.
        draw: make it of a table, or raise `DataError` with the reason why there is none.
        published: whether it is about published rows.
    """

    name: str
    title: str
    description: str
    draw: Callable[[Table], Figure]
    published: bool = False


@dataclass(frozen=True)
class Picture:
    """One picture of one table."""

    kind: Kind
    figure: Figure


KINDS = (
    Kind(
        "macs",
        "Accuracy against MACs to adapt",
        "A point per learner, its accuracy upwards and the multiply-accumulates of adapting to a task to the right.",
        accuracy_against_macs,
    ),
    Kind(
        "published-macs",
        "Accuracy against MACs as published tables count",
        "A point per learner and published system, accuracy upwards and published multiply-accumulates to the right.",
        partial(accuracy_against_macs, published=True),
        published=True,
    ),
    Kind(
        "groups",
        "Accuracy by group of sources",
        "A panel per group of sources with a bar per learner, as long as its accuracy.",
        accuracy_by_group,
    ),
    Kind(
        "h",
        "Accuracy against H",
        "A line per learner: its accuracy upwards and the support images that carried a gradient to the right.",
        accuracy_against_h,
    ),
    Kind(
        "ranks",
        "Critical differences of ranks",
        "Learners along a scale of mean ranks, the best to the right; bars join those that are not told apart.",
        rank_diagram,
    ),
)


def pictures(table: Table) -> tuple[list[Picture], list[str]]:
    """Draw all pictures that ``table`` has data for; of the others say why not, a sentence each.

    A table without published rows has no picture of published MACs, and nothing is said of it.
    """
    drawn, skipped = [], []
    for kind in (each for each in KINDS if table.published or not each.published):
        try:
            drawn.append(Picture(kind, kind.draw(table)))
        except DataError as error:
            skipped.append(str(error))
    return drawn, skipped


def write_plots(tables: Sequence[Table], folder: Path) -> tuple[list[Path], list[str]]:
    """Write every picture of every table as SVG and PNG.

    The same tables give the same bytes.

    Args:
        tables: what to draw.
        folder: to write to; made if missing.

    Returns:
        the files, and why each picture that is not there is not.

    Raises:
        RunError: a file cannot be written.
    """
    written: list[Path] = []
    reasons: list[str] = []
    for stem, table in zip(stems(tables), tables, strict=True):
        drawn, skipped = pictures(table)
        reasons += skipped
        for picture in drawn:
            name = f"{stem}-{picture.kind.name}"
            heading = f"{picture.kind.title}: {title(table)}"
            for suffix, content in ((".svg", svg_file_of(picture.figure, heading)), (".png", png_of(picture.figure))):
                write_atomically(folder / f"{name}{suffix}", content)
                written.append(folder / f"{name}{suffix}")
    return written, reasons


def inline_plots(table: Table) -> list[tuple[str, str]]:
    """Draw every picture of ``table`` for an HTML page: its title and an ``<svg>`` element that needs no other file."""
    drawn, _ = pictures(table)
    return [
        (each.kind.title, svg_of(each.figure, f"{each.kind.title}: {title(table)}", each.kind.description))
        for each in drawn
    ]


def stems(tables: Sequence[Table]) -> list[str]:
    """Begin the names of each table's files: the suite, and what else sets it apart from the others."""
    names: list[str] = []
    for table in tables:
        suite = file_name(table.suite)
        if len(suite) > LONGEST:
            suite = f"{suite[: LONGEST - 9]}-{hashlib.sha256(suite.encode()).hexdigest()[:8]}"
        marks = [table.split] * (table.split != "test") + ["synthetic"] * table.synthetic
        marks += [f"preview{table.preview}"] * (table.preview is not None) + [f"seed{table.seed}"] * (table.seed != 0)
        stem = "-".join([suite, *marks])
        number = 2
        while stem in names:
            stem = "-".join([suite, *marks, str(number)])
            number += 1
        names.append(stem)
    return names
