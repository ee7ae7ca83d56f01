"""Plots of gradient studies and training profiles, from the figures that the commands also write as JSON."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lite_bench.harness.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vPX*"
LEAST = 1e-4
"""Relative errors below this are shown at it: the axis is logarithmic."""


def plot_gradients(content: dict[str, Any], path: Path) -> None:
    """Plot the noise of each estimator against H, one panel per part, and against time: Fig. 4 of the LITE paper.

    Args:
        content: what ``lite-bench gradients`` found.
        path: PNG file to write.
    """
    parts = list(content["findings"][0]["parts"])
    figure, panels = new_figure(len(parts) + 1)
    for axes, part in zip(panels, parts, strict=False):
        for number, (name, points) in enumerate(series(content["findings"]).items()):
            h, rmse = zip(*((p["case"]["h"], max(LEAST, p["parts"][part]["rmse"])) for p in points), strict=True)
            axes.plot(h, rmse, marker=MARKERS[number % len(MARKERS)], label=name, markersize=4, linewidth=1.2)
        label(axes, part, "H, support images with a gradient", "RMSE / |exact gradient|" if part == parts[0] else "")
        values = sorted({f["case"]["h"] for f in content["findings"] if f["case"]["h"] is not None})
        axes.set_xticks(values, [str(each) for each in values])
        axes.minorticks_off()
    last = panels[-1]
    for number, points in enumerate(series(content["findings"]).values()):
        seconds, rmse = zip(*((p["seconds"], max(LEAST, p["parts"][parts[0]]["rmse"])) for p in points), strict=True)
        last.plot(seconds, rmse, marker=MARKERS[number % len(MARKERS)], markersize=4, linewidth=1.2)
    for point in content["findings"]:
        if point["case"]["estimator"] == "exact" and point["case"]["precision"] == "fp32":
            last.axvline(point["seconds"], color="black", linestyle=":", linewidth=1)
            last.annotate(
                "exact", (point["seconds"], 0.02), xycoords=("data", "axes fraction"), fontsize=8, rotation=90
            )
    label(last, f"{parts[0]}, by time", "seconds per task", "")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=8)
    figure.suptitle(
        f"{content['learner']}, {content['backbone']}, {content['image_size']} px, {content['way']}-way, "
        f"N = {content['n_support']}, {content['suite']}",
        fontsize=10,
    )
    save(figure, path)


def plot_profile(content: dict[str, Any], path: Path) -> None:
    """Plot time by part beside its floor, and peak memory, against the support size.

    Args:
        content: what ``lite-bench profile`` found.
        path: PNG file to write.
    """
    found = [each for each in content["profiles"] if not each["failed"]]
    lines: dict[str, list[dict[str, Any]]] = {}
    for each in found:
        h = each["work"]["h"]
        lines.setdefault(each["work"]["estimator"] + ("" if h is None else f" H={h}"), []).append(each)
    figure, panels = new_figure(len(lines) + 1)
    for axes, (name, own) in zip(panels, lines.items(), strict=False):
        _bars(axes, name, own)
    panels[0].set_ylabel("seconds per task", fontsize=8)
    if lines:
        panels[0].legend(fontsize=7)
    last = panels[-1]
    for number, (name, own) in enumerate(lines.items()):
        sizes = [each["work"]["n_support"] for each in own]
        last.plot(sizes, [each["peak_bytes"] / 1e9 for each in own], marker=MARKERS[number % len(MARKERS)], label=name)
    last.set_title("peak memory, GB", fontsize=9)
    last.set_xlabel("N, support images", fontsize=8)
    last.set_yscale("log")
    last.grid(visible=True, which="both", alpha=0.25, linewidth=0.5)
    last.tick_params(labelsize=7)
    if lines:
        last.legend(fontsize=7)
    figure.suptitle(
        f"{content['learner']}, {content['backbone']}, {content['image_size']} px, M = {content['n_query']}, batches "
        f"of {content['batch_size']} and {content['query_batch_size']}, {content['precision']}, {content['device']}",
        fontsize=10,
    )
    save(figure, path)


def _bars(axes: Axes, name: str, profiles: list[dict[str, Any]]) -> None:
    """Draw one stacked bar per support size, with a line at its floor."""
    places = range(len(profiles))
    bottoms = [0.0 for _ in places]
    for part in profiles[0]["parts"]:
        heights = [each["parts"][part] for each in profiles]
        axes.bar(places, heights, bottom=bottoms, label=part, width=0.6)
        bottoms = [low + high for low, high in zip(bottoms, heights, strict=True)]
    for place, each in zip(places, profiles, strict=True):
        axes.hlines(
            each["floor_seconds"],
            place - 0.4,
            place + 0.4,
            color="black",
            linestyle=":",
            label="" if place else "floor",
        )
    axes.set_title(name, fontsize=9)
    axes.set_xticks(places, [str(each["work"]["n_support"]) for each in profiles])
    axes.set_xlabel("N, support images", fontsize=8)
    axes.tick_params(labelsize=7)


def series(findings: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Gather findings by estimator, those that use H, in order of H."""
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in findings:
        case = finding["case"]
        if case["h"] is not None:
            suffix = "" if case["precision"] == "fp32" else f" {case['precision']}"
            found.setdefault(case["estimator"] + suffix, []).append(finding)
    return found


def new_figure(panels: int) -> tuple[Figure, list[Axes]]:
    """Make a figure of panels side by side, without touching any global state of matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * panels, 3.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def label(axes: Axes, title: str, x: str, y: str) -> None:
    """Title a panel and put it on logarithmic axes."""
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.set_xscale("symlog", linthresh=1) if x.startswith("H") else axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(visible=True, which="both", alpha=0.25, linewidth=0.5)
    axes.tick_params(which="both", labelsize=7)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(path, buffer.getvalue())
