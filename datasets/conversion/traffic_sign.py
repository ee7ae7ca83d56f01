"""German traffic signs (GTSRB) to records: 43 signs, the whole training images.

J. Stallkamp, M. Schlipsing, J. Salmen, C. Igel, "The German Traffic Sign Recognition Benchmark", IJCNN 2011.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from lite_bench.datasets.conversion.jpeg import class_folders
from lite_bench.datasets.conversion.plan import Conversion, Original
from lite_bench.datasets.meta_dataset.catalogue import published

PAGE = "https://benchmark.ini.rub.de/gtsrb_dataset.html"
ARCHIVE = "GTSRB_Final_Training_Images.zip"
IMAGE = r"(?:^|/)Final_Training/Images/(\d{5})/[^/]+\.ppm$"
ORDER_SEED = 23


@dataclass(frozen=True)
class TrafficSign:
    """Knows the archive of GTSRB's training images, or the folder it unpacks to.

    Attributes:
        check_published: insist on the published classes and counts.
    """

    check_published: bool = True
    source: ClassVar[str] = "traffic_sign"
    originals: ClassVar[tuple[Original, ...]] = (Original(("GTSRB", "Final_Training", ARCHIVE), PAGE),)

    def plan(self, folder: Path) -> Conversion:
        """See `Converter.plan`."""
        return class_folders(
            self, folder, IMAGE, check_published=self.check_published, name_class=_class_name, reorder=_shuffled
        )


def _class_name(match: re.Match[str]) -> str:
    """Name a class by its folder: published names begin with the last two digits of it."""
    names = {name[:2]: name for name in published("traffic_sign").class_names}
    number = match[1]
    return names.get(number[-2:], number) if number.startswith("000") else number


def _shuffled(names: list[str]) -> None:
    # Consecutive files are frames of one track of the same physical sign, so a reader that does not shuffle would
    # put nearly equal images into support and query (google-research/meta-dataset #54). Since November 2020
    # Meta-Dataset therefore shuffles each class's sorted file names, every class from the same seed.
    np.random.RandomState(ORDER_SEED).shuffle(names)
