"""How VTAB makes a class of what TFDS stores with an image; rules are the same in both profiles.

A rule takes features of one example as arrays and gives an integer; ``label_rule`` finds it by the name that
``tasks.toml`` uses. The features of a sequence, such as the objects of a scene, arrive flat.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lite_bench.harness.errors import UnknownNameError

OBJECT_DISTANCES = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
VEHICLE_DISTANCES = (-100.0, 8.0, 20.0, 999.0)
NO_VEHICLE = 1000.0
VEHICLE_TYPES = 3  # Car, Van and Truck are the types 0, 1 and 2
SMALLEST_COUNT = 3


@dataclass(frozen=True)
class LabelRule:
    """A rule and what it reads.

    Attributes:
        features: names of the features of an example, in the order of the arguments.
        function: computes the label.
    """

    features: tuple[str, ...]
    function: Callable[..., int]


def plain(label: np.ndarray) -> int:
    """Take the stored class, shape [1]."""
    return int(label.item())


def digit(label: np.ndarray) -> int:
    """Take the digit, shape [1]; the original files of SVHN write 10 for 0."""
    return int(label.item()) % 10


def count(sizes: np.ndarray) -> int:
    """Count the objects of a CLEVR scene, whose sizes have shape [n], from 3 on."""
    return len(sizes) - SMALLEST_COUNT


def nearest_object(pixel_coords: np.ndarray) -> int:
    """Bin the distance of the nearest object: (0, 8], (8, 8.5], (8.5, 9], (9, 9.5], (9.5, 10], (10, 100].

    Args:
        pixel_coords: float [3 n], of each object x, y and the distance.
    """
    return _bin(float(pixel_coords.reshape(-1, 3)[:, 2].min()), OBJECT_DISTANCES)


def nearest_vehicle(types: np.ndarray, locations: np.ndarray) -> int:
    """Bin the distance of the nearest car, van or truck: up to 8 m, up to 20 m, farther, none at all.

    Args:
        types: int [n].
        locations: float [3 n], of each object x, y and z, in metres.
    """
    distances = locations.reshape(-1, 3)[:, 2][types < VEHICLE_TYPES]
    return _bin(float(distances.min(initial=NO_VEHICLE)), VEHICLE_DISTANCES)


def horizontal_position(label: np.ndarray) -> int:
    """Halve the horizontal position 0..31 of a sprite."""
    return int(label.item()) // 2


def orientation(label: np.ndarray) -> int:
    """Bring the orientation 0..39 of a sprite to 0..15: bins of 3, 2, 3, 2, ... values."""
    return int(label.item()) * 2 // 5


def _bin(value: float, thresholds: tuple[float, ...]) -> int:
    """Count the thresholds strictly below ``value``, less one."""
    return sum(threshold < value for threshold in thresholds) - 1


RULES = {
    "plain": LabelRule(("label",), plain),
    "digit": LabelRule(("label",), digit),
    "count": LabelRule(("objects/size",), count),
    "nearest_object": LabelRule(("objects/pixel_coords",), nearest_object),
    "nearest_vehicle": LabelRule(("objects/type", "objects/location"), nearest_vehicle),
    "horizontal_position": LabelRule(("label_x_position",), horizontal_position),
    "orientation": LabelRule(("label_orientation",), orientation),
    "azimuth": LabelRule(("label_azimuth",), plain),
    "elevation": LabelRule(("label_elevation",), plain),
}


def label_rule(name: str) -> LabelRule:
    """Give the rule called ``name``.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in RULES:
        raise UnknownNameError("VTAB label rule called", name, RULES)
    return RULES[name]
