"""What all pictures have in common: size, type, colours that colour-blind readers tell apart, names that fit."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from lite_bench.leaderboard.intervals import Kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 72.0
"""Points in an inch; all lengths below are in points."""
WIDTH = 7.0 * POINTS
"""Width of every picture, that of a page's text."""
SMALL, NORMAL, LARGE = 7.0, 8.0, 9.0
"""Sizes of type."""
LINE = 1.3
"""Height of a line of text, in sizes of its type."""
EDGE = 6.0
"""Margin that stays empty at the sides of a picture."""
INK = "#1b1b1c"
"""Colour of text and axes; in a page it becomes the page's own text colour."""
GREY = "#767676"
"""Colour of what others published."""
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7")
"""Okabe and Ito's, "Color Universal Design" (2008), without black, and yellow, of which thin lines are too faint."""
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
HATCHES = ("", "/////", "|||||", "\\\\\\\\\\", "xxxxx")
"""Patterns of lines, as dots make an SVG 50 times larger. Their number and that of colours have no common divisor, so
that each pair comes once in 30."""
PUBLISHED = " (published)"
ELLIPSIS = "…"
LONGEST, LONGER = 125.0, 170.0
"""Width that a learner's name may take, and with what marks it as published."""
INTERVALS = {
    Kind.protocol: "the protocol's 95 % interval",
    Kind.student: "Student's 95 % interval",
    Kind.bootstrap: "a 95 % bootstrap interval",
}
AS_PUBLISHED = "Intervals of published rows are as published."
SETTINGS: dict[str, Any] = {
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": SMALL,
    "text.hinting": "none",  # hinted letters are wider at few dots per inch, and labels are placed by their width
    "text.parse_math": False,  # a name may hold dollar signs
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": NORMAL,
    "axes.labelsize": NORMAL,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.5,
    "svg.fonttype": "none",  # text stays text, which can be read aloud, found and copied
    "svg.hashsalt": "lite-bench",  # the same picture is the same file
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw with these settings, whatever the user's own are, and leave those as they were."""
    import matplotlib.style

    with matplotlib.style.context(["default", SETTINGS]), warnings.catch_warnings():
        # In the SVG such characters are text, so any viewer with a font for them shows them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def new_figure(height: float) -> Figure:
    """Make an empty picture ``height`` points high, without touching any global state of matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / POINTS, height / POINTS), dpi=POINTS)
    FigureCanvasAgg(figure)
    return figure


def add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes to a picture, placed in points from its lower left corner."""
    total = figure.get_figheight() * POINTS
    return figure.add_axes((left / WIDTH, bottom / total, width / WIDTH, height / total))


def write(figure: Figure, x: float, y: float, text: str, size: float = SMALL, *, weight: str = "normal") -> None:
    """Write a line of text whose lower left corner is at (x, y), in points from that of the picture."""
    total = figure.get_figheight() * POINTS
    figure.text(x / WIDTH, y / total, text, fontsize=size, va="bottom", ha="left", fontweight=weight)


def write_heading(figure: Figure, text: str) -> None:
    """Head a picture; takes `HEADING` points at its top."""
    top = figure.get_figheight() * POINTS
    write(figure, EDGE, top - 14.0, shorten(text, WIDTH - 2 * EDGE, LARGE), LARGE)


HEADING = 18.0


def write_notes(figure: Figure, lines: Sequence[str]) -> None:
    """Write lines at the foot of a picture; takes `notes_height` points there."""
    for number, line in enumerate(reversed(lines)):
        write(figure, EDGE, 4.0 + number * LINE * SMALL, line)


def notes_height(lines: Sequence[str]) -> float:
    """Give the height that lines at the foot of a picture take."""
    return len(lines) * LINE * SMALL + (8.0 if lines else 2.0)


def clean(text: str) -> str:
    """Put a text on one line, without characters that a picture cannot hold, such as control characters."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


@cache
def text_width(text: str, size: float = SMALL) -> float:
    """Measure a line of text, in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    with style():
        font = FontProperties(family=SETTINGS["font.family"], size=size)
        width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width)


def shorten(text: str, width: float, size: float = SMALL, end: str = "") -> str:
    """Fit a text into ``width`` points: out of the middle of a longer one characters are left out.

    Args:
        text: any text; it is cleaned.
        width: in points.
        size: of the type.
        end: what is put at its end and never shortened.
    """
    whole = clean(text)
    if text_width(whole + end, size) <= width:
        return whole + end
    low, high = 0, len(whole) - 1
    while low < high:  # the longest that fits: fewer characters are never wider
        middle = (low + high + 1) // 2
        if text_width(_without_middle(whole, middle) + end, size) <= width:
            low = middle
        else:
            high = middle - 1
    return _without_middle(whole, low) + end


def _without_middle(text: str, kept: int) -> str:
    tail = kept // 3
    return text[: kept - tail] + ELLIPSIS + text[len(text) - tail :]


def wrap(text: str, width: float = WIDTH - 2 * EDGE, size: float = SMALL) -> list[str]:
    """Break a text into lines of at most ``width`` points; a longer word is shortened."""
    lines: list[str] = []
    for word in (shorten(each, width, size) for each in clean(text).split()):
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def short_names(names: Sequence[str], width: float = LONGEST, end: str = "") -> list[str]:
    """Fit names with ``end`` into ``width`` points each; where two become the same, a number tells them apart."""
    short = [shorten(name, width, end=end) for name in names]
    count = Counter(short)
    seen: Counter[str] = Counter()
    found = []
    for name, text in zip(names, short, strict=True):
        seen[text] += 1
        mark = f" {seen[text]}" if count[text] > 1 else ""
        found.append(shorten(name, width, end=mark + end) if mark else text)
    return found


def point_look(number: int, *, own: bool) -> dict[str, Any]:
    """Give the look of a point, by the number of its row or series; what others published is hollow and grey."""
    tint = COLOURS[number % len(COLOURS)] if own else GREY
    return {
        "marker": MARKERS[number % len(MARKERS)],
        "color": tint,
        "markerfacecolor": tint if own else "none",
        "markeredgecolor": INK if own else GREY,
        "markeredgewidth": 0.5 if own else 1.0,
    }


def bar_look(number: int, *, own: bool) -> dict[str, Any]:
    """Give the look of a bar, by the number of its row; what others published is an outline."""
    if not own:
        return {"facecolor": "none", "edgecolor": GREY, "linewidth": 0.8}
    tint, pattern = COLOURS[number % len(COLOURS)], HATCHES[number % len(HATCHES)]
    return {"facecolor": tint, "hatch": pattern, "edgecolor": INK, "linewidth": 0.5}


def columns_shown(groups: Sequence[str], sources: Sequence[str]) -> tuple[str, ...]:
    """Choose the columns of a picture: the means of groups, or without groups every source."""
    return tuple(groups) or tuple(sources)
