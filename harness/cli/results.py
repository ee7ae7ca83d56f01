"""What `lite-bench eval` prints of an evaluation: one table for people, one object for programs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lite_bench.harness.cli.output import print_json, print_table, say
from lite_bench.harness.core import LATENESS
from lite_bench.harness.units import UNKNOWN, scaled, seconds

if TYPE_CHECKING:
    from lite_bench.harness.cost_statistics import CostSummary, Spread
    from lite_bench.harness.records import Manifest, Results
    from lite_bench.harness.runs import RunFolder
    from lite_bench.harness.statistics import Estimate, SourceScore, Summary

DASH = "–"
UNITS = {LATENESS: f"{LATENESS} (% of a video; lower is better)"}
DIGEST_SHOWN = 12
"""Characters of a task list's digest in a table; records and JSON have it whole."""
CLUSTERED = "95 % by user"
"""Heads the column of the intervals that resample whole clusters, such as users."""


def report(run: RunFolder, manifest: Manifest, *, as_json: bool) -> None:
    """Print mean and 95 % interval per source and group, and write the run's own leaderboard."""
    from lite_bench.harness.records import read_results
    from lite_bench.harness.statistics import summarise

    (results,) = [each for each in read_results(run.path) if each.manifest.suite == manifest.suite]
    summary = summarise(results.manifest, results.records)
    if as_json:
        print_json({"run": str(run.path), "suite": manifest.suite, **_plain(summary, manifest)})
    else:
        print_table(columns_of(summary), _rows(summary, manifest), title=manifest.suite)
        _name_missing(manifest, summary)
        _name_failed(results, summary)
        if summary.costs is not None:
            typer.echo("")
            print_table(["cost", "of a task"], cost_rows(summary.costs), title="cost")
    write_leaderboard(run.path, [run.path])
    say(f"Results: {run.path}\nNext: lite-bench leaderboard {run.path.parent.parent}")


def write_leaderboard(folder: Path, paths: list[Path]) -> Path:
    """Write ``leaderboard.md`` of all results under ``paths`` to ``folder``; gives its path."""
    from lite_bench.harness.registry import COMMANDS

    path = folder / "leaderboard.md"
    COMMANDS.load("leaderboard")(paths, output=path)
    return path


def _name_missing(manifest: Manifest, summary: Summary) -> None:
    names = ", ".join(name for name in manifest.missing if not summary.sources[name].done)
    if names:
        say(f"Not evaluated, because their data is missing: {names}. See `lite-bench data status`.")


def _name_failed(results: Results, summary: Summary) -> None:
    for name, score in summary.sources.items():
        if not score.failed:
            continue
        reason = next(record.failed for record in results.records[name] if record.failed)
        others = f" Over the {score.done - score.failed} others it is {estimate_text(score.survivors)}." * bool(
            score.survivors
        )
        say(f"{score.failed} of {score.done} tasks of {name} failed, so there is no mean.{others} The first: {reason}")


def cost_rows(costs: CostSummary) -> list[list[str]]:
    """List what a task and an image cost, for people."""
    rows = [
        ["passes over the support set", costs.passes or UNKNOWN],
        ["MACs to adapt", scaled(costs.macs)],
        ["MACs to adapt, published counting", scaled(costs.published_macs)],
        ["MACs per classified image", scaled(costs.macs_per_query)],
        ["time to adapt", spread_text(costs.adapt_seconds)],
        ["time per classified image", spread_text(costs.query_seconds)],
        ["device", "; ".join(costs.devices) or UNKNOWN],
        ["parameters", UNKNOWN if costs.parameters is None else f"{costs.parameters:,}"],
        ["of these meta-trained", UNKNOWN if costs.trainable is None else f"{costs.trainable:,}"],
        ["numbers that adapt to a task", scaled(costs.adapted)],
        ["peak memory of tensors", scaled(costs.peak_bytes, "B")],
    ]
    return [*rows, *([["not counted", ", ".join(costs.uncounted)]] if costs.uncounted else [])]


def spread_text(times: Spread | None) -> str:
    """Write a time with its spread."""
    return UNKNOWN if times is None else f"{seconds(times.median)} (95 % within {seconds(times.p95)})"


def columns_of(summary: Summary) -> list[str]:
    """Name the columns; those of the clustered interval and the metric only where there is something to show."""
    metric = ["metric"] if any(score.metrics for score in summary.sources.values()) else []
    clustered = [CLUSTERED] if _has_clusters(summary) else []
    return ["source", *metric, "accuracy (95 % interval)" if not metric else "value (95 % interval)", *clustered,
            "tasks", "task list"]  # fmt: skip


def _has_clusters(summary: Summary) -> bool:
    return any(score.estimate is not None and score.estimate.clustered for score in summary.sources.values())


def _rows(summary: Summary, manifest: Manifest) -> list[list[str]]:
    rows = []
    with_metrics, with_clusters = any(score.metrics for score in summary.sources.values()), _has_clusters(summary)
    for name, score in summary.sources.items():
        tasks = [f"{score.done}/{score.protocol}", manifest.digests.get(name, "")[:DIGEST_SHOWN]]
        for number, (metric, value) in enumerate(_metrics(score, manifest)):
            text = "missing" if value is None and name in manifest.missing else estimate_text(value)
            cells = [name, *([UNITS.get(metric, metric)] if with_metrics else []), text]
            cells += [clustered_text(value)] if with_clusters else []
            rows.append([*cells, *(tasks if number == 0 else ["", ""])])
    for name, group in summary.groups.items():
        cells = [f"mean: {name}", *([""] if with_metrics else []), estimate_text(group)]
        rows.append([*cells, *([""] if with_clusters else []), "", ""])
    return rows


def _metrics(score: SourceScore, manifest: Manifest) -> list[tuple[str, Estimate | None]]:
    """List what is reported of a source by name, its accuracy first."""
    return [(manifest.metrics[0] if manifest.metrics else "accuracy", score.estimate), *score.metrics.items()]


def estimate_text(value: Estimate | None) -> str:
    """Write an estimate as ``98.70 ± 0.30`` percent, or a dash."""
    return DASH if value is None else percent(value.mean, value.half_width)


def clustered_text(value: Estimate | None) -> str:
    """Write an interval over clusters as ``95.10 to 99.20`` percent, or a dash."""
    if value is None or value.clustered is None:
        return DASH
    return f"{100 * value.clustered[0]:.2f} to {100 * value.clustered[1]:.2f}"


def percent(mean: float, half_width: float | None) -> str:
    """Write a fraction and its half width as ``98.7 ± 0.3`` percent."""
    return f"{100 * mean:.2f}" + ("" if half_width is None else f" ± {100 * half_width:.2f}")


def _plain(summary: Summary, manifest: Manifest) -> dict[str, Any]:
    sources = {
        name: {
            "accuracy": score.estimate and score.estimate.mean,
            "half_width": score.estimate and score.estimate.half_width,
            "clustered": score.estimate and score.estimate.clustered,
            "scores": score.estimate and score.estimate.n,
            "metrics": {
                metric: {
                    "mean": value.mean,
                    "half_width": value.half_width,
                    "clustered": value.clustered,
                    "scores": value.n,
                }
                for metric, value in score.metrics.items()
            },
            "done": score.done,
            "failed": score.failed,
            "survivors": score.survivors and score.survivors.mean,
            "expected": score.expected,
            "protocol": score.protocol,
            "missing": manifest.missing.get(name),
            "task_list": manifest.digests.get(name),
        }
        for name, score in summary.sources.items()
    }
    groups = {
        name: group and {"accuracy": group.mean, "half_width": group.half_width}
        for name, group in summary.groups.items()
    }
    costs = None if summary.costs is None else asdict(summary.costs)
    return {"partial": summary.partial, "failed": summary.failed, "sources": sources, "groups": groups, "costs": costs}
