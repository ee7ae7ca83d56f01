"""What a suite with data on disk offers to ``lite-bench data``: where it is, and how to get, check and imitate it.

A suite's entry in the group ``lite_bench.data``, under the suite's own name, is a class that satisfies `DataKeeper`.
It is loaded apart from the suite, so that these commands need no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

State = Literal["found", "stand-in", "incomplete", "missing"]

Notify = Callable[[str, int, int, str], None]
"""Told (what is worked on, units done, units in all, a few words on them)."""


@dataclass(frozen=True)
class SourceStatus:
    """Where the data of one source is.

    Attributes:
        source: its name, as `lite-bench data prepare` takes it.
        used_for: ``train``, ``validation``, ``test``.
        state: ``found`` if all of it is there.
        where: the folder it is in, if any of it is there.
        looked: the folders it was looked for in.
        problem: what is wrong with an incomplete copy, or empty.
        next_step: the exact command or page that gets it, empty if nothing is to be done.
    """

    source: str
    used_for: tuple[str, ...]
    state: State
    where: Path | None
    looked: tuple[Path, ...]
    problem: str = ""
    next_step: str = ""


@dataclass(frozen=True)
class IndexedSource:
    """What `lite-bench data index` has of one source: files and the records in them."""

    source: str
    files: int
    records: int


class DataKeeper(Protocol):
    """Looks after the data of one suite."""

    def status(self, data_dir: Path | None) -> list[SourceStatus]:
        """Say for every source where its data is, quickly: nothing is read but what describes it."""

    def preparable(self) -> Mapping[str, str]:
        """List the sources that `prepare` makes, each with what it needs in a line."""

    def prepare(self, source: str, originals: Path | None, output: Path, *, workers: int, notify: Notify) -> str:
        """Bring the original files of ``source`` into the form that the suite reads, below ``output``.

        Goes on where an earlier call was stopped.

        Args:
            source: one of `preparable`.
            originals: folder of the original files.
            output: the folder that holds all of the suite's data, a ``--data-dir``.
            workers: processes to use.
            notify: told how far it is.

        Returns:
            what was done, in a sentence.

        Raises:
            DataError: an original is missing or damaged.
            RunError: the disk is full, or another process prepares the same source.
        """

    def verify(
        self, sources: Sequence[str], data_dir: Path | None, *, decode: bool, workers: int, notify: Notify
    ) -> dict[str, list[str]]:
        """Check data completely: counts against what is published, checksums, and that every image decodes.

        Args:
            sources: to check; empty for all that are there.
            data_dir: folder with the suite's data.
            decode: decode the images too, which takes most of the time.
            workers: threads to use.
            notify: told how far it is.

        Returns:
            the problems of every source that was checked, each in a line with its file; none if all is well.
        """

    def index(self, sources: Sequence[str], data_dir: Path | None, *, notify: Notify) -> list[IndexedSource]:
        """Build, ahead of their first use, the indexes that make data randomly accessible."""

    def synthesise(
        self, output: Path, *, seed: int, workers: int, notify: Notify, image_size: int | None = None
    ) -> str:
        """Write labelled stand-ins of all sources in exactly the real on-disk form, small and fast, below ``output``.

        The same ``seed`` gives the same images, whatever the number of processes ``workers``. ``image_size`` is the
        side of the images in pixels, where the benchmark comes in several sizes.

        Returns:
            the flags of `lite-bench eval`, beside ``--suite``, that use them.

        Raises:
            RunError: ``output`` is not empty, or cannot be written.
            UsageError: the benchmark's images have sizes of their own, but ``image_size`` is given.
        """
