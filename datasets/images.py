"""Any image file to a square of RGB bytes, and a cache of such squares.

The preparation is the usual one of the field: the short side is brought to S by an antialiased bilinear
filter and the centre S x S is cut out (done in one step, by resizing the central square). The EXIF
orientation is applied, transparency is laid over white, 16-bit and floating-point grey becomes 8-bit, and of
an animation the first frame counts. Large JPEGs are decoded at the smallest DCT scale of at least 2 S, which
is several times faster and changes pixels by a few grey levels at most.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lite_bench.harness.errors import DataError

DEFAULT_CACHE_BYTES = 1 << 30


def read_image(source: Path | IO[bytes], size: int, remedy: str = "replace or delete it") -> np.ndarray:
    """Decode an image file of any format, mode and size.

    Args:
        source: path or open binary file.
        size: side S of the result, in pixels.
        remedy: what the user can do about a bad file, for messages.

    Returns:
        uint8 [S, S, 3].

    Raises:
        DataError: the file is missing, is not an image, or is truncated or corrupt.
    """
    try:
        with Image.open(source) as image:
            image.draft(None, (2 * size, 2 * size))
            return square(to_rgb(upright(image)), size)
    except Exception as error:
        raise bad_image(str(source), error, remedy) from error


def bad_image(name: str, error: Exception, remedy: str) -> DataError:
    """Word the error of an unreadable image."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"The image {name} is gone; do not change a data folder while it is in use.")
    if isinstance(error, PermissionError):
        return DataError(f"The image {name} may not be read; change its permissions.")
    kind = "not an image that Pillow can read"
    reason = kind if isinstance(error, UnidentifiedImageError) else f"corrupt ({error})"
    return DataError(f"The file {name} is {reason}; {remedy}.")


def upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; damaged EXIF data is ignored, because the pixels may still be fine."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        image.load()
        return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB, transparency over white."""
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    if "transparency" in image.info or image.mode in {"RGBA", "LA", "PA", "La", "RGBa"}:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _eight_bits(grey: np.ndarray) -> np.ndarray:
    """Bring grey values to uint8: integers as 16-bit, floats as 0..1, or as 0..255 if any is larger."""
    if grey.dtype.kind == "f":
        scale = 1.0 if np.nanmax(grey, initial=0.0) > 1.0 else 255.0
        scaled = np.nan_to_num(grey) * scale + 0.5
    else:
        scaled = np.clip(grey, 0, 65535) // 256
    eight: np.ndarray = np.clip(scaled, 0, 255).astype(np.uint8)
    return eight


def square(image: Image.Image, size: int) -> np.ndarray:
    """Resize so that the short side is ``size`` and cut out the centre: uint8 [S, S, channels]."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


class ImageCache:
    """Recently used arrays, up to a budget of bytes; safe to use from several threads."""

    def __init__(self, max_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        """Start empty."""
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self._arrays: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Give the array of ``key``, made by ``make`` if it is not here; do not write to it.

        Two threads that miss at once both make it, which costs time but never a wrong answer.
        """
        with self._lock:
            if (found := self._arrays.get(key)) is not None:
                self._arrays.move_to_end(key)
                return found
        made = make()
        self._put(key, made)
        return made

    def _put(self, key: Hashable, array: np.ndarray) -> None:
        with self._lock:
            if key in self._arrays or array.nbytes > self.max_bytes:
                return
            self._arrays[key] = array
            self.n_bytes += array.nbytes
            while self.n_bytes > self.max_bytes:
                _, oldest = self._arrays.popitem(last=False)
                self.n_bytes -= oldest.nbytes
