"""Frames from JPEG files to arrays, as they are: nothing is resized, because the releases have their sizes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from lite_bench.datasets.orbit.layout import prepare_command, root_name
from lite_bench.datasets.orbit.videos import Video
from lite_bench.datasets.workers import for_each
from lite_bench.harness.errors import DataError

AGAIN = "delete the folder of its video, then download, unpack or prepare that again"


def read_frame(path: Path, size: int, out: np.ndarray | None = None) -> np.ndarray:
    """Decode one frame; one that is not RGB is converted.

    Args:
        path: a JPEG file.
        size: the side S that it must have, in pixels.
        out: uint8 [3, S, S] to write to; by default a new array.

    Returns:
        ``out``.

    Raises:
        DataError: the file is missing, truncated, does not decode, or is of another size.
    """
    planes = np.empty((3, size, size), np.uint8) if out is None else out
    try:
        with Image.open(path) as image:
            if image.size == (size, size):
                planes[...] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
                return planes
            found = image.size
    except FileNotFoundError as error:
        raise DataError(f"The frame {path} is missing; {AGAIN}.") from error
    except PermissionError as error:
        raise DataError(f"The frame {path} may not be read; change its permissions.") from error
    except Exception as error:  # Pillow raises errors of many types
        kind = "not an image that Pillow can read"
        reason = kind if isinstance(error, UnidentifiedImageError) else f"truncated or damaged ({error})"
        raise DataError(f"The frame {path} is {reason}; {AGAIN}.") from error
    raise DataError(_wrong_size(path, found, size))


def _wrong_size(path: Path, found: tuple[int, int], size: int) -> str:
    """Word the problem; where the root's name says the size asked for, either the frame or that name is wrong."""
    width, height = found
    root = next((folder for folder in path.parents if folder.name == root_name(size)), None)
    ways = [f"give --image-size {width}"] if width == height and root is None else []
    if root is not None:
        ways.append(f"{AGAIN}; if all frames have that size, rename {root}")
    elif command := prepare_command(size):
        ways.append(f"make frames of that size ({command})")
    return (
        f"The frame {path} is {width}x{height} pixels, not the {size}x{size} asked for; {' or '.join(ways) or AGAIN}."
    )


def read_frames(frames: Sequence[tuple[Video, int]], size: int) -> np.ndarray:
    """Decode frames on the worker threads; a frame that occurs several times is decoded once.

    Must not be called from a worker thread.

    Args:
        frames: each a video and a position in it, counted from 0.
        size: the side S that they must have, in pixels.

    Returns:
        uint8 [N, 3, S, S], in the order of ``frames``.

    Raises:
        DataError: a frame is missing, does not decode or is of another size.
    """
    pixels = np.empty((len(frames), 3, size, size), np.uint8)
    rows: dict[Path, list[int]] = {}
    for row, (video, position) in enumerate(frames):
        rows.setdefault(video.folder / video.frame(position), []).append(row)

    def read(_: int, entry: tuple[Path, list[int]]) -> None:
        path, (first, *others) = entry
        read_frame(path, size, pixels[first])
        for other in others:
            pixels[other] = pixels[first]

    for_each(read, list(rows.items()))
    return pixels
