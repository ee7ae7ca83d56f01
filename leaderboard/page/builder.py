"""The leaderboard as one file: no network, nothing to install, and no text from a record that could run.

Names, labels, notes and commands come from files that anybody may have written. They are escaped where elements are
made (`lite_bench.leaderboard.page.elements`), and the page's own policy lets only its one script and one style run.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from lite_bench.leaderboard.layout import blocks
from lite_bench.leaderboard.page.details import all_details, copyable
from lite_bench.leaderboard.page.elements import Markup, element, join, shorten
from lite_bench.leaderboard.page.footnotes import Footnotes
from lite_bench.leaderboard.page.grids import cost_grid, score_grid, setup_grid
from lite_bench.leaderboard.tables import Table
from lite_bench.leaderboard.text import COMMAND, COST_CAPTION, caption, footer, title

Plots = Callable[[Table], Sequence[tuple[str, str]]]
"""Gives the pictures of a table: title and SVG of each."""
POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; img-src data:; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Content Security Policy: nothing is fetched, and no text can become a script or an element."""
VIEW_BOX = re.compile(r'^<svg [^>]*?viewBox="0 0 ([\d.]+) ([\d.]+)"')


def plots_of(table: Table) -> list[tuple[str, str]]:
    """Draw the pictures of ``table``: title and SVG of each."""
    from lite_bench.leaderboard.plots import inline_plots  # imported here: only a page with pictures needs matplotlib

    return inline_plots(table)


def html(tables: Sequence[Table], *, plots: Plots | None = plots_of, folder: Path | None = None) -> str:
    """Render tables as one HTML page, the same bytes for the same tables.

    Args:
        tables: to show, in order.
        plots: draws the pictures of a table, or None for none.
        folder: where the page will lie, from which links to the runs' own files lead; None for no links.
    """
    style, script = _file("page.css"), _file("page.js")
    policy = POLICY.format(script=_source(script), style=_source(style))
    names = ", ".join(dict.fromkeys(table.suite for table in tables))
    sections = [_section(table, f"t{number}", plots, folder) for number, table in enumerate(tables, start=1)]
    return Template(_file("page.html")).substitute(
        policy=element("meta", http_equiv="Content-Security-Policy", content=policy),
        title=join(shorten(f"Leaderboard: {names}" if names else "Leaderboard", 120)),
        style=style,
        script=script,
        summary=_summary(tables),
        contents="\n".join(sections) or element("p", "There is no table: no results were given."),
    )


def _file(name: str) -> str:
    return files("lite_bench.leaderboard.page").joinpath(name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """Name an inline script or style in a policy, by its digest."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _summary(tables: Sequence[Table]) -> Markup:
    """List the tables if there are several."""
    if len(tables) < 2:
        return Markup()
    items = []
    for number, table in enumerate(tables, start=1):
        rows = f"{len(table.rows)} row{'s' * (len(table.rows) != 1)}"
        link = element("a", shorten(title(table), 90), href=f"#t{number}")
        items.append(element("li", link, " ", element("span", f"{table.split}, {rows}", class_="muted")))
    return element("nav", element("ul", *items), aria_label="Tables")


def _section(table: Table, prefix: str, plots: Plots | None, folder: Path | None) -> Markup:
    """Make all of one table: heading, grids, pictures, details and what it rests on."""
    notes = Footnotes(prefix)
    first, *others = caption(table)
    grids = [_blocks(table, prefix, notes), _reading(*(text for text in others if text != COST_CAPTION))]
    grids.append(_titled("Setup", setup_grid(table, notes), kind="setup"))
    if table.with_costs:
        grids.append(_titled("Cost of a task", cost_grid(table, notes), _reading(COST_CAPTION)))
    return element(
        "section",
        _heading(table, prefix),
        _reading(first),
        _tools(table, prefix),
        *grids,
        notes.listed(),
        _means(table),
        _pictures(table, plots),
        all_details(table, prefix, folder),
        _footer(table),
        id=prefix,
        class_="board",
        aria_labelledby=f"{prefix}-title",
    )


def _titled(heading: str, *parts: Markup, kind: str | None = None) -> Markup:
    return element("section", element("h3", heading), *parts, class_=kind)


def _reading(*sentences: str) -> Markup:
    """Say how to read what stands beside it."""
    return element("p", " ".join(sentences), class_="reading") if sentences else Markup()


def _heading(table: Table, prefix: str) -> Markup:
    name, *options = table.suite.split("+")
    badges = [element("span", f"{table.split} split", class_="badge")]
    badges += [element("span", "synthetic", class_="badge alert")] * table.synthetic
    if table.preview is not None:
        badges.append(element("span", f"preview of {table.preview} tasks per source", class_="badge alert"))
    heading = element("h2", element("bdi", shorten(name)), id=f"{prefix}-title")
    words = element("p", shorten(", ".join(options), 200), class_="options") if options else Markup()
    return element("div", heading, element("p", *badges, class_="badges"), words, class_="heading")


def _tools(table: Table, prefix: str) -> Markup:
    """Make what only a script brings to life; without one it is not shown."""
    name = f"{prefix}-filter"
    parts = [
        element("label", "Filter rows", for_=name),
        element("input", type="search", id=name, class_="filter", autocomplete="off", spellcheck="false",
                placeholder="learner, backbone, pre-training"),
    ]  # fmt: skip
    if table.published:
        box = element("input", type="checkbox", id=f"{prefix}-published", class_="show-published", checked=True)
        parts.append(element("label", box, " Published rows", for_=f"{prefix}-published"))
    parts.append(element("span", class_="status muted", role="status"))
    return element("div", *parts, class_="tool tools", role="group", aria_label="Rows shown")


def _blocks(table: Table, prefix: str, notes: Footnotes) -> Markup:
    parts = []
    for number, block in enumerate(blocks(table)):
        name = f"{prefix}-b{number}"
        heading = [element("h3", shorten(block.title), id=f"{name}-title")] if block.title else []
        label = f"{name}-title" if heading else None
        grid = score_grid(table, block, notes)
        parts.append(element("section", *heading, grid, id=name, class_="block", aria_labelledby=label))
    return element("div", *parts, class_="blocks")


def _means(table: Table) -> Markup:
    """Say what each mean is over."""
    pairs = [
        join(element("dt", shorten(group)), element("dd", ", ".join(map(shorten, members))))
        for group, members in ((name, table.groups[name]) for name in table.means)
    ]
    summary = element("summary", "What the means are over")
    return element("details", summary, element("dl", *pairs), class_="means") if pairs else Markup()


def _pictures(table: Table, plots: Plots | None) -> Markup:
    """Put pictures into the page as images, which cannot run scripts, load anything or restyle the page."""
    shown = []
    for name, svg in plots(table) if plots else ():
        data = base64.b64encode(svg.encode()).decode()
        width, height = _size(svg)
        source = f"data:image/svg+xml;base64,{data}"
        about = f"{name}; its numbers are in the tables"
        image = element("img", src=source, alt=about, width=width, height=height)
        shown.append(element("figure", image, element("figcaption", name)))
    return element("section", element("h3", "Pictures"), *shown, class_="pictures") if shown else Markup()


def _size(svg: str) -> tuple[str | None, str | None]:
    """Give the size of a picture in CSS pixels, from its view box in points."""
    box = VIEW_BOX.search(svg)
    return (None, None) if box is None else (f"{float(box[1]) * 4 / 3:.0f}", f"{float(box[2]) * 4 / 3:.0f}")


def _footer(table: Table) -> Markup:
    """Say what the table rests on."""
    parts = []
    for name, text in footer(table):
        if name == COMMAND:
            parts.append(copyable(text, "Make this table again"))
        else:
            parts.append(element("p", element("b", f"{name}: "), text))
    return element("footer", *parts)
