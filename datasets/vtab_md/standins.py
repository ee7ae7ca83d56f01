"""Stand-ins of Meta-Dataset's sources: the published classes, made-up images, exactly the real files.

An image shows its class's own colour pattern, shifted and under noise, so that a learner does better than chance.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from lite_bench.datasets.conversion.wordnet import build_graph, build_graphs, imagenet_wordnet
from lite_bench.datasets.meta_dataset.catalogue import IMAGENET, IMAGENET_V2, published
from lite_bench.datasets.meta_dataset.specification import HierarchicalSpecification, Specification
from lite_bench.datasets.meta_dataset.specification_files import FILE_PATTERN, write_specification
from lite_bench.datasets.tfrecords.examples import encode_example
from lite_bench.datasets.tfrecords.framing import frame
from lite_bench.datasets.vtab.prepared import MARKER
from lite_bench.harness.core import stable_key
from lite_bench.harness.files import write_atomically, write_errors

IMAGES_PER_CLASS = 12
FEW_CLASSES, IMAGES_OF_FEW = 100, 24
"""Sources of few classes get more images of each."""
SIDE, PATTERN = 20, 5
NOISE = 40.0
QUALITY = 85


def standin_specification(source: str) -> Specification:
    """Give the published classes of ``source`` with few images each; ImageNet's with its graphs."""
    plain = published(source)
    most = IMAGES_OF_FEW if len(plain.images) <= FEW_CLASSES else IMAGES_PER_CLASS
    few = dataclasses.replace(plain, images=tuple(min(n, most) for n in plain.images))
    if source == IMAGENET:
        graphs = build_graphs(imagenet_wordnet(), few.class_names)
    elif source == IMAGENET_V2:
        graphs = {"train": build_graph(imagenet_wordnet(), few.class_names)}
    else:
        return few
    return HierarchicalSpecification(source, few.class_names, few.images, graphs)


def write_source(source: str, folder: Path, seed: int) -> None:
    """Write the stand-in of one source.

    Args:
        source: name of a published source.
        folder: of its records; made if missing.
        seed: of the images.

    Raises:
        RunError: the disk is full or may not be written.
    """
    specification = standin_specification(source)
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for class_id, count in enumerate(specification.images):
            images = class_images(stable_key("stand-in", source, class_id, seed), count)
            records = (frame(encode_example({"image": image, "label": class_id})) for image in images)
            (folder / FILE_PATTERN.format(class_id)).write_bytes(b"".join(records))
    write_atomically(folder / MARKER, json.dumps({"synthetic": True, "imitates": source, "seed": seed}) + "\n")
    write_specification(specification, folder)


def class_images(key: int, count: int) -> Iterator[bytes]:
    """Draw the images of a class, JPEG of 20 x 20 pixels.

    Args:
        key: decides the class's pattern and all noise.
        count: number of images.
    """
    generator = np.random.Generator(np.random.Philox(key))
    tiles = generator.integers(0, 256, (PATTERN, PATTERN, 3))
    pattern = np.kron(tiles, np.ones((SIDE // PATTERN, SIDE // PATTERN, 1)))
    shifts = generator.integers(-2, 3, (count, 2))
    noise = generator.normal(0.0, NOISE, (count, SIDE, SIDE, 3))
    for shift, grain in zip(shifts, noise, strict=True):
        pixels = np.clip(np.roll(pattern, tuple(shift), (0, 1)) + grain, 0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=QUALITY)
        yield stream.getvalue()
