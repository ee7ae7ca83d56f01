"""Label rules against their definitions, written another way."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite_bench.datasets.vtab import labels
from lite_bench.harness.errors import UnknownNameError

DISTANCES = st.floats(0.001953125, 99, width=32)


def test_one_number() -> None:
    assert [labels.plain(np.array([n])) for n in (0, 396)] == [0, 396]
    assert [labels.digit(np.array([n])) for n in range(11)] == [*range(10), 0]
    assert [labels.count(np.zeros(n, np.int64)) for n in range(3, 11)] == list(range(8))


def test_sprites() -> None:
    positions = [labels.horizontal_position(np.array([n])) for n in range(32)]
    assert Counter(positions) == dict.fromkeys(range(16), 2)
    assert positions == sorted(positions)
    orientations = [labels.orientation(np.array([n])) for n in range(40)]
    assert orientations == [math.floor(Fraction(n) / Fraction(5, 2)) for n in range(40)]
    assert [orientations.count(n) for n in range(16)] == [3, 2] * 8


@settings(deadline=None)
@given(st.lists(st.tuples(DISTANCES, DISTANCES, DISTANCES), min_size=1, max_size=10))
def test_nearest_object(coordinates: list[tuple[float, float, float]]) -> None:
    nearest = min(z for _, _, z in coordinates)
    bins = [(0, 8), (8, 8.5), (8.5, 9), (9, 9.5), (9.5, 10), (10, 100)]
    expected = next(number for number, (low, high) in enumerate(bins) if low < nearest <= high)
    assert labels.nearest_object(np.array(coordinates, np.float32).ravel()) == expected


@pytest.mark.parametrize(("distance", "label"), [(8, 0), (8.5, 1), (9, 2), (9.5, 3), (10, 4), (100, 5)])
def test_nearest_object_at_the_edges(distance: float, label: int) -> None:
    edge = np.array([0, 0, distance], np.float32)
    assert labels.nearest_object(edge) == label
    assert labels.nearest_object(np.nextafter(edge, np.float32(0))) == label
    if distance < 100:
        assert labels.nearest_object(np.nextafter(edge, np.float32(1000))) == label + 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.floats(-90, 900, width=32)), max_size=12))
def test_nearest_vehicle(objects: list[tuple[int, float]]) -> None:
    distances = [z for kind, z in objects if kind in (0, 1, 2)]
    if not distances:
        expected = 3
    else:
        nearest = min(distances)
        expected = 0 if nearest <= 8 else 1 if nearest <= 20 else 2
    types = np.array([kind for kind, _ in objects], np.int64)
    locations = np.array([(1, 2, z) for _, z in objects], np.float32).ravel()
    assert labels.nearest_vehicle(types, locations) == expected


def test_unknown_rule() -> None:
    with pytest.raises(UnknownNameError, match="nearest_object"):
        labels.label_rule("nearest_objects")
    assert labels.label_rule("azimuth").features == ("label_azimuth",)
    assert labels.label_rule("elevation").features == ("label_elevation",)
