"""The classes of an image folder: which files they hold, and which split each belongs to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from lite_bench.datasets.workers import for_each
from lite_bench.harness.core import Split, stable_key
from lite_bench.harness.errors import DataError, UsageError

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train",
    "val": "validation",
    "validation": "validation",
    "test": "test",
}
MIN_CLASSES = 2

ClassSplits = dict[Split, list[str]]
Decode = Callable[[str], object]
"""Reads the image of a path below the root; raises DataError if it cannot."""


@dataclass(frozen=True)
class FolderIndex:
    """What an image folder holds.

    Attributes:
        root: the folder.
        classes: class (path below ``root``) -> files (names and bytes), both in order of name.
        passed_over: files that belong to no class, as paths below ``root``.
        skipped: bad images that were left out, as paths below ``root``.
    """

    root: Path
    classes: dict[str, tuple[tuple[str, int], ...]]
    passed_over: tuple[str, ...] = ()
    skipped: tuple[str, ...] = field(default=())

    def counts(self, names: Sequence[str]) -> dict[str, int]:
        """Count the images of the classes ``names``."""
        return {name: len(self.classes[name]) for name in names}


def list_folder(root: Path) -> FolderIndex:
    """List the classes of ``root``: the folders below it that directly hold images, or nothing at all.

    All files of a class count as its images, whatever their names. Files outside the classes (a licence
    beside the class folders) are passed over and listed as such; hidden files and folders (``.DS_Store``) and
    ``Thumbs.db`` are not seen. Links are followed, except to a folder above.

    Raises:
        DataError: ``root`` is missing, is not a folder, or has no classes.
    """
    if not root.is_dir():
        state = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"The image folder {root} {state}; give a folder that holds one sub-folder per class.")
    classes: dict[str, tuple[tuple[str, int], ...]] = {}
    outside: list[str] = []
    for name, files, has_folders in _walk(root, root, ()):
        if name and (_has_image_name(files) or not has_folders):
            classes[name] = tuple((file, _size(root / name / file)) for file in files)
        else:
            outside.extend(f"{name}/{file}" if name else file for file in files)
    if not classes:
        raise DataError(f"The image folder {root} has no classes; put the images of each class into a sub-folder.")
    return FolderIndex(root, dict(sorted(classes.items())), tuple(sorted(outside)))


def _size(path: Path) -> int:
    """Give a file's bytes; 0 for a link to nothing, which is a bad image when it is read."""
    return path.stat().st_size if path.exists() else 0


def holds_classes(root: Path) -> bool:
    """Tell quickly whether ``root`` looks like classes of images, at once below it or below split folders."""
    if not root.is_dir():
        return False
    tops = [root, *(folder for folder in root.iterdir() if folder.name.lower() in SPLIT_FOLDERS)]
    return any(_is_seen(path.name) and _has_image_name([path.name]) for top in tops for path in top.glob("*/*"))


def _walk(root: Path, folder: Path, above: tuple[str, ...]) -> Iterator[tuple[str, list[str], bool]]:
    """Yield each folder's path below ``root``, its files, and whether it has sub-folders."""
    real = os.path.realpath(folder)
    if real in above:
        return
    entries = sorted((e for e in os.scandir(folder) if _is_seen(e.name)), key=lambda entry: entry.name)
    folders = [entry for entry in entries if entry.is_dir()]
    files = [entry.name for entry in entries if not entry.is_dir()]
    name = folder.relative_to(root).as_posix()
    yield ("" if name == "." else name), files, bool(folders)
    for entry in folders:
        yield from _walk(root, Path(entry.path), (*above, real))


def _is_seen(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in {"thumbs.db", "desktop.ini"}


def _has_image_name(files: Sequence[str]) -> bool:
    known = Image.registered_extensions()
    return any(Path(file).suffix.lower() in known for file in files)


def unlikely_images(index: FolderIndex) -> list[str]:
    """List the files of classes whose names do not end like an image's."""
    return [
        f"{name}/{file}" for name, files in index.classes.items() for file, _ in files if not _has_image_name([file])
    ]


def without_bad_images(index: FolderIndex, decode: Decode) -> FolderIndex:
    """Read every image once and leave out those that cannot be read."""
    paths = [f"{name}/{file}" for name, files in index.classes.items() for file, _ in files]
    bad: set[str] = set()

    def check(_: int, path: str) -> None:
        try:
            decode(path)
        except DataError:
            bad.add(path)

    for_each(check, paths)
    classes = {
        name: tuple(pair for pair in files if f"{name}/{pair[0]}" not in bad) for name, files in index.classes.items()
    }
    return replace(index, classes=classes, skipped=tuple(sorted(bad)))


def split_by_folders(index: FolderIndex) -> ClassSplits | None:
    """Split the classes by top folders named ``train``, ``val`` or ``validation``, and ``test``.

    Returns:
        the classes of each split, or None if there are no such folders. A class folder that is itself named
        ``train`` (a vehicle, say) is a class and not a split.

    Raises:
        DataError: some classes are outside the split folders, or two splits share a class.
    """
    homes = {name: SPLIT_FOLDERS.get(name.split("/")[0].lower()) if "/" in name else None for name in index.classes}
    if not any(homes.values()):
        return None
    if strays := [name for name, home in homes.items() if home is None]:
        raise DataError(
            f"{index.root} has split folders (train, val, test) but also {strays[0]!r} beside them; "
            "move all classes into the split folders or none."
        )
    splits: ClassSplits = {split: [name for name, home in homes.items() if home == split] for split in SPLITS}
    _check_disjoint(index.root, splits)
    return splits


def _check_disjoint(root: Path, splits: ClassSplits) -> None:
    seen: dict[str, str] = {}
    for name in (name for names in splits.values() for name in names):
        folder, _, below = name.partition("/")
        if seen.setdefault(below, folder) != folder:
            raise DataError(
                f"Class {below!r} is in both {seen[below]}/ and {folder}/ of {root}; few-shot splits hold "
                "different classes, so put all of them into one tree and let the seed split the classes."
            )


def split_by_seed(classes: Sequence[str], train_fraction: float, validation_fraction: float, seed: int) -> ClassSplits:
    """Split classes at random, the same way on every machine.

    The classes are put in the order of a hash of the seed and their name, so adding a class moves few others.
    The first ``train_fraction`` are for training, the next ``validation_fraction`` for validation (both
    rounded), the rest for testing; no split with a share gets fewer than two classes, if there are enough.

    Raises:
        UsageError: the fractions are not in 0..1 or add up to more than 1.
    """
    if min(train_fraction, validation_fraction) < 0 or train_fraction + validation_fraction > 1 + 1e-9:
        raise UsageError(
            f"train_fraction={train_fraction:g} and validation_fraction={validation_fraction:g} do not "
            "divide the classes; give fractions of at least 0 that add up to at most 1."
        )
    order = sorted(classes, key=lambda name: (stable_key("folder split", seed, name), name))
    shares = (train_fraction, validation_fraction, 1 - train_fraction - validation_fraction)
    sizes = split_sizes(len(order), shares)
    ends = (sizes[0], sizes[0] + sizes[1], len(order))
    starts = (0, *ends[:2])
    return {s: sorted(order[a:b]) for s, a, b in zip(SPLITS, starts, ends, strict=True)}


def split_sizes(n: int, shares: Sequence[float]) -> list[int]:
    """Round ``shares`` of ``n`` classes, the last taking the rest, with at least two each where possible."""
    sizes = [round(n * share) for share in shares[:-1]]
    sizes.append(max(0, n - sum(sizes)))
    sizes[0] = n - sum(sizes[1:])
    for i, share in enumerate(shares):
        while share > 1e-9 and sizes[i] < MIN_CLASSES and max(sizes) > MIN_CLASSES:
            sizes[sizes.index(max(sizes))] -= 1
            sizes[i] += 1
    return sizes


def describe(index: FolderIndex, splits: Mapping[Split, Sequence[str]]) -> list[str]:
    """Say how the classes were split and what was left out."""
    parts = ", ".join(f"{len(names)} {split}" for split, names in splits.items())
    notes = [f"Classes of {index.root}: {parts}."]
    if index.passed_over:
        notes.append(f"Passed over {_listed('file', index.passed_over)} outside the classes.")
    if index.skipped:
        notes.append(f"Skipped {_listed('bad image', index.skipped)}.")
    return notes


def _listed(noun: str, paths: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(paths) - limit} more" if len(paths) > limit else ""
    return f"{len(paths)} {noun}{'' if len(paths) == 1 else 's'} ({', '.join(paths[:limit])}{more})"
