"""What can go wrong, as few exception types, each with the exit code of the command line.

A message says what was asked, what is true and what to do, with names and numbers, in one or two sentences.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST_LIST = 30


class LiteBenchError(Exception):
    """Base of every error that is the user's to mend; shown without a traceback."""

    exit_code = 1


class UsageError(LiteBenchError):
    """A command, option or argument is wrong."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name is not in its list; the message suggests the nearest ones."""

    def __init__(self, noun: str, name: str, known: Iterable[str], hint: str = "") -> None:
        """Build the message from what was asked and what exists."""
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
        guess = f" Did you mean {' or '.join(near)}?" if near else ""
        listing = f" Known: {', '.join(names) or 'none'}." if len(names) <= LONGEST_LIST else ""
        super().__init__(f"There is no {noun} {name!r}.{guess}{listing}{hint and ' ' + hint}")


class PluginError(LiteBenchError):
    """A plug-in could not be loaded or breaks the contract."""


class DataError(LiteBenchError):
    """Data is missing, broken or too small for the task asked of it."""


class WeightsError(LiteBenchError):
    """Weights or a checkpoint are missing or do not fit."""


class RunError(LiteBenchError):
    """A run folder cannot be used as asked, or a run failed."""


class DivergedError(RunError):
    """A learner's steps on a task led to values that are not finite; an evaluation counts the task as failed."""


class InterruptedRunError(RunError):
    """The user stopped a run with Ctrl-C or SIGTERM; its folder is usable and the message says how to go on."""

    exit_code = 130


class IncompatibleError(UsageError):
    """Two options, each valid, would together make a result that is not what it claims to be."""
