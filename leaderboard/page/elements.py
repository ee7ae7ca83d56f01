"""HTML elements that cannot be broken by the texts in them: all text is escaped here and nowhere else."""

from __future__ import annotations

from html import escape
from typing import Final

from lite_bench.leaderboard.labels import visible

VOID: Final = frozenset({"img", "input", "meta"})
"""Elements without an end tag."""
LONGEST: Final = 60
"""Letters of a name where there is little room."""


class Markup(str):
    """HTML that is already escaped; every other text is escaped when it is put into an element."""

    __slots__ = ()


def element(tag: str, *children: str, **attributes: str | bool | None) -> Markup:
    """Make an element.

    Args:
        tag: its name.
        children: `Markup` is taken as it is, all other text is escaped.
        attributes: by name, with ``_`` for ``-`` and one at the end for a word of Python's, such as ``class_``; True
            for one without a value, and None or False for none.
    """
    names = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    shown = "".join(_attribute(name, value) for name, value in names.items())
    if tag in VOID:
        return Markup(f"<{tag}{shown}>")
    return Markup(f"<{tag}{shown}>{join(*children)}</{tag}>")


def join(*children: str) -> Markup:
    """Put elements and texts after each other."""
    return Markup("".join(child if isinstance(child, Markup) else escape(visible(child)) for child in children))


def shorten(text: str, longest: int = LONGEST) -> str:
    """Cut a text to ``longest`` letters, the last of them an ellipsis."""
    shown = visible(text)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def _attribute(name: str, value: str | bool | None) -> str:
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{escape(visible(value))}"'
