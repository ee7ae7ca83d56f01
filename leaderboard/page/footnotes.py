"""Footnotes of a table, and the marks that lead to them."""

from __future__ import annotations

from lite_bench.leaderboard.page.elements import Markup, element, join
from lite_bench.leaderboard.text import Notes


class Footnotes(Notes):
    """The footnotes of one table, whose marks lead to them."""

    def __init__(self, prefix: str) -> None:
        """Start without any; ids of footnotes begin with ``prefix``."""
        super().__init__()
        self.prefix = prefix

    def link(self, *texts: str) -> Markup:
        """Give the marks that refer to ``texts``, those in a row as one such as ``3–5``; empty texts have none."""
        numbers = sorted({int(self.mark(text).strip("[]")) for text in texts if text})
        starts = [number for number in numbers if number - 1 not in numbers]
        ends = [number for number in numbers if number + 1 not in numbers]
        return join(*(self._mark(first, last) for first, last in zip(starts, ends, strict=True)))

    def _mark(self, first: int, last: int) -> Markup:
        number = str(first) if first == last else f"{first}–{last}"
        about = " ".join(self.texts[first - 1 : last])
        href = f"#{self.prefix}-n{first}"
        return element("a", number, href=href, title=about, class_="mark", aria_label=f"Note {number}")

    def listed(self) -> Markup:
        """List all footnotes."""
        items = [element("li", text, id=f"{self.prefix}-n{n}") for n, text in enumerate(self.texts, start=1)]
        return element("ol", *items, class_="notes") if items else Markup()
