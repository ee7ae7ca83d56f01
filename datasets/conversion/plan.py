"""What a conversion will write, as data: the engine runs it, the converters of the sources make it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lite_bench.datasets.meta_dataset.specification import Specification


@dataclass(frozen=True)
class Original:
    """A file or folder that a source is published as.

    Attributes:
        names: file or folder names to look for, the first that exists is used; globs are allowed.
        page: web page where it is published.
        note: what a user must know to get it (a licence to accept, a form to fill in), or empty.
    """

    names: tuple[str, ...]
    page: str
    note: str = ""


@dataclass(frozen=True)
class ClassPlan:
    """The images of one class, to be written as ``<class_id>.tfrecords``.

    Attributes:
        class_id: id of the class.
        count: number of images that ``images`` gives.
        images: gives the JPEG bytes of each image in record order. It must be picklable (a `functools.partial`
            of a module's function, say), because classes are converted in several processes; it raises
            `DataError` for an original that cannot be read.
    """

    class_id: int
    count: int
    images: Callable[[], Iterable[bytes]]


@dataclass(frozen=True)
class Conversion:
    """All that one source is converted to.

    Attributes:
        specification: written as ``dataset_spec.json`` once every class is there.
        classes: in order of class id.
    """

    specification: Specification
    classes: Sequence[ClassPlan]


class Converter(Protocol):
    """Knows one source's original files."""

    @property
    def source(self) -> str:
        """Name of the source, which is also the name of its folder of records."""

    @property
    def originals(self) -> tuple[Original, ...]:
        """The files it needs; all of them."""

    def plan(self, folder: Path) -> Conversion:
        """Read the originals in ``folder`` as far as needed to know all classes and counts.

        Raises:
            DataError: an original is missing, damaged, or not the published one (differing classes or counts).
        """
