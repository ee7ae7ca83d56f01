"""Plans: the runs that a published table needs, what is there of them, and the table beside the published one.

What belongs to which table is data, in ``plans.toml``; the published figures are those of ``published.json``.
"""

from __future__ import annotations

import functools
import math
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

from lite_bench.harness.records import file_name
from lite_bench.harness.reproduction import Claim, Figure, Outcome, Row, State, Step, Work
from lite_bench.harness.settings import Settings, flag, resolve
from lite_bench.harness.statistics import Estimate
from lite_bench.leaderboard.matching import Match, Run, Wanted, match, read_runs
from lite_bench.leaderboard.published import PublishedFigure, PublishedRow, published_table
from lite_bench.leaderboard.rows import Cell, make_row

RUNS = Path("runs")
DATA = "DATA"
"""Stands for the folder with the data in commands, where none was named."""
RULE = (
    "A figure agrees if it is no further from the published one than the root of the summed squares of both half "
    "widths (the 95 % interval of the difference), or than {tolerance:g} points where one of them has no interval."
)
CLAIM_RULE = "A statement is contradicted if ours are in the other order by more than that."


@functools.cache
def content() -> dict[str, Any]:
    """Read ``plans.toml``; do not write to what is given."""
    return tomllib.loads(files(__package__).joinpath("plans.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class PlannedRun:
    """A run of a plan, and what was found of it.

    Attributes:
        name: unique in the plan; the name of the run folder that the commands make.
        row: number of the row that it belongs to.
        recipe: name of its recipe.
        changes: settings that go over the recipe's.
        training: name of the typical size of its training tasks; empty if it is not meta-trained.
        wanted: what it has to be.
        match: what was found.
        cells: its scores by column; empty without results.
    """

    name: str
    row: int
    recipe: str
    changes: Mapping[str, Any]
    training: str
    wanted: Wanted
    match: Match
    cells: Mapping[str, Cell]

    def estimate(self, column: str) -> Estimate | None:
        """Give the score in a column of the suite's table, if it is there and this run is to supply it."""
        supplies = column in self.wanted.sources or column.partition(": ")[0] in self.wanted.sources
        groups = self.match.entry.manifest.groups if self.match.entry else {}
        cell = self.cells.get(column) if supplies or column in groups else None
        return cell.estimate if cell else None


class Plan:
    """A published table of accuracies, and the runs that fill it."""

    name: ClassVar[str]

    def __init__(self, data_dir: Path | None = None) -> None:
        """Read the plan.

        Args:
            data_dir: folder with the data, to be written into the commands.
        """
        self._plan: dict[str, Any] = content()["plans"][self.name]
        self._data_dir = data_dir
        self.source: str = self._plan["source"]

    def outcome(self, paths: Sequence[Path] | None) -> Outcome:
        """Look for the runs of the plan, and set up its table.

        Args:
            paths: run folders, or folders that hold some at any depth; None for ``runs``, which need not exist.

        Raises:
            RunError: a path does not exist.
            DataError: a file of a run is damaged.
        """
        runs = list(self._runs(read_runs(paths, self._plan["suite"], RUNS)))
        claims = self._plan.get("claims", ())
        rule = RULE.format(tolerance=self._plan["tolerance"])
        return Outcome(
            steps=tuple(self._step(run) for run in runs),
            rows=tuple(self._rows(runs)),
            claims=tuple(self._claim(claim, runs) for claim in claims),
            rule=" ".join(filter(None, (rule, CLAIM_RULE if claims else "", self._plan.get("remark", "")))),
            reported=self._plan.get("reported", ""),
        )

    def _runs(self, found: Sequence[Run]) -> Iterator[PlannedRun]:
        """List the runs of the plan with what was found of each; a row may have several, one for each variant."""
        suite = self._plan["suite"]
        tasks = {source: each["tasks"] for source, each in content()["evaluation"][suite].items()}
        rules = self._plan["option_defaults"], tuple(content()["gradients"].values())
        for number, run in enumerate(self._plan["runs"]):
            untrained = run.get("untrained", False)
            variants = {} if untrained else self._plan.get("variants", {})
            for variant, own in variants.items() or [("", {})]:
                changes = {**run.get("changes", {}), **{key: own[key] for key in own if key != "sources"}}
                settings = resolve(changes, Path(f"recipes/{run['recipe']}.toml"))
                sources = {source: tasks[source] for source in own.get("sources", tasks)}
                wanted = Wanted(settings, suite, sources, untrained, run.get("fixed_batches", False), *rules)
                matched = match(wanted, found)
                yield PlannedRun(
                    name=run.get("name", run["recipe"]) + f"-{variant}" * bool(variant),
                    row=number,
                    recipe=run["recipe"],
                    changes=changes,
                    training=run.get("training", "").format(variant=variant),
                    wanted=wanted,
                    match=matched,
                    cells=make_row(matched.entry).cells if matched.entry else {},
                )

    # --- steps

    def _step(self, run: PlannedRun) -> Step:
        state, done = _state(run)
        return Step(
            name=run.name,
            settings=run.wanted.settings,
            state=state,
            done=done,
            where=tuple(map(str, run.match.where)),
            notes=run.match.notes,
            commands=() if state == "there" else tuple(self._commands(run)),
            work=tuple(_work(run)),
        )

    def _commands(self, run: PlannedRun) -> Iterator[str]:
        """Write what to type for what is missing: training, or going on with it, and then the evaluation."""
        settings, folder = run.wanted.settings, run.match.run
        family = file_name(f"{settings.learner}-{settings.backbone}-{settings.image_size}")
        place = RUNS / family / run.name if folder is None else folder
        given = f"--config recipes/{run.recipe}.toml {flags_of(run.changes)}".strip()
        if run.wanted.untrained and folder is None:
            yield self._command(f"eval {given} --run-name {run.name}")
            return
        if folder is None:
            yield self._command(f"train {given} --run-name {run.name}")
        elif not run.wanted.untrained and run.match.trained < settings.tasks:
            yield self._command(f"train --resume {shlex.quote(str(place))}")
        yield self._command(f"eval --checkpoint {shlex.quote(str(place))}")

    def _command(self, text: str) -> str:
        return f"lite-bench {text} --data-dir {data_argument(self._data_dir)}"

    # --- the table

    def _rows(self, runs: Sequence[PlannedRun]) -> Iterator[Row]:
        for number, data in enumerate(self._plan["runs"]):
            own = [run for run in runs if run.row == number]
            settings = own[0].wanted.settings
            published = self._published(data, settings)
            figures = [
                self._figure(name, next(filter(None, (run.estimate(column) for run in own)), None), published, column)
                for name, column in self._plan["columns"].items()
            ]
            values = {
                "method": published.system if published else data["method"],
                "backbone": published.backbone if published else settings.backbone,
                "size": str(settings.image_size),
                "H": published.h if published else "",
            }
            yield Row({label: values[label] for label in self._plan["labels"]}, tuple(figures))

    def _published(self, data: Mapping[str, Any], settings: Settings) -> PublishedRow | None:
        """Find the published row of a run: that of its learner and image size, and what else the plan says of it."""
        if "published" not in data:
            return None
        key = {"learner": settings.learner, "image_size": settings.image_size, **data["published"]}
        (row,) = (
            row
            for row in published_table(self._plan["table"])
            if all(getattr(row, name) == value for name, value in key.items())
        )
        return row

    def _figure(self, name: str, ours: Estimate | None, row: PublishedRow | None, column: str) -> Figure:
        published = row.figures.get(column) if row else None
        mine = (None, None) if ours is None else (100 * ours.mean, _percent(ours.half_width))
        theirs = (None, None) if published is None else (_percent(published.value), _percent(published.half_width))
        return Figure(name, mine[0], theirs[0], self._margin(ours, published), 1, mine[1], theirs[1])

    def _margin(self, one: Estimate | None, other: Estimate | PublishedFigure | None) -> float:
        """Give the largest difference, in points, that the rule takes for chance."""
        if one is None or other is None or one.half_width is None or other.half_width is None:
            return float(self._plan["tolerance"])
        return 100 * math.hypot(one.half_width, other.half_width)

    # --- statements

    def _claim(self, claim: Mapping[str, Any], runs: Sequence[PlannedRun]) -> Claim:
        """Check that one run is above others in some columns, as far as they are there."""
        by_name = {run.name: run for run in runs}
        holds, evidence, missing = [], [], 0
        for column in claim["columns"]:
            first = by_name[claim["higher"]].estimate(column)
            for name in claim["lower"]:
                second = by_name[name].estimate(column)
                if first is None or second is None:
                    missing += 1
                    continue
                above = 100 * (first.mean - second.mean)
                holds.append(True if above > 0 else False if above < -self._margin(first, second) else None)
                evidence.append(f"{column}: {100 * first.mean:.1f} and {100 * second.mean:.1f} ({name})")
        if missing:
            evidence.append(f"{missing} of {missing + len(holds)} comparisons are not there")
        decided = False if False in holds else None if missing or None in holds else True
        return Claim(claim["text"], decided, "; ".join(evidence))


class OrbitTable1(Plan):
    """Table 1 of the LITE paper: frame and video accuracy of 15 learners on ORBIT, clean and cluttered.

    A run is looked for by its settings, those of the recipe of each row; each mode has a model of its own.
    """

    name = "orbit-table1"


class VtabMdTable2(Plan):
    """Table 2 of the LITE paper: accuracy on VTAB+MD against H, the support images that carry a gradient."""

    name = "vtab-md-table2"


class VtabMdFigure3(Plan):
    """Figure 3 of the LITE paper: Simple CNAPs with LITE on VTAB+MD, and what is said of it and its competitors."""

    name = "vtab-md-figure3"


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else round(100 * fraction, 10)


def _state(run: PlannedRun) -> tuple[State, str]:
    """Say how far a run is, in a word and in a few."""
    asked, expected = run.wanted.settings.tasks, sum(run.wanted.sources.values())
    trained, done = (asked if run.wanted.untrained else run.match.trained), sum(run.match.done.values())
    if run.match.run is None:
        return "missing", ""
    if trained < asked:
        return "partial", f"trained on {trained} of {asked} tasks"
    text = f"{done} of {expected} test tasks"
    text = text if run.wanted.untrained else f"trained, {text}"
    return ("there" if done == expected else "partial"), text


def _work(run: PlannedRun) -> Iterator[Work]:
    """List what is missing of a run, its tasks of typical size."""
    settings = run.wanted.settings
    left = 0 if run.wanted.untrained else max(0, settings.tasks - run.match.trained)
    if left:
        yield Work("training", settings, left, **content()["training"][run.training])
    for source, tasks in run.wanted.sources.items():
        size = content()["evaluation"][run.wanted.suite][source]
        left = tasks - run.match.done.get(source, 0)
        if left:
            yield Work("evaluation", settings, **{**size, "tasks": left})


def flags_of(changes: Mapping[str, Any]) -> str:
    """Write settings as flags of the command line."""
    parts: list[str] = []
    for name, value in changes.items():
        if isinstance(value, Mapping):
            parts += [f"{flag(name)} {shlex.quote(f'{key}={each}')}" for key, each in value.items()]
        elif isinstance(value, bool):
            parts.append(flag(name) if value else flag(f"no_{name}"))
        else:
            parts.append(f"{flag(name)} {shlex.quote(str(value))}")
    return " ".join(parts)


def data_argument(data_dir: Path | None) -> str:
    """Write the folder with the data for a command."""
    return DATA if data_dir is None else shlex.quote(str(data_dir))
