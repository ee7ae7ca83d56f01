"""SUN397 as the code of LITE uses it: a folder per class, a split of its own, a support set that covers the classes.

TFDS could not prepare SUN397 when that code was written (tensorflow/datasets #2889). The split is 70, 10 and
20 per cent, drawn by torch with the seed 15. The support set was drawn without a seed; here a generator is given.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path

import numpy as np

from lite_bench.datasets.vtab.prepared import MARKER
from lite_bench.datasets.vtab.tasks import task_named
from lite_bench.harness.errors import DataError

Random = np.random.Generator | np.random.RandomState
"""Whose permutation orders the draw; that of a RandomState is the same in every version of numpy."""

N_IMAGES = 108754
SPLIT_SEED = 15
N_SUPPORT = 1000
MAX_PER_CLASS = 2
MAX_DRAWS = 10000
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp"})
PREPARE = "unpack SUN397.tar.gz of https://vision.princeton.edu/projects/2010/SUN/ into one folder per class"


def search_places(data_dir: Path | None) -> list[Path]:
    """List where the image folder is looked for: ``data_dir/sun397``, then SUN397_ROOT."""
    folders = [data_dir / "sun397"] if data_dir else []
    if root := os.environ.get("SUN397_ROOT"):
        folders.append(Path(root))
    return [folder.expanduser() for folder in folders]


def class_folders(folder: Path) -> list[Path]:
    """List the class folders in order; a folder of TFDS's own copy, which may lie beside them, is none."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(f"The folder {folder} cannot be read ({error.strerror}); change its permissions.") from error
    return [folder / name for name in sorted(names) if name != "tfds" and not name.startswith("standard-part")]


def find_folder(data_dir: Path | None) -> Path:
    """Find the first folder that holds a folder for each of the classes.

    Raises:
        DataError: there is none.
    """
    places = search_places(data_dir)
    wanted = task_named("sun397").classes
    counts = {place: len(class_folders(place)) for place in places}
    for place, count in counts.items():
        if count == wanted:
            return place
    for place, count in counts.items():
        if count:
            raise DataError(f"The folder {place} holds {count} folders and SUN397 has {wanted} classes; {PREPARE}.")
    looked = ", ".join(str(place) for place in places)
    where = f"was not found in {looked}" if looked else "needs a place to be looked for in"
    raise DataError(f"The image folder of SUN397 {where}; {PREPARE} and give it as SUN397_ROOT.")


def split_sizes(n: int) -> tuple[int, int, int]:
    """Count the images for training, validation and test: halves are rounded to even, the test set is the rest."""
    train, validation = round(0.7 * n), round(0.1 * n)
    return train, validation, n - train - validation


def split_images(n: int) -> dict[str, np.ndarray]:
    """Split ``n`` images as ``torch.utils.data.random_split`` does with the seed 15.

    Returns:
        int64 numbers of the images of ``train``, ``validation`` and ``test``, in the order of that split.
    """
    import torch  # imported here: `lite-bench data` is to answer without it where there is no such folder

    order = torch.randperm(n, generator=torch.Generator().manual_seed(SPLIT_SEED)).numpy()
    train, validation, _ = split_sizes(n)
    parts = np.split(order, [train, train + validation])
    return dict(zip(("train", "validation", "test"), parts, strict=True))


def draw_support(labels: np.ndarray, way: int, n_support: int, rng: Random) -> np.ndarray:
    """Draw a support set that covers the classes.

    Images are drawn one by one and kept unless two of their class are, until every class is there or after
    10,000 draws; then all that are drawn are kept, last of all those passed over before.

    Args:
        labels: int [n], classes of the training images.
        way: number of classes.
        n_support: images to draw.
        rng: where the order comes from.

    Returns:
        int64 [n_support], distinct positions in ``labels``, in the order kept; all n if there are no more.
    """
    order = rng.permutation(len(labels)).tolist()
    kept: list[int] = []
    passed: list[int] = []
    counts: Counter[int] = Counter()
    for draw, position in enumerate(order):
        if len(counts) == way or draw == MAX_DRAWS:
            kept += order[draw:]
            break
        label = int(labels[position])
        (kept if counts[label] < MAX_PER_CLASS else passed).append(position)
        counts[label] += 1
    return np.array((kept + passed)[:n_support], np.int64)


class Sun397Folder:
    """The images of SUN397 in class folders; labels are the positions of the sorted names of the folders.

    Attributes:
        folder: where it is.
        synthetic: it is a stand-in, and results on it mean nothing.
        sizes: number of images of ``train``, ``validation``, ``test`` and of ``support``, drawn from ``train``.
    """

    def __init__(self, folder: Path, rng: Random) -> None:
        """List the images, split them and draw the support set from ``rng``.

        Raises:
            DataError: the number of classes or images is not that of SUN397.
        """
        self.folder = folder
        self.synthetic = (folder / MARKER).is_file()
        classes = class_folders(folder)
        files = [_images(path) for path in classes]
        labels = np.repeat(np.arange(len(classes)), [len(names) for names in files])
        self._classes, self._labels = classes, labels
        self._names = [name for names in files for name in names]
        self._check(len(classes))
        self._splits = split_images(len(self._names))
        train = self._splits["train"]
        self._splits["support"] = train[draw_support(labels[train], len(classes), N_SUPPORT, rng)]
        self.sizes = {split: len(images) for split, images in self._splits.items()}

    def _check(self, n_classes: int) -> None:
        wanted = task_named("sun397").classes
        if n_classes != wanted:
            raise DataError(f"The folder {self.folder} holds {n_classes} classes, not {wanted}; {PREPARE}.")
        if len(self._names) != N_IMAGES and not self.synthetic:
            raise DataError(
                f"The folder {self.folder} holds {len(self._names)} images, and SUN397 has {N_IMAGES}; {PREPARE}."
            )

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the paths of all images, which decide the split."""
        paths = (f"{self._classes[label].name}/{name}\n" for label, name in zip(self._labels, self._names, strict=True))
        return hashlib.sha256("".join(paths).encode("utf-8", "surrogateescape")).hexdigest()

    def path(self, split: str, position: int) -> Path:
        """Give the file of an image."""
        number = int(self._splits[split][position])
        return self._classes[int(self._labels[number])] / self._names[number]

    def example(self, split: str, position: int) -> tuple[bytes, int]:
        """Read the bytes of an image file and its label.

        Raises:
            DataError: the file cannot be read.
        """
        path = self.path(split, position)
        try:
            return path.read_bytes(), int(self._labels[self._splits[split][position]])
        except OSError as error:
            raise DataError(
                f"The image {path} cannot be read ({error.strerror}); do not change a data folder while it is in use."
            ) from error


def _images(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if Path(entry.name).suffix.lower() in SUFFIXES)
    except OSError as error:
        raise DataError(f"The folder {folder} cannot be read ({error.strerror}); change its permissions.") from error
