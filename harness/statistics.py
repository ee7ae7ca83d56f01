"""From records to reported numbers: means, intervals, and what is missing.

Intervals follow the Meta-Dataset protocol: a mean over n tasks has the half width 1.96 s / sqrt(n), s the
population standard deviation (Triantafillou et al., "Meta-Dataset", ICLR 2020). A number is reported only
when everything it averages over is there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lite_bench.harness.bootstrap import clustered_interval
from lite_bench.harness.core import Record
from lite_bench.harness.cost_statistics import CostSummary, summarise_costs
from lite_bench.harness.errors import DataError
from lite_bench.harness.records import Manifest

Z95 = 1.96
"""The protocol's normal quantile; published intervals use these three digits."""


@dataclass(frozen=True)
class Estimate:
    """A mean and how far to trust it.

    Attributes:
        mean: in the unit of the values; accuracies are fractions.
        half_width: half width of the protocol's 95 % interval, or None where there is no telling (one task).
        n: number of scores behind it: tasks, or where queries come in groups, groups of tasks.
        clustered: the 95 % interval of `clustered_interval`, where scores come in clusters that are not independent.
    """

    mean: float
    half_width: float | None
    n: int
    clustered: tuple[float, float] | None = None


@dataclass(frozen=True)
class Scores:
    """The single scores behind a reported number.

    Attributes:
        keys: what each is a score of: a task, or a task and the name of one of its groups of queries.
        values: the scores, likewise.
        clusters: what those have in common that are not independent, such as a user; an empty text for each if all are.
    """

    keys: tuple[str, ...]
    values: tuple[float, ...]
    clusters: tuple[str, ...]

    @property
    def clustered(self) -> bool:
        """Whether scores come in clusters that are not independent."""
        return bool(self.clusters) and all(self.clusters)


@dataclass(frozen=True)
class SourceScore:
    """One source's score and how much of it is there.

    Attributes:
        estimate: over the tasks done so far, or None if none is or one failed.
        done: tasks done.
        expected: tasks asked for.
        protocol: tasks that the protocol asks for.
        metrics: what else is reported of it, by name; empty where accuracy is all.
        failed: tasks that failed; with any, there is no estimate, as a mean of the others would flatter.
        survivors: over the tasks that did not fail, if any failed.
    """

    estimate: Estimate | None
    done: int
    expected: int
    protocol: int
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    failed: int = 0
    survivors: Estimate | None = None

    @property
    def complete(self) -> bool:
        """Whether every task asked for is done, failed or not."""
        return 0 < self.done >= self.expected

    @property
    def partial(self) -> bool:
        """Whether this is complete, but on fewer tasks than the protocol's."""
        return self.complete and self.done < self.protocol


@dataclass(frozen=True)
class Summary:
    """The reported numbers of one evaluation.

    Attributes:
        sources: by source, in reporting order.
        groups: mean of the source means by group; None where a source of the group is not complete.
        synthetic: True if any record comes from stand-in data.
        costs: over all sources, or None if no record has any.
    """

    sources: dict[str, SourceScore]
    groups: dict[str, Estimate | None]
    synthetic: bool
    costs: CostSummary | None = None

    @property
    def complete(self) -> bool:
        """Whether every task asked for is done."""
        return all(score.complete for score in self.sources.values())

    @property
    def failed(self) -> int:
        """Tasks that failed."""
        return sum(score.failed for score in self.sources.values())

    @property
    def partial(self) -> bool:
        """Whether some source was limited to fewer tasks than the protocol's."""
        return any(score.partial for score in self.sources.values())


def estimate(values: Sequence[float]) -> Estimate:
    """Compute mean and 95 % interval, 1.96 * population standard deviation / sqrt(n).

    Args:
        values: one number per task, at least one.

    Raises:
        DataError: there are no values.
    """
    n = len(values)
    if n == 0:
        raise DataError("There is no mean of 0 tasks; evaluate at least one.")
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, None, 1)
    variance = math.fsum((value - mean) ** 2 for value in values) / n
    return Estimate(mean, Z95 * math.sqrt(variance / n), n)


def mean_of_means(estimates: Sequence[Estimate]) -> Estimate:
    """Average k independent estimates with equal weight; the half width is sqrt(sum of squares) / k.

    Raises:
        DataError: there are no estimates.
    """
    k = len(estimates)
    if k == 0:
        raise DataError("There is no mean of 0 sources; a group needs at least one.")
    widths = [each.half_width for each in estimates if each.half_width is not None]
    half_width = math.hypot(*widths) / k if len(widths) == k else None
    mean = math.fsum(each.mean for each in estimates) / k
    return Estimate(mean, half_width, sum(each.n for each in estimates))


def summarise(manifest: Manifest, records: Mapping[str, Sequence[Record]]) -> Summary:
    """Compute the reported numbers of one evaluation.

    A limited evaluation (``manifest.limit``) counts as complete, and the summary as partial.

    Args:
        manifest: what was to be evaluated.
        records: by source, each task once; sources may be absent.
    """
    sources = {source: _score(manifest, source, records.get(source, ())) for source in manifest.sources}
    groups = {name: _group(sources, members) for name, members in manifest.groups.items()}
    synthetic = any(record.synthetic for each in records.values() for record in each)
    return Summary(sources, groups, synthetic, summarise_costs(records))


def _score(manifest: Manifest, source: str, records: Sequence[Record]) -> SourceScore:
    """Score one source."""
    sound = [record for record in records if not record.failed]
    metrics = {name: _pooled(sound, name) for name in manifest.metrics} if sound else {}
    accuracy = _pooled(sound, None) if sound else None
    if metrics:
        accuracy = metrics.pop(manifest.metrics[0])
    tasks = (len(records), manifest.expected(source), manifest.sources[source])
    failed = len(records) - len(sound)
    if failed:
        return SourceScore(None, *tasks, failed=failed, survivors=accuracy)
    return SourceScore(accuracy, *tasks, metrics)


def scores_of(records: Sequence[Record], metric: str | None = None) -> Scores:
    """List the scores of tasks, of which none failed.

    Args:
        records: each task once.
        metric: of `GROUP_METRICS`, one score for each group of queries that has it; None for one accuracy of each task.
    """
    found = [
        (f"{record.task} {name}".rstrip(), value, record.cluster)
        for record in records
        for name, value in (
            [("", record.accuracy)] if metric is None else [(each.name, each.metric(metric)) for each in record.groups]
        )
        if value is not None
    ]
    keys, values, clusters = zip(*found, strict=True) if found else ((), (), ())
    return Scores(keys, values, clusters)


def _pooled(records: Sequence[Record], metric: str | None) -> Estimate:
    """Pool the scores of all tasks, of which none failed: their accuracies, or a metric of all their groups."""
    scores = scores_of(records, metric)
    pooled = estimate(scores.values)
    if not scores.clustered:
        return pooled
    return replace(pooled, clustered=clustered_interval(scores.values, scores.clusters))


def _group(sources: Mapping[str, SourceScore], members: Sequence[str]) -> Estimate | None:
    """Average a group, or say None if anything is missing."""
    scores = [sources[member] for member in members]
    present = [score.estimate for score in scores if score.estimate is not None and score.complete]
    return mean_of_means(present) if present and len(present) == len(members) else None
