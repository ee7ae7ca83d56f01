"""Reading the annotation files of a source: JSON, loose or in the archive that they are published in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lite_bench.datasets.conversion.originals import open_members
from lite_bench.datasets.conversion.plan import Original
from lite_bench.harness.errors import DataError


def read_json(path: Path, original: Original, keep: Callable[[dict[str, Any]], Any] | None = None) -> tuple[str, Any]:
    """Read a JSON file.

    Args:
        path: the file, or the archive that it is in.
        original: what ``path`` was found as; its first name is that of the file.
        keep: called with each JSON object as soon as it is read, and gives what is kept of it.

    Returns:
        the place of the file, for messages, and its content.

    Raises:
        DataError: it is missing, cannot be read, or is not JSON.
    """
    name = Path(original.names[0]).name
    if path.name == name:
        place = str(path)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise bad_annotations(place, f"cannot be read ({error.strerror})", original) from error
    else:
        members = open_members(path)
        inside = [member for member, _ in members.matching(rf"(^|/){name}$")] or [name]
        place, data = members.place(inside[0]), members.read(inside[0])
    try:
        return place, json.loads(data, object_hook=keep)
    except (ValueError, RecursionError) as error:
        raise bad_annotations(place, f"are not JSON ({error})", original) from error


def bad_annotations(place: str, state: str, original: Original) -> DataError:
    """Word the error of annotations that cannot be used."""
    return DataError(f"The annotations {place} {state}; download {original.names[-1]} again from {original.page}.")
