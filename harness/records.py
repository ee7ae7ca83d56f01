"""Records on disk: one append-only file per source, and beside them what was to be evaluated.

A run folder holds ``results/<suite id>/suite.json`` (the `Manifest`) and
``results/<suite id>/<source>.jsonl`` (one `Record` a line). All that is reported is computed from these.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from pydantic import TypeAdapter, ValidationError

from lite_bench.harness.core import Cost, Record, Split, Task
from lite_bench.harness.errors import DataError, UsageError
from lite_bench.harness.files import append_line, write_atomically, write_errors

MANIFEST = "suite.json"
RESULTS = "results"
SCHEMA = 1
"""Version of the layout of manifests and records; raised when an older program would misread them."""
SHARED = ("suite", "source", "learner", "backbone", "checkpoint", "data", "version")
"""Texts that most records of a file have in common, and so may share one copy of."""
COUNTS = ("way", "n_support", "n_query")
COST_COUNTS = ("macs", "macs_per_query", "published_macs", "parameters", "trainable", "adapted", "peak_bytes")
MOST = 2**63
"""No count of anything reaches this; floats hold what is below, and sums of it."""
IDENTITY = ("suite", "learner", "backbone", "image_size", "checkpoint")
"""What every record has in common with its manifest, beside its data; others belong to another evaluation."""


@dataclass(frozen=True)
class Manifest:
    """What an evaluation set out to measure; results are complete only against it.

    Attributes:
        suite: suite and version, such as ``glyphs@1``.
        split: ``validation`` or ``test``.
        seed: seed of the list of tasks; 0 is the one that everybody evaluates on.
        sources: the protocol's number of tasks by source, in reporting order.
        groups: reported groups and the sources each averages over.
        learner: entry-point name of the learner.
        backbone: name of the backbone.
        image_size: side of the images in pixels.
        checkpoint: SHA-256 of the weights file, or ``untrained``.
        data: fingerprint of the suite's data.
        precision: number format of the networks, such as ``float32`` or ``bfloat16``.
        source_data: fingerprint of each source's own data, for a suite of several data sets; ``data`` for the others.
        missing: why a source could not be evaluated, by source.
        digests: SHA-256 over the names of the protocol's tasks, one a line, by source.
        label: the name the user gave this row, or empty.
        metrics: what is reported of grouped queries, of `GROUP_METRICS`; the first is the accuracy of a source.
        limit: tasks per source if fewer than the protocol's were asked for, else None; then the results are
            partial and never more than a preview.
        versions: of the packages that made the records, several where it went on with others, by package.
        commands: that were typed to make them.
        schema: version of the layout of this file and of the records beside it.
    """

    suite: str
    split: Split
    seed: int
    sources: dict[str, int]
    groups: dict[str, list[str]]
    learner: str
    backbone: str
    image_size: int
    checkpoint: str
    data: str
    precision: str = "float32"
    source_data: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    metrics: list[str] = field(default_factory=list)
    label: str = ""
    limit: int | None = None
    versions: dict[str, list[str]] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    schema: int = SCHEMA

    def data_of(self, source: str) -> str:
        """Fingerprint of the data of ``source``."""
        return self.source_data.get(source, self.data)

    def expected(self, source: str) -> int:
        """Number of tasks of ``source`` that were asked for."""
        protocol = self.sources[source]
        return protocol if self.limit is None else min(protocol, self.limit)


@dataclass(frozen=True)
class Results:
    """All records of one evaluation.

    Attributes:
        run: the run folder.
        manifest: what was to be evaluated.
        records: by source, in the manifest's order, each task once; empty where nothing is done yet.
        files: that the records were read from, in the same order.
        unfinished: of them, those whose last line was cut short, by a kill or a full disk, and is left out.
    """

    run: Path
    manifest: Manifest
    records: dict[str, tuple[Record, ...]]
    files: tuple[Path, ...] = ()
    unfinished: tuple[Path, ...] = ()


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    """Build the checker of ``kind``'s fields, once."""
    return TypeAdapter(kind)


def file_name(name: str) -> str:
    """Spell a suite id or source as a file name, reversibly (`urllib.parse.unquote` undoes it)."""
    text = quote(name, safe="@+=,")
    return f"%2E{text[1:]}" if text.startswith(".") else text


def results_folder(run: Path, suite: str) -> Path:
    """The folder of ``suite``'s records and manifest inside run folder ``run``."""
    return run / RESULTS / file_name(suite)


def records_path(run: Path, suite: str, source: str) -> Path:
    """The file of one source's records."""
    return results_folder(run, suite) / f"{file_name(source)}.jsonl"


def predictions_path(run: Path, suite: str, source: str) -> Path:
    """The file of one source's kept predictions."""
    return results_folder(run, suite) / "predictions" / f"{file_name(source)}.jsonl"


def joined_versions(parts: Iterable[Mapping[str, Sequence[str]]]) -> dict[str, list[str]]:
    """Join the versions of packages that parts of an evaluation were made with, each once, in their order."""
    joined: dict[str, dict[str, None]] = {}
    for part in parts:
        for package, versions in part.items():
            joined.setdefault(package, {}).update(dict.fromkeys(versions))
    return {package: list(versions) for package, versions in joined.items()}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest`` to ``folder`` (see `results_folder`), atomically.

    Raises:
        RunError: it cannot be written.
    """
    write_atomically(folder / MANIFEST, json.dumps(asdict(manifest), indent=2, ensure_ascii=False) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of ``folder``.

    Raises:
        DataError: it is missing or malformed, of an unknown schema, asks for no tasks, or a group names a source that
            is not there.
    """
    path = folder / MANIFEST
    try:
        _check_schema(_schema_of(_read(path)), str(path))
        manifest: Manifest = _adapter(Manifest).validate_json(_read(path), strict=True)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; repeat `lite-bench eval` on this run to make it.") from error
    except ValidationError as error:
        reason = _reason(error)
        raise DataError(f"{path} is damaged: {reason}; delete it and repeat `lite-bench eval`.") from error
    members = {source for group in manifest.groups.values() for source in group}
    strangers = ", ".join(sorted(members - manifest.sources.keys()))
    if strangers:
        raise DataError(f"{path} is damaged: its groups name unknown sources: {strangers}.")
    if min([*manifest.sources.values(), 1 if manifest.limit is None else manifest.limit]) < 1:
        raise DataError(f"{path} is damaged: it asks for less than one task; delete it and repeat `lite-bench eval`.")
    return manifest


def _schema_of(text: bytes) -> object:
    """Give the schema that a manifest or record says it has; that of the first version if it says none."""
    try:
        content = json.loads(text)
    except ValueError:
        return SCHEMA  # what is wrong with it is said by whoever parses it
    return content.get("schema", 1) if isinstance(content, dict) else SCHEMA


def _check_schema(schema: object, place: str) -> None:
    """Refuse what a later version wrote, which this one would misread."""
    if schema != SCHEMA:
        raise DataError(
            f"{place} has the schema {schema!r}, and this version of lite-bench reads {SCHEMA}; read it with the "
            "version that wrote it (environment.json beside it names it)."
        )


def append_record(path: Path, record: Record) -> None:
    """Append ``record`` to ``path`` as one line, whole or not at all.

    Raises:
        RunError: it cannot be written.
    """
    append_line(path, json.dumps(asdict(record), ensure_ascii=False, allow_nan=False))


def read_records(path: Path) -> list[Record]:
    """Read all records of ``path`` in file order; none if the file does not exist.

    An unfinished last line, left by a kill, is ignored. Fields that this version does not know are ignored.

    Raises:
        DataError: any other line is malformed, lacks a field, has an accuracy outside 0 to 1, a time that is no number
            of seconds, or an unknown schema.
    """
    return _read_lines(path)[0]


def _read_lines(path: Path) -> tuple[list[Record], bool]:
    """Read the records of ``path`` and say whether its last line is unfinished."""
    lines, unfinished = _whole_lines(path)
    copies: dict[object, object] = {}
    return [_parse_record(path, number, line, copies) for number, line in enumerate(lines, start=1)], unfinished


def _whole_lines(path: Path) -> tuple[list[bytes], bool]:
    """List the lines of ``path`` without an unfinished last one, and say if there is one; none without a file."""
    lines = _read(path).split(b"\n") if path.exists() else []
    lines = lines[:-1] if lines and not lines[-1] else lines
    unfinished = bool(lines) and not _is_json(lines[-1])
    return lines[:-1] if unfinished else lines, unfinished


def append_predictions(path: Path, task: str, predictions: Mapping[str, Sequence[int]]) -> None:
    """Append the predicted classes of one task, by group, to ``path`` as one line.

    Raises:
        RunError: it cannot be written.
    """
    append_line(path, json.dumps({"task": task, "predictions": predictions}, ensure_ascii=False))


def read_predictions(path: Path) -> dict[str, dict[str, list[int]]]:
    """Read the kept predictions of ``path``: task -> group -> predicted classes in order; of a task twice, the last.

    An unfinished last line, left by a kill, is ignored.

    Raises:
        DataError: any other line is malformed.
    """
    found: dict[str, dict[str, list[int]]] = {}
    for number, line in enumerate(_whole_lines(path)[0], start=1):
        try:
            kept: _Predictions = _adapter(_Predictions).validate_json(line, strict=True)
        except ValidationError as error:
            raise DataError(f"{path}, line {number} is damaged: {_reason(error)}; use --overwrite.") from error
        found[kept.task] = kept.predictions
    return found


@dataclass(frozen=True)
class _Predictions:
    task: str
    predictions: dict[str, list[int]]


def repair(path: Path) -> bool:
    """Make ``path`` fit to append to: cut off an unfinished last line, end a finished one with a newline.

    Call it once, before any process appends.

    Returns:
        whether anything was cut off.

    Raises:
        RunError: the file cannot be written.
    """
    content = _read(path) if path.exists() else b""
    body = content.removesuffix(b"\n")
    last = body[body.rfind(b"\n") + 1 :]
    if not content or _is_json(last):
        if content and content == body:
            append_line(path, "")
        return False
    with write_errors(path):
        os.truncate(path, len(body) - len(last))
    return True


def read_results(run: Path) -> list[Results]:
    """Read every suite's results in run folder ``run``, ordered by suite id.

    Raises:
        DataError: a file is damaged, or records contradict each other or their manifest.
    """
    folders = sorted(path.parent for path in run.glob(f"{RESULTS}/*/{MANIFEST}"))
    return [read_evaluation(folder) for folder in folders]


def read_evaluation(folder: Path, only: Sequence[Path] | None = None) -> Results:
    """Read one suite's manifest and records.

    Args:
        folder: see `results_folder`.
        only: read just these of its files of records, or all.

    Raises:
        DataError: a file is damaged, or records contradict each other or their manifest.
    """
    manifest = read_manifest(folder)
    for path in folder.glob("*.jsonl"):
        source, name = unquote(path.stem), f"{file_name(unquote(path.stem))}.jsonl"
        if source not in manifest.sources:
            raise DataError(f"{path} holds records of a source that {MANIFEST} beside it does not list; remove one.")
        if path.name != name:
            raise DataError(
                f"{path} is not named as records of {source} are, and would be passed over; call it {name}."
            )
    records, files, unfinished = {}, [], []
    names = None if only is None else {path.name for path in only}
    for source in manifest.sources:
        path = folder / f"{file_name(source)}.jsonl"
        wanted = (names is None or path.name in names) and _exists(path)
        records[source], cut = _read_source(path, manifest, source) if wanted else ((), False)
        files += [path] * wanted
        unfinished += [path] * cut
    run = folder.parents[1] if folder.parent.name == RESULTS else folder
    return Results(run, manifest, records, tuple(files), tuple(unfinished))


def _read_source(path: Path, manifest: Manifest, source: str) -> tuple[tuple[Record, ...], bool]:
    """Read one source's records, each task once, and check them against the manifest; say if a line was left out."""
    unique: dict[str, Record] = {}
    found, unfinished = _read_lines(path)
    for number, record in enumerate(found, start=1):
        _check_identity(path, number, manifest, source, record)
        earlier = unique.setdefault(record.task, record)
        if earlier.accuracy != record.accuracy:
            raise DataError(
                f"{path}, line {number}: task {record.task} has accuracy {record.accuracy}, but "
                f"{earlier.accuracy} on an earlier line; delete the file and evaluate this source again."
            )
    return tuple(unique.values()), unfinished


def _check_identity(path: Path, number: int, manifest: Manifest, source: str, record: Record) -> None:
    """Refuse a record of another evaluation than the manifest's, or of a task that its list does not have."""
    try:
        task = Task.parse(record.task)
    except UsageError as error:
        raise DataError(f"{path}, line {number}: {error}.") from error
    pairs = [(name, getattr(record, name), getattr(manifest, name)) for name in IDENTITY]
    pairs += [("data", record.data, manifest.data_of(source)), ("source", record.source, source)]
    pairs += [("task's suite", task.suite, manifest.suite)]
    pairs += [("task's source", task.source, source), ("split", task.split, manifest.split)]
    for name, found, wanted in [*pairs, ("seed", task.seed, manifest.seed)]:
        if found != wanted:
            raise DataError(
                f"{path}, line {number}: {name} is {found!r}, but this evaluation has {wanted!r}; records of "
                "different evaluations do not mix. Delete the file and evaluate this source again."
            )
    if task.index >= manifest.sources[source] or str(task) != record.task:
        raise DataError(
            f"{path}, line {number}: {record.task} is not one of the protocol's {manifest.sources[source]} tasks; "
            "delete the file and evaluate this source again."
        )
    if manifest.metrics and not record.groups and not record.failed:
        raise DataError(_damaged(path, number, "its queries have no groups, whose scores are reported"))


def _parse_record(path: Path, number: int, line: bytes, copies: dict[object, object]) -> Record:
    """Parse line ``number`` of ``path``; ``copies`` holds what earlier lines had in common with it."""
    try:
        record: Record = _adapter(Record).validate_json(line, strict=True)
    except ValidationError as error:
        _check_schema(_schema_of(line), f"{path}, line {number}")
        raise DataError(_damaged(path, number, _reason(error))) from error
    _check_schema(record.schema, f"{path}, line {number}")
    wrong = _wrong_score(record) or _wrong_number(record)
    if record.cost is not None and record.cost not in copies:
        wrong = wrong or _wrong_cost(record.cost)
    if wrong:
        raise DataError(_damaged(path, number, wrong))
    for name in SHARED:
        value = getattr(record, name)
        # a million records fit in memory because they share what they have in common; frozen to all others
        object.__setattr__(record, name, copies.setdefault(value, value))
    if record.cost is not None:
        object.__setattr__(record, "cost", copies.setdefault(record.cost, record.cost))
    return record


def _wrong_score(record: Record) -> str:
    """Say which of a record's scores cannot be; empty if all can."""
    if record.accuracy is None:
        if not record.failed:
            return "there is no accuracy, and no reason why"
    elif not 0.0 <= record.accuracy <= 1.0:
        return f"accuracy {record.accuracy} is not between 0 and 1"
    for group in record.groups:
        for score in (group.frame_accuracy, group.video_accuracy, group.frames_to_recognition):
            if not 0.0 <= score <= 1.0:
                return f"{score} of group {group.name} is not between 0 and 1"
    alike = len({group.name for group in record.groups}) < len(record.groups)
    return "two of its groups have one name" if alike else ""


def _wrong_number(record: Record) -> str:
    """Say which of a record's times and counts cannot be; empty if all can."""
    for name in ("adapt_seconds", "classify_seconds"):
        if not 0.0 <= getattr(record, name) < math.inf:
            return f"{name} {getattr(record, name)} is not a number of seconds"
    for name in COUNTS:
        if not 0 <= getattr(record, name) < MOST:
            return f"{name} {getattr(record, name)} is not a count"
    return "" if record.n_query or record.failed else "it has an accuracy of no queries"


def _wrong_cost(cost: Cost) -> str:
    """Say which count of a cost cannot be; empty if all can."""
    counts = {name: getattr(cost, name) for name in COST_COUNTS}
    wrong = (f"cost.{name} {n} is not a count" for name, n in counts.items() if n is not None and not 0 <= n < MOST)
    return next(wrong, "")


def _damaged(path: Path, number: int, reason: str) -> str:
    remedy = "delete the line and repeat `lite-bench eval` to redo its task"
    return f"{path}, line {number} is damaged: {reason}; {remedy}."


def _reason(error: ValidationError) -> str:
    """The first thing wrong, with the field it is wrong in."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"]
    return f"{place}: {message}" if place else message


def _exists(path: Path) -> bool:
    """Whether there is such a file; there is none of a name that no file can have, as of a source with a long name."""
    try:
        return path.exists()
    except OSError:
        return False


def _is_json(line: bytes) -> bool:
    """Whether ``line`` is whole; no proper beginning of a record is JSON."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _read(path: Path) -> bytes:
    """Read all of ``path``.

    Raises:
        DataError: it exists but cannot be read.
        FileNotFoundError: it does not exist.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"Could not read {path}: {error.strerror}; check the path and its permissions.") from error
