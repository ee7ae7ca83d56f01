"""From the bytes of an image file to a square of pixels, as each of the two profiles does it.

Both squash the image to S x S whatever its shape. The ``lite`` profile resizes with Pillow and so rounds to
whole grey levels; ``official`` interpolates without antialiasing and keeps fractions. Values are 0..255 in both;
the network's input scaling maps v to v / 127.5 - 1.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from lite_bench.harness.errors import UnknownNameError

Resize = Callable[[bytes, int], np.ndarray]
"""Takes the bytes of an image file and S; returns [3, S, S], uint8 or float32, on the scale 0..255."""


def decode_rgb(data: bytes) -> Image.Image:
    """Decode an image file of any mode to 8-bit RGB, as TensorFlow does when it is asked for 3 channels.

    Grey is repeated, palettes are looked up, an alpha channel is dropped (not blended), of 16 bits the upper 8
    count, CMYK is multiplied out; orientation tags are ignored and of an animation the first frame counts.

    Raises:
        Exception: of any type that Pillow raises, if the bytes are not a whole image.
    """
    image: Image.Image = Image.open(io.BytesIO(data))
    image.load()
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    # Pillow would blend or warn about a transparent colour of a palette that it cannot carry over.
    image.info.pop("transparency", None)
    return image.convert("RGB")


def decode_grey(data: bytes) -> Image.Image:
    """Decode a file of one channel to 8-bit grey.

    Raises:
        ValueError: it has more channels.
        Exception: of any type that Pillow raises, if the bytes are not a whole image.
    """
    image = Image.open(io.BytesIO(data))
    image.load()
    if image.mode not in {"L", "1"}:
        raise ValueError(f"has the channels {image.mode} where 8-bit grey belongs")
    return image.convert("L")


def lanczos(data: bytes, size: int) -> np.ndarray:
    """Resize with Pillow's Lanczos filter, which antialiases when it shrinks: uint8 [3, S, S]."""
    return _channels(_filter(decode_rgb(data), size, Image.Resampling.LANCZOS))


def lanczos_grey(data: bytes, size: int) -> np.ndarray:
    """Resize one grey channel with the Lanczos filter and repeat it: uint8 [3, S, S]."""
    return _channels(_filter(decode_grey(data), size, Image.Resampling.LANCZOS).convert("RGB"))


def lanczos_binary(data: bytes, size: int) -> np.ndarray:
    """Resize an image of zeros and ones with the Lanczos filter in floating point: uint8 [3, S, S].

    LITE multiplies by 255.0, which makes Pillow work on 32-bit floats: nothing is clipped between its two
    passes, and the overshoot of the filter is cut and fractions dropped only at the end.
    """
    sprite = Image.fromarray(np.asarray(decode_grey(data), np.float32) * 255)
    resized = np.asarray(_filter(sprite, size, Image.Resampling.LANCZOS))
    return np.repeat(np.clip(resized, 0, 255).astype(np.uint8)[None], 3, axis=0)


def pillow_bilinear(data: bytes, size: int) -> np.ndarray:
    """Resize with Pillow's bilinear filter, which antialiases when it shrinks: uint8 [3, S, S]."""
    return _channels(_filter(decode_rgb(data), size, Image.Resampling.BILINEAR))


def bilinear(data: bytes, size: int) -> np.ndarray:
    """Interpolate bilinearly at half-pixel centres without antialiasing: float32 [3, S, S], not rounded."""
    return _interpolate(_channels(decode_rgb(data)), size)


def bilinear_binary(data: bytes, size: int) -> np.ndarray:
    """Interpolate an image of zeros and ones as ``bilinear`` does, ones being 255: float32 [3, S, S]."""
    return np.repeat(_interpolate(np.asarray(decode_grey(data))[None] * np.uint8(255), size), 3, axis=0)


def _filter(image: Image.Image, size: int, kernel: Image.Resampling) -> Image.Image:
    """Resize the rows, then the columns, rounding in between.

    That is what Pillow did in one call when LITE was written. Since version 13 it begins with the columns where
    the height shrinks most (python-pillow/Pillow #9549), which changes some pixels by ten levels and more.
    """
    return image.resize((size, image.height), kernel).resize((size, size), kernel)


def _channels(image: Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def _interpolate(pixels: np.ndarray, size: int) -> np.ndarray:
    """Interpolate uint8 [c, h, w] to float32 [c, S, S]."""
    batch = torch.from_numpy(pixels.astype(np.float32))[None]
    resized: np.ndarray = F.interpolate(batch, (size, size), mode="bilinear", align_corners=False)[0].numpy()
    return resized


RULES: dict[str, Resize] = {
    "lanczos": lanczos,
    "lanczos_grey": lanczos_grey,
    "lanczos_binary": lanczos_binary,
    "pillow_bilinear": pillow_bilinear,
    "bilinear": bilinear,
    "bilinear_binary": bilinear_binary,
}


def resize_rule(name: str) -> Resize:
    """Give the rule called ``name``.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in RULES:
        raise UnknownNameError("VTAB resize rule called", name, RULES)
    return RULES[name]
