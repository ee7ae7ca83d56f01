"""What `lite-bench eval` prints of an evaluation: one table for people, one object for programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lite_bench.harness.cli.output import print_json, print_table, say
from lite_bench.harness.core import LATENESS

if TYPE_CHECKING:
    from lite_bench.harness.records import Manifest
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
    return {"partial": summary.partial, "sources": sources, "groups": groups}
