"""Quick, Draw!: the 28 x 28 bitmaps of Google's drawing game, one file of rows a class, to Meta-Dataset's records."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lite_bench.datasets.conversion.jpeg import jpeg_bytes
from lite_bench.datasets.conversion.originals import find_original, flat_specification, require_published
from lite_bench.datasets.conversion.plan import ClassPlan, Conversion, Original
from lite_bench.harness.errors import DataError

SIDE = 28
PAGE = "https://console.cloud.google.com/storage/browser/quickdraw_dataset/full/numpy_bitmap"
BROWSER_PREFIX = "full_numpy_bitmap_"
BITMAPS = Original(
    names=tuple(f"{folder}*.npy" for folder in ("", "numpy_bitmap/", "quickdraw/", "full/numpy_bitmap/")),
    page=PAGE,
    note="345 files, 37 GB: gsutil -m cp 'gs://quickdraw_dataset/full/numpy_bitmap/*.npy' FOLDER",
)


@dataclass(frozen=True)
class Quickdraw:
    """The source ``quickdraw``; records are in the order of the rows.

    Attributes:
        check_published: require the published classes and counts.
    """

    check_published: bool = True

    @property
    def source(self) -> str:
        """Name of the source."""
        return "quickdraw"

    @property
    def originals(self) -> tuple[Original, ...]:
        """The bitmaps, called ``<class>.npy`` or, if a browser fetched them, ``full_numpy_bitmap_<class>.npy``."""
        return (BITMAPS,)

    def plan(self, folder: Path) -> Conversion:
        """Read the headers of all bitmap files.

        Raises:
            DataError: there are none, one is damaged or not of this form, or they are not the published ones.
        """
        place = find_original(folder, BITMAPS, self.source).parent
        paths: dict[str, Path] = {}
        for path in sorted(place.glob("*.npy")):
            name = path.stem.removeprefix(BROWSER_PREFIX)
            if name in paths:
                raise DataError(f"Both {paths[name]} and {path} hold the class {name!r}; remove one.")
            paths[name] = path
        counts = {name: len(bitmaps(path)) for name, path in paths.items()}
        specification = flat_specification(self.source, counts, place)
        if self.check_published:
            require_published(specification, place)
        named = zip(specification.class_names, specification.images, strict=True)
        classes = [ClassPlan(i, count, functools.partial(images, paths[name])) for i, (name, count) in enumerate(named)]
        return Conversion(specification, classes)


def bitmaps(path: Path) -> np.ndarray:
    """Map a bitmap file into memory: uint8 [n, 784], white on black.

    Raises:
        DataError: it is damaged or not of this form.
    """
    try:
        rows = np.load(path, mmap_mode="r")
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"The bitmaps {path} cannot be read ({error}); download the file again from {PAGE}.") from error
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != SIDE * SIDE:
        form = f"{rows.dtype} {list(rows.shape)}" if isinstance(rows, np.ndarray) else "an archive of arrays"
        raise DataError(f"The bitmaps {path} are {form} and not uint8 [n, 784]; download the file again from {PAGE}.")
    return rows


def images(path: Path) -> Iterator[bytes]:
    """Encode each row of a bitmap file as an RGB JPEG.

    Raises:
        DataError: as `bitmaps`.
    """
    for row in bitmaps(path):
        yield jpeg_bytes(Image.fromarray(row.reshape(SIDE, SIDE)))
