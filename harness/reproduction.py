"""What can be reproduced: published figures, each beside ours.

A reproduction's entry in the group ``lite_bench.reproductions`` is a callable ``(data_dir: Path | None)``, usually a
class, that returns a `Reproduction`. ``lite-bench reproduce`` shows what it gives and says whether it agrees; the first
paragraph of its docstring is what ``lite-bench reproduce list`` says of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lite_bench.harness.data import Notify


@dataclass(frozen=True)
class Figure:
    """A figure of ours, beside the published one where there is one.

    Attributes:
        name: what it is and its unit, such as ``MACs (T)``.
        ours: a number, or a text.
        published: likewise, or None.
        tolerance: largest difference of numbers that counts as agreement; texts must be equal.
        digits: decimals of the published one; ours is shown with two more.
    """

    name: str
    ours: float | str
    published: float | str | None = None
    tolerance: float = 0.0
    digits: int = 2

    @property
    def difference(self) -> float | None:
        """Ours less the published one, of numbers."""
        if isinstance(self.ours, str) or self.published is None or isinstance(self.published, str):
            return None
        return self.ours - self.published

    @property
    def agrees(self) -> bool:
        """Whether it is the published one, as far as that is known."""
        if self.published is None:
            return True
        return self.ours == self.published if self.difference is None else abs(self.difference) <= self.tolerance

    @property
    def shown(self) -> tuple[str, str, str]:
        """Ours, the published one and the difference in text; empty where there is none."""

        def text(value: float | str | None, digits: int) -> str:
            return f"{value:.{digits}f}" if isinstance(value, int | float) else value or ""

        difference = "" if self.difference is None else f"{self.difference:+.{self.digits + 2}f}"
        return text(self.ours, self.digits + 2), text(self.published, self.digits), difference


@dataclass(frozen=True)
class Row:
    """A row of a published table.

    Attributes:
        labels: what it is a row of, such as method and size, by the name of the column.
        figures: of the same names in every row of a table.
    """

    labels: Mapping[str, str]
    figures: tuple[Figure, ...]

    @property
    def agrees(self) -> bool:
        """Whether every figure agrees."""
        return all(figure.agrees for figure in self.figures)


class Reproduction(Protocol):
    """A published table that this program can compute again."""

    source: str
    """Where the published figures stand."""

    def rows(self, notify: Notify) -> Sequence[Row]:
        """Compute the table; ``notify`` is told how far it is."""


def verdict(rows: Sequence[Row]) -> str:
    """Say in a sentence how many rows agree and within what, and which do not."""
    agreeing = [row for row in rows if row.agrees]
    names = dict.fromkeys(figure.name for row in rows for figure in row.figures if figure.published is not None)
    within = ", ".join(f"{name} {_tolerances(name, rows)}" for name in names)
    text = f"{len(agreeing)} of {len(rows)} rows agree with what is published: {within}."
    others = "; ".join(_disagreement(row) for row in rows if not row.agrees)
    return f"{text} Not so: {others}." if others else text


def _tolerances(name: str, rows: Sequence[Row]) -> str:
    """Say within what a figure has to agree: the tolerance of most rows, then those of others."""
    figures = [
        figure for row in rows for figure in row.figures if figure.name == name and figure.difference is not None
    ]
    if not figures:
        return "exactly"
    (usual, _), *others = Counter(figure.tolerance for figure in figures).most_common()
    return f"within {usual:g}" + "".join(f" ({tolerance:g} in {n} row{'s' * (n > 1)})" for tolerance, n in others)


def _disagreement(row: Row) -> str:
    wrong = [figure for figure in row.figures if not figure.agrees]
    return f"{' '.join(row.labels.values())} ({', '.join(f'{f.name} {f.shown[0]}, not {f.shown[1]}' for f in wrong)})"
