"""MSCOCO's objects of train2017, each cut out of its photograph with some margin, to Meta-Dataset's records."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lite_bench.datasets.conversion.annotations import bad_annotations, read_json
from lite_bench.datasets.conversion.jpeg import decode, jpeg_bytes
from lite_bench.datasets.conversion.originals import (
    Members,
    find_original,
    flat_specification,
    open_members,
    require_published,
)
from lite_bench.datasets.conversion.plan import ClassPlan, Conversion, Original
from lite_bench.harness.errors import DataError

PAGE = "https://cocodataset.org/#download"
INSTANCES, ARCHIVE = "instances_train2017.json", "annotations_trainval2017.zip"
IMAGES = Original(("train2017", "train2017.zip"), PAGE, "http://images.cocodataset.org/zips/train2017.zip, 18 GB")
ANNOTATIONS = Original(
    names=(f"annotations/{INSTANCES}", INSTANCES, ARCHIVE),
    page=PAGE,
    note=f"http://images.cocodataset.org/annotations/{ARCHIVE}",
)
SCALE = 1.2


@dataclass(frozen=True)
class Objects:
    """The annotated objects of one class, in order of annotation.

    Attributes:
        images: file of the photograph of each object.
        boxes: left, top, width and height of each object, in pixels.
    """

    images: list[str] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class MSCOCO:
    """The source ``mscoco``: a record for each annotated object, crowds too, in the order of the annotations.

    Attributes:
        check_published: require the published classes and counts.
    """

    check_published: bool = True

    @property
    def source(self) -> str:
        """Name of the source."""
        return "mscoco"

    @property
    def originals(self) -> tuple[Original, ...]:
        """The photographs and the annotations, unpacked or not."""
        return (IMAGES, ANNOTATIONS)

    def plan(self, folder: Path) -> Conversion:
        """Read all annotations and find all photographs.

        Raises:
            DataError: an original or a photograph is missing or damaged, or they are not the published ones.
        """
        photographs, annotations = (find_original(folder, original, self.source) for original in self.originals)
        place, content = read_json(annotations, ANNOTATIONS, keep=_without_outline)
        objects = _objects(place, content)
        counts = {name: len(theirs.images) for name, theirs in objects.items()}
        specification = flat_specification(self.source, counts, annotations)
        if self.check_published:
            require_published(specification, annotations)
        members = open_members(photographs)
        classes = []
        for class_id, name in enumerate(specification.class_names):
            files = tuple(f"train2017/{image}" for image in objects[name].images)
            plan = functools.partial(crops, members.only(files), files, np.array(objects[name].boxes))
            classes.append(ClassPlan(class_id, counts[name], plan))
        return Conversion(specification, classes)


def crops(members: Members, files: Sequence[str], boxes: np.ndarray) -> Iterator[bytes]:
    """Cut objects out of photographs, as JPEGs.

    Args:
        members: the photographs.
        files: photograph of each object; one with several objects in a row is decoded once.
        boxes: float64 [n, 4], as in `Objects`.

    Raises:
        DataError: a photograph does not decode, or an object lies outside.
    """
    groups = [(file, len(list(group))) for file, group in itertools.groupby(files)]
    rows = iter(boxes.tolist())
    photographs = members.contents([file for file, _ in groups])
    for (_, n_objects), (file, data) in zip(groups, photographs, strict=True):
        image = decode(data, members.place(file))
        for box in itertools.islice(rows, n_objects):
            left, top, right, bottom = crop_box(box, *image.size)
            if left >= right or top >= bottom:
                raise DataError(
                    f"The annotated box {box} lies outside the image {members.place(file)} of "
                    f"{image.width} x {image.height} pixels; download {ARCHIVE} and train2017.zip again from {PAGE}."
                )
            yield jpeg_bytes(image.crop((left, top, right, bottom)))


def crop_box(box: Sequence[float], width: int, height: int) -> tuple[int, int, int, int]:
    """Give the pixels to cut out for an annotated box: left, top, right, bottom, the last two exclusive.

    The box grows by a fifth about its centre. COCO's coordinates are of pixel centres half a pixel off Pillow's
    corners. The order of operations is that of google-research/meta-dataset (``MSCOCOConverter``), so that
    halves, which Python rounds to even numbers, fall to the same side.
    """
    x, y, w, h = box
    left, right = _bounds(x, w, width)
    top, bottom = _bounds(y, h, height)
    return left, top, right, bottom


def _bounds(start: float, length: float, limit: int) -> tuple[int, int]:
    start -= 0.5 * length * (SCALE - 1.0)
    length *= SCALE
    return max(round(start - 0.5), 0), min(round(start + length - 0.5) + 1, limit)


def _without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    """Drop an object's outline, which is most of the file and is not needed."""
    entry.pop("segmentation", None)
    return entry


def _objects(place: str, content: Any) -> dict[str, Objects]:
    """Collect the annotated objects by class name."""
    try:
        names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        images = {entry["id"]: str(entry["file_name"]) for entry in content["images"]}
        objects = {name: Objects() for name in names.values()}
        for entry in content["annotations"]:
            x, y, width, height = map(float, entry["bbox"])
            theirs = objects[names[entry["category_id"]]]
            theirs.images.append(images[entry["image_id"]])
            theirs.boxes.append((x, y, width, height))
    except (KeyError, TypeError, ValueError) as error:
        state = f"are not objects with boxes in listed images and categories ({error!r})"
        raise bad_annotations(place, state, ANNOTATIONS) from error
    for name, theirs in objects.items():
        if not np.isfinite(theirs.boxes).all():
            raise bad_annotations(place, f"have a box of {name!r} that is not of finite numbers", ANNOTATIONS)
    return objects
