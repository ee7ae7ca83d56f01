"""One row per entry: who was evaluated, how it was made, what it scored and what that cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lite_bench.harness.cost_statistics import CostSummary
from lite_bench.harness.records import Manifest
from lite_bench.harness.statistics import Estimate, Scores, SourceScore, scores_of, summarise
from lite_bench.leaderboard.comparison import Comparison
from lite_bench.leaderboard.entries import OTHER_KIND, Entry, preview
from lite_bench.leaderboard.intervals import Interval, Kind, interval_of, interval_of_mean
from lite_bench.leaderboard.labels import tell_apart
from lite_bench.leaderboard.training import Training

NOT_EVALUATED = "Not part of this evaluation."
NO_DATA = "The data of this source was missing; see `lite-bench data status`."
NO_MEAN = "No mean: not every source it averages over is complete."
FAILED = "{failed} of {done} tasks failed (see their records); a mean over the others would flatter."
UNFINISHED = "{missing} of {expected} tasks are missing; repeat `lite-bench eval` to finish them."
SYNTHETIC = "Stand-in data: shows that everything runs, and says nothing about the real benchmark."
CUT_SHORT = "The last line of {files} is cut short, as by a kill; it is left out and all before it are used."


@dataclass(frozen=True)
class Cell:
    """One score, or why there is none.

    Attributes:
        estimate: accuracy as a fraction, or None if anything it averages over is missing.
        missing: why there is no estimate, or empty.
        done: tasks of a source that are done.
        expected: tasks of a source that were asked for.
        failed: tasks of a source that failed.
        survivors: accuracy over the tasks that did not fail, if any failed.
        interval: of the kind that the table shows, or None where there is no telling.
        rank: rank in the column, ties sharing theirs; None without an estimate, and of metrics.
        best: whether no other score in the column is better.
        tied: whether it is not the best, and a test on the same tasks does not tell it from the best.
        versus_best: this score less the best on the same tasks; None for the best.
    """

    estimate: Estimate | None
    missing: str = ""
    done: int | None = None
    expected: int | None = None
    failed: int = 0
    survivors: Estimate | None = None
    interval: Interval | None = None
    rank: float | None = None
    best: bool = False
    tied: bool = False
    versus_best: Comparison | None = None


@dataclass(frozen=True)
class Row:
    """One entry in a table.

    Attributes:
        manifest: what was evaluated.
        runs: the run folders that hold it, as text.
        versions: of the packages that made the records, several if parts of them differ, by package.
        name: the first run folder's own name, its time stamp.
        label: what the table calls the row, different from that of every other.
        training: how the learner was made.
        notes: what makes the row less than it seems.
        sources: cells by source.
        groups: cells by group.
        metrics: cells of what else is reported of a source, by ``source: metric``; they carry no rank.
        scores: the single scores behind the cells of sources and metrics that have an estimate, by column.
        synthetic: True for stand-in data.
        rank: average rank over all sources, None if any is missing.
        costs: what a task cost, or None if that was not measured.
        support: mean number of support items of a task; over several sources, the mean of their means; None of no task.
        records: number of tasks that are done.
        failed: number of tasks that failed.
    """

    manifest: Manifest
    runs: tuple[str, ...]
    name: str
    label: str
    training: Training
    notes: tuple[str, ...]
    sources: dict[str, Cell]
    groups: dict[str, Cell]
    synthetic: bool
    metrics: dict[str, Cell] = field(default_factory=dict)
    scores: dict[str, Scores] = field(default_factory=dict)
    versions: dict[str, list[str]] = field(default_factory=dict)
    rank: float | None = None
    costs: CostSummary | None = None
    support: float | None = None
    records: int = 0
    failed: int = 0

    @property
    def cells(self) -> dict[str, Cell]:
        """All cells: sources, groups and metrics, by column."""
        return {**self.sources, **self.groups, **self.metrics}


def metric_column(source: str, metric: str) -> str:
    """Name the column of what else is reported of a source."""
    return f"{source}: {metric}"


def make_row(entry: Entry, interval: Kind = Kind.protocol) -> Row:
    """Compute the row of one entry, its intervals of one kind."""
    manifest, summary = entry.manifest, summarise(entry.manifest, entry.records)
    sources = {name: _source_cell(score, manifest.missing.get(name)) for name, score in summary.sources.items()}
    groups = {name: Cell(mean, "" if mean else NO_MEAN) for name, mean in summary.groups.items()}
    metrics = _metric_cells(manifest, summary.sources, sources)
    scores = _scores(entry, {**sources, **metrics})
    return Row(
        manifest=manifest,
        runs=tuple(run.as_posix() for run in entry.runs),
        name=entry.runs[0].resolve().name,
        label=manifest.label or manifest.learner,
        training=entry.training,
        notes=_notes(entry),
        sources=_with_intervals(sources, scores, interval),
        groups={name: _group_interval(cell, manifest.groups[name], scores, interval) for name, cell in groups.items()},
        synthetic=entry.synthetic,
        metrics=_with_intervals(metrics, scores, interval),
        scores=scores,
        versions=entry.versions,
        costs=summary.costs,
        support=_support(entry),
        records=sum(score.done for score in summary.sources.values()),
        failed=summary.failed,
    )


def with_own_labels(rows: Sequence[Row]) -> list[Row]:
    """Give rows that share a label one of their own: with what differs, else the run's time stamp, else its path."""
    labels = tell_apart([row.label for row in rows], [_parts(row) for row in rows])
    return [replace(row, label=label) for row, label in zip(rows, labels, strict=True)]


def _parts(row: Row) -> tuple[str, ...]:
    """Say what a row may be known by, the most telling first."""
    manifest, training = row.manifest, row.training
    method = training.gradient if training.h is None else f"{training.gradient} H={training.h}"
    options = " ".join(f"{name}={value}" for name, value in training.options.items()) or "defaults"
    setup = (method, options, manifest.backbone, f"{manifest.image_size} px", training.pretraining, training.text)
    return (*setup, manifest.precision, row.name, row.runs[0])


def _notes(entry: Entry) -> tuple[str, ...]:
    """Say what makes the row less than it seems."""
    notes = [*entry.training.notes, *([SYNTHETIC] if entry.synthetic else [])]
    if preview(entry.manifest) is not None:
        notes.append(_limit_note(entry.manifest))
    if entry.unfinished:
        notes.append(CUT_SHORT.format(files=" and ".join(path.name for path in entry.unfinished)))
    return tuple(notes)


def _limit_note(manifest: Manifest) -> str:
    full = sorted(set(manifest.sources.values()))
    numbers = str(full[0]) if len(full) == 1 else f"{full[0]} to {full[-1]}"
    return f"Preview: at most {manifest.limit} tasks per source (--limit); the protocol has {numbers}."


def _support(entry: Entry) -> float | None:
    sizes = [[record.n_support for record in records] for records in entry.records.values() if records]
    return sum(sum(each) / len(each) for each in sizes) / len(sizes) if sizes else None


def _scores(entry: Entry, cells: Mapping[str, Cell]) -> dict[str, Scores]:
    """List the single scores behind each cell that has an estimate, by column."""
    metrics = entry.manifest.metrics
    found = {}
    for source, records in entry.records.items():
        columns = {source: metrics[0] if metrics else None}
        columns |= {metric_column(source, metric): metric for metric in metrics[1:]}
        for column, metric in columns.items():
            if cells[column].estimate is not None:
                found[column] = scores_of(records, metric)
    return found


def _with_intervals(cells: Mapping[str, Cell], scores: Mapping[str, Scores], kind: Kind) -> dict[str, Cell]:
    """Give every cell with scores its interval."""
    return {
        column: replace(cell, interval=interval_of(scores[column], kind)) if column in scores else cell
        for column, cell in cells.items()
    }


def _group_interval(cell: Cell, members: Sequence[str], scores: Mapping[str, Scores], kind: Kind) -> Cell:
    """Give a group's cell the interval of the mean of its sources' means."""
    if cell.estimate is None:
        return cell
    return replace(cell, interval=interval_of_mean([scores[member] for member in members], kind))


def _metric_cells(manifest: Manifest, scores: Mapping[str, SourceScore], cells: Mapping[str, Cell]) -> dict[str, Cell]:
    """Show what else is reported of each source, where the source itself is shown."""
    found = {}
    for source, score in scores.items():
        for metric in manifest.metrics[1:]:
            shown = cells[source].estimate is not None
            value = score.metrics.get(metric) if shown else None
            found[metric_column(source, metric)] = replace(cells[source], estimate=value)
    return found


def _source_cell(score: SourceScore, without: str | None = None) -> Cell:
    """Show a source only when all of it is there; ``without`` says why its data was missing, if it was."""
    if score.failed:
        reason = FAILED.format(failed=score.failed, done=score.done)
        if not score.complete:
            reason += f" {UNFINISHED.format(missing=score.expected - score.done, expected=score.expected)}"
        return Cell(None, reason, score.done, score.expected, score.failed, score.survivors)
    if score.complete:
        return Cell(score.estimate, "", score.done, score.expected)
    if without and not score.done:
        reason = without if without == OTHER_KIND else NO_DATA
        return Cell(None, reason, score.done, score.expected)
    reason = UNFINISHED.format(missing=score.expected - score.done, expected=score.expected)
    return Cell(None, reason, score.done, score.expected)
