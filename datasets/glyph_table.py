"""The table of letters that the glyph suite draws: read from ``glyphs.json``, and the program that made it.

The table is committed, so that neither the Unicode data of a Python version nor a new font changes a task. It
is made again by ``python -m lite_bench.datasets.glyph_table PATH/glyphs.json``, which keeps

* the letters (Unicode category L, not modifier) of the scripts in ``SPLITS`` that at least four of the twelve
  DejaVu faces have, one of them DejaVu Sans;
* of letters whose outlines look alike, after scaling the ink to one size, the first only: within a split at
  an overlap (intersection over union) of 0.93, between splits already at 0.80. Training comes first, then
  validation, then test, so no test script holds a shape seen in training (Latin A, Greek Alpha, Cyrillic A).
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageFont

from lite_bench.harness.core import Split
from lite_bench.harness.errors import DataError

FACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-BoldOblique",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
    "DejaVuSerif-Italic",
)
SPLITS: dict[Split, dict[str, str]] = {
    "train": {
        "latin": "LATIN",
        "greek": "GREEK",
        "cyrillic": "CYRILLIC",
        "canadian": "CANADIAN SYLLABICS",
        "coptic": "COPTIC",
        "old-italic": "OLD ITALIC",
    },
    "validation": {"armenian": "ARMENIAN", "lao": "LAO"},
    "test": {"arabic": "ARABIC", "georgian": "GEORGIAN", "hebrew": "HEBREW"},
}
LETTER_CATEGORIES = frozenset({"Lu", "Ll", "Lt", "Lo"})
MIN_FACES = 4
ALIKE_WITHIN_SPLIT = 0.93
ALIKE_BETWEEN_SPLITS = 0.8
SIDE = 44


@dataclass(frozen=True)
class Letter:
    """A character and the faces that have it, as positions in ``FACES``."""

    character: str
    faces: tuple[int, ...]


@dataclass(frozen=True)
class Table:
    """The letters per script and split.

    Attributes:
        scripts: split -> script -> letters in code-point order.
        fingerprint: SHA-256 of the table's file.
    """

    scripts: dict[Split, dict[str, tuple[Letter, ...]]]
    fingerprint: str


@functools.cache
def read_table() -> Table:
    """Read the committed table."""
    raw = files("lite_bench.datasets").joinpath("glyphs.json").read_bytes()
    scripts: dict[Split, dict[str, tuple[Letter, ...]]] = {}
    for split, members in json.loads(raw)["splits"].items():
        scripts[cast("Split", split)] = {name: _letters(groups) for name, groups in members.items()}
    return Table(scripts, hashlib.sha256(raw).hexdigest())


def _letters(groups: dict[str, list[int]]) -> tuple[Letter, ...]:
    """Expand "faces as hexadecimal bits" -> code points."""
    pairs = sorted((code, int(bits, 16)) for bits, codes in groups.items() for code in codes)
    return tuple(Letter(chr(code), tuple(i for i in range(len(FACES)) if bits >> i & 1)) for code, bits in pairs)


def font_path(face: int) -> Path:
    """Find the file of a face among matplotlib's fonts.

    Raises:
        DataError: this matplotlib was installed without its fonts.
    """
    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{FACES[face]}.ttf"
    if not path.is_file():
        raise DataError(f"The font {path} of matplotlib is missing; reinstall it with `pip install matplotlib`.")
    return path


def make_table() -> dict[str, Any]:
    """Make the table anew from the installed fonts (needs fontTools, which matplotlib brings)."""
    faces = _coverage()
    kept = np.zeros((0, SIDE * SIDE), np.float32)
    kept_split: list[str] = []
    splits: dict[str, dict[str, dict[str, list[int]]]] = {}
    for split, scripts in SPLITS.items():
        splits[split] = {name: {} for name in scripts}
        for name, code in _candidates(scripts, faces):
            shape = _shape(chr(code))
            if shape is None or _seen(shape, split, kept, kept_split):
                continue
            kept, kept_split = np.vstack([kept, shape]), [*kept_split, split]
            bits = f"{sum(1 << face for face in faces[code]):03x}"
            splits[split][name].setdefault(bits, []).append(code)
    return {"faces": list(FACES), "splits": splits}


def _coverage() -> dict[int, list[int]]:
    """Map code points to the faces that have them."""
    from fontTools.ttLib import TTFont  # type: ignore[import-untyped]  # it ships no types

    faces: dict[int, list[int]] = {}
    for face in range(len(FACES)):
        for code in TTFont(font_path(face)).getBestCmap():
            faces.setdefault(code, []).append(face)
    return faces


def _candidates(scripts: dict[str, str], faces: dict[int, list[int]]) -> Iterator[tuple[str, int]]:
    for name, prefix in scripts.items():
        for code in sorted(faces):
            is_letter = unicodedata.category(chr(code)) in LETTER_CATEGORIES
            in_script = unicodedata.name(chr(code), "").startswith(prefix + " ")
            if is_letter and in_script and len(faces[code]) >= MIN_FACES and 0 in faces[code]:
                yield name, code


def _seen(shape: np.ndarray, split: str, kept: np.ndarray, kept_split: list[str]) -> bool:
    """Tell whether ``shape`` overlaps one that was kept by too much."""
    if not kept_split:
        return False
    shared = kept @ shape
    overlap = shared / ((kept * kept).sum(1) + shape @ shape - shared)
    same = np.asarray([other == split for other in kept_split])
    return bool((overlap >= np.where(same, ALIKE_WITHIN_SPLIT, ALIKE_BETWEEN_SPLITS)).any())


def _shape(character: str) -> np.ndarray | None:
    """Draw a letter's ink at one size, float32 [SIDE * SIDE], or None if it has none."""
    mask = _plain_font().getmask(character, mode="L")
    if not all(mask.size):
        return None
    image = Image.frombytes("L", mask.size, bytes(mask))
    box = image.getbbox()
    if box is None:
        return None
    image = image.crop(box)
    scale = (SIDE - 4) / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    canvas = Image.new("L", (SIDE, SIDE))
    canvas.paste(image.resize((width, height), Image.Resampling.BOX), ((SIDE - width) // 2, (SIDE - height) // 2))
    return np.asarray(canvas, dtype=np.float32).ravel() / 255


@functools.cache
def _plain_font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(font_path(0)), 160, layout_engine=ImageFont.Layout.BASIC)


def main() -> None:
    """Write the table to the path on the command line."""
    parser = argparse.ArgumentParser(description="Make the letter table of the glyph suite from matplotlib's fonts.")
    parser.add_argument("path", type=Path)
    text = json.dumps(make_table(), indent=1)
    parser.parse_args().path.write_text(text + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
