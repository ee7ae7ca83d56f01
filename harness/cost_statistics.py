"""From the costs of tasks to those of an evaluation; what is not known of every task is unknown, never zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lite_bench.harness.core import Cost, Record


@dataclass(frozen=True)
class Spread:
    """How a time varies over tasks: the median, and what 95 % of them stay within, in seconds."""

    median: float
    p95: float


@dataclass(frozen=True)
class CostSummary:
    """What adapting to a task and classifying an image cost on average; None where it is not known of every task.

    Attributes:
        passes: over the support set, such as ``1F``; several with commas if tasks differ; empty if unknown.
        macs: mean multiply-accumulates of adapting to a task; over several sources, the mean of their means.
        macs_per_query: mean multiply-accumulates of classifying an image, likewise.
        published_macs: mean multiply-accumulates of adapting as published tables count, likewise.
        uncounted: operations that are in no count.
        adapt_seconds: time to adapt to a task, if it was run.
        query_seconds: time to classify an image, likewise.
        devices: that tasks ran on, in words; with several there are no times.
        parameters: of the learner.
        trainable: those that are meta-trained.
        adapted: mean size of a task's state, in numbers; over several sources, the mean of their means.
        peak_bytes: the largest peak of the tasks whose memory was measured.
        measured: tasks whose memory was measured.
    """

    passes: str
    macs: float | None
    macs_per_query: float | None
    published_macs: float | None
    uncounted: tuple[str, ...]
    adapt_seconds: Spread | None
    query_seconds: Spread | None
    devices: tuple[str, ...]
    parameters: int | None
    trainable: int | None
    adapted: float | None
    peak_bytes: int | None
    measured: int


def quantile(values: Sequence[float], fraction: float) -> float:
    """Give the quantile of ``values`` by linear interpolation, numpy's default.

    Args:
        values: at least one.
        fraction: 0 to 1.
    """
    ordered = sorted(values)
    place = fraction * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def summarise_costs(records: Mapping[str, Sequence[Record]]) -> CostSummary | None:
    """Summarise the costs of the tasks of one or more sources; None without any that has costs.

    A task that failed counts: what it cost was spent.
    """
    sources = [listed for listed in records.values() if listed]
    tasks = [record for listed in sources for record in listed]
    costs = [record.cost or Cost() for record in tasks]
    if all(record.cost is None for record in tasks):
        return None
    passes = {cost.passes for cost in costs}
    peaks = [cost.peak_bytes for cost in costs if cost.peak_bytes is not None]
    devices = tuple(sorted({cost.device for cost in costs}))
    timed = [record for record in tasks if not record.failed] if len(devices) == 1 else []
    return CostSummary(
        passes="" if "" in passes else ", ".join(sorted(passes)),
        macs=_mean_of_means(sources, lambda cost: cost.macs),
        macs_per_query=_mean_of_means(sources, lambda cost: cost.macs_per_query),
        published_macs=_mean_of_means(sources, lambda cost: cost.published_macs),
        uncounted=tuple(sorted({name for cost in costs for name in cost.uncounted})),
        adapt_seconds=spread([record.adapt_seconds for record in timed]),
        query_seconds=spread([record.classify_seconds / record.n_query for record in timed]),
        devices=devices,
        parameters=_same(cost.parameters for cost in costs),
        trainable=_same(cost.trainable for cost in costs),
        adapted=_mean_of_means(sources, lambda cost: cost.adapted),
        peak_bytes=max(peaks, default=None),
        measured=len(peaks),
    )


def spread(values: Sequence[float]) -> Spread | None:
    """Give median and 95th percentile; None of no times."""
    return Spread(quantile(values, 0.5), quantile(values, 0.95)) if values else None


def _mean_of_means(sources: Sequence[Sequence[Record]], figure: Callable[[Cost], int | None]) -> float | None:
    means = []
    for listed in sources:
        values = [figure(record.cost) if record.cost else None for record in listed]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        means.append(sum(known) / len(known))
    return sum(means) / len(means)


def _same(values: Iterable[int | None]) -> int | None:
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None
