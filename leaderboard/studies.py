"""A published study of gradients, beside those that ``lite-bench gradients`` has made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lite_bench.harness.errors import DataError, RunError
from lite_bench.harness.reproduction import Figure, Outcome, Row, Step, Work
from lite_bench.harness.settings import Settings, validate
from lite_bench.leaderboard.plans import content, data_argument, flags_of

REPORT = "gradients.json"
WHOLE = "all"
EXACT = "exact"
PRECISION = "fp32"
RULE = (
    "The figure has no printed numbers. The paper says that the error of {ours} is below that of {theirs} at all but "
    "the highest H, which is read as every H up to {highest:.0%} of the support set; a study agrees where that is so."
)


@dataclass(frozen=True)
class Study:
    """A study that counts.

    Attributes:
        place: its folder.
        labels: what it is of, by column of the table.
        n_support: support images of its tasks.
        errors: root mean squared error of the whole gradient, by estimator and H.
    """

    place: Path
    labels: Mapping[str, str]
    n_support: int
    errors: Mapping[str, Mapping[int, float]]


class GradientsFigure4:
    """Figure 4 of the LITE paper: the error of LITE's gradient below that of smaller tasks, at all but the highest H.

    Looks for what ``lite-bench gradients`` wrote, on tasks of the sizes of the figure, of whatever learner and data.
    """

    name: ClassVar[str] = "gradients-figure4"

    def __init__(self, data_dir: Path | None = None) -> None:
        """Read the plan.

        Args:
            data_dir: folder with the data, to be written into the command.
        """
        self._plan: dict[str, Any] = content()["studies"][self.name]
        self._data_dir = data_dir
        self.source: str = self._plan["source"]

    def outcome(self, paths: Sequence[Path] | None) -> Outcome:
        """Look for studies.

        Args:
            paths: folders that hold some at any depth, or reports; None for ``gradients``, which need not exist.

        Raises:
            RunError: a path does not exist.
            DataError: a report is damaged.
        """
        studies: list[Study] = []
        notes: list[str] = []
        for path in find_reports(paths, Path(self._plan["reports"])):
            report = read_report(path)
            reason = self._uncounted(report)
            if reason:
                notes.append(f"{path} does not count: {reason}.")
            else:
                studies.append(_study(path, report))
        plan = self._plan
        rule = RULE.format(ours=plan["ours"], theirs=plan["theirs"], highest=plan["highest"])
        return Outcome((self._step(studies, notes),), tuple(self._rows(studies)), rule=rule)

    def _uncounted(self, report: Mapping[str, Any]) -> str:
        """Say why a study does not count, or nothing."""
        if report.get("synthetic"):
            return "it is of stand-in data"
        different = [
            f"{name}: {report[name]}, not {value}"
            for name, value in self._plan["deciding"].items()
            if report[name] != value
        ]
        if different:
            return " and ".join(different)
        errors = _errors(report)
        if not set(errors.get(self._plan["ours"], ())) & set(errors.get(self._plan["theirs"], ())):
            return f"it does not compare {self._plan['ours']} and {self._plan['theirs']} at the same H"
        return ""

    def _step(self, studies: Sequence[Study], notes: Sequence[str]) -> Step:
        settings = validate(self._plan["settings"])
        return Step(
            name=self.name,
            settings=settings,
            state="there" if studies else "missing",
            done=f"{len(studies)} stud{'ies' if len(studies) > 1 else 'y'}" if studies else "",
            where=tuple(str(study.place) for study in studies),
            notes=tuple(notes),
            commands=() if studies else (self._command(settings),),
            work=() if studies else tuple(self._work(settings)),
        )

    def _command(self, settings: Settings) -> str:
        plan = self._plan
        others = {name: value for name, value in plan["settings"].items() if name != "learner"}
        names, values = ",".join([EXACT, plan["ours"], plan["theirs"]]), ",".join(map(str, plan["h"]))
        asked = f"--gradient {names} --h {values} --draws {plan['draws']} --data-dir {data_argument(self._data_dir)}"
        return f"lite-bench gradients {settings.learner} {flags_of(others)} {asked}"

    def _work(self, settings: Settings) -> Iterator[Work]:
        """List the gradients to compute: those that are drawn, and the exact one twice, once to compare with."""
        size = {"way": self._plan["deciding"]["way"], "support": self._plan["deciding"]["n_support"]}
        cases = [(EXACT, 0, 2)]
        cases += [
            (name, h, self._plan["draws"])
            for name in (self._plan["ours"], self._plan["theirs"])
            for h in self._plan["h"]
        ]
        for name, h, draws in cases:
            yield Work("training", settings.changed(gradient=name, lite_h=h), draws, query=self._plan["query"], **size)

    def _rows(self, studies: Sequence[Study]) -> Iterator[Row]:
        """Give a row for every H that a study has of both estimators; without studies, for those of the plan."""
        ours, theirs = self._plan["ours"], self._plan["theirs"]
        for study in studies:
            for h in sorted(set(study.errors[ours]) & set(study.errors[theirs])):
                yield self._row(study.labels, h, study.n_support, study.errors[ours][h], study.errors[theirs][h])
        if not studies:
            for h in self._plan["h"]:
                yield self._row(
                    {"study": "", "learner": "", "suite": ""}, h, self._plan["deciding"]["n_support"], None, None
                )

    def _row(self, labels: Mapping[str, str], h: int, n_support: int, mine: float | None, other: float | None) -> Row:
        lower = None if mine is None or other is None else "yes" if mine < other else "no"
        said = "yes" if h <= self._plan["highest"] * n_support else None
        figures = (
            Figure(f"RMSE, {self._plan['ours']}", mine),
            Figure(f"RMSE, {self._plan['theirs']}", other),
            Figure(f"{self._plan['ours']} is lower", lower, said),
        )
        return Row({**labels, "H": str(h)}, figures)


def find_reports(paths: Sequence[Path] | None, default: Path) -> list[Path]:
    """List the reports of gradient studies at or below ``paths``.

    Args:
        paths: that the user named, or None.
        default: where they are if none was named; it need not exist.

    Raises:
        RunError: a path that the user named does not exist.
    """
    found: dict[Path, None] = {}
    for path in [default] if paths is None else paths:
        if paths is not None and not path.exists():
            raise RunError(f"There is no folder {path}. Name folders that `lite-bench gradients` wrote to.")
        found |= dict.fromkeys([path] if path.is_file() else sorted(path.rglob(REPORT)))
    return list(found)


def read_report(path: Path) -> dict[str, Any]:
    """Read what ``lite-bench gradients`` wrote.

    Raises:
        DataError: it is no such report.
    """
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _study(path, report)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is no report of `lite-bench gradients` ({type(error).__name__}: {error}); run it again or remove "
            "the file."
        ) from error
    return report


def _study(path: Path, report: Mapping[str, Any]) -> Study:
    labels = {"study": str(path.parent), "learner": str(report["learner"]), "suite": str(report["suite"])}
    deciding = (report["image_size"], report["way"])
    if not all(isinstance(number, int) for number in (*deciding, report["n_support"])):
        raise TypeError("a size is not a number")
    return Study(path.parent, labels, report["n_support"], _errors(report))


def _errors(report: Mapping[str, Any]) -> dict[str, dict[int, float]]:
    """List the errors of the whole gradient by estimator and H."""
    found: dict[str, dict[int, float]] = {}
    for finding in report["findings"]:
        case, parts = finding["case"], finding["parts"]
        if case["h"] is not None and case["precision"] == PRECISION:
            whole = parts[WHOLE] if WHOLE in parts else next(iter(parts.values()))
            found.setdefault(str(case["estimator"]), {})[int(case["h"])] = float(whole["rmse"])
    return found
