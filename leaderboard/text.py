"""Words and numbers of a table, the same in every form that people read."""

from __future__ import annotations

from lite_bench.harness.core import LATENESS
from lite_bench.harness.cost_statistics import CostSummary
from lite_bench.harness.units import UNKNOWN, scaled, seconds
from lite_bench.leaderboard.intervals import Interval, Kind
from lite_bench.leaderboard.provenance import SHORT
from lite_bench.leaderboard.published import PublishedFigure, PublishedRow
from lite_bench.leaderboard.rows import Cell, Row
from lite_bench.leaderboard.tables import Table

DASH = "–"
TIED = "†"
COSTS = ("Steps", "MACs", "Published MACs", "Adapt", "Per image", "Params", "Adapted", "Peak memory", "Device")
SETUP = ("Backbone", "Image (px)", "Pre-training", "Gradient", "H", "Train tasks", "Trained with")
KINDS = {
    Kind.protocol: "the protocol's 95 % interval, 1.96 s / √n over {scores}",
    Kind.student: "a 95 % interval by Student's t over {scores}",
    Kind.bootstrap: "a 95 % interval by bootstrap over {scores}",
}
CLUSTERED = "In brackets the 95 % interval that resamples whole {clusters}, whose scores are not independent."
RANKING = (
    "Rank: mean over the sources of the rank in each; scores closer than the 95 % interval of their difference, taken "
    "as independent, share theirs (Meta-Dataset's rule)."
)
MARKS = (
    f"Bold: the best of a column. {TIED}: not told from the best by a {{test}} over the same tasks (p ≥ 0.05, "
    "two-sided, each column by itself)."
)
WHOSE = {
    "primary": "Published",
    "authors_readme": "Published by the authors",
    "leaderboard": "From a leaderboard",
    "reproduction": "Reproduced by others",
    "secondary_transcription": "Published",
    "aggregator": "From an aggregator",
}
"""What a note says of a figure, by the kind of its source."""
PUBLISHED = (
    "Published rows, in italics where there are any, were measured by others, with sources and differences in their "
    "notes; they are neither ranked nor compared."
)
FIRST = "A source's own column is its {metric}; only that is ranked."
UNTESTED = "A column of one task has no test: whatever is not bold in it may still be no worse."
RECOGNITION = "Frames to recognition: % of a video's frames before the first that is recognised; lower is better."
COST_CAPTION = (
    "Costs are of one task: steps, as passes over the support set (F forward, B backward), MACs to adapt, true "
    "and as published tables count, median time to adapt and to classify an image, parameters of the learner, numbers "
    "that are adapted, and the largest peak of memory measured. Compare times and memory of one device only."
)

COMMAND = "Again"
"""Name of the line of the footer that holds the table's command."""


class Notes:
    """The footnotes of one table, each text once."""

    def __init__(self) -> None:
        """Start without any."""
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        """Give the mark that refers to ``text``; empty for an empty text."""
        if not text:
            return ""
        if text not in self.texts:
            self.texts.append(text)
        return f"[{self.texts.index(text) + 1}]"


def percent(value: float) -> str:
    """Write a fraction in % with one decimal."""
    return f"{100 * value:.1f}"


def signed_percent(value: float) -> str:
    """Write a difference of fractions in percentage points with its sign; two decimals, as paired ones are small."""
    text = f"{100 * abs(value):.2f}"
    return text if float(text) == 0 else f"{'−' if value < 0 else '+'}{text}"


def with_interval(mean: float, interval: Interval | None) -> str:
    """Write a mean and its interval in %: ``98.7 ± 0.3``, or ``98.7 (98.2 to 99.0)`` where it is not symmetric."""
    if interval is None:
        return percent(mean)
    if interval.symmetric:
        return f"{percent(mean)} ± {percent(interval.half_width)}"
    return f"{percent(mean)} ({percent(interval.low)} to {percent(interval.high)})"


def score_text(cell: Cell, kind: Kind) -> str:
    """Write a cell's score in %, with its interval, and where scores are clustered also that of the clusters."""
    if cell.estimate is None:
        return DASH
    text = with_interval(cell.estimate.mean, cell.interval)
    if cell.estimate.clustered is None or kind is not Kind.protocol:
        return text
    low, high = cell.estimate.clustered
    return f"{text} ({percent(low)} to {percent(high)})"


def published_text(figure: PublishedFigure | None) -> str:
    """Write a published score in %, as precisely as it was published; a dash if there is none."""
    if figure is None:
        return DASH
    numbers = [100 * each for each in (figure.value, figure.half_width) if each is not None]
    digits = next((digits for digits in (1, 2) if all(abs(n - round(n, digits)) < 1e-9 for n in numbers)), 2)
    return " ± ".join(f"{number:.{digits}f}" for number in numbers)


def rank_text(rank: float | None) -> str:
    """Write an average rank."""
    return DASH if rank is None else f"{rank:.2f}"


def cost_texts(costs: CostSummary | None) -> list[str]:
    """Write the columns `COSTS`; what is not known is a dash."""
    if costs is None:
        return [DASH] * len(COSTS)
    figures = [costs.passes, scaled(costs.macs), scaled(costs.published_macs)]
    figures += [seconds(None if each is None else each.median) for each in (costs.adapt_seconds, costs.query_seconds)]
    figures += [
        scaled(costs.parameters),
        scaled(costs.adapted),
        scaled(costs.peak_bytes, "B"),
        ", ".join(costs.devices),
    ]
    return [DASH if text in {"", UNKNOWN} else text for text in figures]


def published_cost_texts(row: PublishedRow) -> list[str]:
    """Write the columns `COSTS` of a published row."""
    figures = [row.passes, "", scaled(row.macs), seconds(row.seconds), "", scaled(row.parameters), "", "", ""]
    return [DASH if text in {"", UNKNOWN} else text for text in figures]


def setup_texts(row: Row) -> list[str]:
    """Write the columns `SETUP`; what is not known or does not apply is a dash."""
    training = row.training
    h = "" if training.h is None else str(training.h)
    tasks = "" if training.tasks is None else f"{training.tasks:,}"
    gradient = training.gradient or ("untrained" if row.manifest.checkpoint == "untrained" else "")
    texts = [row.manifest.backbone, str(row.manifest.image_size), training.pretraining, gradient, h, tasks, training.on]
    return [text or DASH for text in texts]


def published_setup_texts(row: PublishedRow) -> list[str]:
    """Write the columns `SETUP` of a published row."""
    size = "" if row.image_size is None else str(row.image_size)
    return [text or DASH for text in [row.backbone, size, row.pretraining, row.gradient, row.h, "", ""]]


def published_notes(row: PublishedRow) -> list[str]:
    """Say where a published row stands, what its intervals are, and how its protocol differs from the suite's."""
    sources = dict.fromkeys(each.source for each in row.figures.values())
    notes = [f"{WHOSE.get(each.kind, 'Published')}: {each.citation}, {each.locator}." for each in sources]
    notes += [f"± as published: {row.interval}."] * bool(row.interval)
    return [*notes, *row.differences]


def title(table: Table) -> str:
    """Head a table."""
    marks = ["synthetic"] if table.synthetic else []
    marks += [f"{table.split} tasks"] * (table.split != "test") + [f"task seed {table.seed}"] * (table.seed != 0)
    if table.preview is not None:
        marks.append(f"preview of {table.preview} task{'s' * (table.preview != 1)} per source")
    return f"{table.suite} ({', '.join(marks)})" if marks else table.suite


def column_title(table: Table, column: str) -> str:
    """Name a column where it stands alone: a source of several figures with the one that is its own."""
    metrics = next((row.manifest.metrics for row in table.rows if row.manifest.metrics), [])
    return f"{column}: {metrics[0]}" if metrics and column in table.sources else column


def caption(table: Table) -> list[str]:
    """Say how to read a table, a sentence or two each: scores and their interval, ranks, marks and costs."""
    grouped = any(row.manifest.metrics for row in table.rows)
    scores = "(task, video) scores" if grouped else "tasks"
    about = [f"Accuracy in % with {KINDS[table.interval].format(scores=scores)}."]
    if table.clustered and table.interval is Kind.protocol:
        about.append(CLUSTERED.format(clusters="users"))
    about += [RANKING, MARKS.format(test="cluster-robust t-test" if table.clustered else "paired t-test")]
    if any(_untested(cell) for row in table.rows for cell in row.cells.values()):
        about.append(UNTESTED)
    if table.metrics:
        about.append(FIRST.format(metric=next(row.manifest.metrics[0] for row in table.rows if row.manifest.metrics)))
    if any(name.endswith(LATENESS) for name in table.metrics):
        about.append(RECOGNITION)
    if table.published:
        about.append(PUBLISHED)
    return [*about, COST_CAPTION] if table.with_costs else about


def _untested(cell: Cell) -> bool:
    """Whether a score may be no worse than the best, and no test can say."""
    return cell.versus_best is not None and cell.versus_best.significant is None


def footer(table: Table) -> list[tuple[str, str]]:
    """Say what a table rests on: name and text of each line at its end."""
    found = table.provenance
    digest = f"list {found.digest[:SHORT]}" if found.digest else "list not recorded"
    digest = f"the first of {digest}" if found.digest and table.preview is not None else digest
    failed = f", of which {found.failed} failed" if found.failed else ""
    tasks = f"{found.n_tasks:,} per row in {len(found.tasks)} source{'s' * (len(found.tasks) != 1)}"
    versions = ", ".join(f"{name} {' and '.join(each)}" for name, each in found.versions.items())
    lines = [
        ("Suite", f"{table.suite}, {table.split} split, task seed {table.seed}, data {table.data[:SHORT]}"),
        ("Tasks", f"{tasks}, {digest}; {found.records:,} records{failed}"),
        ("Made with", versions or "not recorded"),
    ]
    if found.command:
        lines.append((COMMAND, found.command))
    if not found.installed:
        lines.append(("Note", "the suite is not installed here; the table is computed from the records alone"))
    return lines
