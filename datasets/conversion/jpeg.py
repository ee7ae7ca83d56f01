"""Images as the JPEG bytes that Meta-Dataset's records hold, and classes of such images.

The rule is that of google-research/meta-dataset (``dataset_to_records.py``): the bytes of an RGB JPEG are kept
as they are; any other image is converted to RGB and saved by Pillow with its defaults. EXIF orientation is
ignored and images keep their size.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from lite_bench.datasets.conversion.originals import (
    Members,
    find_original,
    flat_specification,
    open_members,
    require_published,
)
from lite_bench.datasets.conversion.plan import ClassPlan, Conversion, Converter
from lite_bench.harness.errors import DataError


def jpeg_bytes(image: Image.Image) -> bytes:
    """Encode ``image`` as an RGB JPEG with Pillow's defaults: quality 75, chroma at half the resolution (4:2:0)."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def original_or_jpeg(data: bytes, name: str) -> bytes:
    """Give the bytes of an RGB JPEG as they are, and any other image as a new JPEG.

    Even the one that is kept is decoded (at an eighth of its size, which reads all its data but is much
    faster), so that a damaged image is found now and not in the middle of a training run.

    Args:
        data: an image file's content.
        name: the file, for messages.

    Raises:
        DataError: it is not an image or does not decode.
    """
    with _damage(name), Image.open(io.BytesIO(data)) as image:
        if image.format != "JPEG" or image.mode != "RGB":
            image.load()
            return jpeg_bytes(image)
        image.draft(None, (max(image.width // 8, 1), max(image.height // 8, 1)))
        image.load()
        return data


def decode(data: bytes, name: str) -> Image.Image:
    """Decode an image file's content to RGB, in its own size.

    Args:
        data: an image file's content.
        name: the file, for messages.

    Raises:
        DataError: it is not an image or does not decode.
    """
    with _damage(name), Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


@contextmanager
def _damage(name: str) -> Iterator[None]:
    """Turn what goes wrong while an image is decoded into one sentence; Pillow raises errors of many types."""
    try:
        yield
    except Exception as error:
        kind = "not an image that Pillow can read"
        reason = kind if isinstance(error, UnidentifiedImageError) else f"damaged ({error})"
        raise DataError(f"The image {name} is {reason}; download or unpack it again.") from error


def encoded(members: Members, names: tuple[str, ...], encode: Callable[[bytes, str], bytes]) -> Iterator[bytes]:
    """Read ``names`` in this order and give ``encode(data, place)`` of each.

    Args:
        members: the files to read from.
        names: files in record order.
        encode: turns a file's content and its place, for messages, into JPEG bytes (`original_or_jpeg`, say).

    Raises:
        DataError: a file cannot be read, or ``encode`` raises it.
    """
    for name, data in members.contents(names):
        yield encode(data, members.place(name))


def flat_conversion(
    source: str, classes: Mapping[str, tuple[int, Callable[[], Iterable[bytes]]]], place: Path, *, check_published: bool
) -> Conversion:
    """Plan the classes found in ``place``, in the published order.

    Args:
        source: its name in the catalogue.
        classes: number of images, and what gives their JPEG bytes, by class name.
        place: where they were found, for messages.
        check_published: insist on exactly the published classes and image counts.

    Raises:
        DataError: a class is not one of the source's, there is none, or they are not the published ones.
    """
    counts = {name: count for name, (count, _) in classes.items()}
    specification = flat_specification(source, counts, place)
    if check_published:
        require_published(specification, place)
    plans = [ClassPlan(i, *classes[name]) for i, name in enumerate(specification.class_names)]
    return Conversion(specification, plans)


def class_folders(
    converter: Converter,
    folder: Path,
    pattern: str,
    *,
    check_published: bool,
    name_class: Callable[[re.Match[str]], str] = lambda match: match[1],
    reorder: Callable[[list[str]], None] = lambda names: None,
) -> Conversion:
    """Plan a source published as one archive with a folder of images per class.

    Args:
        converter: the source's, for its name and original.
        folder: where the original is.
        pattern: of an image's path.
        check_published: insist on exactly the published classes and image counts.
        name_class: names the class of a matching path; by default the pattern's first group.
        reorder: brings a class's files, given in order of name, into record order.

    Raises:
        DataError: the original is missing, damaged or not the published one.
    """
    members = open_members(find_original(folder, converter.originals[0], converter.source))
    files: dict[str, list[str]] = {}
    for name, match in members.matching(pattern):
        files.setdefault(name_class(match), []).append(name)
    classes = {}
    for class_name, names in files.items():
        reorder(names)
        images = partial(encoded, members.only(names), tuple(names), original_or_jpeg)
        classes[class_name] = (len(names), images)
    return flat_conversion(converter.source, classes, members.path, check_published=check_published)
