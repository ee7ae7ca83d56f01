"""All that is known of one row: every number of each score, the comparison with the best, the setup and the files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from lite_bench.harness.cost_statistics import CostSummary, Spread
from lite_bench.harness.records import MANIFEST, records_path, results_folder
from lite_bench.harness.units import scaled, seconds
from lite_bench.leaderboard.comparison import Comparison
from lite_bench.leaderboard.intervals import Kind
from lite_bench.leaderboard.labels import visible
from lite_bench.leaderboard.page.elements import Markup, element, join, shorten
from lite_bench.leaderboard.page.grids import published_key, row_key, scroller
from lite_bench.leaderboard.pairs import p_text
from lite_bench.leaderboard.published import PublishedRow
from lite_bench.leaderboard.rows import Cell, Row
from lite_bench.leaderboard.tables import Table
from lite_bench.leaderboard.text import (
    DASH,
    KINDS,
    published_text,
    rank_text,
    signed_percent,
    with_interval,
)

Pairs = list[tuple[str, str]]
RUN_FILES = ("config.toml", "environment.json", "metrics.jsonl")
"""Files of a run folder that the details link to where they exist, beside its records."""
INTERVALS = {Kind.protocol: "Protocol's interval", Kind.student: "Student's t", Kind.bootstrap: "Bootstrap"}


def all_details(table: Table, prefix: str, folder: Path | None) -> Markup:
    """Make the details of every row, each in a box that opens without a script.

    Args:
        table: holds the rows.
        prefix: of the ids of the boxes.
        folder: where the page will lie, from which links to the runs lead; None for no links.
    """
    boxes = [
        _box(f"{prefix}-{row_key(number)}", row.label, _row_details(row, table, folder))
        for number, row in enumerate(table.rows)
    ]
    boxes += [
        _box(f"{prefix}-{published_key(number)}", f"{row.name} (published)", _published_details(row, table))
        for number, row in enumerate(table.published)
    ]
    return element("section", element("h3", "Details of each row"), *boxes, class_="all-details")


def relative_link(path: Path, folder: Path) -> str | None:
    """Spell the way from ``folder`` to ``path`` as a link that can only be relative; None if there is no way.

    Colons are spelled by their codes too, so that no name can pass for a scheme such as ``javascript:``.
    """
    try:
        way = os.path.relpath(path, folder)
    except ValueError:  # another drive
        return None
    return quote(os.fsencode(way.replace(os.sep, "/")), safe="/")


def _box(name: str, label: str, content: Markup) -> Markup:
    summary = element("summary", element("bdi", shorten(label)))
    inside = element("div", content, id=name)  # browsers open the box of what a link leads to
    return element("details", summary, inside, class_="row-details")


def _row_details(row: Row, table: Table, folder: Path | None) -> Markup:
    notes = [element("p", note, class_="warning") for note in row.notes]
    return join(
        *_full_name(row.label),
        element("p", f"{table.suite}, {table.split} split", class_="muted"),
        *notes,
        _scores(row, table),
        element("h4", "Setup"),
        _pairs(_setup(row)),
        *([element("h4", "Cost of a task"), _pairs(_costs(row.costs))] if row.costs else []),
        element("h4", "Made with"),
        _pairs(_origin(row)),
        *(part for command in _commands(row) for part in _command(command)),
        element("h4", "Files"),
        element("ul", *(element("li", each) for each in _files(row, folder)), class_="files"),
    )


def _full_name(label: str) -> list[Markup]:
    """Spell out a name that the heading shortens."""
    return [element("p", element("bdi", label), class_="full-name")] if visible(label) != shorten(label) else []


def _scores(row: Row, table: Table) -> Markup:
    """Make the grid with a line per column of the table."""
    clustered = any(cell.estimate and cell.estimate.clustered for cell in row.cells.values())
    names = ["Column", "Score, %", INTERVALS[Kind.protocol]]
    names += [INTERVALS[table.interval]] * (table.interval is not Kind.protocol)
    names += ["Of clusters"] * clustered
    names += ["Scores", "Tasks", "Failed", "Rank", "Less the best", "95 % interval", "p", "Test"]
    lines = []
    for column, cell in ((name, row.cells[name]) for name in table.columns):
        head = element("th", shorten(column), scope="row")
        cells = _score_cells(cell, table.interval, clustered=clustered)
        if cell.estimate is None:
            cells = [element("td", _missing(cell), colspan=str(len(names) - 1), class_="reason")]
        lines.append(element("tr", head, *cells, data_column=column))
    title = element("caption", KINDS[table.interval].format(scores="scores").capitalize(), class_="visually-hidden")
    head = element("thead", element("tr", *(element("th", name, scope="col") for name in names)))
    grid = element("table", title, head, element("tbody", *lines), class_="numbers")
    return scroller(grid, "Scores of this row")


def _score_cells(cell: Cell, kind: Kind, *, clustered: bool) -> list[Markup]:
    """Give all numbers of a score but its column's name."""
    value = cell.estimate
    if value is None:
        return []
    half = value.half_width
    texts = [f"{100 * value.mean:.2f}", DASH if half is None else _ends(value.mean - half, value.mean + half)]
    if kind is not Kind.protocol:
        texts.append(DASH if cell.interval is None else _ends(cell.interval.low, cell.interval.high))
    if clustered:
        texts.append(_ends(*value.clustered) if value.clustered else DASH)
    tasks = DASH if cell.done is None else f"{cell.done:,} of {cell.expected or 0:,}"
    texts += [f"{value.n:,}", tasks, str(cell.failed), rank_text(cell.rank), *_versus_texts(cell)]
    return [element("td", text) for text in texts]


def _versus_texts(cell: Cell) -> list[str]:
    found = cell.versus_best
    if found is None:
        return ["the best" if cell.best else DASH, DASH, DASH, DASH]
    return [signed_percent(found.difference), _difference_ends(found), p_text(found.p), found.kind]


def _difference_ends(found: Comparison) -> str:
    ends = found.interval
    return DASH if ends is None else f"{signed_percent(ends[0])} to {signed_percent(ends[1])}"


def _ends(low: float, high: float) -> str:
    return f"{100 * low:.2f} to {100 * high:.2f}"


def _missing(cell: Cell) -> str:
    """Say why there is no score, and what the tasks that did not fail scored."""
    parts = [cell.missing]
    if cell.done is not None and cell.expected is not None:
        parts.append(f"Done: {cell.done:,} of {cell.expected:,} tasks.")
    if cell.survivors is not None:
        scored = with_interval(cell.survivors.mean, None)
        parts.append(f"The {cell.survivors.n:,} scores that did not fail have the mean {scored} %.")
    return " ".join(filter(None, parts))


def _setup(row: Row) -> Pairs:
    manifest, training = row.manifest, row.training
    return [
        ("Learner", manifest.learner),
        ("Options", ", ".join(f"{name} = {value}" for name, value in training.options.items()) or "defaults"),
        ("Backbone", f"{manifest.backbone}, {manifest.image_size} px"),
        ("Pre-training", training.pretraining),
        ("Training", training.text),
        ("Gradient", training.gradient),
        ("H", "" if training.h is None else str(training.h)),
        ("Train tasks", "" if training.tasks is None else f"{training.tasks:,}"),
        ("Precision", manifest.precision),
        ("Pixel range", training.pixels),
        ("Support items of a task", "" if row.support is None else f"{row.support:,.1f} on average"),
        ("Checkpoint", manifest.checkpoint),
    ]


def _costs(costs: CostSummary) -> Pairs:
    measured = f", the largest of {costs.measured:,} tasks" if costs.measured else ""
    return [
        ("Passes over the support set", costs.passes),
        ("MACs to adapt", _count(costs.macs)),
        ("MACs as published tables count", _count(costs.published_macs)),
        ("MACs per query image", _count(costs.macs_per_query)),
        ("Not counted", ", ".join(costs.uncounted)),
        ("Time to adapt", _times(costs.adapt_seconds)),
        ("Time per query image", _times(costs.query_seconds)),
        ("Device", ", ".join(costs.devices)),
        ("Parameters", _count(costs.parameters)),
        ("Meta-trained", _count(costs.trainable)),
        ("Adapted numbers", _count(costs.adapted)),
        ("Peak memory", "" if costs.peak_bytes is None else f"{scaled(costs.peak_bytes, 'B')}{measured}"),
    ]


def _commands(row: Row) -> list[str]:
    """List the commands that made the run and its records, each once."""
    return list(dict.fromkeys(filter(None, [row.training.command, *row.manifest.commands])))


def _origin(row: Row) -> Pairs:
    return [
        ("Records", f"{row.records:,}{f', of which {row.failed:,} failed' if row.failed else ''}"),
        ("Versions", ", ".join(f"{name} {' and '.join(each)}" for name, each in row.versions.items())),
    ]


def _count(value: float | None) -> str:
    return "" if value is None else f"{scaled(value)} ({value:,.0f})"


def _times(times: Spread | None) -> str:
    return "" if times is None else f"{seconds(times.median)} (median), 95 % within {seconds(times.p95)}"


def _command(command: str) -> list[Markup]:
    return [copyable(command, "Command that made the run")] if command else []


def copyable(text: str, label: str) -> Markup:
    """Show a command with a button that copies it."""
    button = element("button", "Copy", type="button", class_="copy", aria_label=f"Copy: {label}")
    return element("p", label, ": ", element("code", text), " ", button, class_="command")


def _files(row: Row, folder: Path | None) -> Iterator[Markup]:
    """Link to the files of each run that exist, or name the run where there is no way to it."""
    for run in map(Path, row.runs):
        files = [run / name for name in RUN_FILES]
        files.append(results_folder(run, row.manifest.suite) / MANIFEST)
        files += [records_path(run, row.manifest.suite, source) for source in row.manifest.sources]
        yield join(element("bdi", run.as_posix()), *_links([path for path in files if path.is_file()], folder))


def _links(paths: Sequence[Path], folder: Path | None) -> Iterator[Markup]:
    ways = {path: relative_link(path, folder) for path in paths} if folder else {}
    for number, (path, way) in enumerate((path, way) for path, way in ways.items() if way):
        yield join(", " if number else ": ", element("a", path.name, href=way))


def _published_details(row: PublishedRow, table: Table) -> Markup:
    names = ("Column", "Published", "Where", "Kind", "Note")
    lines = []
    for column, figure in ((name, row.figures[name]) for name in table.columns if name in row.figures):
        source = figure.source
        where = f"{source.citation}, {source.locator}"
        texts = (published_text(figure), where, source.kind.replace("_", " "), figure.note)
        cells = (element("td", text) for text in texts)
        lines.append(element("tr", element("th", shorten(column), scope="row"), *cells, data_column=column))
    head = element("thead", element("tr", *(element("th", name, scope="col") for name in names)))
    title = element("caption", "Published figures in %", class_="visually-hidden")
    grid = element("table", title, head, element("tbody", *lines), class_="numbers words")
    return join(
        *_full_name(row.name),
        element("p", f"{table.suite}, {table.split} split; measured by others", class_="muted"),
        *(element("p", text, class_="warning") for text in row.differences),
        scroller(grid, "Published figures of this row"),
        element("h4", "Setup"),
        _pairs(_published_setup(row)),
    )


def _published_setup(row: PublishedRow) -> Pairs:
    return [
        ("Intervals", row.interval),
        ("Backbone", row.backbone),
        ("Image side", "" if row.image_size is None else f"{row.image_size} px"),
        ("Pre-training", row.pretraining),
        ("Gradient", row.gradient),
        ("H", row.h),
        ("Passes", row.passes),
        ("MACs as published tables count", _count(row.macs)),
        ("Time to adapt", "" if row.seconds is None else seconds(row.seconds)),
        ("Parameters", _count(row.parameters)),
    ]


def _pairs(pairs: Pairs) -> Markup:
    """Make a list of names and texts; what is not known is left out."""
    items = (join(element("dt", name), element("dd", text)) for name, text in pairs if text)
    return element("dl", *items)
