"""Oxford's 102 flowers to records: the original JPEG files.

M.-E. Nilsback, A. Zisserman, "Automated Flower Classification over a Large Number of Classes", ICVGIP 2008.
"""

from __future__ import annotations

import io
import operator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from lite_bench.datasets.conversion.jpeg import encoded, flat_conversion, original_or_jpeg
from lite_bench.datasets.conversion.originals import find_original, open_members
from lite_bench.datasets.conversion.plan import Conversion, Original
from lite_bench.datasets.meta_dataset.catalogue import published
from lite_bench.harness.errors import DataError

PAGE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
LABELS = "imagelabels.mat"


@dataclass(frozen=True)
class VGGFlower:
    """Knows the archive of the flowers, or the folder it unpacks to, and the file of labels.

    Attributes:
        check_published: insist on the published classes and counts.
    """

    check_published: bool = True
    source: ClassVar[str] = "vgg_flower"
    originals: ClassVar[tuple[Original, ...]] = (
        Original(("jpg", "102flowers", "102flowers.tgz", "102flowers.tar"), PAGE),
        Original((LABELS,), PAGE, note="the link called image labels"),
    )

    def plan(self, folder: Path) -> Conversion:
        """See `Converter.plan`."""
        members = open_members(find_original(folder, self.originals[0], self.source))
        path = find_original(folder, self.originals[1], self.source)
        images = {int(match[1]): name for name, match in members.matching(r"(?:^|/)jpg/image_(\d{5})\.jpg$")}
        labels = _read_labels(path)
        if odd := sorted(set(images) ^ set(range(1, len(labels) + 1))):
            has, lacks = ("an image", "label") if odd[0] in images else ("a label", "image")
            raise DataError(
                f"image_{odd[0]:05d}.jpg has {has} but no {lacks} in {members.path} and {path}; download both again."
            )
        files: dict[int, list[str]] = {}
        for number, label in enumerate(labels, 1):
            files.setdefault(label, []).append(images[number])
        names = {int(name[:3]): name for name in published(self.source).class_names}
        classes = {
            names.get(label, str(label)): (
                len(members_of_class),
                partial(encoded, members.only(members_of_class), tuple(members_of_class), original_or_jpeg),
            )
            for label, members_of_class in files.items()
        }
        return flat_conversion(self.source, classes, members.path, check_published=self.check_published)


def _read_labels(path: Path) -> list[int]:
    """Read the label, from 1, of each image in order of its number."""
    from scipy.io import loadmat

    try:
        labels = np.asarray(loadmat(io.BytesIO(path.read_bytes()))["labels"]).ravel()
        return [operator.index(label) for label in labels.tolist()]
    except Exception as error:
        raise DataError(f"{path} is not the flowers' file of labels ({error}); download it from {PAGE}.") from error
