"""Describable Textures (DTD) to records: 47 textures, the original JPEG files.

M. Cimpoi, S. Maji, I. Kokkinos, S. Mohamed, A. Vedaldi, "Describing Textures in the Wild", CVPR 2014.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lite_bench.datasets.conversion.jpeg import class_folders
from lite_bench.datasets.conversion.plan import Conversion, Original

PAGE = "https://www.robots.ox.ac.uk/~vgg/data/dtd/"


@dataclass(frozen=True)
class DTD:
    """Knows the archive of DTD, or the folder it unpacks to.

    The folder of ``waffled`` holds a stray ``.directory``, which is no image and left out.

    Attributes:
        check_published: insist on the published classes and counts.
    """

    check_published: bool = True
    source: ClassVar[str] = "dtd"
    originals: ClassVar[tuple[Original, ...]] = (
        Original(("dtd", "dtd-r1.0.1", "dtd-r1.0.1.tar.gz", "dtd-r1.0.1.tar", "images"), PAGE),
    )

    def plan(self, folder: Path) -> Conversion:
        """See `Converter.plan`."""
        return class_folders(self, folder, r"(?:^|/)images/([^/]+)/[^/]+\.jpg$", check_published=self.check_published)
