"""From the downloads of ORBIT to a root that the benchmark reads, safely stopped at any instant.

A video (or a split's annotations) is written into a hidden folder that takes its name when all its files are there, so
that a video which has its name is whole; a new call writes those that are not there. ``preparation.json`` in the root
says whether all is done. The 84-pixel frames are made as the authors' script makes them: Pillow's Lanczos filter from
the full size, saved as JPEG of quality 95 (protocol section 1.1).
"""

from __future__ import annotations

import io
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lite_bench.datasets.conversion.originals import Members, open_members
from lite_bench.datasets.orbit.folders import list_folders, present_splits
from lite_bench.datasets.orbit.layout import (
    ANNOTATIONS,
    EXTRA_ANNOTATIONS,
    LAYOUT,
    PAGE,
    PREPARATION,
    RELEASED_SIZE,
    ROOT_NAME,
    SMALL_SIZE,
    UNFILTERED_KIND,
    frames_problem,
    is_seen,
    root_name,
    unfiltered,
)
from lite_bench.datasets.orbit.published import SPLITS
from lite_bench.datasets.orbit.videos import KINDS
from lite_bench.harness.core import Split
from lite_bench.harness.errors import DataError, RunError
from lite_bench.harness.files import locked, write_atomically, write_errors

LOCK = ".preparation.lock"
JPEG_QUALITY = 95
DEPTH = 5
"""User, object, kind, video and frame: the parts of a frame's path inside its split."""

Progress = Callable[[int, int], None]
Encode = Callable[[bytes, str], bytes]
"""Makes the file to be written from an original's content and its place, for messages."""


@dataclass(frozen=True)
class Release:
    """What a root is made from.

    Attributes:
        source: name of the source, as `lite-bench data prepare` takes it.
        image_size: side of the frames that are written.
        title: of the release whose archives are needed.
        encode: applied to every frame.
    """

    source: str
    image_size: int
    title: str
    encode: Encode

    @property
    def needs(self) -> str:
        """Say which downloads are needed, and where they and their licence are."""
        names = ", ".join(f"{split}.zip" for split in SPLITS)
        return f"{names} of the {self.title} release from {PAGE}, which states the licence"


def as_released(data: bytes, place: str) -> bytes:
    """Give a frame as it is, once its header says that it has the released size.

    Raises:
        DataError: it is no image, or of another size.
    """
    size = _open(data, place).size
    if size != (RELEASED_SIZE, RELEASED_SIZE):
        raise DataError(
            f"The frame {place} is {size[0]}x{size[1]} pixels, not {RELEASED_SIZE}x{RELEASED_SIZE}; name the folder of "
            f"the {RELEASED_SIZE}-pixel release's archives, from {PAGE}."
        )
    return data


def resized(data: bytes, place: str) -> bytes:
    """Resize a frame of the full-size release to 84x84 and encode it as JPEG.

    Raises:
        DataError: it does not decode, or is not larger than those of the 224-pixel release.
    """
    image = _open(data, place)
    if min(image.size) <= RELEASED_SIZE:
        raise DataError(
            f"The frame {place} is {image.width}x{image.height} pixels; {SMALL_SIZE}-pixel frames are made from the "
            f"full-size release (1080x1080), from {PAGE}."
        )
    buffer = io.BytesIO()
    try:
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        small = rgb.resize((SMALL_SIZE, SMALL_SIZE), Image.Resampling.LANCZOS)
        small.save(buffer, "JPEG", quality=JPEG_QUALITY)
    except Exception as error:  # Pillow raises errors of many types
        raise DataError(f"The frame {place} is truncated or damaged ({error}); download or unpack it again.") from error
    return buffer.getvalue()


def _open(data: bytes, place: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data))
    except Exception as error:
        raise DataError(
            f"The frame {place} is not an image that Pillow can read; download or unpack it again."
        ) from error


RELEASES: Mapping[str, Release] = {
    release.source: release
    for release in (
        Release("orbit_224", RELEASED_SIZE, "224-pixel", as_released),
        Release("orbit_84", SMALL_SIZE, "full-size (1080-pixel)", resized),
    )
}


@dataclass(frozen=True)
class Unit:
    """A folder that appears when all its files are written.

    Attributes:
        place: the folder, relative to the root.
        members: where the originals are.
        files: name of the original -> name of the file.
        encode: makes the file from the original.
    """

    place: str
    members: Members
    files: Mapping[str, str]
    encode: Encode

    @property
    def part(self) -> str:
        """The split that it is of, or ``annotations``."""
        return self.place.partition("/")[0]


@dataclass(frozen=True)
class PreparationReport:
    """What is in a root after a preparation.

    Attributes:
        root: the folder.
        videos: number of videos in it.
        written: number of folders written by this call: videos, and splits' annotations.
        absent: splits that it lacks.
        unannotated: splits that have no annotations.
    """

    root: Path
    videos: int
    written: int
    absent: tuple[Split, ...]
    unannotated: tuple[Split, ...]


def prepare_root(
    release: Release,
    originals: Path,
    output: Path,
    *,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> PreparationReport:
    """Write ``output/orbit_benchmark_<S>`` from the downloaded archives, or go on where an earlier call was stopped.

    A split whose archive is not there is left out, and may be added by a later call; so may annotations.

    Args:
        release: what to write.
        originals: folder with ``train.zip``, ``validation.zip``, ``test.zip`` or what they unpack to, and
            ``orbit_extra_annotations.zip`` if annotations are wanted.
        output: the folder above the root.
        workers: number of threads.
        progress: told the folders written so far and all folders, at the start and after each.

    Raises:
        DataError: there is no archive, or one is damaged or not of the release.
        RunError: the root is in use or was not made by this, or cannot be written.
    """
    root = output / root_name(release.image_size)
    with write_errors(root):
        root.mkdir(parents=True, exist_ok=True)
    with locked(root / LOCK, f"Another process is preparing {root} at this moment; wait for it or stop it."):
        _require_own(root)
        units = plan(release, originals)
        _require_begun(root, originals, units)
        todo = [unit for unit in units if not (root / unit.place).is_dir()]
        if todo:
            _record(root, release, [unit.part for unit in todo])
        done = len(units) - len(todo)
        progress(done, len(units))
        for number, _ in enumerate(_write_units(todo, root, workers), start=done + 1):
            progress(number, len(units))
        _record(root, release, [])
    present = present_splits(root)
    absent = tuple(split for split in SPLITS if split not in present)
    unannotated = tuple(split for split in present if not (root / ANNOTATIONS / split).is_dir())
    return PreparationReport(root, len(list_folders(root).videos), len(todo), absent, unannotated)


def _require_own(root: Path) -> None:
    """Refuse a folder that holds what no preparation wrote."""
    if (root / PREPARATION).exists():
        return
    with write_errors(root):
        for path in sorted(root.iterdir()):
            if path.name != LOCK:
                raise RunError(f"{root} holds {path.name}, which no preparation wrote; name another --output-dir.")


def _require_begun(root: Path, originals: Path, units: Sequence[Unit]) -> None:
    """Refuse to finish without the archives that an earlier, stopped call was at work on."""
    path = root / PREPARATION
    if not path.exists():
        return
    try:
        begun = set(json.loads(path.read_text(encoding="utf-8"))["begun"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} cannot be read or is damaged; delete {root} and prepare it again.") from error
    if missing := sorted(begun - {unit.part for unit in units}):
        raise DataError(
            f"{originals} does not hold the originals of {' and '.join(missing)}, with which an earlier call began and "
            f"has not finished; put them there, or delete {root}."
        )


def _record(root: Path, release: Release, begun: Sequence[str]) -> None:
    record = {"source": release.source, "finished": not begun, "begun": sorted(set(begun))}
    write_atomically(root / PREPARATION, json.dumps(record) + "\n")


# --- what to write


def plan(release: Release, originals: Path) -> list[Unit]:
    """List the folders to write: the videos of those splits that ``originals`` has, and annotations.

    Raises:
        DataError: there is no archive, or one is damaged, incomplete or not of the benchmark.
    """
    places = {split: place for split in SPLITS if (place := find_split(originals, split))}
    extra = next(
        (folder / EXTRA_ANNOTATIONS for folder in _folders(originals) if (folder / EXTRA_ANNOTATIONS).is_file()), None
    )
    if not places and extra is None:
        raise DataError(f"{originals} holds none of the originals of {release.source}: {release.needs}.")
    units = [unit for split, place in places.items() for unit in _videos(split, place, release.encode)]
    if extra is not None:
        units += _annotations(extra)
    return units


def find_split(originals: Path, split: Split) -> Path | None:
    """Find the archive of a split or the folder that it unpacks to, in ``originals`` or its ``orbit_benchmark``."""
    places = (folder / name for folder in _folders(originals) for name in (f"{split}.zip", split))
    return next((place for place in places if place.exists()), None)


def _folders(originals: Path) -> tuple[Path, ...]:
    return originals, originals / ROOT_NAME


def _videos(split: Split, place: Path, encode: Encode) -> Iterator[Unit]:
    """Plan the videos of a split, each checked for gaps."""
    members = open_members(place)
    videos: dict[str, dict[str, str]] = {}
    for name in members.spans:
        folder, frame = _where(name, split, members)
        if frame:
            videos.setdefault(folder, {})[name] = frame
    if not videos:
        raise DataError(f"{place} holds no frames ({split}/{LAYOUT}); download it again from {PAGE}.")
    for folder in sorted(videos):
        files = dict(sorted(videos[folder].items()))
        video = folder.rpartition("/")[2]
        if problem := frames_problem(video, sorted(files.values()), f"{folder} in {place}"):
            raise DataError(problem)
        yield Unit(folder, members.only(files), files, encode)


def _where(name: str, split: Split, members: Members) -> tuple[str, str]:
    """Say which folder and file a member becomes; the file is empty if the member is not a frame.

    The split's own name, and folders above it, may or may not be in front of the user.
    """
    parts = name.removeprefix("./").split("/")
    odd = {"", ".", ".."} & set(parts) or "\\" in name  # what could lead out of the root
    if not name.endswith(".jpg") or "__MACOSX" in parts or not (odd or all(map(is_seen, parts))):
        return "", ""
    above, inside = parts[:-DEPTH], parts[-DEPTH:]
    if odd or len(inside) < DEPTH:
        raise DataError(
            f"{members.place(name)} does not lie as frames do, {split}/{LAYOUT}; download it again from {PAGE}."
        )
    if inside[2] == UNFILTERED_KIND:
        raise DataError(unfiltered(members.path))
    if inside[2] not in KINDS or (above and above[-1] in SPLITS and above[-1] != split):
        raise DataError(f"{members.place(name)} is not a frame of {split}/{LAYOUT}; download it again from {PAGE}.")
    return "/".join((split, *inside[:-1])), inside[-1]


def _annotations(archive: Path) -> Iterator[Unit]:
    members = open_members(archive)
    for split in SPLITS:
        found = members.matching(rf"(?:^|/){split}/([^/\\]+\.json)$")
        if found:
            files = {name: match[1] for name, match in found}
            yield Unit(f"{ANNOTATIONS}/{split}", members.only(files), files, _unchanged)


def _unchanged(data: bytes, place: str) -> bytes:
    del place
    return data


# --- writing


def _write_units(todo: Sequence[Unit], root: Path, workers: int) -> Iterator[Unit]:
    """Write folders in threads, which is enough because Pillow and zlib release the interpreter lock."""
    stop = threading.Event()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prepare")
    try:
        jobs = {pool.submit(_write_unit, unit, root, stop): unit for unit in todo}
        for job in as_completed(jobs):
            job.result()
            yield jobs[job]
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _write_unit(unit: Unit, root: Path, stop: threading.Event) -> None:
    """Write one folder under a hidden name, then give it its own."""
    target = root / unit.place
    temporary = target.with_name(f".{target.name}.tmp")
    with write_errors(target):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    for name, data in unit.members.contents(unit.files):
        if stop.is_set():
            return
        content = unit.encode(data, unit.members.place(name))
        with write_errors(target):
            (temporary / unit.files[name]).write_bytes(content)
    with write_errors(target):
        temporary.replace(target)
