"""The pictures of ORBIT's stand-in: every object has a look of its own, which its videos show in made-up scenes.

Looks are drawn from one distribution whoever the user is, so that what is learned of some users' objects helps with
those of others. Hues come from a short list, so that several objects of a user share one. Lengths are in pixels.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from lite_bench.datasets.orbit.videos import Kind

QUALITY = 75
N_HUES = 7
NOISE = 0.1
DARK, BRIGHT = 0.75, 1.2
TINT = 0.12
HALF = 0.5
N_STRANGE, N_OWN, N_BEFORE = (2, 5), (1, 4), (1, 3)
"""Limits, the upper excluded, on the things in a clutter video: of nobody, other objects of the user, in front."""

Texture = Literal["bands", "rings", "checks"]
TEXTURES: tuple[Texture, ...] = ("bands", "rings", "checks")


@dataclass(frozen=True)
class Look:
    """What an object looks like: a rounded star in two colours.

    Attributes:
        lobes: number of the star's points.
        depth: how far they stand out, as a fraction of the radius.
        stretch: square root of length over width.
        colours: float32 [2, 3], 0..1.
        texture: how the colours alternate.
        frequency: how often, in radians per radius.
        share: -1..1, above 0 where the first colour prevails.
    """

    lobes: int
    depth: float
    stretch: float
    colours: np.ndarray
    texture: Texture
    frequency: float
    share: float


@dataclass(frozen=True)
class Pose:
    """Where a thing is in one frame, and how it is turned."""

    x: float
    y: float
    radius: float
    angle: float


@dataclass(frozen=True)
class Box:
    """The part of a frame that an object covers; all of it is inside the frame."""

    x: int
    y: int
    width: int
    height: int

    def touches_edge(self, side: int) -> bool:
        """Say whether it reaches an edge of the frame, ``side`` pixels wide and high."""
        return 0 in {self.x, self.y} or side in {self.x + self.width, self.y + self.height}


@dataclass(frozen=True)
class Path:
    """How a thing moves through a video: every attribute is [at the start, at the end], fractions of the side."""

    x: tuple[float, float]
    y: tuple[float, float]
    radius: tuple[float, float]
    angle: tuple[float, float]

    def pose(self, moment: float, side: int) -> Pose:
        """Give the pose at ``moment``, 0 to 1."""
        x, y, radius, angle = (a + (b - a) * moment for a, b in (self.x, self.y, self.radius, self.angle))
        return Pose(x * side, y * side, radius * side, angle)


@dataclass(frozen=True)
class Scene:
    """What a video shows.

    Attributes:
        target: look and path of the object.
        behind: other things, drawn before the object.
        before: other things, drawn over it.
        ground: float32 [3, 3]: colours of the background at the left, the right and the bottom.
        light: float32 [3], brightness of all things by colour, 1 being as they are.
    """

    target: tuple[Look, Path]
    behind: tuple[tuple[Look, Path], ...]
    before: tuple[tuple[Look, Path], ...]
    ground: np.ndarray
    light: np.ndarray


@dataclass(frozen=True)
class Picture:
    """One frame.

    Attributes:
        jpeg: the file.
        box: what the object covers, None where it is not shown.
    """

    jpeg: bytes
    box: Box | None


def draw_look(generator: np.random.Generator) -> Look:
    """Draw a look from the distribution of all objects' looks."""
    hue = generator.integers(N_HUES)
    hues = (hue + generator.uniform(-0.3, 0.3, 2) + [0, generator.integers(N_HUES)]) / N_HUES
    colours = [colorsys.hsv_to_rgb(each % 1, *generator.uniform((0.3, 0.3), (0.9, 0.95))) for each in hues]
    return Look(
        lobes=int(generator.integers(2, 8)),
        depth=float(generator.uniform(0.05, 0.35)),
        stretch=float(generator.uniform(1.0, 1.35)),
        colours=np.array(colours, np.float32),
        texture=TEXTURES[generator.integers(len(TEXTURES))],
        frequency=float(generator.uniform(2.5, 8.0)),
        share=float(generator.uniform(-0.6, 0.6)),
    )


def draw_scene(kind: Kind, look: Look, others: Sequence[Look], generator: np.random.Generator) -> Scene:
    """Draw what a video shows.

    Args:
        kind: ``clean``, the object alone before a plain background, or ``clutter``, smaller and among other things.
        look: of the object.
        others: looks of the user's other objects, of which a clutter video shows some, smaller or partly hidden.
        generator: source of all randomness.
    """
    light = generator.uniform(DARK, BRIGHT) * generator.uniform(1 - TINT, 1 + TINT, 3).astype(np.float32)
    ground = generator.uniform(0.2, 0.8) + generator.uniform(-0.12, 0.12, (3, 3))
    if kind == "clean":
        path = _path(generator, (0.32, 0.68), (0.2, 0.36))
        return Scene((look, path), (), (), ground.astype(np.float32), light)
    path = _path(generator, (0.2, 0.8), (0.16, 0.26))
    own = [others[i] for i in generator.permutation(len(others))[: generator.integers(*N_OWN)]]
    strange = [draw_look(generator) for _ in range(generator.integers(*N_STRANGE))]
    behind = tuple((each, _path(generator, (0.0, 1.0), (0.08, 0.18))) for each in (*own, *strange))
    before = tuple((draw_look(generator), _beside(path, generator)) for _ in range(generator.integers(*N_BEFORE)))
    return Scene((look, path), behind, before, ground.astype(np.float32), light)


def _path(generator: np.random.Generator, place: tuple[float, float], size: tuple[float, float]) -> Path:
    x, y = generator.uniform(*place, 2)
    radius = generator.uniform(*size)
    angle = generator.uniform(0, 2 * np.pi)
    drift = generator.uniform(-0.1, 0.1, 2)
    growth, turn = generator.uniform(0.85, 1.2), generator.uniform(-0.8, 0.8)
    return Path((x, x + drift[0]), (y, y + drift[1]), (radius, radius * growth), (angle, angle + turn))


def _beside(path: Path, generator: np.random.Generator) -> Path:
    """Move with another thing at its edge, so as to hide a part of it."""
    radius = generator.uniform(0.05, 0.1)
    direction = generator.uniform(0, 2 * np.pi)
    distance = path.radius[0] * generator.uniform(0.7, 1.1)
    dx, dy = distance * np.cos(direction), distance * np.sin(direction)
    x, y = (path.x[0] + dx, path.x[1] + dx), (path.y[0] + dy, path.y[1] + dy)
    return Path(x, y, (radius, radius), path.angle)


def draw_ground(scene: Scene, side: int) -> np.ndarray:
    """Draw the background, the same throughout a video: float32 [side, side, 3]."""
    across = np.linspace(0, 1, side, dtype=np.float32)
    left, right, bottom = scene.ground
    ground: np.ndarray = left + across[None, :, None] * (right - left) + across[:, None, None] * (bottom - left)
    return ground


def draw_picture(scene: Scene, moment: float, ground: np.ndarray, noise: np.ndarray, *, shown: bool) -> Picture:
    """Draw one frame.

    Args:
        scene: what the video shows.
        moment: 0 at its start, 1 at its end.
        ground: float32 [S, S, 3], the background.
        noise: uint8 [S, S, 3], any bytes.
        shown: whether the object is there.
    """
    side, canvas = len(ground), ground.copy()
    for look, path in scene.behind:
        paint(canvas, look, path.pose(moment, side), scene.light)
    box = None
    if shown:
        look, path = scene.target
        box = bounding_box(*paint(canvas, look, path.pose(moment, side), scene.light))
    for look, path in scene.before:
        paint(canvas, look, path.pose(moment, side), scene.light)
    canvas += (noise - np.float32(127.5)) * np.float32(NOISE / 127.5)
    pixels = (np.clip(canvas, 0, 1) * np.float32(255)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=QUALITY)
    return Picture(stream.getvalue(), box)


def paint(canvas: np.ndarray, look: Look, pose: Pose, light: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Paint a thing over what is there.

    Args:
        canvas: float32 [S, S, 3], 0..1, changed in place.
        look: of the thing.
        pose: of the thing.
        light: float32 [3], multiplies its colours.

    Returns:
        how much of each pixel it covers, 0..1, in the part of the canvas around it, and the column and row where that
        part starts.
    """
    side = len(canvas)
    reach = pose.radius * look.stretch * (1 + look.depth) + 1
    left, right = (min(max(int(edge), 0), side) for edge in (pose.x - reach, pose.x + reach + 1))
    top, bottom = (min(max(int(edge), 0), side) for edge in (pose.y - reach, pose.y + reach + 1))
    cover, colours = _appearance(look, pose, np.arange(left, right), np.arange(top, bottom))
    window = canvas[top:bottom, left:right]
    window += cover[..., None] * (colours * light - window)
    return cover, left, top


def bounding_box(cover: np.ndarray, left: int, top: int) -> Box | None:
    """Give the box around all pixels that are covered by more than half; see `paint` for the arguments."""
    covered = cover > HALF
    rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
    if not len(rows):
        return None
    return Box(left + int(columns[0]), top + int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)


def _appearance(look: Look, pose: Pose, columns: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute how much of each pixel a thing covers, [rows, columns], and its colour there, [rows, columns, 3]."""
    x = (columns + 0.5 - pose.x).astype(np.float32)[None, :]
    y = (rows + 0.5 - pose.y).astype(np.float32)[:, None]
    cosine, sine = np.float32(np.cos(pose.angle)), np.float32(np.sin(pose.angle))
    along = (cosine * x + sine * y) / np.float32(pose.radius * look.stretch)
    beside = (cosine * y - sine * x) / np.float32(pose.radius / look.stretch)
    distance, direction = np.hypot(along, beside), np.arctan2(beside, along)
    edge = 1 + np.float32(look.depth) * np.cos(look.lobes * direction)
    cover = np.clip((edge - distance) * np.float32(pose.radius) + np.float32(HALF), 0, 1)
    frequency = np.float32(look.frequency)
    if look.texture == "rings":
        wave = np.sin(frequency * distance)
    else:
        wave = np.sin(frequency * along)
        if look.texture == "checks":
            wave *= np.sin(frequency * beside)
    first, second = look.colours
    share = np.clip(np.float32(3) * (wave + np.float32(look.share)) + np.float32(HALF), 0, 1)[..., None]
    return cover, second + share * (first - second)
