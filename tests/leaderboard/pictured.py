"""Made-up tables to draw: no files, any number of learners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lite_bench.harness.cost_statistics import CostSummary
from lite_bench.harness.statistics import Estimate
from lite_bench.leaderboard.intervals import Interval, Kind
from lite_bench.leaderboard.provenance import Provenance
from lite_bench.leaderboard.published import PublishedFigure, PublishedRow, Source
from lite_bench.leaderboard.rows import Cell, Row
from lite_bench.leaderboard.tables import Table
from lite_bench.leaderboard.training import Training
from tests.leaderboard.samples import make_manifest

GROUPS = ("Meta-Dataset", "VTAB", "natural", "specialized", "structured")
SOURCE = Source("Somebody, 2021", "Table 2", "primary")


def make_costs(macs: float | None, published: float | None = None) -> CostSummary:
    """Costs of which only MACs are known."""
    return CostSummary("1F", macs, None, published, (), None, None, (), None, None, None, None, 0)


def make_cell(mean: float | None, half: float = 0.01) -> Cell:
    """A cell with a symmetric interval, or one without a score."""
    if mean is None:
        return Cell(None, "no mean")
    return Cell(Estimate(mean, half, 600), interval=Interval(mean - half, mean + half, symmetric=True))


def make_row(
    label: str,
    means: Mapping[str, float | None],
    *,
    macs: float | None = 1e9,
    published: float | None = None,
    half: float = 0.01,
    groups: bool = True,
    manifest: Mapping[str, Any] | None = None,
    **training: Any,
) -> Row:
    """A row with scores in groups, or in sources."""
    cells = {column: make_cell(mean, half) for column, mean in means.items()}
    made = Training(**({"text": "trained"} | training))
    costs = make_costs(macs, published)
    own = make_manifest(learner=label, **(manifest or {}))
    return Row(
        manifest=own,
        runs=(f"runs/{label}",),
        name="10-00",
        label=label,
        training=made,
        notes=(),
        sources={} if groups else cells,
        groups=cells if groups else {},
        synthetic=False,
        costs=costs,
    )


def make_table(rows: Sequence[Row], published: Sequence[PublishedRow] = (), **changes: Any) -> Table:
    """A table of made-up rows; its groups or sources are those of the first."""
    groups = dict.fromkeys(rows[0].groups, ("Latin",))
    values: dict[str, Any] = {
        "suite": "letters@1",
        "split": "test",
        "seed": 0,
        "data": "0123456789abcdef",
        "synthetic": False,
        "preview": None,
        "sources": tuple(rows[0].sources),
        "groups": groups,
        "metrics": (),
        "rows": tuple(rows),
        "interval": Kind.protocol,
        "provenance": Provenance("letters@1", {}, "", {}, 0, 0, {}, "", installed=False),
        "published": tuple(published),
    }
    return Table(**(values | changes))


def make_published(system: str, means: Mapping[str, float], **changes: Any) -> PublishedRow:
    """A published row with an interval of one point in every column."""
    values: dict[str, Any] = {
        "learner": "",
        "backbone": "ResNet",
        "image_size": 224,
        "gradient": "",
        "h": "",
        "pretraining": "ImageNet",
    }
    figures = {column: PublishedFigure(mean, 0.01, SOURCE) for column, mean in means.items()}
    return PublishedRow(system, figures=figures, **(values | changes))
