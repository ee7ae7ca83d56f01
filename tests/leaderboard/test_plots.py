"""Pictures show the table's numbers, are legible whatever the names, and are the same file every time."""

from __future__ import annotations

import itertools
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from numpy.typing import NDArray

from lite_bench.harness.errors import DataError
from lite_bench.leaderboard.critical_difference import CriticalDifference
from lite_bench.leaderboard.intervals import Interval
from lite_bench.leaderboard.pictures import label_placement
from lite_bench.leaderboard.pictures.bars import accuracy_by_group
from lite_bench.leaderboard.pictures.costs import accuracy_against_macs, log_ticks
from lite_bench.leaderboard.pictures.ranks import draw_ranks, rank_diagram, stack
from lite_bench.leaderboard.pictures.style import (
    GREY,
    INK,
    POINTS,
    SMALL,
    bar_look,
    point_look,
    short_names,
    shorten,
    style,
    text_width,
    wrap,
)
from lite_bench.leaderboard.pictures.support import accuracy_against_h
from lite_bench.leaderboard.pictures.svg import svg_of
from lite_bench.leaderboard.plots import inline_plots, pictures, stems, write_plots
from lite_bench.leaderboard.rows import Row
from lite_bench.leaderboard.tables import Table
from tests.leaderboard.pictured import GROUPS, make_cell, make_published, make_row, make_table

NAMES = [f"learner {number}" for number in range(15)]
HOSTILE = [
    "$x^$",
    "<script>alert('1')</script>",
    "W" * 300,
    "W" * 299 + "V",
    "a\x00b\x1b\nc",
    '&amp; "]]>',
    "\ud800",
    "模型",
]
SVG = "{http://www.w3.org/2000/svg}"


def spread_rows(names: list[str], **changes: Any) -> list[Row]:
    """Rows with different MACs and means in five groups."""
    return [
        make_row(
            name,
            {group: 0.9 - 0.12 * place - 0.01 * number for place, group in enumerate(GROUPS)},
            macs=1e9 * 1.7 ** (number * 7 % 13),
            published=2e9 * 1.7 ** (number * 7 % 13),
            **changes,
        )
        for number, name in enumerate(names)
    ]


def equal_rows(names: list[str]) -> list[Row]:
    """Rows that all stand on the same point."""
    return [make_row(name, {"all": 0.95}) for name in names]


def h_rows() -> list[Row]:
    """One learner trained with five H and with the exact gradient, and another one with one H."""
    rows = [h_row(h, "lite") for h in (1, 10, 30, 40, 100)] + [h_row(None, "exact")]
    return [*rows, h_row(40, "lite", label="other")]


def h_row(h: int | None, gradient: str, label: str = "simple", **changes: Any) -> Row:
    means = {group: 0.5 + 0.05 * place + 0.001 * (h or 200) for place, group in enumerate(GROUPS[:2])}
    return make_row(label, means, gradient=gradient, h=h, text=f"{gradient} H={h}", tasks=100, **changes)


PUBLISHED = [
    *(make_published(f"System {number}", dict.fromkeys(GROUPS, 0.7), macs=1e11) for number in range(3)),
    *(make_published("Simple CNAPs", dict.fromkeys(GROUPS, 0.6 + 0.01 * len(h)), h=h) for h in ("1", "40", "all")),
]


def made_up_ranks(k: int, difference: float = 4.0) -> CriticalDifference:
    labels = tuple(f"{'learner' if number % 2 else 'a long name of a learner'} {number}" for number in range(k))
    ranks = tuple(1 + number * 0.98 for number in range(k))
    bars = tuple(labels[start : start + 4] for start in range(0, k - 3, 2))
    return CriticalDifference(labels, ranks, 26, "26 sources", difference, 30.0, 0.0001, bars, ("left out",))


FIGURES = {
    "spread": lambda: accuracy_against_macs(make_table(spread_rows(NAMES))),
    "equal": lambda: accuracy_against_macs(make_table(equal_rows(NAMES))),
    "hostile": lambda: accuracy_against_macs(make_table(spread_rows(HOSTILE))),
    "published": lambda: accuracy_against_macs(make_table(spread_rows(NAMES), PUBLISHED), published=True),
    "sources": lambda: accuracy_against_macs(
        make_table([make_row(n, {"a": 0.5, "b": 0.7}, groups=False) for n in "xyz"])
    ),
    "bars": lambda: accuracy_by_group(make_table(spread_rows(NAMES), PUBLISHED)),
    "hostile bars": lambda: accuracy_by_group(make_table(spread_rows(HOSTILE))),
    "one bar": lambda: accuracy_by_group(make_table(equal_rows(["one"]))),
    "h": lambda: accuracy_against_h(make_table(h_rows(), PUBLISHED)),
    "ranks": lambda: draw_ranks(made_up_ranks(15), "letters@1"),
    "two ranks": lambda: draw_ranks(made_up_ranks(2), "letters@1"),
    "thirty ranks": lambda: draw_ranks(made_up_ranks(30, difference=40.0), "W" * 300),
}


@pytest.fixture(scope="module", params=FIGURES)
def figure(request: pytest.FixtureRequest) -> Figure:
    drawn: Figure = FIGURES[request.param]()
    with style():
        drawn.draw_without_rendering()
    return drawn


def check_equal(found: Any, expected: Any) -> None:
    """Numbers are equal but for rounding."""
    np.testing.assert_allclose(np.asarray(found, dtype=float), np.asarray(expected, dtype=float))


def points_on(line: Line2D) -> NDArray[np.float64]:
    """Give the points [K, 2] of a line."""
    return np.asarray(line.get_xydata(), dtype=np.float64)


def bars_of(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def texts_of(figure: Figure) -> list[Text]:
    """List what is written: with tick labels, without empty texts and those of hidden axes."""
    hidden = [axes for axes in figure.axes if not axes.axison]
    found = []
    for text in figure.findobj(Text):
        axis_text = any(text in [*axes.get_xticklabels(), *axes.get_yticklabels()] for axes in hidden)
        if isinstance(text, Text) and text.get_visible() and text.get_text() and not axis_text:
            found.append(text)
    return found


def test_no_two_texts_overlap_and_all_are_inside(figure: Figure) -> None:
    texts = texts_of(figure)
    with style():
        boxes = [text.get_window_extent() for text in texts]
    for text, box in zip(texts, boxes, strict=True):
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= figure.bbox.width, text
        assert box.y1 <= figure.bbox.height, text
    for (one, first), (other, second) in itertools.combinations(zip(texts, boxes, strict=True), 2):
        wide = min(first.x1, second.x1) - max(first.x0, second.x0)
        high = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert wide <= 0.5 or high <= 0.5, (one, other)


def test_it_fits_a_page_and_no_type_is_too_small(figure: Figure) -> None:
    assert figure.get_figwidth() <= 7.2
    assert min(float(text.get_fontsize()) for text in texts_of(figure)) >= SMALL == 7.0


def containers(figure: Figure, panel: int = 0) -> list[ErrorbarContainer]:
    return [each for each in figure.axes[panel].containers if isinstance(each, ErrorbarContainer)]


def point_of(container: ErrorbarContainer) -> list[float]:
    """Give x, y and the ends of the interval of one point that was drawn."""
    (line, _, (bars,)) = container.lines
    (x, y) = points_on(line)[0]
    low, high = bars.get_segments()[0][:, 1]
    return [x, y, low, high]


@pytest.mark.parametrize("kind", ["spread", "equal", "published"])
def test_no_name_hides_a_point_or_an_interval(kind: str) -> None:
    figure = FIGURES[kind]()
    axes = figure.axes[0]
    with style():
        figure.draw_without_rendering()
        names = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert len(names) == len(containers(figure)) >= 15
    for container in containers(figure):
        x, y, low, high = point_of(container)
        left, bottom = axes.transData.transform((x, low))
        _, top = axes.transData.transform((x, high))
        middle = axes.transData.transform((x, y))[1]
        for name in names:
            assert not (name.x0 < left + 1 and left - 1 < name.x1 and name.y0 < top and bottom < name.y1)
            assert not (name.x0 < left + 3 and left - 3 < name.x1 and name.y0 < middle + 3 and middle - 3 < name.y1)


def test_points_stand_at_true_macs_and_means_with_their_intervals() -> None:
    rows = spread_rows(NAMES, half=0.02)
    figure = accuracy_against_macs(make_table(rows, PUBLISHED))
    found = [point_of(container) for container in containers(figure)]
    expected = [
        [row.costs.macs, 100 * mean, 100 * mean - 2, 100 * mean + 2]
        for row in rows
        if row.costs is not None and (cell := row.groups["Meta-Dataset"].estimate) is not None
        for mean in [cell.mean]
    ]
    check_equal(found, expected)
    assert [text.get_text() for text in figure.axes[0].texts if text.get_text()] == NAMES
    assert figure.axes[0].get_xscale() == "log"


def test_an_interval_that_is_not_symmetric_is_drawn_as_it_is() -> None:
    cell = make_cell(0.9)
    row = make_row("one", {"all": 0.9})
    row.groups["all"] = type(cell)(cell.estimate, interval=Interval(0.84, 0.92, symmetric=False))
    (container,) = containers(accuracy_against_macs(make_table([row])))
    check_equal(point_of(container), [1e9, 90.0, 84.0, 92.0])


def test_the_two_countings_of_macs_never_share_an_axis() -> None:
    rows, system = spread_rows(NAMES[:2]), make_published("System", {"Meta-Dataset": 0.7}, macs=3e12)
    table = make_table(rows, [system])
    ours = [row.costs for row in rows if row.costs is not None]
    true = [point_of(each)[0] for each in containers(accuracy_against_macs(table))]
    published = [point_of(each)[0] for each in containers(accuracy_against_macs(table, published=True))]
    assert true == [costs.macs for costs in ours]
    assert published == [*(costs.published_macs for costs in ours), 3e12]


def test_published_points_are_hollow_grey_and_named_so() -> None:
    table = make_table(spread_rows(NAMES[:1]), [make_published("System", {"Meta-Dataset": 0.7}, macs=3e12)])
    figure = accuracy_against_macs(table, published=True)
    ours, theirs = (container.lines[0] for container in containers(figure))
    assert theirs.get_markerfacecolor() == "none"
    assert ours.get_markerfacecolor() != "none"
    assert [text.get_text() for text in figure.axes[0].texts if text.get_text()] == [NAMES[0], "System (published)"]


def test_what_is_not_shown_is_listed_with_the_reason() -> None:
    means = {"all": 0.9}
    rows = [
        make_row("shown", means),
        make_row("uncounted", means, macs=None),
        make_row("free", means, macs=0.0),
        make_row("unfinished", {"all": None}),
    ]
    written = [text.get_text() for text in accuracy_against_macs(make_table(rows)).texts]
    assert {
        "Not shown, MACs not known: uncounted.",
        "Not shown, adapts without MACs: free.",
        "Not shown, no complete mean: unfinished.",
    } <= set(written)


def test_without_groups_every_source_has_a_panel() -> None:
    rows = [make_row("one", {"a": 0.5, "b": 0.7}, groups=False), make_row("two", {"a": 0.6, "b": None}, groups=False)]
    figure = accuracy_against_macs(make_table(rows))
    assert [len(containers(figure, panel)) for panel in range(2)] == [2, 1]
    assert "Not shown, b: no complete mean: two." in [text.get_text() for text in figure.texts]


def test_bars_are_as_long_as_means_and_published_ones_are_outlines() -> None:
    rows = spread_rows(NAMES)
    rows[3].groups["VTAB"] = make_cell(None)
    figure = accuracy_by_group(make_table(rows, PUBLISHED[:1]))
    assert len(figure.axes) == len(GROUPS)
    for axes, group in zip(figure.axes, GROUPS, strict=True):
        means = [100 * estimate.mean for row in rows if (estimate := row.groups[group].estimate) is not None]
        check_equal([bar.get_width() for bar in bars_of(axes)], [*means, 70.0])
        assert all(bar.get_x() == 0 for bar in bars_of(axes))
        assert [to_rgba(bar.get_facecolor())[3] for bar in bars_of(axes)] == [1.0] * len(means) + [0.0]
        assert [text.get_text() for text in axes.texts] == ["–"] * (15 - len(means))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [*NAMES, "System 0 (published)"]


def test_thirty_rows_look_different_and_neighbours_differ_in_colour_and_in_pattern() -> None:
    looks = [bar_look(number, own=True) for number in range(31)]
    pairs = [(look["facecolor"], look["hatch"]) for look in looks]
    assert len(set(pairs[:30])) == 30
    assert all(one[0] != other[0] and one[1] != other[1] for one, other in itertools.pairwise(pairs))
    points = [(look["color"], look["marker"]) for look in (point_look(number, own=True) for number in range(30))]
    assert len(set(points)) == 30


def test_lines_over_h_join_rows_that_are_alike() -> None:
    rows = h_rows()
    figure = accuracy_against_h(make_table(rows))
    axes = figure.axes[0]
    found = sorted(point_of(container)[:2] for container in containers(figure))
    expected = [[np.log10(1 + h), 50 + 0.1 * h] for h in (1, 10, 30, 40, 100)]
    check_equal(found[:5], expected)
    assert found[5][0] > found[4][0]
    check_equal(found[5][1], 70.0)
    lines = [points_on(line) for line in axes.lines if line.get_linestyle() == "-" and len(points_on(line)) == 5]
    check_equal(lines, [expected])
    # The level of the exact gradient runs across, which log(1 + H) of no row does.
    assert any(len(y) == 2 and np.allclose(y, 70.0) for y in (points_on(line)[:, 1] for line in axes.lines))
    assert [text.get_text() for text in figure.axes[-1].texts] == ["simple (lite)", "simple (exact)"]


def test_a_line_runs_through_the_mean_of_rows_with_one_h() -> None:
    rows = [
        make_row("x", {"all": mean}, gradient="lite", h=h, text=f"{mean}") for h, mean in ((1, 0.5), (1, 0.6), (9, 0.7))
    ]
    axes = accuracy_against_h(make_table(rows)).axes[0]
    (line,) = (line for line in axes.lines if line.get_linestyle() == "-" and len(points_on(line)) == 2)
    check_equal(points_on(line)[:, 1], [55.0, 70.0])


@pytest.mark.parametrize(
    "other",
    [
        h_row(40, "lite", label="other"),
        h_row(40, "lite", manifest={"backbone": "conv6"}),
        h_row(40, "lite", manifest={"image_size": 224}),
        h_row(40, "lite", manifest={"precision": "bfloat16"}),
        h_row(40, "lite", options={"rate": "1"}),
        h_row(40, "lite", pretraining="ImageNet"),
        h_row(10, "lite"),
    ],
)
def test_rows_that_differ_in_more_than_h_or_not_in_h_make_no_picture(other: Row) -> None:
    with pytest.raises(DataError, match=r"against H of letters@1: .* two values of H .*; train one again with another"):
        accuracy_against_h(make_table([h_row(10, "lite"), other]))


def test_published_lines_over_h_are_dashed() -> None:
    figure = accuracy_against_h(make_table(h_rows(), PUBLISHED))
    assert [text.get_text() for text in figure.axes[-1].texts][-1] == "Simple CNAPs (published)"
    dashed = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    lines = [points_on(line)[:, 1] for line in dashed if line.get_color() == GREY and line.get_linewidth() > 1]
    check_equal(lines, [[61.0, 62.0]])


def test_a_rank_diagram_has_the_best_to_the_right_and_bars_between_those_it_joins() -> None:
    found = CriticalDifference(
        ("a", "b", "c", "d"), (1.2, 2.0, 2.8, 4.0), 9, "9 sources", 1.5, 9.0, 0.01, (("a", "b"), ("b", "c")), ()
    )
    figure = draw_ranks(found, "letters@1")
    lines = [points_on(line) for line in figure.axes[0].lines]
    stems_of = [line for line in lines if len(line) == 3]
    x = [line[0, 0] for line in stems_of]
    ranks = np.asarray(found.ranks)
    unit = (x[0] - x[3]) / (4.0 - 1.2)
    assert unit > 0
    check_equal(x, x[0] - unit * (ranks - ranks[0]))
    thick = [points_on(line) for line in figure.axes[0].lines if line.get_linewidth() > 2]
    check_equal([sorted(bar[:, 0]) for bar in thick], [[x[1] - 2, x[0] + 2], [x[2] - 2, x[1] + 2]])
    lengths = [np.ptp(line[:, 0]) for line in lines if len(line) == 2]
    assert any(np.isclose(length, 1.5 * unit) for length in lengths)
    assert "CD = 1.50" in [text.get_text() for text in figure.axes[0].texts]
    assert any("p = 0.010, ranks differ" in text.get_text() for text in figure.texts)


def test_a_critical_difference_longer_than_the_scale_is_only_named() -> None:
    figure = draw_ranks(made_up_ranks(3, difference=2.5), "letters@1")
    assert "CD = 2.50, longer than the scale" in [text.get_text() for text in figure.axes[0].texts]


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6)).map(lambda bar: (bar[0], bar[0] + bar[1])), max_size=9)
)
def test_bars_on_one_level_never_meet_and_there_are_no_more_levels_than_needed(bars: list[tuple[int, int]]) -> None:
    bars = sorted(bars)
    levels = stack(bars)
    for (one, first), (other, second) in itertools.combinations(zip(levels, bars, strict=True), 2):
        assert one != other or first[1] < second[0] or second[1] < first[0]
    deepest = max((sum(low <= place <= high for low, high in bars) for place in range(30)), default=0)
    assert len(set(levels)) == deepest


def test_nothing_to_draw_is_said_in_one_sentence_each() -> None:
    empty = make_table([make_row("one", {"all": None})])
    for draw in (accuracy_against_macs, accuracy_by_group, accuracy_against_h, rank_diagram):
        with pytest.raises(DataError, match=r"^No picture of .* of letters@1: .*;? .*\.$"):
            draw(empty)
    with pytest.raises(DataError, match="none of the table's published rows has MACs"):
        accuracy_against_macs(make_table(spread_rows(["one"]), [make_published("x", {"VTAB": 0.5})]), published=True)
    drawn, skipped = pictures(empty)
    assert drawn == []
    assert len(skipped) == 4


def test_files_are_written_with_reasons_for_the_rest_and_are_the_same_bytes_again(tmp_path: Path) -> None:
    tables = [make_table(spread_rows(NAMES[:4])), make_table(h_rows(), PUBLISHED, suite="vtab_md@lite")]
    written, skipped = write_plots(tables, tmp_path / "a")
    names = [path.name for path in written]
    kinds = ["letters@1-macs", "letters@1-groups"]
    kinds += [f"vtab_md@lite-{kind}" for kind in ("macs", "published-macs", "groups", "h")]
    # Rows of `h_rows` have no published MACs, but the table's published rows do.
    assert names == [f"{kind}{suffix}" for kind in kinds for suffix in (".svg", ".png")]
    assert [reason.split(" of letters")[0] for reason in skipped[:2]] == [
        "No picture of accuracy against H",
        "No picture of critical differences",
    ]
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 30, "axes.grid": True, "text.color": "red", "svg.fonttype": "path"}):
        again, _ = write_plots(tables, tmp_path / "b")
    assert dict(mpl.rcParams) == before
    for one, other in zip(written, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
        assert one.read_bytes().startswith(b"\x89PNG" if one.suffix == ".png" else b"<?xml")


def test_files_of_different_tables_have_different_names() -> None:
    rows = equal_rows(["one"])
    tables = [
        make_table(rows),
        make_table(rows, synthetic=True),
        make_table(rows, split="validation"),
        make_table(rows, preview=5),
        make_table(rows, seed=1),
        make_table(rows, data="other"),
        make_table(rows, suite="a/b" * 200),
        make_table(rows, suite="a/b" * 201),
    ]
    names = stems(tables)
    assert len(set(names)) == len(tables)
    assert all("/" not in name and len(name) < 150 for name in names)
    assert names[:3] == ["letters@1", "letters@1-synthetic", "letters@1-validation"]


@pytest.fixture(scope="module")
def hostile() -> Table:
    return make_table(spread_rows(HOSTILE), PUBLISHED, suite="<b>$suite@1")


def test_an_svg_element_for_a_page_stands_alone(hostile: Table) -> None:
    elements = [svg for _, svg in inline_plots(hostile)]
    assert len(elements) == 3
    for svg in elements:
        assert len(svg) < 150_000  # dotted patterns alone would take more
        root = ET.fromstring(svg)
        assert root.tag == f"{SVG}svg"
        assert root.get("role") == "img"
        assert "<b>$suite@1" in str(root.get("aria-label"))
        title, description = root[0], root[1]
        assert (title.tag, description.tag) == (f"{SVG}title", f"{SVG}desc")
        assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
        # The only address is the name space; there are no sheets, scripts or files.
        assert re.findall(r"https?://[^\"]*", svg) == ["http://www.w3.org/2000/svg"]
        assert not {f"{SVG}style", f"{SVG}script", f"{SVG}image", f"{SVG}metadata"} & {each.tag for each in root.iter()}
        assert INK not in svg
        assert svg.count("currentColor") > 10
        assert "#ffffff" not in svg
        identifiers = [each.get("id") for each in root.iter() if each.get("id")]
        assert len(set(identifiers)) == len(identifiers)
        used = [one or other for one, other in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)]
        assert used
        assert set(used) <= set(identifiers)
        written = [each.text for each in root.iter(f"{SVG}text")]
        assert "<script>alert('1')</script>" in written
        assert "$x^$" in written
    found = [set(re.findall(r' id="([^"]+)"', svg)) for svg in elements]
    assert not found[0] & found[1] | found[0] & found[2] | found[1] & found[2]


def test_a_name_that_looks_like_markup_of_the_picture_is_left_alone() -> None:
    name = f"fill: {INK}; url(#x)"
    svg = svg_of(accuracy_against_macs(make_table([make_row(name, {"all": 0.9})])), "title", prefix="own")
    assert name in [each.text for each in ET.fromstring(svg).iter(f"{SVG}text")]
    assert all(each.startswith("own-") for each in re.findall(r' id="([^"]+)"', svg))


@given(st.text(max_size=60), st.floats(20, 200))
@settings(deadline=None, max_examples=60)
def test_a_shortened_text_fits_and_can_be_drawn(text: str, width: float) -> None:
    short = shorten(text, width)
    assert text_width(short) <= width
    assert short == "" or short.isprintable()
    assert all(text_width(line) <= width for line in wrap(text, width))


def test_names_are_shortened_in_the_middle_and_stay_different() -> None:
    names = short_names(["W" * 300, "W" * 299 + "W", "plain", "W" * 200 + "end"], 80.0, " (published)")
    assert len(set(names)) == 4
    assert names[2] == "plain (published)"
    assert all(name.endswith(" (published)") and text_width(name) <= 81.0 for name in names)


def test_a_point_without_an_interval_has_no_line() -> None:
    row = make_row("one", {"all": 0.9})
    row.groups["all"] = replace(row.groups["all"], interval=None)
    (container,) = containers(accuracy_against_macs(make_table([row])))
    assert not container.has_yerr


@given(st.floats(0, 14), st.floats(0.5, 9))
def test_ticks_are_inside_and_neither_too_few_nor_too_many(low: float, width: float) -> None:
    ticks = log_ticks(low, low + width)
    assert all(low <= np.log10(tick) <= low + width for tick in ticks)
    assert 1 <= len(ticks) <= 12


def test_nothing_is_imported_before_something_is_drawn() -> None:
    code = (
        "import sys, lite_bench.leaderboard.plots; print({'matplotlib', 'numpy', 'scipy', 'torch'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_a_text_is_measured_as_it_is_drawn() -> None:
    for draw in (accuracy_by_group, accuracy_against_macs):
        figure = draw(make_table(equal_rows(NAMES)))
        with style():
            widths = [(text.get_window_extent().width * POINTS / figure.dpi, text) for text in texts_of(figure)]
        for width, text in widths:
            if text.get_rotation() == 0:
                assert abs(width - text_width(text.get_text(), text.get_fontsize())) < 1.2, text


def test_placing_sixty_long_names_compares_no_more_boxes_than_takes_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes 0.8e9 pairs of boxes, about six seconds, and over ten times as many if crowds do not make it taller."""
    compared = 0
    free = label_placement._Search._free

    def counting(search: Any, label: Any, corners: Any, blocked: Any) -> Any:
        nonlocal compared
        compared += len(corners) * len(blocked)
        assert compared < 3e9
        return free(search, label, corners, blocked)

    monkeypatch.setattr(label_placement._Search, "_free", counting)
    draw = random.Random(1)
    rows = []
    for number in range(60):
        name, mean = f"a learner with a name too long to show whole {number}", 0.3 + draw.random() / 2
        rows.append(make_row(name, {"all": mean}, macs=10 ** draw.uniform(9, 15), half=0.035))
    accuracy_against_macs(make_table(rows))
    assert compared > 0
