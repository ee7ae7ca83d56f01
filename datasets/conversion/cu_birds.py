"""CUB-200-2011 to records: 200 bird species, the original JPEG files.

C. Wah, S. Branson, P. Welinder, P. Perona, S. Belongie, "The Caltech-UCSD Birds-200-2011 Dataset", 2011.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lite_bench.datasets.conversion.jpeg import class_folders
from lite_bench.datasets.conversion.plan import Conversion, Original

PAGE = "https://www.vision.caltech.edu/datasets/cub_200_2011/"


@dataclass(frozen=True)
class CUBirds:
    """Knows the archive of CUB-200-2011, or the folder it unpacks to.

    Attributes:
        check_published: insist on the published classes and counts.
    """

    check_published: bool = True
    source: ClassVar[str] = "cu_birds"
    originals: ClassVar[tuple[Original, ...]] = (
        Original(("CUB_200_2011", "CUB_200_2011.tgz", "CUB_200_2011.tar", "images"), PAGE),
    )

    def plan(self, folder: Path) -> Conversion:
        """See `Converter.plan`."""
        return class_folders(self, folder, r"(?:^|/)images/([^/]+)/[^/]+\.jpg$", check_published=self.check_published)
