"""Figures as files and as SVG inside a page."""

from __future__ import annotations

import hashlib
import io
import re
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

from lite_bench.leaderboard.pictures.style import INK, clean, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 200
"""Dots per inch of PNG files."""
NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}
"""No time and no version of the drawing library: the same picture is the same file."""
TAG = re.compile(r"<[^>]*>")
SHEET = re.compile(r"<defs>\s*<style[^>]*>\*\{([^}]*)\}</style>\s*</defs>\s*")
IDENTIFIER = re.compile(r' id="([^"]*)"')
REFERENCE = re.compile(r'(?:xlink:)?href="#([^"]*)"|url\(#([^)]*)\)')
ROOT = re.compile(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>')


def png_of(figure: Figure) -> bytes:
    """Draw a figure as a PNG file on white."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def svg_file_of(figure: Figure, title: str) -> str:
    """Draw a figure as an SVG file on white, for viewers and documents; its text stays text."""
    return _draw(figure, {**NO_METADATA, "Title": clean(title)}, facecolor="white")


def svg_of(figure: Figure, title: str, description: str = "", prefix: str = "") -> str:
    """Draw a figure as an ``<svg>`` element to put inside an HTML page.

    It is transparent, its text and axes take the page's text colour, it shrinks with the page, refers to nothing
    outside itself, and its identifiers clash with those of no other picture.

    Args:
        figure: any of this package's.
        title: what a screen reader says that it is.
        description: what it shows, in words; may be empty.
        prefix: of all identifiers; by default made from the content.
    """
    text = _draw(figure, dict(NO_METADATA), transparent=True)
    text = text[text.index("<svg") :]
    # Inside a page the sheet's "*" would restyle all of it; the properties are inherited, so the root can have them.
    sheet = SHEET.search(text)
    text = SHEET.sub("", text)
    own = prefix or "p" + hashlib.sha256(f"{title}\n{text}".encode()).hexdigest()[:10]
    used = {one or other for one, other in REFERENCE.findall(text)}
    text = TAG.sub(lambda tag: _embed(tag[0], own, used), text)
    box = ROOT.match(text)
    if box is None or sheet is None:
        raise RuntimeError("matplotlib's SVG has another form than this module knows")
    width = box[1].split()[2]
    names = f"{own}-title {own}-text" if description else f"{own}-title"
    look = f"{sheet[1].strip()}; width: {width}pt; max-width: 100%; height: auto"
    root = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box[1]}" role="img" aria-labelledby="{names}" '
        f"aria-label={quoteattr(clean(title))} style={quoteattr(look)}>\n"
        f'<title id="{own}-title">{escape(clean(title))}</title>\n'
    )
    if description:
        root += f'<desc id="{own}-text">{escape(clean(description))}</desc>\n'
    return root + text[box.end() :].strip() + "\n"


def _embed(tag: str, prefix: str, used: set[str]) -> str:
    """Give one tag identifiers of its own and the page's colour; text between tags stays as it is."""
    tag = IDENTIFIER.sub(lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else "", tag)
    tag = re.sub(r'(?:xlink:)?href="#', f'href="#{prefix}-', tag)
    return tag.replace("url(#", f"url(#{prefix}-").replace(INK, "currentColor")


def _draw(figure: Figure, metadata: dict[str, str | None], **look: Any) -> str:
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="svg", metadata=metadata, **look)
    return buffer.getvalue().decode()
