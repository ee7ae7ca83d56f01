"""Getting VTAB's data ready: TFDS's own preparation, and the image folder of SUN397 from its archive."""

from __future__ import annotations

import functools
import importlib.util
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from lite_bench.datasets.vtab.prepared import NotPrepared, PreparedDataset, check_sizes, find_prepared
from lite_bench.datasets.vtab.sun397 import N_IMAGES, SUFFIXES
from lite_bench.datasets.vtab.tasks import dataset_named
from lite_bench.harness.errors import DataError
from lite_bench.harness.files import write_atomically

EXTRA = "pip install 'lite-bench[tfds-prepare]'"


def prepare(name: str, *, manual: Path | None, output: Path) -> None:
    """Download and prepare a dataset with TFDS, in array_record format, unless there is a copy already.

    Args:
        name: of the dataset in TFDS, with its config if it has several, as ``eurosat/rgb``.
        manual: folder with files that TFDS cannot download by itself, or None.
        output: root of the prepared datasets.

    Raises:
        UnknownNameError: no task uses the dataset.
        DataError: TensorFlow is not installed, the preparation failed, or ``output`` has an incomplete copy.
    """
    dataset = dataset_named(name.partition("/")[0])
    if _is_there(name, output):
        return
    if importlib.util.find_spec("tensorflow") is None:
        raise DataError(f"Preparing {name} needs TensorFlow (reading it does not); {EXTRA}.")
    import tensorflow_datasets as tfds

    try:
        builder: Any = tfds.builder(name, data_dir=output, file_format="array_record")
        config = tfds.download.DownloadConfig(manual_dir=str(manual) if manual else None)
        builder.download_and_prepare(download_config=config)
    except ImportError as error:
        missing = str(error).partition("\n")[0]  # TFDS adds a guess at the package's name, such as cv2
        raise DataError(f"Preparing {name} needs a package that is not installed ({missing}); {EXTRA}.") from error
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"TensorFlow Datasets could not prepare {name} in {output} ({reason}); "
            f"https://www.tensorflow.org/datasets/catalog/{dataset.name} says what it needs."
        ) from error


def _is_there(name: str, output: Path) -> bool:
    """Tell whether there is a copy; TFDS itself would leave alone any folder that has a ``dataset_info.json``.

    Raises:
        DataError: there is one that cannot be used.
    """
    title, _, config = name.partition("/")
    dataset = dataset_named(title)
    folder = find_prepared([output], title, config or None, dataset.versions)
    if isinstance(folder, NotPrepared):
        return False
    try:
        prepared = PreparedDataset(folder)
        check_sizes(prepared, dataset, list(dataset.splits))
        prepared.check_files(dataset.splits)
    except DataError as error:
        raise DataError(f"{error} Delete {folder} first, because TensorFlow Datasets changes no copy.") from error
    if prepared.synthetic:
        raise DataError(f"The copy in {folder} is a stand-in; delete it, or prepare {name} in another folder.")
    return True


@functools.cache
def sun397_classes() -> tuple[str, ...]:
    """Name the class folders of SUN397: ``abbey``, ``apse_indoor``, ..., in the order of the archive's own list."""
    import tensorflow_datasets as tfds

    path = Path(tfds.core.tfds_path("image_classification/sun397_labels.txt"))
    return tuple(_class_name(PurePosixPath(line)) for line in path.read_text(encoding="utf-8").split())


def _class_name(folder: PurePosixPath) -> str:
    """Flatten a class's path: ``/a/apse/indoor`` becomes ``apse_indoor``."""
    return "_".join(folder.parts[2:])


def prepare_sun397_folder(source: Path, output: Path) -> int:
    """Bring the images of SUN397's archive into one folder per class.

    Images already there are kept, so that an interrupted call can be repeated; every image appears whole or not.

    Args:
        source: ``SUN397.tar.gz``, or the folder that it was unpacked to.
        output: the new folder, such as ``<data_dir>/sun397``.

    Returns:
        number of images, which is that of the archive.

    Raises:
        DataError: the source is missing, damaged, or not complete.
        RunError: an image cannot be written.
    """
    if not source.exists():
        raise DataError(f"There is no {source}; give SUN397.tar.gz or the folder that it was unpacked to.")
    classes = frozenset(sun397_classes())
    images = 0
    try:
        for path, read in _members(source):
            name = _class_name(path.parent)
            if path.suffix.lower() not in SUFFIXES or name not in classes:
                continue
            target = output / name / path.name
            if not target.is_file():
                write_atomically(target, read())
            images += 1
    except (OSError, tarfile.TarError, EOFError) as error:
        raise DataError(f"{source} cannot be read ({error}); download SUN397.tar.gz again.") from error
    if images != N_IMAGES:
        raise DataError(f"{source} holds {images} images of SUN397's classes and should hold {N_IMAGES}; get it again.")
    return images


def _members(source: Path) -> Iterator[tuple[PurePosixPath, Callable[[], bytes]]]:
    """Give every file as ``/<letter>/<class>/.../<image>``, with what reads it."""
    if source.is_dir():
        nested = source / "SUN397"
        root = nested if nested.is_dir() else source
        for path in sorted(root.rglob("*.*")):
            yield PurePosixPath("/") / path.relative_to(root).as_posix(), path.read_bytes
        return
    with tarfile.open(source, "r|*") as archive:
        for member in archive:
            if member.isfile():
                yield PurePosixPath("/", *PurePosixPath(member.name).parts[1:]), _reader(archive, member)


def _reader(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        stream: IO[bytes] | None = archive.extractfile(member)
        if stream is None:
            raise tarfile.ReadError(f"{member.name} has no content")
        with stream:
            return stream.read()

    return read
