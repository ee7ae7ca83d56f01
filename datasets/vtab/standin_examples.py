"""What the examples of the stand-ins hold, for each dataset in the features of its real TFDS builder."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from lite_bench.datasets.vtab.labels import NO_VEHICLE, OBJECT_DISTANCES, SMALLEST_COUNT, VEHICLE_DISTANCES
from lite_bench.datasets.vtab.order import sprite_latents
from lite_bench.datasets.vtab.standin_images import encode, grey_pattern, pattern, spread, sprite

Example = dict[str, Any]
Made = tuple[Example, np.ndarray]
"""Features of an example other than its image, and the image, uint8 [h, w] or [h, w, 3]."""

N_SPRITES = 737280
PEDESTRIAN = 3
FARTHEST = 60.0
N_COUNTS, N_AZIMUTHS, N_ELEVATIONS = 8, 18, 9


class Maker:
    """Makes examples of one dataset.

    Attributes:
        classes: number of labels; which one an example has is up to the caller.
    """

    def __init__(self, name: str, encoding: str, features: Any, side: int) -> None:
        """Look up how the dataset is labelled.

        Args:
            name: of the dataset in TFDS.
            encoding: ``PNG`` or ``JPEG``.
            features: of its builder.
            side: of an image that has no fixed size.
        """
        self.encoding, self.features, self.side = encoding, features, side
        special: dict[str, tuple[int, Callable[[int, int, np.random.Generator], Made]]] = {
            "clevr": (N_COUNTS, self._clevr),
            "dsprites": (1, self._dsprites),
            "smallnorb": (N_AZIMUTHS, self._smallnorb),
            "kitti": (len(VEHICLE_DISTANCES), self._kitti),
        }
        if name in special:
            self.classes, self._make = special[name]
        else:
            self.classes, self._make = int(features["label"].num_classes), self._plain

    def label_name(self, label: int) -> str:
        """Name a class as TFDS does; a number where it has no names."""
        return str(self.features["label"].int2str(label)) if "label" in self.features else str(label)

    def example(self, key: str, number: int, label: int, rng: np.random.Generator) -> Example:
        """Make one example for the features' own encoder.

        Args:
            key: of the example, which becomes its file name too.
            number: of the example; that of a sprite in dSprites' file decides its label.
            label: 0..classes-1.
            rng: draws all else.
        """
        made, picture = self._make(number, label, rng)
        values = {name: _fill(feature, key, self.side, rng) for name, feature in self.features.items()}
        height, width = (extent or self.side for extent in self.features["image"].shape[:2])
        image = io.BytesIO(encode(picture, (width, height), self.encoding))
        return {**values, **made, "image": image}

    def _plain(self, number: int, label: int, rng: np.random.Generator) -> Made:
        del number
        return {"label": label}, pattern(self.side, *spread(label, self.classes), rng)

    def _clevr(self, number: int, label: int, rng: np.random.Generator) -> Made:
        del number
        n_objects, nearest = label + SMALLEST_COUNT, int(rng.integers(len(OBJECT_DISTANCES) - 1))
        lower, upper = OBJECT_DISTANCES[nearest], min(OBJECT_DISTANCES[nearest + 1], FARTHEST)
        distances = rng.uniform(upper, 2 * upper, n_objects)
        distances[0] = rng.uniform((lower + upper) / 2, upper)
        scene = self.features["objects"].feature
        objects = [
            {**_fill(scene, "", self.side, rng), "pixel_coords": np.array([0, 0, distance], np.float32)}
            for distance in distances
        ]
        fractions = label / N_COUNTS, nearest / len(OBJECT_DISTANCES)
        return {"objects": objects}, pattern(self.side, *fractions, rng)

    def _kitti(self, number: int, label: int, rng: np.random.Generator) -> Made:
        del number
        scene = self.features["objects"].feature
        edges = (0.0, *VEHICLE_DISTANCES[1:3], FARTHEST, NO_VEHICLE)
        objects = []
        for _ in range(int(rng.integers(3)) + (label < PEDESTRIAN)):
            kind = int(rng.integers(PEDESTRIAN)) if label < PEDESTRIAN else PEDESTRIAN
            location = np.array([0, 0, rng.uniform(edges[label] + 0.1, edges[label + 1])], np.float32)
            objects.append({**_fill(scene, "", self.side, rng), "type": kind, "location": location})
        return {"objects": objects}, pattern(self.side, label / len(VEHICLE_DISTANCES), 0.5, rng)

    def _dsprites(self, number: int, label: int, rng: np.random.Generator) -> Made:
        del label, rng
        latents = {name: int(value) for name, value in sprite_latents(np.array(number)).items()}
        labels = {
            "label_x_position": latents["x"],
            "label_y_position": latents["y"],
            "label_orientation": latents["orientation"],
            "label_scale": latents["scale"],
            "label_shape": latents["shape"],
        }
        return labels, sprite(latents["x"], latents["y"], latents["orientation"])

    def _smallnorb(self, number: int, label: int, rng: np.random.Generator) -> Made:
        del number
        elevation = int(rng.integers(N_ELEVATIONS))
        picture = grey_pattern(self.side, elevation / N_ELEVATIONS, label / N_AZIMUTHS, rng)
        return {"label_azimuth": label, "label_elevation": elevation}, picture


def _fill(feature: Any, key: str, side: int, rng: np.random.Generator) -> Any:
    """Make up a value for a feature on which nothing depends."""
    import tensorflow_datasets as tfds

    match feature:
        case tfds.features.Image():
            height, width, channels = (extent or side for extent in feature.shape)
            blank = np.zeros((height, width) if channels == 1 else (height, width, channels), np.uint8)
            return io.BytesIO(encode(blank, (width, height), "PNG"))
        case tfds.features.ClassLabel():
            return int(rng.integers(feature.num_classes))
        case tfds.features.BBoxFeature():
            return tfds.features.BBox(ymin=0.25, xmin=0.25, ymax=0.75, xmax=0.75)
        case tfds.features.Text():
            return key
        case tfds.features.FeaturesDict():
            return {name: _fill(part, key, side, rng) for name, part in feature.items()}
        case tfds.features.Sequence():
            return []
    return rng.random(feature.shape).astype(np.float32)
