"""Drawing letters as small scenes: varied face, place, size, slant, stroke width, colours and clutter.

A letter's ink is drawn once per face as a blurred mask that is kept. An image is then one affine transform of
that mask, one look-up table that turns the blurred edge into a sharp one (where the table cuts decides the
stroke width), and one composition of two coloured sheets. All random numbers of an episode come from one
generator in one call, so images can be drawn on any thread in any order.
"""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from lite_bench.datasets.glyph_table import FACES, Letter, font_path
from lite_bench.datasets.images import ImageCache

VERSION = 1
"""Raised whenever the same numbers give another picture."""

N_UNIFORMS = 64
"""Random numbers in [0, 1) per image."""

FONT_SIZE = 120
BLUR = 2.5
MARGIN = 8
MASK_CACHE_BYTES = 256 << 20
MAX_MASK_SIDE = 112
NOISE_SIDE = 512
MIN_CONTRAST = 80
"""Least difference in luminance between ink and background, of 255."""

LIGHT_INK = 0.25
"""Share of images whose ink is lighter than its background although it could be darker."""

GROUND_FLOOR = 40
"""Darkest value of a background's channels, which leaves room for dark ink on most backgrounds."""

PATCH = 5
"""A background is an interpolated PATCH x PATCH grid of colours."""


class Uniforms:
    """Hands out an image's random numbers one after the other."""

    def __init__(self, values: np.ndarray) -> None:
        """Start at the first of ``values``, float64 [N_UNIFORMS] in [0, 1)."""
        self._values = iter(values.tolist())

    def between(self, low: float, high: float) -> float:
        """Take the next number, scaled to [low, high)."""
        return low + (high - low) * float(next(self._values))

    def below(self, bound: int) -> int:
        """Take the next number as an integer in 0..bound-1."""
        return int(next(self._values) * bound)


@dataclass(frozen=True)
class Palette:
    """The colours of an image as (red, green, blue) in 0..255: of the ink, and the background's mean."""

    ink: tuple[float, float, float]
    ground: tuple[float, float, float]


class Renderer:
    """Draws letters at one image size; safe to use from several threads."""

    def __init__(self, image_size: int) -> None:
        """Prepare for square images of side ``image_size``."""
        self.image_size = image_size
        self.mask_side = min(MAX_MASK_SIDE, max(24, round(0.8 * image_size)))
        self._masks = ImageCache(MASK_CACHE_BYTES)

    def draw(self, letter: Letter, uniforms: np.ndarray, grid: np.ndarray) -> np.ndarray:
        """Draw one image.

        Args:
            letter: what to draw.
            uniforms: float64 [N_UNIFORMS] in [0, 1), the choices.
            grid: float64 [PATCH, PATCH, 3] in [0, 1), the background's unevenness.

        Returns:
            uint8 [S, S, 3].
        """
        choices = Uniforms(uniforms)
        face = letter.faces[choices.below(len(letter.faces))]
        alpha = self._placed(self._mask(letter.character, face), choices)
        palette = draw_palette(choices)
        ground = self._ground(palette, grid, choices)
        ink = Image.new("RGB", ground.size, tuple(int(value) for value in palette.ink))
        image = np.asarray(Image.composite(ink, ground, alpha))
        return self._with_noise(image, choices)

    def _mask(self, character: str, face: int) -> Image.Image:
        array = self._masks.get((character, face), lambda: ink_mask(character, face, self.mask_side))
        return Image.fromarray(array)

    def _placed(self, mask: Image.Image, choices: Uniforms) -> Image.Image:
        """Place a mask in the image: size, stretch, slant, turn, shift and stroke width."""
        size = self.image_size
        length = size * choices.between(0.45, 0.85)
        zoom = max(mask.size) / length
        stretch = choices.between(0.85, 1.18)
        slant, turn = choices.between(-0.3, 0.3), choices.between(-0.26, 0.26)
        cos, sin = np.cos(turn), np.sin(turn)
        room = 0.5 * (size - length) + 0.05 * size
        dx, dy = choices.between(-room, room), choices.between(-room, room)
        linear = zoom * np.array([[stretch, slant], [0.0, 1 / stretch]]) @ np.array([[cos, -sin], [sin, cos]])
        shift = np.array(mask.size) / 2 - linear @ np.array([size / 2 + dx, size / 2 + dy])
        matrix = (*linear[0].tolist(), float(shift[0]), *linear[1].tolist(), float(shift[1]))
        placed = mask.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        return Image.fromarray(edge_table(choices.below(9))[np.asarray(placed)])

    def _ground(self, palette: Palette, grid: np.ndarray, choices: Uniforms) -> Image.Image:
        """Draw an uneven background with a few strokes of clutter."""
        size = self.image_size
        uneven = choices.between(10, 90)
        sheet = np.asarray(palette.ground) + uneven * (grid - 0.5)
        small = Image.fromarray(np.clip(sheet, 0, 255).astype(np.uint8))
        ground = small.resize((size, size), Image.Resampling.BICUBIC)
        pen = ImageDraw.Draw(ground)
        for _ in range(choices.below(4)):
            ends = [choices.between(-0.1, 1.1) * size for _ in range(4)]
            mix = choices.between(0.1, 0.7)
            colour = tuple(int(a + mix * (b - a)) for a, b in zip(palette.ground, palette.ink, strict=True))
            pen.line(ends, fill=colour, width=max(1, round(size * choices.between(0.01, 0.05))))
        return ground

    def _with_noise(self, image: np.ndarray, choices: Uniforms) -> np.ndarray:
        """Add grain: a window of a fixed sheet of noise, of one of eight strengths."""
        noise, size = noise_sheet(1 + choices.below(8), self.image_size), self.image_size
        row, column = choices.below(NOISE_SIDE), choices.below(NOISE_SIDE)
        window = noise[row : row + size, column : column + size]
        noisy: np.ndarray = np.clip(np.add(image, window, dtype=np.int16), 0, 255).astype(np.uint8)
        return noisy


def draw_palette(choices: Uniforms) -> Palette:
    """Choose ink and background colours whose luminances differ by at least MIN_CONTRAST."""
    ground = [choices.between(GROUND_FLOOR, 255) for _ in range(3)]
    ink = [choices.between(0, 255) for _ in range(3)]
    bright = luminance(ground)
    darker, lighter = bright - 10, 245 - bright
    light = choices.between(0, 1) < LIGHT_INK
    rises = darker < MIN_CONTRAST or (light and lighter >= MIN_CONTRAST)
    gap = choices.between(MIN_CONTRAST, min(190, lighter if rises else darker))
    target = bright + gap if rises else bright - gap
    shift = target - luminance(ink)
    moved = [min(255.0, max(0.0, value + shift)) for value in ink]
    if abs(luminance(moved) - bright) < MIN_CONTRAST:
        moved = [target] * 3
    return Palette((moved[0], moved[1], moved[2]), (ground[0], ground[1], ground[2]))


def luminance(colour: list[float]) -> float:
    """Weigh red, green and blue as the eye does (ITU-R BT.601), 0..255."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


@functools.cache
def edge_table(step: int) -> np.ndarray:
    """Make the table, uint8 [256], that sharpens a blurred mask; ``step`` 0..8 is thick to thin strokes."""
    cut = 0.22 + 0.04 * step
    values = (np.arange(256) / 255 - cut) / 0.3 + 0.5
    return (np.clip(values, 0, 1) * 255).astype(np.uint8)


@functools.cache
def noise_sheet(strength: int, image_size: int) -> np.ndarray:
    """Make grain of standard deviation 2 grey levels times ``strength``, int8 [side, side, 3].

    It repeats after ``NOISE_SIDE`` pixels and is large enough for a window of ``image_size`` at any offset.
    """
    generator = np.random.Generator(np.random.Philox(1))
    tile = np.rint(generator.integers(-26, 27, (NOISE_SIDE, NOISE_SIDE, 3)) * (strength * 0.13))
    repeats = 1 + -(-image_size // NOISE_SIDE)
    return np.tile(tile.astype(np.int8), (repeats, repeats, 1))


_FONT_LOCK = threading.Lock()


@functools.cache
def _font(face: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(font_path(face)), FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)


def ink_mask(character: str, face: int, side: int) -> np.ndarray:
    """Draw a letter's ink, blurred and with a margin: uint8 [h, w] whose longer side is ``side``."""
    with _FONT_LOCK:
        mask = _font(face).getmask(character, mode="L")
        ink = Image.frombytes("L", mask.size, bytes(mask))
    box = ink.getbbox()
    if box is None:
        raise ValueError(f"U+{ord(character):04X} has no ink in {FACES[face]}")
    width, height = box[2] - box[0] + 2 * MARGIN, box[3] - box[1] + 2 * MARGIN
    canvas = Image.new("L", (width, height))
    canvas.paste(ink.crop(box), (MARGIN, MARGIN))
    scale = side / max(width, height)
    target = (max(1, round(width * scale)), max(1, round(height * scale)))
    blurred = canvas.filter(ImageFilter.GaussianBlur(BLUR))
    return np.asarray(blurred.resize(target, Image.Resampling.BOX))
