"""FGVCx Fungi 2018, the mushrooms of the Svampe Atlas, to Meta-Dataset's records."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lite_bench.datasets.conversion.annotations import bad_annotations, read_json
from lite_bench.datasets.conversion.jpeg import encoded, original_or_jpeg
from lite_bench.datasets.conversion.originals import (
    find_original,
    flat_specification,
    open_members,
    require_published,
)
from lite_bench.datasets.conversion.plan import ClassPlan, Conversion, Original

PAGE = "https://github.com/visipedia/fgvcx_fungi_comp#data"
IMAGES = Original(("images", "fungi_train_val.tgz"), PAGE, "13 GB")
TRAIN = Original(("train.json", "train_val_annotations.tgz"), PAGE)
VALIDATION = Original(("val.json", "train_val_annotations.tgz"), PAGE)


@dataclass(frozen=True)
class Fungi:
    """The source ``fungi``; records are in the order of the images of ``train.json``, then ``val.json``.

    Attributes:
        check_published: require the published classes and counts.
    """

    check_published: bool = True

    @property
    def source(self) -> str:
        """Name of the source."""
        return "fungi"

    @property
    def originals(self) -> tuple[Original, ...]:
        """The images and both lists, unpacked or not."""
        return (IMAGES, TRAIN, VALIDATION)

    def plan(self, folder: Path) -> Conversion:
        """Read both lists and find all images.

        Raises:
            DataError: an original or an image is missing or damaged, or they are not the published ones.
        """
        photographs, *listings = (find_original(folder, original, self.source) for original in self.originals)
        files: dict[str, list[str]] = {}
        known: dict[str, str] = {}
        for path, original in zip(listings, (TRAIN, VALIDATION), strict=True):
            place, listing = read_json(path, original)
            for file, name in _files_and_classes(place, listing):
                if file in known:
                    raise bad_annotations(place, f"list {file}, which {known[file]} lists already", original)
                known[file] = place
                files.setdefault(name, []).append(file)
        counts = {name: len(paths) for name, paths in files.items()}
        specification = flat_specification(self.source, counts, folder)
        if self.check_published:
            require_published(specification, folder)
        members = open_members(photographs)
        classes = []
        for class_id, name in enumerate(specification.class_names):
            theirs = members.only(files[name])
            plan = functools.partial(encoded, theirs, tuple(files[name]), original_or_jpeg)
            classes.append(ClassPlan(class_id, counts[name], plan))
        return Conversion(specification, classes)


def _files_and_classes(place: str, listing: Any) -> list[tuple[str, str]]:
    """Give file and class name of each image, in order.

    A class name is the category's number and name, as in Meta-Dataset, because some names occur twice.
    """
    try:
        names = {entry["id"]: f"{entry['id']:04d}.{entry['name']}" for entry in listing["categories"]}
        images = {entry["id"]: str(entry["file_name"]) for entry in listing["images"]}
        categories = {entry["image_id"]: names[entry["category_id"]] for entry in listing["annotations"]}
        n_images, n_annotations = len(listing["images"]), len(listing["annotations"])
    except (KeyError, TypeError, ValueError) as error:
        state = f"are not images with a listed category each ({error!r})"
        raise bad_annotations(place, state, TRAIN) from error
    if len(images) != n_images or len(categories) != n_annotations:
        raise bad_annotations(place, "have two entries for one image", TRAIN)
    if lonely := images.keys() ^ categories.keys():
        raise bad_annotations(place, f"have no image or no category of the number {min(map(str, lonely))}", TRAIN)
    return [(file, categories[image]) for image, file in images.items()]
