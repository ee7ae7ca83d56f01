"""One Meta-Dataset source for `lite-bench data`: find it, convert it, check it, index it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lite_bench.datasets.conversion.engine import convert
from lite_bench.datasets.conversion.plan import Original
from lite_bench.datasets.conversion.registry import converter
from lite_bench.datasets.meta_dataset.source import RecordSource
from lite_bench.datasets.tfrecords.index import load_index
from lite_bench.datasets.vtab.prepared import MARKER
from lite_bench.datasets.vtab_md.records import (
    FOLDER,
    begun_source,
    differences,
    find_source,
    misnamed_place,
    search_folders,
)
from lite_bench.harness.data import IndexedSource, Notify, SourceStatus
from lite_bench.harness.errors import DataError, UsageError

ARCHIVES = frozenset({".zip", ".gz", ".tgz", ".tar", ".json", ".npy", ".mat", ".txt"})


@dataclass(frozen=True)
class RecordData:
    """The records of one source.

    Attributes:
        source: its name.
        used_for: what for.
    """

    source: str
    used_for: tuple[str, ...]

    @property
    def needs(self) -> str:
        """Say which original files a conversion needs, and where they are published."""
        by_page: dict[str, list[str]] = {}
        for each in converter(self.source).originals:
            by_page.setdefault(each.page, []).append(archive_of(each))
        return "; ".join(f"{' and '.join(names)} from {page}" for page, names in by_page.items())

    def status(self, data_dir: Path | None) -> SourceStatus:
        """Say where the source is."""
        looked = tuple(search_folders(data_dir))
        command = f"lite-bench data prepare {self.source} --from DOWNLOADS --output-dir DATA"
        folder = find_source(self.source, data_dir)
        if folder is None:
            begun = begun_source(self.source, data_dir)
            if begun is None:
                step, problem = f"{command} ({self.needs})", misnamed_place(data_dir)
                return SourceStatus(self.source, self.used_for, "missing", None, looked, problem, step)
            problem = "The conversion is not finished; go on with it:"
            return SourceStatus(self.source, self.used_for, "incomplete", begun, looked, problem, command)
        try:
            records = RecordSource(folder)
            records.check_files()
        except DataError as error:
            step = f"If that does not help, delete the folder, then: {command}"
            return SourceStatus(self.source, self.used_for, "incomplete", folder, looked, str(error), step)
        if (folder / MARKER).is_file():
            return SourceStatus(self.source, self.used_for, "stand-in", folder, looked)
        if problems := differences(records):
            step = f"Convert it anew into another folder: {command}"
            return SourceStatus(self.source, self.used_for, "incomplete", folder, looked, problems[0], step)
        return SourceStatus(self.source, self.used_for, "found", folder, looked)

    def prepare(self, originals: Path | None, output: Path, workers: int, notify: Notify) -> str:
        """Convert the original files in ``originals`` to records below ``output``.

        Raises:
            UsageError: ``originals`` is not given.
            DataError: an original is missing or damaged.
            RunError: the disk is full, or another process converts the same source.
        """
        if originals is None:
            raise UsageError(f"Preparing {self.source} needs --from FOLDER with {self.needs}.")

        def progress(done: int, total: int) -> None:
            notify(self.source, done, total, "images")

        folder = output / FOLDER / self.source
        report = convert(converter(self.source), originals, folder, workers=workers, progress=progress)
        if report.was_complete:
            return f"{folder} is complete already: {report.classes} classes, {report.images} images."
        return f"Converted {self.source} to {folder}: {report.classes} classes, {report.images} images."

    def verify(self, data_dir: Path | None, *, decode: bool, workers: int, notify: Notify) -> list[str] | None:
        """Check specification and every record; None if the source is not there."""
        folder = find_source(self.source, data_dir)
        if folder is None:
            return None
        try:
            records = RecordSource(folder)
        except DataError as error:
            return [str(error)]
        problems = [] if (folder / MARKER).is_file() else differences(records)
        classes = range(len(records.specification.images))
        with ThreadPoolExecutor(workers, thread_name_prefix="verify") as pool:
            for number, found in enumerate(pool.map(lambda c: records.verify(c, decode=decode), classes), start=1):
                problems += found
                notify(self.source, number, len(classes), f"classes, {len(problems)} problems")
        return problems

    def index(self, data_dir: Path | None, notify: Notify) -> IndexedSource | None:
        """Index every class file; None if the source is not there."""
        folder = find_source(self.source, data_dir)
        if folder is None:
            return None
        records = RecordSource(folder)
        n_classes, n_records = len(records.specification.images), 0
        for class_id in range(n_classes):
            n_records += len(load_index(records.path(class_id))) - 1
            notify(self.source, class_id + 1, n_classes, f"files, {n_records} records")
        return IndexedSource(self.source, n_classes, n_records)


def archive_of(original: Original) -> str:
    """Name the file to download, rather than a folder that it unpacks to."""
    return next((name for name in original.names if Path(name).suffix in ARCHIVES), original.names[0])
