"""Elements against Python's own HTML parser: every text and attribute comes back as it went in, as text."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lite_bench.leaderboard.labels import visible
from lite_bench.leaderboard.page.elements import Markup, element, join, shorten

TEXTS = st.text(st.characters(), max_size=30)  # surrogates and controls too
HOSTILE = ("</p><script>alert(1)</script>", '"\' onclick=alert(1) x="', "&lt;&#x27;&amp", "a\u202eb\x00\u2028")


class Reader(HTMLParser):
    """Lists tags with their attributes, and gathers all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(TEXTS, TEXTS)
@example(HOSTILE[0], HOSTILE[1])
@example(HOSTILE[1], HOSTILE[0])
@example(HOSTILE[2], HOSTILE[3])
def test_texts_and_attributes_stay_what_they_are(text: str, value: str) -> None:
    read = Reader(element("p", text, title=value))
    assert read.tags == [("p", {"title": visible(value)})]
    assert read.text == visible(text)


@given(TEXTS)
@example("a\u202etxt.exe\u2066b\u2028c\x00d\ud800")
def test_nothing_invisible_is_left(text: str) -> None:
    shown = visible(text)
    assert all(letter.isprintable() or letter in "\u200c\u200d" for letter in shown)
    assert visible(shown) == shown
    shown.encode()  # no half of a pair that UTF-8 cannot write


def test_controls_are_spelled_and_white_space_is_a_space() -> None:
    assert visible("a\u202eb\x1b[31m\tc\nd\u00a0e") == "a[U+202E]b[U+001B][31m c d e"
    assert visible("नम\u200dस्ते") == "नम\u200dस्ते"


@given(TEXTS, st.integers(1, 20))
def test_shortened_texts_fit(text: str, longest: int) -> None:
    shown = shorten(text, longest)
    assert len(shown) <= longest
    whole = visible(text)
    assert shown == whole if len(whole) <= longest else shown == whole[: longest - 1] + "…"


def test_attribute_names_and_values_without_text() -> None:
    made = element("input", class_="a", aria_label="b", checked=True, hidden=False, title=None)
    assert made == '<input class="a" aria-label="b" checked>'


@pytest.mark.parametrize("text", HOSTILE)
def test_markup_is_not_escaped_twice(text: str) -> None:
    inner = element("b", text)
    assert isinstance(inner, Markup)
    assert element("p", inner, text) == f"<p>{inner}{join(text)}</p>"
