"""Entries of a leaderboard: what one learner scored on one list of tasks, gathered from wherever its files lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lite_bench.harness.core import Record
from lite_bench.harness.records import Manifest, Results, file_name
from lite_bench.leaderboard.training import Training, read_training

OTHER_KIND = "Here real and stand-in data were mixed; this source is of the other kind and stands in the other table."
"""Why a source's data is missing in one of the two parts of an evaluation on stand-ins and real data."""


@dataclass(frozen=True)
class Entry:
    """All that one learner scored on one list of tasks.

    Attributes:
        runs: the run folders that hold a part of it.
        manifest: what was to be evaluated, of all parts together.
        records: by source, each task once; empty where nothing is done.
        files: of records, by source.
        training: how the learner was made.
        unfinished: files whose last line was cut short and is left out.
        synthetic: True for stand-in data.
    """

    runs: tuple[Path, ...]
    manifest: Manifest
    records: dict[str, tuple[Record, ...]]
    files: dict[str, tuple[Path, ...]]
    training: Training
    unfinished: tuple[Path, ...]
    synthetic: bool

    @property
    def versions(self) -> dict[str, list[str]]:
        """Versions of the packages that made the records; those of the run where the records do not say."""
        own = {package: [version] for package, version in self.training.versions.items()}
        return self.manifest.versions or own

    @property
    def identity(self) -> tuple[Any, ...]:
        """What two parts of one entry have in common."""
        manifest, training = self.manifest, self.training
        names = (manifest.learner, manifest.backbone, manifest.image_size, manifest.checkpoint, manifest.precision)
        options = tuple(sorted(training.options.items()))
        return (*self.tasks, *names, manifest.label, training.pretraining, training.text, training.pixels, options)

    @property
    def tasks(self) -> tuple[Any, ...]:
        """What entries must have in common to stand in one table, beside the data of the sources that they share."""
        manifest = self.manifest
        data = "" if manifest.source_data else manifest.data
        return (manifest.suite, manifest.split, manifest.seed, preview(manifest) or 0, data, self.synthetic)


def preview(manifest: Manifest) -> int | None:
    """Give the number of tasks per source that an evaluation was cut to (``--limit``), or None for the whole list."""
    cut = manifest.limit is not None and manifest.limit < max(manifest.sources.values(), default=0)
    return manifest.limit if cut else None


def in_order(lists: Iterable[Sequence[str]]) -> list[str]:
    """Merge lists of names, each name once: the longest gives the order, whichever comes first."""
    return list(dict.fromkeys(name for names in sorted(map(list, lists), key=_longest_first) for name in names))


def _longest_first(names: list[str]) -> tuple[int, list[str]]:
    return -len(names), names


def all_members(manifests: Sequence[Manifest]) -> dict[str, tuple[str, ...]]:
    """Give every group the sources that it averages over in any of ``manifests``."""
    names = in_order([list(manifest.groups) for manifest in manifests])
    return {name: tuple(in_order([each.groups.get(name, []) for each in manifests])) for name in names}


def parts_of(results: Results) -> list[Entry]:
    """Make an entry of one evaluation, or two if some of its sources are stand-ins and others are real.

    Of two, each is without the data of the other's sources.
    """
    training = read_training(results.run, results.manifest.checkpoint)
    kinds = {any(record.synthetic for record in records) for records in results.records.values() if records}
    by_name = {path.name: path for path in results.files}
    parts = []
    for kind in sorted(kinds or {False}):
        records = {
            source: found if not found or any(record.synthetic for record in found) == kind else ()
            for source, found in results.records.items()
        }
        files: dict[str, tuple[Path, ...]] = {
            source: (_file_of(source, by_name),) for source, found in records.items() if found
        }
        unfinished = tuple(path for path in results.unfinished if any(path in own for own in files.values()))
        others = [source for source, found in results.records.items() if found and not records[source]]
        manifest = _without_data(results.manifest, others)
        parts.append(Entry((results.run,), manifest, records, files, training, unfinished, kind))
    return parts


def _without_data(manifest: Manifest, sources: Sequence[str]) -> Manifest:
    """Make the manifest of an evaluation in which the data of ``sources`` was missing."""
    return replace(
        manifest,
        source_data={name: data for name, data in manifest.source_data.items() if name not in sources},
        missing=manifest.missing | dict.fromkeys(sources, OTHER_KIND),
    )


def _file_of(source: str, by_name: Mapping[str, Path]) -> Path:
    return by_name[f"{file_name(source)}.jsonl"]
