"""Where a tree of ORBIT's frames is found, and what its folders and files are called (protocol section 1.1).

A root holds ``{train,validation,test}/<user>/<object>/{clean,clutter}/<video>/<video>-00001.jpg`` and, optionally,
``annotations/{train,validation,test}/<video>.json``. Its own name says the side of its frames: ``orbit_benchmark_224``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lite_bench.datasets.orbit.published import SPLITS
from lite_bench.datasets.orbit.videos import KINDS
from lite_bench.harness.errors import DataError

VARIABLE = "ORBIT_BENCHMARK_ROOT"
PAGE = "https://city.figshare.com/articles/dataset/_/14294597"
EXTRA_ANNOTATIONS = "orbit_extra_annotations.zip"
ANNOTATIONS_SOURCE = f"{EXTRA_ANNOTATIONS} in the folder data of https://github.com/microsoft/ORBIT-Dataset"

RELEASED_SIZE, SMALL_SIZE = 224, 84
"""Sides of the frames that `lite-bench data prepare` makes: as they are released, and made from the full size."""

ANNOTATIONS = "annotations"
MARKER = "synthetic.json"
"""A root that holds this file is a stand-in."""
PREPARATION = "preparation.json"
"""A root that holds this file was made by `lite-bench data prepare`; the file says whether it is finished."""

ROOT_NAME = "orbit_benchmark"
SIZED_NAME = re.compile(rf"{ROOT_NAME}_(\d+)")
COLLECTOR = re.compile(r"P\d{3}")
UNFILTERED_KIND, UNFILTERED_PART = "clutter-pan", "other"
"""Folders that only the unfiltered dataset has: a kind of videos, and one beside the splits."""
DESKTOP_FILES = frozenset({"thumbs.db", "desktop.ini"})
LAYOUT = "<user>/<object>/{clean,clutter}/<video>/<video>-00001.jpg"


def root_name(image_size: int) -> str:
    """Name the root of frames of ``image_size`` pixels, as the authors' download script does."""
    return f"{ROOT_NAME}_{image_size}"


def prepare_command(image_size: int, originals: str = "DOWNLOADS") -> str:
    """Give the command that makes frames of ``image_size`` pixels, or nothing if there is none."""
    if image_size not in {RELEASED_SIZE, SMALL_SIZE}:
        return ""
    return f"`lite-bench data prepare orbit_{image_size} --from {originals} --output-dir DATA`"


def is_seen(name: str) -> bool:
    """Tell whether a file or folder counts: hidden ones and those that desktops leave behind do not."""
    return not name.startswith(".") and name.lower() not in DESKTOP_FILES


def is_root(folder: Path) -> bool:
    """Tell whether ``folder`` holds ``train`` or ``test``; one that may not be looked into does not."""
    return any(_is_folder(folder / split) for split in ("train", "test"))


def _is_folder(path: Path) -> bool:
    """Do what `Path.is_dir` does, which raises an error in some versions of Python where it may not look."""
    try:
        return path.is_dir()
    except PermissionError:
        return False


def search_bases(data_dir: Path | None) -> list[Path]:
    """List the folders that a root is looked for in: ``data_dir``, then ORBIT_BENCHMARK_ROOT."""
    bases = [data_dir] if data_dir else []
    if folder := os.environ.get(VARIABLE):
        bases.append(Path(folder))
    return [base.expanduser() for base in bases]


def search_places(image_size: int, data_dir: Path | None) -> list[Path]:
    """List the folders that may be the root of frames of ``image_size`` pixels, the first hit counts."""
    name = root_name(image_size)
    places = (place for base in search_bases(data_dir) for place in (base, base / name, base / "orbit" / name))
    return list(dict.fromkeys(places))


@dataclass(frozen=True)
class Search:
    """The outcome of a search for a root.

    Attributes:
        root: the first one found, or None.
        looked: the folders it was looked for in.
        problem: what was found in its stead, with the remedy, or empty.
    """

    root: Path | None
    looked: tuple[Path, ...]
    problem: str = ""


def search_root(image_size: int, data_dir: Path | None) -> Search:
    """Look for the root of frames of ``image_size`` pixels; a root of another size is a problem, not a hit."""
    looked = tuple(search_places(image_size, data_dir))
    problems = []
    for place in looked:
        if not is_root(place):
            problems.append(misplaced(place, image_size))
            continue
        size = root_size(place)
        if size in {None, image_size}:
            return Search(place, looked)
        problems.append(
            f"{place} holds frames of {size} pixels, and {image_size} are asked for; give --image-size {size} or the "
            f"folder of the {image_size}-pixel frames as --data-dir."
        )
    return Search(None, looked, next(filter(None, problems), ""))


def find_root(image_size: int, data_dir: Path | None) -> Path | None:
    """Find the root of frames of ``image_size`` pixels.

    Looked in: ``data_dir``, its ``orbit_benchmark_<S>``, its ``orbit/orbit_benchmark_<S>``, and the same of the folder
    that ORBIT_BENCHMARK_ROOT names.

    Raises:
        DataError: none is there but something that may be taken for it: frames of another size, the unfiltered
            dataset, a single split, archives that are not unpacked.
    """
    found = search_root(image_size, data_dir)
    if found.root is None and found.problem:
        raise DataError(found.problem)
    return found.root


def missing_root(image_size: int, data_dir: Path | None) -> str:
    """Say that no root was found, where it was looked for and what to do."""
    looked = ", ".join(str(place) for place in search_places(image_size, data_dir))
    where = f"looked in {looked}" if looked else f"neither --data-dir nor {VARIABLE} is given"
    remedy = f"give the folder that holds {root_name(image_size)} as --data-dir"
    if there := " or ".join(str(size) for size in found_roots(data_dir)):
        remedy += f", or give --image-size {there}, which is there"
    return (
        f"ORBIT's {image_size}-pixel frames were not found ({where}); {remedy}; `lite-bench data status orbit` says "
        "how to get them."
    )


def found_roots(data_dir: Path | None) -> dict[int, Path]:
    """Find the roots of all sizes, each the one that `find_root` finds; size -> root."""
    sizes = set()
    for base in search_bases(data_dir):
        for place in (base, *_sized_folders(base), *_sized_folders(base / "orbit")):
            if is_root(place) and (size := root_size(place)) is not None:
                sizes.add(size)
    roots = {size: search_root(size, data_dir).root for size in sorted(sizes)}
    return {size: root for size, root in roots.items() if root is not None}


def _sized_folders(folder: Path) -> list[Path]:
    return [folder / name for name in _names(folder) if SIZED_NAME.fullmatch(name)]


def root_size(root: Path) -> int | None:
    """Say how large the frames of a root are: by its name or else by one of its frames; None if neither tells."""
    if named := SIZED_NAME.fullmatch(root.resolve().name):
        return int(named[1])
    frame = next(_frames(root), None)
    if frame is None:
        return None
    try:
        with Image.open(frame) as image:
            return image.width
    except Exception:  # Pillow raises errors of many types; whoever reads the frame says what is wrong with it
        return None


def _frames(root: Path) -> Iterator[Path]:
    """Go through the frames of a root by listing no more folders than it takes."""
    for split in SPLITS:
        for user in _below(root / split):
            for item in _below(user):
                for kind in KINDS:
                    for video in _below(item / kind):
                        yield from _below(video)


def _below(folder: Path) -> Iterator[Path]:
    return (folder / name for name in _names(folder))


def _names(folder: Path) -> list[str]:
    """List the names in a folder, in order; none if it is missing, not a folder or may not be read."""
    try:
        return sorted(path.name for path in folder.iterdir() if is_seen(path.name))
    except OSError:
        return []


def unfiltered(place: Path) -> str:
    """Word the problem of a folder that holds the unfiltered dataset."""
    return (
        f"{place} holds the unfiltered ORBIT dataset, of which the benchmark is a selection; get the benchmark's "
        f"folders train, validation and test from {PAGE} (see `lite-bench data status orbit`)."
    )


def has_unfiltered_part(root: Path) -> bool:
    """Tell whether a root has the part of the unfiltered dataset that is in no split: a folder of other collectors."""
    return any(COLLECTOR.fullmatch(name) for name in _names(root / UNFILTERED_PART))


def misplaced(place: Path, image_size: int) -> str:
    """Name what ``place`` holds if it may be taken for a root and is none, with the remedy, or give nothing."""
    names = _names(place)
    if any(COLLECTOR.fullmatch(name) for name in names):
        if place.resolve().name in SPLITS:
            return f"{place} is a single split of ORBIT; give the folder above it, which holds train and test."
        return unfiltered(place)
    packed = [name for name in (f"{split}.zip" for split in SPLITS) if name in names]
    if packed:
        command = prepare_command(image_size, str(place))
        way = f" with {command}, then give DATA as --data-dir" if command else ""
        return f"{place} holds {' and '.join(packed)}, still packed; unpack them{way}."
    return ""


def frames_problem(video: str, names: list[str], place: object) -> str:
    """Check that ``names``, in order, are all frames of a video; gives the first problem, or nothing.

    Args:
        video: its name.
        names: the files that are there, each once.
        place: where they are, for messages.
    """
    if not names:
        return f"The video {place} has no frames; download or unpack it again."
    expected = [f"{video}-{number:05d}.jpg" for number in range(1, len(names) + 1)]
    if names == expected:
        return ""
    frame = re.compile(rf"{re.escape(video)}-(?!00000)\d{{5}}\.jpg")
    if stray := [name for name in names if not frame.fullmatch(name)]:
        return f"The file {stray[0]} in {place} is not named as a frame of that video; remove it or download it again."
    there = set(names)
    missing = next(name for name in expected if name not in there)
    return f"The video {place} lacks {missing}, though it has {names[-1]}; download or unpack it again."
