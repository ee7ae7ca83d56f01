"""What a measuring command leaves: a table, a plot and the figures in one folder, and the table on stdout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from lite_bench.harness.cli.output import print_json, say
from lite_bench.harness.errors import InterruptedRunError
from lite_bench.harness.files import write_atomically

Content = dict[str, Any]


def publish(
    folder: Path,
    name: str,
    content: Content,
    markdown: Callable[[Content], str],
    plot: Callable[[Content, Path], None],
    *,
    as_json: bool,
) -> None:
    """Write ``name.md``, ``name.json`` and ``name.png`` into ``folder`` and print the table, or the figures.

    Args:
        folder: made if it is not there.
        name: of the files.
        content: the figures, in values that JSON can hold; ``interrupted`` says whether some are missing.
        markdown: makes the table.
        plot: writes the plot to a file.
        as_json: print the figures instead of the table.

    Raises:
        InterruptedRunError: the measurement was stopped early; what there is has been written and printed.
    """
    write_atomically(folder / f"{name}.md", markdown(content) + "\n")
    write_atomically(folder / f"{name}.json", json.dumps(content, indent=1) + "\n")
    plot(content, folder / f"{name}.png")
    if as_json:
        print_json(content)
    else:
        typer.echo(markdown(content))
    say(f"Table, plot and figures: {folder}")
    if content["interrupted"]:
        raise InterruptedRunError(f"Stopped; {folder} holds what was finished. Run it again for the rest.")
