"""What can be reproduced: published figures, each beside ours.

A reproduction's entry in the group ``lite_bench.reproductions`` is a callable ``(data_dir: Path | None)``, usually a
class, that returns a `Reproduction`, which computes a table, or a `PlannedReproduction`, which looks for the runs that
a table needs. ``lite-bench reproduce`` shows what it gives and says whether it agrees; the first paragraph of its
docstring is what ``lite-bench reproduce list`` says of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from lite_bench.harness.data import Notify
from lite_bench.harness.settings import Settings

State = Literal["there", "partial", "missing"]
WorkKind = Literal["training", "evaluation"]


@dataclass(frozen=True)
class Figure:
    """A figure of ours, beside the published one where there is one.

    Attributes:
        name: what it is and its unit, such as ``MACs (T)``.
        ours: a number, a text, or None if it is not there (yet); what is not there does not disagree.
        published: likewise.
        tolerance: largest difference of numbers that counts as agreement; texts must be equal.
        digits: decimals of the published one; ours is shown with two more.
        half_width: half width of the interval of ours, or None.
        published_half_width: likewise of the published one.
    """

    name: str
    ours: float | str | None
    published: float | str | None = None
    tolerance: float = 0.0
    digits: int = 2
    half_width: float | None = None
    published_half_width: float | None = None

    @property
    def compared(self) -> bool:
        """Whether both are there."""
        return self.ours is not None and self.published is not None

    @property
    def difference(self) -> float | None:
        """Ours less the published one, of numbers."""
        if isinstance(self.ours, int | float) and isinstance(self.published, int | float):
            return self.ours - self.published
        return None

    @property
    def agrees(self) -> bool:
        """Whether it is the published one, as far as that is known."""
        if not self.compared:
            return True
        return self.ours == self.published if self.difference is None else abs(self.difference) <= self.tolerance

    @property
    def shown(self) -> tuple[str, str, str]:
        """Ours, the published one and the difference in text; empty where there is none."""

        def text(value: float | str | None, width: float | None, digits: int) -> str:
            if not isinstance(value, int | float):
                return value or ""
            return f"{value:.{digits}f}" + ("" if width is None else f" ± {width:.{digits}f}")

        difference = "" if self.difference is None else f"{self.difference:+.{self.digits + 2}f}"
        ours = text(self.ours, self.half_width, self.digits + 2)
        return ours, text(self.published, self.published_half_width, self.digits), difference


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
        """Whether every figure that is there agrees."""
        return all(figure.agrees for figure in self.figures)

    @property
    def published(self) -> bool:
        """Whether a figure of it is published, so that there is something to compare with."""
        return any(figure.published is not None for figure in self.figures)

    @property
    def compared(self) -> bool:
        """Whether a figure of ours stands beside a published one."""
        return any(figure.compared for figure in self.figures)


@dataclass(frozen=True)
class Claim:
    """A published statement that has no figures, beside what ours say to it.

    Attributes:
        text: the statement, in a sentence.
        holds: whether ours bear it out; None while too little is there, or ours are too close to tell.
        evidence: the figures behind it, or what is missing.
    """

    text: str
    holds: bool | None
    evidence: str


@dataclass(frozen=True)
class Work:
    """Tasks of one kind and of typical size, which an estimate of costs takes to be all alike.

    Attributes:
        kind: training tasks, or tasks of an evaluation.
        settings: of the run.
        tasks: how many.
        way: classes of one.
        support: support items of one.
        query: its queries: items in training, single images in an evaluation.
        frames: images of an item; 1, or the frames of a clip.
        sharing: tasks that have the same queries; a learner whose features no task changes computes them once.
    """

    kind: WorkKind
    settings: Settings
    tasks: int
    way: int
    support: int
    query: int
    frames: int = 1
    sharing: int = 1


@dataclass(frozen=True)
class Step:
    """A run that a reproduction needs.

    Attributes:
        name: what it is called in the plan.
        settings: of the run, all resolved.
        state: ``there``, ``partial`` or ``missing``.
        done: how much of it is there, in a few words.
        where: run folders that hold it.
        notes: what to know about what was found, one sentence each: why it does not count, or nearly does.
        commands: to type for what is missing, in order.
        work: what is missing, for an estimate of its cost.
    """

    name: str
    settings: Settings
    state: State
    done: str
    where: tuple[str, ...]
    notes: tuple[str, ...]
    commands: tuple[str, ...]
    work: tuple[Work, ...]


@dataclass(frozen=True)
class Outcome:
    """How far a reproduction is.

    Attributes:
        steps: the runs it needs.
        rows: the published table beside ours.
        claims: published statements without figures.
        rule: when a figure agrees, in a sentence.
        reported: what the authors say about the cost of their runs, or empty.
    """

    steps: tuple[Step, ...]
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...] = ()
    rule: str = ""
    reported: str = ""

    @property
    def agrees(self) -> bool:
        """Whether nothing that is there disagrees."""
        return all(row.agrees for row in self.rows) and all(claim.holds is not False for claim in self.claims)


class Reproduction(Protocol):
    """A published table that this program can compute again."""

    source: str
    """Where the published figures stand."""

    def rows(self, notify: Notify) -> Sequence[Row]:
        """Compute the table; ``notify`` is told how far it is."""


@runtime_checkable
class PlannedReproduction(Protocol):
    """A published table that runs of this program can fill."""

    source: str
    """Where the published figures stand."""

    def outcome(self, paths: Sequence[Path] | None) -> Outcome:
        """Look for the runs it needs, and compare what they gave.

        Args:
            paths: run folders, or folders that hold some at any depth; None for where runs are by default, which need
                not exist.

        Raises:
            RunError: a path does not exist.
            DataError: a file of a run is damaged.
        """


def verdict(rows: Sequence[Row], claims: Sequence[Claim] = (), rule: str = "") -> str:
    """Say in a sentence how many rows agree and within what, and which do not; missing ones are counted apart.

    Args:
        rows: of the table.
        claims: statements beside it.
        rule: if it is not empty, it says when figures agree, and their tolerances are not listed.
    """
    wanted = [row for row in rows if row.published]
    there = [row for row in wanted if row.compared]
    agreeing = [row for row in there if row.agrees]
    published = f"{len(agreeing)} of {len(there)} rows agree with what is published"
    if not there:
        text = f"0 of {len(wanted)} rows are there, so there is nothing to compare yet."
    elif rule or len(there) < len(wanted):
        text = f"{len(there)} of {len(wanted)} rows are there; {published}{_within(there, rule)}."
    else:
        text = f"{published}{_within(there, rule)}."
    wrong = [_disagreement(row) for row in there if not row.agrees]
    text += f" Not so: {'; '.join(wrong)}." if wrong else ""
    return f"{text} {_of_claims(claims)}" if claims else text


def _within(rows: Sequence[Row], rule: str) -> str:
    if rule:
        return ""
    names = dict.fromkeys(figure.name for row in rows for figure in row.figures if figure.published is not None)
    return ": " + ", ".join(f"{name} {_tolerances(name, rows)}" for name in names)


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


def _of_claims(claims: Sequence[Claim]) -> str:
    known = [claim for claim in claims if claim.holds is not None]
    holding = [claim for claim in known if claim.holds]
    text = f"{len(known)} of {len(claims)} statements can be checked"
    return f"{text}, {len(holding)} of them hold{'s' * (len(holding) == 1)}." if known else f"{text}."
