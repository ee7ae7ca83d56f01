"""From paths to results: every run folder or file of records below them, each read once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from lite_bench.harness.errors import RunError, UnknownNameError
from lite_bench.harness.records import MANIFEST, RESULTS, Results, read_evaluation, read_results

RECORDS = ".jsonl"
REMEDY = "Name run folders, folders of them or files of records; `lite-bench eval` makes results."


def find_results(paths: Iterable[Path]) -> list[Results]:
    """Read the results at or below ``paths``: run folders, folders that hold some, or files of records.

    A file of records is read with the manifest beside it, which says what it is part of; its other sources are then as
    if not evaluated.

    Raises:
        RunError: a path does not exist or holds no results.
        DataError: a file of results is damaged.
    """
    folders: dict[Path, Path] = {}
    files: dict[Path, Path] = {}
    for path in paths:
        if path.is_file() and path.suffix == RECORDS:
            files.setdefault(path.resolve(), path)
        else:
            for run in _find_runs(path):
                folders.setdefault(run.resolve(), run)
    results = [found for run in folders.values() for found in read_results(run)]
    known = {path.resolve() for found in results for path in found.files}
    results += [read_evaluation(path.parent, [path]) for full, path in files.items() if full not in known]
    return results


def select_suite(results: Sequence[Results], suite: str | None) -> list[Results]:
    """Keep the results of ``suite``, named with or without its version; all of them for None.

    Raises:
        UnknownNameError: there are none.
    """
    ids = {each.manifest.suite for each in results}
    wanted = {name for name in ids if suite in {None, name, name.partition("@")[0]}}
    if not wanted:
        raise UnknownNameError("suite with results called", str(suite), ids)
    return [each for each in results if each.manifest.suite in wanted]


def _find_runs(path: Path) -> list[Path]:
    """List the run folders at or below ``path``, in order."""
    if not path.exists():
        raise RunError(f"There is no folder {path}. {REMEDY}")
    if path.is_file():
        raise RunError(f"{path} is not a file of records (*{RECORDS}). {REMEDY}")
    runs = sorted({manifest.parents[2] for manifest in path.rglob(f"{RESULTS}/*/{MANIFEST}")})
    if not runs:
        raise RunError(f"{path} holds no results ({RESULTS}/<suite>/{MANIFEST} at any depth). {REMEDY}")
    return runs
