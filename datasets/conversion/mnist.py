"""MNIST's test set to records, as the LITE authors train on it: ten digits, enlarged to 84 pixels.

Size, filter and order are those of cambridge-mlg/LITE (``extras/prepare_extra_dataset.py``). Y. LeCun, L. Bottou,
Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition", Proceedings of the IEEE, 1998.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from lite_bench.datasets.conversion.jpeg import flat_conversion, jpeg_bytes
from lite_bench.datasets.conversion.originals import find_original
from lite_bench.datasets.conversion.plan import Conversion, Original
from lite_bench.harness.errors import DataError

PAGE = "https://ossci-datasets.s3.amazonaws.com/mnist/ (or http://yann.lecun.com/exdb/mnist/)"
IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
DIGIT_SIDE, SIDE = 28, 84


def _spellings(name: str) -> tuple[str, ...]:
    """Name a file as it is published, unpacked, and under torchvision's folder."""
    return name, f"{name}.gz", name.replace("-idx", ".idx"), f"MNIST/raw/{name}", f"MNIST/raw/{name}.gz"


@dataclass(frozen=True)
class MNIST:
    """Knows the two files of MNIST's test set, compressed or not.

    Attributes:
        check_published: insist on the published counts.
    """

    check_published: bool = True
    source: ClassVar[str] = "mnist"
    originals: ClassVar[tuple[Original, ...]] = tuple(Original(_spellings(name), PAGE) for name in (IMAGES, LABELS))

    def plan(self, folder: Path) -> Conversion:
        """See `Converter.plan`."""
        paths = [find_original(folder, original, self.source) for original in self.originals]
        digits, labels = _read_idx(paths[0], 3), _read_idx(paths[1], 1)
        if len(digits) != len(labels):
            raise DataError(f"{paths[0]} has {len(digits)} images but {paths[1]} {len(labels)} labels; get both again.")
        if digits.shape[1:] != (DIGIT_SIDE, DIGIT_SIDE):
            raise DataError(
                f"{paths[0]} has images of {digits.shape[2]} x {digits.shape[1]} pixels, "
                f"not {DIGIT_SIDE} x {DIGIT_SIDE}; download it from {PAGE}."
            )
        classes = {}
        for label in np.unique(labels).tolist():
            of_class = digits[labels == label]
            # LITE numbers a class's images from 0 in the file's order, writes each as image_<number>.png, and the
            # converter takes the file names in order: image_0, image_1, image_10, image_100, image_101, ...
            order = sorted(range(len(of_class)), key=lambda number: f"image_{number}.png")
            classes[f"class_{label}"] = (len(of_class), partial(enlarged, of_class[order]))
        return flat_conversion(self.source, classes, folder, check_published=self.check_published)


def _read_idx(path: Path, n_dimensions: int) -> np.ndarray:
    """Read unsigned bytes with ``n_dimensions`` from a file in MNIST's IDX format."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); download it again.") from error
    n_header = 4 + 4 * n_dimensions
    magic = bytes((0, 0, 8, n_dimensions))
    if len(data) < n_header or data[:4] != magic:
        raise DataError(f"{path} is not an IDX file of bytes in {n_dimensions} dimensions; download it again.")
    shape = struct.unpack_from(f">{n_dimensions}I", data, 4)
    if len(data) - n_header != int(np.prod(shape, dtype=np.int64)):
        raise DataError(f"{path} has {len(data) - n_header} bytes of content, not {shape}; download it again.")
    return np.frombuffer(data, np.uint8, offset=n_header).reshape(shape)


def enlarged(digits: np.ndarray) -> Iterator[bytes]:
    """Give each of ``digits``, uint8 [n, 28, 28], as a JPEG of 84 x 84 pixels, by Pillow's Lanczos filter."""
    for digit in digits:
        image = Image.fromarray(digit).convert("RGB")
        yield jpeg_bytes(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
