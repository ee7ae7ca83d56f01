"""One row per evaluation: who was evaluated, how it was trained, and what it scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lite_bench.harness.cost_statistics import CostSummary
from lite_bench.harness.records import Manifest, Results
from lite_bench.harness.statistics import Estimate, SourceScore, summarise
from lite_bench.leaderboard.training import read_training

NOT_EVALUATED = "Not part of this evaluation."
NO_DATA = "The data of this source was missing; see `lite-bench data status`."
NO_MEAN = "No mean: not every source it averages over is complete."
FAILED = "{failed} of {done} tasks failed (see their records); a mean over the others would flatter."
UNFINISHED = "{missing} of {expected} tasks are missing; repeat `lite-bench eval` to finish them."
SYNTHETIC = "Stand-in data: shows that everything runs, and says nothing about the real benchmark."


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
        rank: rank in the column, ties sharing theirs; None without an estimate.
        best: True if none in the column is significantly better.
    """

    estimate: Estimate | None
    missing: str = ""
    done: int | None = None
    expected: int | None = None
    failed: int = 0
    survivors: Estimate | None = None
    rank: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One evaluation of one learner on one suite.

    Attributes:
        manifest: what was evaluated.
        run: the run folder, as text.
        name: the run folder's own name, its time stamp.
        label: what the table calls the learner, unique together with the next columns.
        training: how it was trained.
        notes: what makes the row less than it seems.
        sources: cells by source.
        groups: cells by group.
        metrics: cells of what else is reported of a source, by ``source: metric``; they carry no rank.
        synthetic: True for stand-in data.
        rank: average rank over all sources, None if any is missing.
        costs: what a task cost, or None if that was not measured.
    """

    manifest: Manifest
    run: str
    name: str
    label: str
    training: str
    notes: tuple[str, ...]
    sources: dict[str, Cell]
    groups: dict[str, Cell]
    synthetic: bool
    metrics: dict[str, Cell] = field(default_factory=dict)
    rank: float | None = None
    costs: CostSummary | None = None

    @property
    def identity(self) -> tuple[str, str, int, str]:
        """The columns by which a reader tells rows apart."""
        return self.label, self.manifest.backbone, self.manifest.image_size, self.training


def make_row(results: Results) -> Row:
    """Compute the row of one evaluation.

    Raises:
        DataError: the run's ``config.toml`` or ``run.json`` is damaged.
    """
    manifest, summary = results.manifest, summarise(results.manifest, results.records)
    training = read_training(results.run, manifest.checkpoint)
    notes = [*training.notes, *([SYNTHETIC] if summary.synthetic else [])]
    if summary.partial:
        notes.append(_limit_note(manifest))
    sources = {name: _source_cell(score, manifest.missing.get(name)) for name, score in summary.sources.items()}
    groups = {name: Cell(mean, "" if mean else NO_MEAN) for name, mean in summary.groups.items()}
    return Row(
        manifest=manifest,
        run=results.run.as_posix(),
        name=results.run.resolve().name,
        label=manifest.label or manifest.learner,
        training=training.text,
        notes=tuple(notes),
        sources=sources,
        groups=groups,
        synthetic=summary.synthetic,
        metrics=_metric_cells(manifest, summary.sources, sources),
        costs=summary.costs,
    )


def tell_apart(rows: Sequence[Row]) -> list[Row]:
    """Add the run's time stamp to labels that several rows share, or its path if that is the same too."""
    by_identity = Counter(row.identity for row in rows)
    by_name = Counter((row.identity, row.name) for row in rows)
    apart = []
    for row in rows:
        mark = row.name if by_name[row.identity, row.name] == 1 else row.run
        label = f"{row.label} ({mark})" if by_identity[row.identity] > 1 else row.label
        apart.append(replace(row, label=label))
    return apart


def _limit_note(manifest: Manifest) -> str:
    full = sorted(set(manifest.sources.values()))
    numbers = str(full[0]) if len(full) == 1 else f"{full[0]} to {full[-1]}"
    return f"Preview: at most {manifest.limit} tasks per source (--limit); the protocol has {numbers}."


def _metric_cells(manifest: Manifest, scores: Mapping[str, SourceScore], cells: Mapping[str, Cell]) -> dict[str, Cell]:
    """Show what else is reported of each source, where the source itself is shown."""
    found = {}
    for source, score in scores.items():
        for metric in manifest.metrics[1:]:
            shown = cells[source].estimate is not None
            value = score.metrics.get(metric) if shown else None
            found[f"{source}: {metric}"] = replace(cells[source], estimate=value)
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
        return Cell(None, NO_DATA, score.done, score.expected)
    reason = UNFINISHED.format(missing=score.expected - score.done, expected=score.expected)
    return Cell(None, reason, score.done, score.expected)
