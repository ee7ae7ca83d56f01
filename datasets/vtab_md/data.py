"""What `lite-bench data` does for VTAB+MD, source by source."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Protocol

from lite_bench.datasets.conversion.registry import CONVERTERS
from lite_bench.datasets.vtab.standin import standin_datasets, write_standin
from lite_bench.datasets.vtab.tasks import PROFILES, tasks
from lite_bench.datasets.vtab_md.protocol import protocol
from lite_bench.datasets.vtab_md.record_data import RecordData
from lite_bench.datasets.vtab_md.records import FOLDER
from lite_bench.datasets.vtab_md.standins import write_source
from lite_bench.datasets.vtab_md.vtab_data import TFDS_FOLDER, PreparedData, Sun397Data
from lite_bench.harness.data import IndexedSource, Notify, SourceStatus
from lite_bench.harness.errors import RunError, UsageError

IMAGE_FOLDER = "sun397-folder"


class SourceKeeper(Protocol):
    """Looks after the data of one source; the methods are those of `DataKeeper` for it alone."""

    @property
    def source(self) -> str:
        """Its name."""

    @property
    def needs(self) -> str:
        """What a preparation needs, in a line."""

    def status(self, data_dir: Path | None) -> SourceStatus:
        """Say where it is."""

    def prepare(self, originals: Path | None, output: Path, workers: int, notify: Notify) -> str:
        """Prepare it; gives what was done."""

    def verify(self, data_dir: Path | None, *, decode: bool, workers: int, notify: Notify) -> list[str] | None:
        """Check it; None if it is not there."""

    def index(self, data_dir: Path | None, notify: Notify) -> IndexedSource | None:
        """Index it; None if it is not there or needs no index."""


class VtabMdData:
    """Looks after the data of VTAB+MD."""

    def __init__(self) -> None:
        """List the sources."""
        used = (*record_sources(), *vtab_sources())
        self._sources: dict[str, SourceKeeper] = {each.source: each for each in used}
        self._others: dict[str, SourceKeeper]
        self._others = {name: RecordData(name, ()) for name in CONVERTERS if name not in self._sources}
        """What can be converted though VTAB+MD has no use for it."""

    def status(self, data_dir: Path | None) -> list[SourceStatus]:
        """See `DataKeeper.status`."""
        place = data_dir.expanduser() if data_dir else None
        others = [status for each in self._others.values() if (status := each.status(place)).state != "missing"]
        return [*(each.status(place) for each in self._sources.values()), *others]

    def preparable(self) -> Mapping[str, str]:
        """See `DataKeeper.preparable`."""
        return {name: each.needs for name, each in (self._sources | self._others).items()}

    def prepare(self, source: str, originals: Path | None, output: Path, *, workers: int, notify: Notify) -> str:
        """See `DataKeeper.prepare`."""
        return (self._sources | self._others)[source].prepare(originals, output.expanduser(), workers, notify)

    def verify(
        self, sources: Sequence[str], data_dir: Path | None, *, decode: bool, workers: int, notify: Notify
    ) -> dict[str, list[str]]:
        """See `DataKeeper.verify`; a source that is incomplete, or was asked for and is not there, is a problem."""
        found: dict[str, list[str]] = {}
        for each in self._chosen(sources):
            problems = each.verify(data_dir, decode=decode, workers=workers, notify=notify)
            if problems is not None:
                found[each.source] = problems
                continue
            status = each.status(data_dir)
            if sources or status.state == "incomplete":
                found[each.source] = [f"{status.problem or f'{each.source} was not found;'} {status.next_step}"]
        return found

    def index(self, sources: Sequence[str], data_dir: Path | None, *, notify: Notify) -> list[IndexedSource]:
        """See `DataKeeper.index`."""
        indexed = (each.index(data_dir, notify) for each in self._chosen(sources))
        return [each for each in indexed if each is not None]

    def _chosen(self, sources: Sequence[str]) -> Iterator[SourceKeeper]:
        return (each for name, each in (self._sources | self._others).items() if not sources or name in sources)

    def synthesise(
        self, output: Path, *, seed: int, workers: int, notify: Notify, image_size: int | None = None
    ) -> str:
        """See `DataKeeper.synthesise`."""
        if image_size is not None:
            raise UsageError("The images of these data sets have sizes of their own; leave out --image-size.")
        output = output.expanduser()
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise RunError(f"{output} is not an empty folder; name a new one for the stand-ins.")
        flags = f"--data-dir {output}"
        jobs = standin_jobs(output, seed)
        if workers == 1:
            for number, job in enumerate(jobs, start=1):
                job()
                notify("stand-ins", number, len(jobs), "data sets")
            return flags
        # Spawned, because a fork would copy the locks of this process's threads in whatever state they are.
        with ProcessPoolExecutor(min(workers, len(jobs)), multiprocessing.get_context("spawn")) as pool:
            pending = [pool.submit(job) for job in jobs]
            for number, done in enumerate(as_completed(pending), start=1):
                done.result()
                notify("stand-ins", number, len(jobs), "data sets")
        return flags


def standin_jobs(output: Path, seed: int) -> list[partial[None]]:
    """List what writes the stand-ins, a job for each data set; the jobs may run in any process and order."""
    jobs = [partial(write_source, each.source, output / FOLDER / each.source, seed) for each in record_sources()]
    names = [*dict.fromkeys(dataset.name for dataset in standin_datasets()), IMAGE_FOLDER]
    for name in names:
        root = output if name == IMAGE_FOLDER else output / TFDS_FOLDER
        jobs.append(partial(write_standin, root, seed=seed, datasets=[name]))
    return jobs


def record_sources() -> list[RecordData]:
    """List the Meta-Dataset sources of both versions, those for testing first."""
    tables = protocol()
    versions = tables["versions"]
    names = dict.fromkeys((*tables["test"], *(name for version in versions.values() for name in version["train"])))
    found = []
    for name in names:
        trained = [version for version, table in versions.items() if name in table["train"]]
        used = ["train" if len(trained) == len(versions) else f"train ({trained[0]})"] if trained else []
        used += [split for split in ("validation", "test") if name in tables[split]]
        found.append(RecordData(name, tuple(used)))
    return found


def vtab_sources() -> list[PreparedData | Sun397Data]:
    """List the data sets of VTAB's tasks, each once, with the versions that use it if not both do."""
    datasets = {task.dataset.name: task.dataset for task in tasks()}
    users: dict[tuple[str, str | None] | None, set[str]] = {}
    for task in tasks():
        for profile in PROFILES:
            selection = task.selections[profile]
            key = None if selection.folder else (task.dataset.name, selection.config)
            users.setdefault(key, set()).add(profile)
    found: list[PreparedData | Sun397Data] = []
    for key, profiles in users.items():
        used = ("test" if len(profiles) == len(PROFILES) else f"test ({min(profiles)})",)
        found.append(Sun397Data(used) if key is None else PreparedData(datasets[key[0]], key[1], used))
    return found
