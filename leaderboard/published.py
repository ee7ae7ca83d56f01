"""Published rows of the suites: figures that others measured, each with where it stands; never ranked with ours.

The figures are data, ``published.json``, whose first line says what its fields mean.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from importlib.resources import files
from typing import Any

from lite_bench.harness.errors import UnknownNameError
from lite_bench.leaderboard.labels import tell_apart

PERCENT, TERA, MEGA = 100, 1e12, 1e6
DIGITS = 8
"""Of a fraction; no published figure has more."""


@dataclass(frozen=True)
class Source:
    """Where a published figure stands.

    Attributes:
        citation: of the document.
        locator: the place in it.
        kind: ``primary``, ``authors_readme``, ``leaderboard``, ``reproduction``, ``secondary_transcription`` or
            ``aggregator``, in falling order of trust.
    """

    citation: str
    locator: str
    kind: str


@dataclass(frozen=True)
class PublishedFigure:
    """A published score.

    Attributes:
        value: accuracy as a fraction.
        half_width: half width of the interval printed beside it, or None if none was.
        source: where it stands.
        note: what is odd about this one figure, or empty.
    """

    value: float
    half_width: float | None
    source: Source
    note: str = ""


@dataclass(frozen=True)
class PublishedRow:
    """A published system and its scores in the columns of a suite.

    Attributes:
        system: as it is called there.
        learner: our entry-point name of the learner, or empty.
        backbone: as it is called there, or empty.
        image_size: side of the images in pixels, or None if it is not said.
        gradient: how it was meta-trained, such as ``lite``, or empty.
        h: LITE's H, ``all`` for the whole support set, or empty.
        pretraining: of the backbone, or empty.
        figures: by column of the suite's table: a source, a group, or ``source: metric``.
        macs: multiply-accumulates to adapt, as published tables count, or None.
        passes: over the support set, such as ``1F``, or empty.
        seconds: to adapt, or None.
        parameters: of the learner, or None.
        interval: what the intervals are, in words, or empty if there are none.
        differences: how it was measured other than the suite measures, one sentence each.
        label: what tables call it, different from that of every other row of its suite; empty if it stands alone.
    """

    system: str
    learner: str
    backbone: str
    image_size: int | None
    gradient: str
    h: str
    pretraining: str
    figures: Mapping[str, PublishedFigure]
    macs: float | None = None
    passes: str = ""
    seconds: float | None = None
    parameters: int | None = None
    interval: str = ""
    differences: tuple[str, ...] = ()
    label: str = ""

    @property
    def name(self) -> str:
        """What to call it: its label, or its system's name if it stands alone."""
        return self.label or self.system


def published_rows(suite: str) -> list[PublishedRow]:
    """List the published rows whose figures belong to ``suite``.

    Args:
        suite: its id, with version and options; if these make tasks that were not published, it has no rows.

    Returns:
        The rows, with the figures that mean the same there; do not write to them.
    """
    return list(_rows(suite))


def published_table(name: str) -> tuple[PublishedRow, ...]:
    """Give the rows of one published table, as they stand beside the first suite that it belongs to.

    Raises:
        UnknownNameError: there is no table ``name``.
    """
    tables = _content()["tables"]
    if name not in tables:
        raise UnknownNameError("table of published figures called", name, tables)
    return _with_labels(list(_rows_beside(tables[name], tables[name]["suites"][0]["suite"])))


@functools.cache
def _content() -> dict[str, Any]:
    """Read ``published.json``; do not write to what is given."""
    content: dict[str, Any] = json.loads(files(__package__).joinpath("published.json").read_text(encoding="utf-8"))
    return content


@functools.cache
def _rows(suite: str) -> tuple[PublishedRow, ...]:
    return _with_labels([row for table in _content()["tables"].values() for row in _rows_beside(table, suite)])


def _with_labels(rows: Sequence[PublishedRow]) -> tuple[PublishedRow, ...]:
    """Give rows of one system's name labels of their own."""
    parts = [
        (
            f"H={row.h}" if row.h else "",
            row.backbone,
            "" if row.image_size is None else f"{row.image_size} px",
            row.gradient,
            row.pretraining,
        )
        for row in rows
    ]
    labels = tell_apart([row.system for row in rows], parts)
    return tuple(replace(row, label=label) for row, label in zip(rows, labels, strict=True))


def _rows_beside(table: Mapping[str, Any], suite: str) -> Iterator[PublishedRow]:
    """Make the rows of ``table`` that have a figure for ``suite``."""
    columns = _columns(table, suite)
    sentences = tuple(_differences(table, suite))
    for raw in table["rows"] if columns else ():
        figures = _figures(raw, table, columns)
        if not figures:
            continue
        intervals = any(figure.half_width is not None for figure in figures.values())
        remarks = tuple(table["remarks"][name] for name in raw.get("remarks", ()))
        yield PublishedRow(
            system=raw["system"],
            learner=raw.get("learner", ""),
            backbone=raw.get("backbone", ""),
            image_size=raw.get("image_size"),
            gradient=raw.get("gradient", ""),
            h=raw.get("h", ""),
            pretraining=raw.get("pretraining", ""),
            figures=figures,
            macs=raw["macs_tera"] * TERA if "macs_tera" in raw else None,
            passes=raw.get("passes", ""),
            seconds=raw.get("seconds"),
            parameters=round(raw["parameters_millions"] * MEGA) if "parameters_millions" in raw else None,
            interval=table["interval"] if intervals else "",
            differences=remarks + sentences,
        )


def _columns(table: Mapping[str, Any], suite: str) -> list[str]:
    """List the columns of ``table`` that mean the same in the tables of ``suite``; none if it does not belong there."""
    name, *options = suite.split("+")
    place = next((each for each in table["suites"] if each["suite"] == name), None)
    if place is None:
        return []
    columns = [*table["columns"], *table.get("means", ())]
    for option in options:
        key, _, value = option.partition("=")
        rule = place.get("options", {}).get(key)
        if rule is None or value not in rule.get("values", [value]):
            return []
        pattern = rule.get("columns", "*").format(value)
        columns = [column for column in columns if fnmatchcase(column, pattern)]
    return columns


def _differences(table: Mapping[str, Any], suite: str) -> Iterator[str]:
    """Say how the figures of ``table`` were measured other than ``suite`` measures."""
    parts = suite.split("+")
    for each in table["differences"]:
        if isinstance(each, str):
            yield each
            continue
        holds = each["if"] in parts if "if" in each else each["unless"] not in parts
        if holds:
            yield each["text"]


def _figures(raw: Mapping[str, Any], table: Mapping[str, Any], columns: list[str]) -> dict[str, PublishedFigure]:
    """Make the figures of a row in ``columns``, those that are computed here among them."""
    found = {
        column: _figure(value, raw, table)
        for column, value in zip(table["columns"], raw["figures"], strict=True)
        if value is not None
    }
    for column, mean in table.get("means", {}).items():
        members = [found[member] for member in mean["of"]]
        value = sum(member.value for member in members) / len(members)
        found[column] = PublishedFigure(value, None, members[0].source, mean["note"])
    return {column: found[column] for column in columns if column in found}


def _figure(value: Any, raw: Mapping[str, Any], table: Mapping[str, Any]) -> PublishedFigure:
    """Make a figure of a number, a number and its half width, or an object with more about it."""
    if isinstance(value, list):
        value = {"value": value[0], "half_width": value[1]}
    elif not isinstance(value, dict):
        value = {"value": value}
    width = value.get("half_width")
    return PublishedFigure(
        value=_fraction(value["value"]),
        half_width=None if width is None else _fraction(width),
        source=_source(value, raw, table),
        note=value.get("note", ""),
    )


def _fraction(percent: float) -> float:
    """Divide by 100 in decimal: 34.41 becomes 0.3441 and not 0.34409999999999996."""
    return round(percent / PERCENT, DIGITS)


def _source(*levels: Mapping[str, Any]) -> Source:
    """Find where a figure stands: the first of figure, row and table that names a source is followed."""
    own = next(number for number, level in enumerate(levels) if "source" in level)
    source = _content()["sources"][levels[own]["source"]]
    said: dict[str, str] = {}
    for level in reversed(levels[: own + 1]):
        said |= {key: level[key] for key in ("locator", "original") if key in level}
    original = f"{said['original']}, as given in " if "original" in said else ""
    return Source(original + source["citation"], said.get("locator", source["locator"]), source["kind"])
