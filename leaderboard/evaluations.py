"""From paths to results: every run folder or file of records below them, each read once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lite_bench.harness.errors import RunError, UnknownNameError
from lite_bench.harness.records import MANIFEST, RESULTS, Results, read_evaluation, read_results

RECORDS = ".jsonl"
REMEDY = "Name run folders, folders of them or files of records; `lite-bench eval` makes results."


def find_results(paths: Iterable[Path]) -> list[Results]:
    """Read the results at or below ``paths``: run folders, folders that hold some, or files of records.

    A file of records is read with the manifest beside it, which says what it is part of; its other sources are then as
    if not evaluated. Results are in the order of their paths, whichever is named first.

    Raises:
        RunError: a path does not exist, holds no results or cannot be read.
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
    results = [found for _, run in sorted(folders.items()) for found in read_results(run)]
    known = {path.resolve() for found in results for path in found.files}
    results += [read_evaluation(path.parent, [path]) for full, path in sorted(files.items()) if full not in known]
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
    """List the run folders at or below ``path``, in order; links are followed."""
    if not path.exists():
        raise RunError(f"There is no folder {path}. {REMEDY}")
    if path.is_file():
        raise RunError(f"{path} is not a file of records (*{RECORDS}). {REMEDY}")
    runs = sorted(set(_walk(path)))
    if not runs:
        raise RunError(f"{path} holds no results ({RESULTS}/<suite>/{MANIFEST} at any depth). {REMEDY}")
    return runs


def _walk(path: Path) -> Iterator[Path]:
    """Yield the run folder of every manifest below ``path``.

    Raises:
        RunError: a folder cannot be read, so that what it holds would be missing unsaid.
    """
    seen: set[str] = set()  # links may lead back
    for name, folders, files in os.walk(path, onerror=_refuse, followlinks=True):
        folder, full = Path(name), os.path.realpath(name)
        if full in seen:
            folders.clear()
            continue
        seen.add(full)
        folders.sort()
        if MANIFEST in files and folder.parent.name == RESULTS and len(folder.relative_to(path).parts) > 1:
            yield folder.parents[1]


def _refuse(error: OSError) -> None:
    raise RunError(f"Could not read {error.filename}: {error.strerror}; check its permissions.") from error
