"""Names in tables: what tells rows apart, each as short as it can be, and what is invisible in them shown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Final

JOINERS: Final = "\u200c\u200d"
"""Invisible letters that some scripts cannot be written without."""


def tell_apart(names: Sequence[str], parts: Sequence[Sequence[str]]) -> list[str]:
    """Add to names that several rows share the fewest parts that no other of them has in common.

    Args:
        names: of the rows.
        parts: of each row what else it is known by, the most telling first; the same number for each, empty where
            there is nothing to say.

    Returns:
        ``name`` where it is the only one, else ``name (part, part)``; all parts that differ where none suffice.
    """
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        groups.setdefault(name, []).append(index)
    apart = list(names)
    for name, members in groups.items():
        if len(members) > 1:
            for index, mark in zip(members, _marks([parts[index] for index in members]), strict=True):
                apart[index] = f"{name} ({mark})" if mark else name
    return apart


def _marks(parts: Sequence[Sequence[str]]) -> list[str]:
    """Choose for each of several rows of one name the parts that are its own alone."""
    telling = [place for place in range(len(parts[0])) if len({own[place] for own in parts}) > 1]
    choices = [choice for size in range(1, len(telling) + 1) for choice in combinations(telling, size)]
    counts = {choice: _count(parts, choice) for choice in choices}
    marks = []
    for own in parts:
        said = [choice for choice in choices if all(own[place] for place in choice)]
        alone = (choice for choice in said if counts[choice][tuple(own[place] for place in choice)] == 1)
        marks.append(_joined(own, next(alone, tuple(telling))))
    # a part may read like another row's part of another kind; then all that differs is said
    return [mark if marks.count(mark) == 1 else _joined(own, telling) for own, mark in zip(parts, marks, strict=True)]


def _joined(own: Sequence[str], places: Sequence[int]) -> str:
    return ", ".join(own[place] for place in places if own[place])


def _count(parts: Sequence[Sequence[str]], choice: tuple[int, ...]) -> dict[tuple[str, ...], int]:
    counts: dict[tuple[str, ...], int] = {}
    for own in parts:
        key = tuple(own[place] for place in choice)
        counts[key] = counts.get(key, 0) + 1
    return counts


def visible(text: str) -> str:
    """Show what is invisible in a text: controls that turn its direction or hide letters by their code points.

    Any white space becomes a space, so that a text copied into a terminal is one line.
    """
    if text.isprintable():
        return text
    return "".join(_letter(letter) for letter in text)


def _letter(letter: str) -> str:
    if letter.isprintable() or letter in JOINERS:
        return letter
    return " " if letter.isspace() else f"[U+{ord(letter):04X}]"
