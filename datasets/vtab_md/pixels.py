"""Meta-Dataset's way from a record to an image: decode, then bilinear resizing with aligned corners.

The reader of google-research/meta-dataset (commit 16760950) resizes with TensorFlow's bilinear filter, corners
aligned and not antialiased, keeps the aspect ratio of the square whatever the image's, and does not round. Done
here in float32 with numpy, which rounds alike on every machine. Pillow decodes with the accurate DCT; TensorFlow's
default, the fast one, differs from it by about one grey level.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from lite_bench.harness.errors import DataError


def decode_jpeg(data: bytes, name: str) -> np.ndarray:
    """Decode a record's image: uint8 [height, width, 3].

    Args:
        data: the encoded image.
        name: what it is, for messages.

    Raises:
        DataError: it is not a whole image.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except Exception as error:
        raise DataError(
            f"The image of {name} does not decode ({error}); find all such records with `lite-bench data verify` and "
            "convert the source again."
        ) from error


def resize_aligned(pixels: np.ndarray, size: int, out: np.ndarray | None = None) -> np.ndarray:
    """Resize to a square by bilinear interpolation with aligned corners and without antialiasing.

    Output pixel i lies at i (n - 1) / (S - 1) of n input pixels, so the corner pixels keep their values.

    Args:
        pixels: uint8 [height, width, 3].
        size: side S of the result.
        out: float32 [3, S, S] to write the result into.

    Returns:
        float32 [3, S, S], values 0 to 255, not rounded.
    """
    above, below, down = _grid(pixels.shape[0], size)
    left, right, across = _grid(pixels.shape[1], size)
    rows = np.take(pixels, above, 0).astype(np.float32)
    _move_towards(rows, np.take(pixels, below, 0).astype(np.float32), down[:, None, None])
    planes = np.ascontiguousarray(rows.transpose(2, 0, 1))
    # indices are in range; without this mode numpy would buffer `out`
    columns: np.ndarray = np.take(planes, left, 2, out=out, mode="clip")
    _move_towards(columns, np.take(planes, right, 2), across)
    return columns


def _move_towards(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> None:
    """Make ``first`` first + (second - first) weight; ``second`` is used up."""
    second -= first
    second *= weight
    first += second


def _grid(n_in: int, n_out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give for every output position the input positions around it, and how far it lies from the first to the second.

    Positions are computed in float32, as TensorFlow computes them.
    """
    scale = np.float32((n_in - 1) / (n_out - 1)) if n_out > 1 else np.float32(0)
    positions = np.arange(n_out, dtype=np.float32) * scale
    first = np.minimum(positions.astype(np.int64), n_in - 1)
    return first, np.minimum(first + 1, n_in - 1), positions - first.astype(np.float32)
