"""The pictures of the stand-ins: colour and stripes tell the class, noise makes it work to learn it."""

from __future__ import annotations

import colorsys
import io

import numpy as np
from PIL import Image

NOISE = 0.15
WAVES = 2.5
PHASES = 0.4
GOLDEN = 0.618034
SPRITE_SIDE = 64


def pattern(side: int, first: float, second: float, rng: np.random.Generator) -> np.ndarray:
    """Paint stripes.

    Args:
        side: of the picture in pixels.
        first: 0..1, becomes the hue.
        second: 0..1, becomes the direction of the stripes.
        rng: draws where the stripes lie, within limits, and the noise.

    Returns:
        uint8 [side, side, 3].
    """
    waves = _stripes(side, second, rng)
    colour = np.array(colorsys.hsv_to_rgb(first % 1, 0.75, 0.75))
    return _to_bytes(colour * (0.75 + 0.35 * waves[..., None]), rng)


def grey_pattern(side: int, first: float, second: float, rng: np.random.Generator) -> np.ndarray:
    """Paint as ``pattern`` does in grey, uint8 [side, side], ``first`` being the brightness."""
    return _to_bytes(0.2 + 0.6 * first + 0.2 * _stripes(side, second, rng), rng)


def sprite(x: int, y: int, orientation: int) -> np.ndarray:
    """Draw a bar as dSprites draws its shapes: uint8 [64, 64] of zeros and ones.

    Args:
        x: position from the left, 0..31.
        y: position from the top, 0..31.
        orientation: 0..39, of a turn.
    """
    angle = 2 * np.pi * orientation / 40
    rows, columns = np.mgrid[:SPRITE_SIDE, :SPRITE_SIDE] - np.array([16 + y, 16 + x]).reshape(2, 1, 1)
    along = columns * np.cos(angle) + rows * np.sin(angle)
    across = rows * np.cos(angle) - columns * np.sin(angle)
    # One end is wider, so that half a turn shows.
    inside: np.ndarray = (abs(along) <= 9) & (abs(across) <= 3 + along / 4)
    return inside.astype(np.uint8)


def _stripes(side: int, direction: float, rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side] / side
    angle = np.pi * direction
    along = columns * np.cos(angle) + rows * np.sin(angle)
    waves: np.ndarray = np.sin(2 * np.pi * (WAVES * along + PHASES * rng.random()))
    return waves


def _to_bytes(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noisy = picture + rng.normal(0, NOISE, picture.shape)
    bytes_: np.ndarray = (np.clip(noisy, 0, 1) * 255).astype(np.uint8)
    return bytes_


def encode(picture: np.ndarray, size: tuple[int, int], encoding: str) -> bytes:
    """Write a picture as a file.

    Args:
        picture: uint8 [h, w] or [h, w, 3].
        size: width and height to bring it to.
        encoding: ``PNG`` or ``JPEG``.
    """
    image = Image.fromarray(picture)
    if image.size != size:
        # What each format packs best, because the stand-ins are to be small.
        smooth = encoding == "JPEG"
        image = image.resize(size, Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    options = {"quality": 85} if encoding == "JPEG" else {"compress_level": 1}
    image.save(buffer, encoding, **options)
    return buffer.getvalue()


def spread(label: int, classes: int) -> tuple[float, float]:
    """Give a class a hue and a direction, each 0..1, that differ from those of its neighbours."""
    return label * GOLDEN % 1, label / classes
