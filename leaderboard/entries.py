"""Entries of a leaderboard: what one learner scored on one list of tasks, gathered from wherever its files lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lite_bench.harness.core import Record
from lite_bench.harness.errors import DataError
from lite_bench.harness.records import Manifest, Results, file_name, joined_versions
from lite_bench.leaderboard.training import Training, read_training

OTHER_KIND = "Here real and stand-in data were mixed; this source is of the other kind and stands in the other table."
"""Why a source's data is missing in one of the two parts of an evaluation on stand-ins and real data."""
SAME = ("sources", "digests")
"""What manifests of one list of tasks must agree on, for every source that they share."""


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


def gather(results: Iterable[Results]) -> list[list[Entry]]:
    """Join the parts of each entry, and put entries together that may be compared: one list per table, in order.

    Entries are compared on the same suite version, split, list of tasks and data, and stand-ins never with real data.

    Raises:
        DataError: two files hold the same task of one entry, or one is a copy of the other, two manifests disagree
            about the list of tasks, or a file of a run is damaged.
    """
    parts = [part for each in results for part in _parts(each)]
    by_tasks: dict[tuple[Any, ...], list[Entry]] = {}
    for part in parts:
        by_tasks.setdefault(part.tasks, []).append(part)
    tables = [together for key in sorted(by_tasks) for together in _on_the_same_data(by_tasks[key])]
    return [_join(table) for table in tables]


def _parts(results: Results) -> list[Entry]:
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


def _on_the_same_data(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Divide entries so that those together used the same data for every source that they share."""
    groups: list[tuple[dict[str, str], list[Entry]]] = []
    for entry in entries:
        own = _data(entry)
        for seen, members in groups:
            if all(seen.get(source, data) == data for source, data in own.items()):
                seen.update(own)
                members.append(entry)
                break
        else:
            groups.append((dict(own), [entry]))
    return [members for _, members in groups]


def _data(entry: Entry) -> dict[str, str]:
    """Give the fingerprints of the data that an entry's sources have of their own, and of all that was used."""
    used = {source: entry.manifest.data for source, records in entry.records.items() if records}
    return (used if entry.manifest.source_data else {}) | entry.manifest.source_data


def _join(parts: Sequence[Entry]) -> list[Entry]:
    """Join the parts of each entry of one table."""
    _agree(parts)
    by_identity: dict[tuple[Any, ...], list[Entry]] = {}
    for part in parts:
        by_identity.setdefault(part.identity, []).append(part)
    joined = [same[0] if len(same) == 1 else _whole(same) for same in by_identity.values()]
    _refuse_copies(joined)
    return joined


def _refuse_copies(entries: Sequence[Entry]) -> None:
    """Refuse results that are those of another entry to the last digit of their times, as of a copied folder.

    Raises:
        DataError: two files begin with the same record.
    """
    seen: dict[Record, Path] = {}
    for entry in entries:
        for source, records in entry.records.items():
            if records and not records[0].failed:
                file = entry.files[source][0]
                holder = seen.setdefault(records[0], file)
                if holder != file:
                    raise DataError(
                        f"{holder} and {file} hold the same records to the last digit of their times, with different "
                        "settings beside them, so that one is a copy; name just one of the two."
                    )


def _whole(parts: Sequence[Entry]) -> Entry:
    """Join the parts of one entry."""
    manifests = [part.manifest for part in parts]
    numbers = {name: n for manifest in manifests for name, n in manifest.sources.items()}
    sources = {name: numbers[name] for name in in_order([list(manifest.sources) for manifest in manifests])}
    records = {source: _all_records(source, parts) for source in sources}
    missing = {name: why for manifest in manifests for name, why in manifest.missing.items() if not records[name]}
    manifest = replace(
        manifests[0],
        sources=sources,
        groups={name: list(members) for name, members in all_members(manifests).items()},
        source_data={name: data for each in manifests for name, data in each.source_data.items()},
        digests={name: digest for each in manifests for name, digest in each.digests.items()},
        missing=missing,
        metrics=next((each.metrics for each in manifests if each.metrics), []),
        limit=preview(manifests[0]),  # all have the same; a limit that cuts none of one's sources may cut another's
        versions=joined_versions(part.versions for part in parts),
        commands=list(dict.fromkeys(command for each in manifests for command in each.commands)),
    )
    return replace(
        parts[0],
        runs=tuple(dict.fromkeys(run for part in parts for run in part.runs)),
        manifest=manifest,
        records=records,
        files={source: tuple(path for part in parts for path in part.files.get(source, ())) for source in sources},
        unfinished=tuple(path for part in parts for path in part.unfinished),
    )


def _all_records(source: str, parts: Sequence[Entry]) -> tuple[Record, ...]:
    """Gather one source's records from all parts.

    Raises:
        DataError: two files hold the same task: counted twice it would narrow the interval, and if they disagree, which
            is right is unknown.
    """
    seen: dict[str, tuple[Record, Path]] = {}
    for part in parts:
        for record in part.records.get(source, ()):
            (file,) = part.files[source]
            earlier, holder = seen.setdefault(record.task, (record, file))
            if earlier is not record:
                agree = "" if earlier.accuracy == record.accuracy else ", and they disagree"
                raise DataError(
                    f"{holder} and {file} hold the same task of the same learner ({record.task}){agree}; name just one "
                    "of the two runs, or evaluate one anew under a --label of its own."
                )
    return tuple(record for record, _ in seen.values())


def _agree(parts: Sequence[Entry]) -> None:
    """Check that manifests mean the same by the sources that they share.

    Raises:
        DataError: two disagree.
    """
    seen: dict[tuple[str, str], tuple[object, Entry]] = {}
    for part in parts:
        for name in SAME:
            for source, value in getattr(part.manifest, name).items():
                first, holder = seen.setdefault((name, source), (value, part))
                if first != value:
                    raise DataError(
                        f"{holder.runs[0]} and {part.runs[0]} disagree about the tasks of {source} in "
                        f"{part.manifest.suite} ({name}: {first} and {value}); their results do not belong together: "
                        "name just one of them, or evaluate one anew with this version."
                    )
