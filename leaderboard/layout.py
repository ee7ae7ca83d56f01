"""How a table's columns are arranged for people: wide suites in several blocks of columns that belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lite_bench.leaderboard.tables import Table

WIDEST = 8
"""Columns of scores that one block may have before sources get blocks of their own."""


@dataclass(frozen=True)
class Block:
    """Columns that are shown beside each other.

    Attributes:
        title: what they have in common; empty if they are all there is.
        columns: names of sources, groups or metrics.
    """

    title: str
    columns: tuple[str, ...]


def blocks(table: Table) -> list[Block]:
    """Arrange the columns of ``table``: all in one block if they fit, else the means first, then sources by group.

    A source stands in the block of the smallest group that averages over it. The mean of a group of one source is that
    source's score, and is not shown again.
    """
    if len(table.columns) <= WIDEST:
        return [Block("", table.columns)]
    own: dict[str, list[str]] = {group: [] for group in table.groups}
    others = []
    for source in table.sources:
        holders = [group for group, members in table.groups.items() if source in members]
        if holders:
            own[min(holders, key=lambda group: len(table.groups[group]))].append(source)
        else:
            others.append(source)
    found = [Block("Means", table.means)] if table.means else []
    found += [Block(group, tuple(members)) for group, members in own.items() if members]
    return [*found, *_split("Sources", others), *_split("Also reported", table.metrics)]


def _split(title: str, columns: Sequence[str]) -> list[Block]:
    """Cut columns that no group joins into blocks that fit."""
    parts = [tuple(columns[start : start + WIDEST]) for start in range(0, len(columns), WIDEST)]
    titles = (
        [title] if len(parts) == 1 else [f"{title} ({number} of {len(parts)})" for number in range(1, len(parts) + 1)]
    )
    return [Block(*each) for each in zip(titles, parts, strict=False)]
