"""FGVC-Aircraft to records: 100 model variants, each image cropped to the aircraft.

S. Maji, E. Rahtu, J. Kannala, M. Blaschko, A. Vedaldi, "Fine-Grained Visual Classification of Aircraft", 2013.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from lite_bench.datasets.conversion.jpeg import decode, flat_conversion, jpeg_bytes
from lite_bench.datasets.conversion.originals import Members, find_original, open_members
from lite_bench.datasets.conversion.plan import Conversion, Original
from lite_bench.harness.errors import DataError

PAGE = "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/"
ARCHIVE = "fgvc-aircraft-2013b.tar.gz"
LISTS = tuple(f"images_variant_{part}.txt" for part in ("train", "val", "test"))
BOXES = "images_box.txt"

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Aircraft:
    """Knows the archive of FGVC-Aircraft, or the folder it unpacks to.

    Attributes:
        check_published: insist on the published classes and counts.
    """

    check_published: bool = True
    source: ClassVar[str] = "aircraft"
    originals: ClassVar[tuple[Original, ...]] = (
        Original(("fgvc-aircraft-2013b", "data", ARCHIVE, ARCHIVE.removesuffix(".gz")), PAGE),
    )

    def plan(self, folder: Path) -> Conversion:
        """See `Converter.plan`."""
        members = open_members(find_original(folder, self.originals[0], self.source))
        images = {match[1]: name for name, match in members.matching(r"(?:^|/)data/images/(\d+)\.jpg$")}
        boxes = {number: _box(fields, place) for number, fields, place in _lines(members, BOXES)}
        variants: dict[str, list[str]] = {}
        for listing in LISTS:
            for number, variant, place in _lines(members, listing):
                for lacking in [what for what, known in (("image", images), ("box", boxes)) if number not in known]:
                    raise DataError(f"{place} names image {number}, which has no {lacking}; unpack {ARCHIVE} again.")
                variants.setdefault(variant, []).append(number)
        classes = {}
        for variant, numbers in variants.items():
            files = {images[number]: boxes[number] for number in sorted(numbers, key=int)}
            classes[variant] = (len(files), partial(cropped, members.only(files), files))
        return flat_conversion(self.source, classes, members.path, check_published=self.check_published)


def _lines(members: Members, file: str) -> Iterator[tuple[str, str, str]]:
    """Read image number, the rest of the line and its place from each line of a text file."""
    matches = members.matching(rf"(?:^|/)data/{file}$")
    if not matches:
        raise DataError(f"{members.path} holds no data/{file}; download {ARCHIVE} again from {PAGE}.")
    name = matches[0][0]
    for line, text in enumerate(members.read(name).decode("utf-8", "replace").splitlines(), 1):
        place = f"Line {line} of {members.place(name)}"
        number, _, rest = text.partition(" ")
        if not number.isdecimal() or not rest.strip():
            raise DataError(f"{place} is {text[:60]!r}, not an image number and its entry; unpack {ARCHIVE} again.")
        yield number, rest.strip(), place


def _box(fields: str, place: str) -> Box:
    """Read left, top, right and bottom, used as they are given."""
    try:
        left, top, right, bottom = map(int, fields.split())
    except ValueError as error:
        raise DataError(f"{place} has no box of four numbers; unpack {ARCHIVE} again.") from error
    if left >= right or top >= bottom:
        raise DataError(f"{place} has an empty box ({fields}); unpack {ARCHIVE} again.")
    return left, top, right, bottom


def cropped(members: Members, boxes: Mapping[str, Box]) -> Iterator[bytes]:
    """Read images and give each cropped to its box, as JPEG.

    Args:
        members: the files to read from.
        boxes: by file, in record order.

    Raises:
        DataError: an image cannot be read.
    """
    for name, data in members.contents(boxes):
        yield jpeg_bytes(decode(data, members.place(name)).crop(boxes[name]))
