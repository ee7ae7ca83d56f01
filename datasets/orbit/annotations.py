"""Which frames of a video show the object that it is of, from the annotation files (protocol section 1.4)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lite_bench.datasets.orbit.layout import ANNOTATIONS, ANNOTATIONS_SOURCE
from lite_bench.datasets.orbit.videos import Video
from lite_bench.harness.core import Split
from lite_bench.harness.errors import DataError

AGAIN = f"get it again from {ANNOTATIONS_SOURCE}"


def annotation_path(root: Path, split: Split, video: Video) -> Path:
    """Name the annotation file of a video."""
    return root / ANNOTATIONS / split / f"{video.name}.json"


def frames_with_object(root: Path, split: Split, video: Video) -> np.ndarray:
    """Read which frames of a video show its object.

    The three published forms are understood: of November 2021 (``object_presence``, 0 or 1), of December 2021
    (``object_present``) and since February 2022 (``object_not_present_issue``).

    Args:
        root: the folder that holds ``annotations``.
        split: of the video's user.
        video: the video.

    Returns:
        bool [n_frames], in order of the frames.

    Raises:
        DataError: the file is missing or damaged, has no entry for a frame, or is of another form.
    """
    path = annotation_path(root, split, video)
    frames = _read(path, root)
    shown = np.empty(video.n_frames, bool)
    for position in range(video.n_frames):
        name = video.frame(position)
        if name not in frames:
            raise DataError(f"The annotations {path} have no entry for the frame {name}; {AGAIN}.")
        present = _present(frames[name])
        if present is None:
            raise DataError(
                f"The annotations {path} do not say in any published form whether {name} shows the object; {AGAIN}."
            )
        shown[position] = present
    return shown


def _read(path: Path, root: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"The annotations {path} are missing; get {ANNOTATIONS_SOURCE} and unpack it as {root / ANNOTATIONS}."
        ) from error
    except OSError as error:
        raise DataError(f"The annotations {path} cannot be read ({error.strerror}); check its permissions.") from error
    except ValueError as error:
        raise DataError(f"The annotations {path} are not JSON ({error}); {AGAIN}.") from error
    if not isinstance(content, dict):
        raise DataError(f"The annotations {path} are not a map from frames to what they show; {AGAIN}.")
    return content


def _present(entry: Any) -> bool | None:
    """Tell from a frame's entry whether the object is there; None if the entry does not say so."""
    if not isinstance(entry, dict):
        return None
    if isinstance(absent := entry.get("object_not_present_issue"), bool):
        return not absent
    if isinstance(present := entry.get("object_present"), bool):
        return present
    if (flag := entry.get("object_presence")) in (0, 1):
        return bool(flag)
    return None
