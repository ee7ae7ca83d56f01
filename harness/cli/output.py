"""One sink for what commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from lite_bench.harness.training import StepMetrics

PLAIN_INTERVAL_SECONDS = 10.0


def say(text: str) -> None:
    """Print a line for people, on stderr."""
    typer.echo(text, err=True)


def print_json(content: object) -> None:
    """Print JSON on stdout."""
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print a table on stdout: drawn on a terminal, tab-separated elsewhere."""
    if not sys.stdout.isatty():
        for row in [columns, *rows]:
            typer.echo("\t".join(row))
        return
    table = Table(title=title or None, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")  # an address is of no use with its end cut off
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


class Progressor:
    """Progress of one long job: a live bar on a terminal, a plain line every ten seconds elsewhere."""

    def __init__(self, title: str) -> None:
        """Prepare to report on ``title``."""
        self.title = title
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal
        self._started = time.monotonic()
        self._last = 0.0
        self._bars: dict[str, TaskID] = {}
        self._first: tuple[int, float] | None = None
        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
        columns += [TextColumn("{task.fields[detail]}"), TimeElapsedColumn(), TimeRemainingColumn()]
        self._progress = Progress(*columns, console=self.console)

    def __enter__(self) -> Progressor:
        """Start drawing."""
        if self.live:
            self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop drawing."""
        if self.live:
            self._progress.stop()

    def note(self, text: str) -> None:
        """Print a line between the bars."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=not self.live)

    def update(self, name: str, done: int, total: int, detail: str) -> None:
        """Report ``done`` of ``total``."""
        if self.live:
            if name not in self._bars:
                self._bars[name] = self._progress.add_task(name, total=total, detail=detail)
            self._progress.update(self._bars[name], completed=done, total=total, detail=detail)
            return
        now = time.monotonic()
        if done >= total or now - self._last >= PLAIN_INTERVAL_SECONDS:
            self._last = now
            say(f"{name} {done}/{total}  {detail}  {now - self._started:.0f} s")

    def step(self, metrics: StepMetrics, total_tasks: int) -> None:
        """Report a training step."""
        tasks_per_second = self._rate(metrics)
        detail = (
            f"loss {metrics.loss:.3f}  acc {metrics.accuracy:.1%}  {tasks_per_second:.2f} tasks/s  "
            f"{metrics.images_per_second:.0f} images/s  waiting for data {metrics.data_wait:.0%}"
        )
        if not self.live:
            left = (total_tasks - metrics.tasks) / tasks_per_second if tasks_per_second else 0.0
            detail += f"  ETA {left:.0f} s"
        self.update("training", metrics.tasks, total_tasks, detail)
        if metrics.validation is not None:
            self.note(f"validation after {metrics.tasks} tasks: {metrics.validation:.2%}")

    def _rate(self, metrics: StepMetrics) -> float:
        """Tasks per second since the first step that was reported; a resumed run starts there."""
        now = time.monotonic()
        if self._first is None:
            self._first = (metrics.tasks, now)
            return metrics.tasks / metrics.seconds if metrics.step == 1 else 0.0
        tasks, since = self._first
        return (metrics.tasks - tasks) / max(1e-9, now - since)
