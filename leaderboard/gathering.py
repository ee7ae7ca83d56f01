"""From results to the entries of each table: parts are joined, and what repeats or contradicts itself is refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lite_bench.harness.core import Record
from lite_bench.harness.errors import DataError
from lite_bench.harness.records import Results, joined_versions
from lite_bench.leaderboard.entries import Entry, all_members, in_order, parts_of, preview

SAME = ("sources", "digests")
"""What manifests of one list of tasks must agree on, for every source that they share."""


def gather(results: Iterable[Results]) -> list[list[Entry]]:
    """Join the parts of each entry, and put entries together that may be compared: one list per table, in order.

    Entries are compared on the same suite version, split, list of tasks and data, and stand-ins never with real data.

    Raises:
        DataError: two files hold the same task of one entry, or one is a copy of the other, two manifests disagree
            about the list of tasks, or a file of a run is damaged.
    """
    parts = [part for each in results for part in parts_of(each)]
    by_tasks: dict[tuple[Any, ...], list[Entry]] = {}
    for part in parts:
        by_tasks.setdefault(part.tasks, []).append(part)
    tables = [together for key in sorted(by_tasks) for together in _on_the_same_data(by_tasks[key])]
    return [_join(table) for table in tables]


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
    return _by_label(joined)


def _by_label(entries: Sequence[Entry]) -> list[Entry]:
    """Join entries of one label of the user's that differ just in their weights and have no source in common.

    So the two models that ORBIT trains, one for clean and one for cluttered videos, become one row.
    """
    rows: list[list[Entry]] = []
    for entry in entries:
        fitting = (row for row in rows if entry.manifest.label and all(_complement(entry, other) for other in row))
        row = next(fitting, None)
        if row is None:
            rows.append([entry])
        else:
            row.append(entry)
    return [row[0] if len(row) == 1 else _of_several_weights(row) for row in rows]


def _complement(one: Entry, other: Entry) -> bool:
    """Whether two entries are alike but for their weights, and have no source in common."""
    shared = {source for source, found in one.records.items() if found and other.records.get(source)}
    return not shared and _likeness(one) == _likeness(other)


def _likeness(entry: Entry) -> tuple[Any, ...]:
    manifest, training = entry.manifest, entry.training
    names = (manifest.label, manifest.learner, manifest.backbone, manifest.image_size, manifest.precision)
    made = (training.pretraining, training.gradient, training.h, training.tasks, training.pixels)
    return (*names, *made, tuple(sorted(training.options.items())))


def _of_several_weights(parts: Sequence[Entry]) -> Entry:
    """Join entries of several weights, all of which the row then names."""
    whole = _whole(parts)
    weights = " + ".join(part.manifest.checkpoint for part in parts)
    notes = tuple(dict.fromkeys(note for part in parts for note in part.training.notes))
    text = "; ".join(dict.fromkeys(part.training.text for part in parts))
    on = "; ".join(dict.fromkeys(part.training.on for part in parts))
    return replace(
        whole,
        manifest=replace(whole.manifest, checkpoint=weights),
        training=replace(whole.training, text=text, notes=notes, on=on),
    )


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
            file = part.files[source][0]
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
