"""Where Omniglot's drawings come from: the official zips, their unpacked folders, or a TFDS copy.

A source maps characters, named ``Alphabet/character07``, to the PNG bytes of their drawings. The first two
need nothing but the standard library; the third reads ``omniglot/3.0.0`` in array_record or Parquet form
through ``tensorflow_datasets`` (TFDS) without TensorFlow.
"""

from __future__ import annotations

import os
import re
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lite_bench.harness.errors import DataError

Part = Literal["background", "evaluation"]
PARTS: tuple[Part, Part] = ("background", "evaluation")
TFDS_SPLITS: dict[Part, str] = {"background": "train", "evaluation": "test"}
DRAWING = re.compile(r"(?:^|/)images_(?:background|evaluation)/([^/]+)/(character\d+)/\d+_\d+\.png$")
DOWNLOAD = "https://github.com/brendenlake/omniglot/tree/master/python"


@dataclass(frozen=True)
class Drawings:
    """The drawings of one character.

    Attributes:
        part: the official set it belongs to.
        sizes: bytes of each drawing's PNG file, ascending.
        read: reads the PNG files, in no particular order.
    """

    part: Part
    sizes: tuple[int, ...]
    read: Callable[[], list[bytes]]


Characters = dict[str, Drawings]


def search_places(data_dir: Path | None) -> list[Path]:
    """List where Omniglot is looked for: ``data_dir``, then OMNIGLOT_ROOT, then the TFDS folder."""
    places = [data_dir] if data_dir else []
    if root := os.environ.get("OMNIGLOT_ROOT"):
        places.append(Path(root))
    places.append(Path(os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets"))
    return [place.expanduser() for place in places]


def find_copy(data_dir: Path | None) -> tuple[str, Path] | None:
    """Find the first complete copy.

    Returns:
        its kind (``zips``, ``folders`` or ``tfds``) and the folder it is in, or None.
    """
    for place in search_places(data_dir):
        for folder in (place, place / "omniglot"):
            if all((folder / f"images_{part}.zip").is_file() for part in PARTS):
                return "zips", folder
            if all((folder / f"images_{part}").is_dir() for part in PARTS):
                return "folders", folder
            for version in (folder, *sorted(folder.glob("3.*"), reverse=True)):
                if (version / "dataset_info.json").is_file() and (version / "features.json").is_file():
                    return "tfds", version
    return None


def open_copy(data_dir: Path | None) -> Characters:
    """List the characters of the first copy found.

    Raises:
        DataError: there is no copy, or it is not readable as Omniglot.
    """
    found = find_copy(data_dir)
    if found is None:
        looked = ", ".join(str(place) for place in search_places(data_dir))
        raise DataError(
            f"Omniglot was not found in {looked}; download images_background.zip and images_evaluation.zip "
            f"from {DOWNLOAD} and give their folder as --data-dir or OMNIGLOT_ROOT."
        )
    kind, folder = found
    characters = {"zips": _from_zips, "folders": _from_folders, "tfds": _from_tfds}[kind](folder)
    for part in PARTS:
        if not any(drawings.part == part for drawings in characters.values()):
            raise DataError(
                f"The {part} set in {folder} holds no drawings named like Alphabet/character01/0001_01.png; "
                f"download images_{part}.zip again from {DOWNLOAD}."
            )
    return dict(sorted(characters.items()))


def _from_zips(folder: Path) -> Characters:
    characters: Characters = {}
    for part in PARTS:
        path = folder / f"images_{part}.zip"
        try:
            archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(
                f"The archive {path} cannot be read ({error}); download it again from {DOWNLOAD}."
            ) from error
        members: dict[str, list[zipfile.ZipInfo]] = {}
        for info in archive.infolist():
            if match := DRAWING.search(info.filename):
                members.setdefault(f"{match[1]}/{match[2]}", []).append(info)
        lock = threading.Lock()
        for name, infos in members.items():
            sizes = tuple(sorted(info.file_size for info in infos))
            characters[name] = Drawings(part, sizes, _zip_reader(path, archive, infos, lock))
    return characters


def _zip_reader(
    path: Path, archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo], lock: threading.Lock
) -> Callable[[], list[bytes]]:
    def read() -> list[bytes]:
        try:
            with lock:
                return [archive.read(info) for info in infos]
        except (OSError, zipfile.BadZipFile, EOFError) as error:
            raise DataError(f"The archive {path} is damaged ({error}); download it again from {DOWNLOAD}.") from error

    return read


def _from_folders(folder: Path) -> Characters:
    characters: Characters = {}
    for part in PARTS:
        members: dict[str, list[Path]] = {}
        for path in sorted((folder / f"images_{part}").glob("*/character*/*.png")):
            if match := DRAWING.search(path.as_posix()):
                members.setdefault(f"{match[1]}/{match[2]}", []).append(path)
        for name, paths in members.items():
            sizes = tuple(sorted(path.stat().st_size for path in paths))
            characters[name] = Drawings(part, sizes, _folder_reader(paths))
    return characters


def _folder_reader(paths: list[Path]) -> Callable[[], list[bytes]]:
    return lambda: [path.read_bytes() for path in paths]


def _from_tfds(folder: Path) -> Characters:
    characters: Characters = {}
    for part, split in TFDS_SPLITS.items():
        members: dict[str, list[bytes]] = {}
        for alphabet, number, png in _tfds_examples(folder, split):
            members.setdefault(f"{alphabet}/character{number + 1:02d}", []).append(png)
        for name, pngs in members.items():
            characters[name] = Drawings(part, tuple(sorted(len(png) for png in pngs)), _held(pngs))
    return characters


def _held(pngs: list[bytes]) -> Callable[[], list[bytes]]:
    return lambda: pngs


def _tfds_examples(folder: Path, split: str) -> list[tuple[str, int, bytes]]:
    """Read alphabet, character number from 0 and PNG bytes of every drawing of a prepared split.

    The drawings are counted, because the Parquet files that TFDS 4.9.10 writes lack most of their examples.
    """
    import tensorflow_datasets as tfds

    try:
        builder: Any = tfds.builder_from_directory(str(folder))
        names = builder.info.features["alphabet"].int2str
        promised = int(builder.info.splits[split].num_examples)
        source = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        examples = [(names(int(x["alphabet"])), int(x["alphabet_char_id"]), bytes(x["image"])) for x in source]
    except Exception as error:
        raise _bad_tfds(folder, f"cannot be read as omniglot ({error})") from error
    if len(examples) != promised:
        raise _bad_tfds(folder, f"holds {len(examples)} of {promised} drawings of {split!r}")
    return examples


def _bad_tfds(folder: Path, state: str) -> DataError:
    return DataError(
        f"The TensorFlow Datasets copy in {folder} {state}; prepare omniglot/3.0.0 again in array_record "
        f"format, or use the two zips from {DOWNLOAD}."
    )
