"""Which run folders are the runs that a plan means, and how far they are.

A run is the one that is meant if every setting in `DECIDING` is the plan's, and for a learner that is meta-trained also
every one in `DECIDING_TRAINING`. What is in neither changes speed, memory or chance alone (device, seed; batch sizes,
but for the learners of which a plan says otherwise), or only which checkpoint is chosen (validation).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lite_bench.harness.core import Record
from lite_bench.harness.errors import DataError, LiteBenchError
from lite_bench.harness.records import MANIFEST, RESULTS
from lite_bench.harness.settings import Settings, read_config, validate
from lite_bench.leaderboard.entries import Entry, preview
from lite_bench.leaderboard.evaluations import find_results
from lite_bench.leaderboard.gathering import gather
from lite_bench.leaderboard.training import UNTRAINED, WITHOUT_H

DECIDING = ("learner", "params", "backbone", "pretrained", "weights", "pixel_range", "image_size")
DECIDING_TRAINING = (
    *("suite", "suite_options", "gradient", "lite_h", "tasks", "tasks_per_step", "epoch"),
    *("optimizer", "lr", "lr_decay", "lr_decay_every", "lr_linear", "backbone_lr_scale"),
)
IF_ASKED = ("pretrained", "pixel_range")
"""Settings that decide only where the plan sets them; left open, the data's protocol or the backbone sets them."""
ANY = "FILE"
"""A value that stands for any, as long as one is given."""
NEAR = 2
"""Settings that may differ in a run that is named as nearly the one that is meant."""
NAMED = 3
"""Runs that are named as near at most."""


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        path: the folder.
        settings: it was made with, or None if it does not say.
        trained: training tasks done; None if it was made to evaluate a learner that is not meta-trained.
        entries: what it was evaluated on, if it was.
        stand_ins: whether it was trained on stand-in data.
    """

    path: Path
    settings: Settings | None
    trained: int | None
    entries: tuple[Entry, ...]
    stand_ins: bool = False


@dataclass(frozen=True)
class Wanted:
    """A run that a plan needs.

    Attributes:
        settings: all resolved.
        suite: id of the suite that it is evaluated on.
        sources: of the suite that it has to have, with their number of tasks.
        untrained: whether it is evaluated without meta-training.
        fixed_batches: whether its results depend on the batch size, which then decides too.
        defaults: values of options of the suite that need not be written.
        gradients: lists of estimators that may stand for each other.
    """

    settings: Settings
    suite: str
    sources: Mapping[str, int]
    untrained: bool
    fixed_batches: bool
    defaults: Mapping[str, Any]
    gradients: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Match:
    """What was found of a run that a plan needs.

    Attributes:
        run: the folder that comes furthest, or None.
        where: this folder and the others that its results are in.
        entry: its results, if it has some that count.
        trained: training tasks done.
        done: evaluation tasks done, by source.
        notes: why something does not count, or nearly does, one sentence each.
    """

    run: Path | None
    entry: Entry | None
    trained: int
    done: Mapping[str, int]
    notes: tuple[str, ...]
    where: tuple[Path, ...] = ()


def read_runs(paths: Sequence[Path] | None, suite: str, default: Path) -> list[Run]:
    """Read the run folders at or below ``paths``, and what they were evaluated on of one suite.

    Args:
        paths: that the user named, or None.
        suite: its id; results of other versions of it are read too, those of other suites are not.
        default: where runs are if none was named; it need not exist.

    Raises:
        RunError: a path that the user named does not exist.
        DataError: a file of a run is damaged.
    """
    named = [default] if paths is None and default.exists() else paths or []
    holding = [path for path in named if not path.is_dir() or any(path.rglob(f"{RESULTS}/*/{MANIFEST}"))]
    name = suite_name(suite)
    results = [each for each in find_results(holding) if suite_name(each.manifest.suite) == name]
    by_run: dict[Path, list[Entry]] = {}
    for table in gather(results):
        for entry in table:
            for run in entry.runs:
                by_run.setdefault(run, []).append(entry)
    below = {path.parent for each in named if each.is_dir() for path in each.rglob("config.toml")}
    known = {run.resolve() for run in by_run}
    folders = [*by_run, *(path for path in below if path.resolve() not in known)]
    return [_read_run(path, by_run.get(path, ())) for path in sorted(folders)]


def suite_name(suite: str | None) -> str:
    """Give the name of a suite without its version and options."""
    return (suite or "").partition("@")[0]


def _read_run(folder: Path, entries: Iterable[Entry]) -> Run:
    """Read one run folder.

    Raises:
        DataError: its settings are damaged.
    """
    config = folder / "config.toml"
    try:
        settings = validate(read_config(config)) if config.is_file() else None
    except LiteBenchError as error:
        raise DataError(f"{config} is damaged: {error} Restore it or remove the folder.") from error
    stand_ins = _facts(folder / "environment.json").get("synthetic") is True
    return Run(folder, settings, _trained(folder, settings), tuple(entries), stand_ins)


def _trained(folder: Path, settings: Settings | None) -> int | None:
    """Read how many training tasks are done: all of them if the run does not say, None if it is no training.

    Raises:
        DataError: the file that says so is damaged.
    """
    path = folder / "run.json"
    if not path.is_file():
        return settings.tasks if settings else 0
    progress = _facts(path)
    if progress.get("kind") == "eval":
        return None
    tasks = progress.get("tasks", 0)
    return tasks if isinstance(tasks, int) else 0


def _facts(path: Path) -> dict[str, Any]:
    """Read a JSON file of named values; empty if there is none.

    Raises:
        DataError: it is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}; restore it or remove it.") from error
    return content if isinstance(content, dict) else {}


def match(wanted: Wanted, runs: Sequence[Run]) -> Match:
    """Find the run that ``wanted`` describes: of several, the one that comes furthest, and then the first."""
    found, near = [], []
    for run in runs:
        different = differences(wanted, run)
        if not different:
            found.append(_look(wanted, run))
        elif len(different) <= NEAR and _akin(wanted, run):
            near.append((len(different), f"{run.path} matches but for {' and '.join(different)}."))
    nearly = [text for _, text in sorted(near, key=lambda pair: pair[0])[:NAMED]]
    useful = [each for each in found if each.run is not None]
    useless = [note for each in found if each.run is None for note in each.notes]
    if not useful:
        return Match(None, None, 0, {}, (*useless, *nearly))
    best = max(useful, key=lambda each: (sum(each.done.values()), each.trained))
    others = [str(each.run) for each in useful if each.run not in best.where]
    taken = "the one that comes furthest is taken, of equal ones the first"
    also = [f"{', '.join(others)} would do as well; {taken}."] if others else []
    notes = (*best.notes, *also, *([] if best.entry else [*useless, *nearly]))
    return replace(best, notes=notes)


def _akin(wanted: Wanted, run: Run) -> bool:
    """Whether a run is of the learner that is meant, so that it is worth naming."""
    return run.settings is not None and run.settings.learner == wanted.settings.learner


def differences(wanted: Wanted, run: Run) -> list[str]:
    """List the deciding settings of ``run`` that are not those that are meant, each as ``lite_h: 20, not 40``."""
    if run.settings is None:
        return ["its settings, which are not there (config.toml)"]
    names = [name for name in DECIDING if name not in IF_ASKED or getattr(wanted.settings, name) is not None]
    names += ["batch_size"] * wanted.fixed_batches + [*DECIDING_TRAINING] * (not wanted.untrained)
    if wanted.settings.gradient in WITHOUT_H and "lite_h" in names:
        names.remove("lite_h")
    found: list[str] = []
    for name in names:
        mine, theirs = _values(wanted, run.settings, name), _values(wanted, wanted.settings, name)
        for key in dict.fromkeys([*theirs, *mine]):
            ours, asked = mine.get(key), theirs.get(key)
            if not _same(key, ours, asked, wanted.gradients):
                found.append(f"{key}: {_shown(ours)}, {_not(asked)}")
    return found


def _values(wanted: Wanted, settings: Settings, name: str) -> dict[str, Any]:
    """Give a setting by name, options one by one, in a form in which equal ones are equal."""
    value = getattr(settings, name)
    if name == "params":
        return {f"-P {key}": _plain(each) for key, each in value.items()}
    if name == "suite_options":
        version = (settings.suite or "").partition("@")[2]
        options = {**wanted.defaults, **({"version": version} if version else {}), **value}
        return {f"-S {key}": _plain(each) for key, each in options.items()}
    return {name: suite_name(value) if name == "suite" else _plain(value)}


def _plain(value: Any) -> Any:
    """Write a value as text, so that what was typed is what a file holds; numbers by their value."""
    if value is None:
        return None
    text = str(value).lower() if isinstance(value, bool) else str(value)
    try:
        return float(text)
    except ValueError:
        return text


def _same(key: str, ours: Any, asked: Any, gradients: Sequence[Sequence[str]]) -> bool:
    if asked == ANY:
        return ours is not None
    if key == "gradient":
        return ours == asked or any({ours, asked} <= set(alike) for alike in gradients)
    return bool(ours == asked)


def _shown(value: Any) -> str:
    return "not set" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _not(asked: Any) -> str:
    """Say that it is not what is asked for."""
    if asked is None:
        return "which the plan does not set"
    return "where one must be given" if asked == ANY else f"not {_shown(asked)}"


def _look(wanted: Wanted, run: Run) -> Match:
    """Look at what a run that is meant was evaluated on; one that is of no use is given without ``run``.

    Of no use is a run that was trained on stand-ins, or evaluated on them, as it was then trained on them too; one that
    only evaluates where training is meant; and one without training of which no results count.
    """
    if not wanted.untrained and (run.stand_ins or run.trained is None):
        why = "it was trained on stand-in data" if run.stand_ins else "it was evaluated without being meta-trained"
        return Match(None, None, 0, {}, (f"{run.path} does not count: {why}.",))
    notes: list[str] = []
    counting = []
    for entry in run.entries:
        reason = _uncounted(wanted, entry)
        if reason is None:
            counting.append(entry)
        elif reason:
            notes.append(f"{run.path} does not count: {reason}.")
    if run.settings is not None and not wanted.untrained and run.settings.gradient != wanted.settings.gradient:
        notes.append(f"{run.path} has --gradient {run.settings.gradient}, which stands for {wanted.settings.gradient}.")
    best = max(counting, key=lambda entry: sum(_done(entry, wanted).values()), default=None)
    trained = run.trained or 0
    finished = wanted.untrained or run.settings is None or trained >= run.settings.tasks
    if best is not None and not finished:
        notes.append(f"{run.path} does not count: it was evaluated before its training was finished.")
        best = None
    records = [record for source in wanted.sources for record in (best.records.get(source, ()) if best else ())]
    failed = sum(bool(record.failed) for record in records)
    if failed:
        notes.append(f"{run.path} has {failed} failed tasks, so that a figure is missing; its records say why.")
    stand_in = any(entry.synthetic for entry in run.entries)
    if best is None and (stand_in or (wanted.untrained and notes)):
        return Match(None, None, 0, {}, tuple(notes))
    where = tuple(dict.fromkeys([run.path, *(best.runs if best else ())]))
    return Match(run.path, best, trained, _done(best, wanted) if best else {}, tuple(notes), where)


def _done(entry: Entry, wanted: Wanted) -> dict[str, int]:
    def sound(records: Iterable[Record]) -> int:
        return sum(not record.failed for record in records)

    return {source: sound(entry.records.get(source, ())) for source in wanted.sources}


def _uncounted(wanted: Wanted, entry: Entry) -> str | None:
    """Say why results do not count, empty if they are of other sources altogether, None if they do."""
    manifest = entry.manifest
    if manifest.suite != wanted.suite:
        return f"it was evaluated on {manifest.suite}, not {wanted.suite}"
    if entry.synthetic:
        return "its results are of stand-in data, which say nothing about the real benchmark"
    cut = preview(manifest)
    if cut is not None:
        return f"its results are a preview of {cut} tasks per source (--limit)"
    if (manifest.split, manifest.seed) != ("test", 0):
        return f"it was evaluated on the {manifest.split} tasks of seed {manifest.seed}, not the test tasks of seed 0"
    if (manifest.checkpoint == UNTRAINED) is not wanted.untrained:
        return "it was evaluated " + ("with trained weights" if wanted.untrained else "without being meta-trained")
    for source, tasks in wanted.sources.items():
        if manifest.sources.get(source, tasks) != tasks:
            return f"it has {manifest.sources[source]} tasks of {source}, where the suite has {tasks}"
    return None if any(source in manifest.sources for source in wanted.sources) else ""
