"""Labels overlap nothing and stay inside, whatever the points; a place is found whenever there is one."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path
from matplotlib.transforms import Bbox

from lite_bench.leaderboard.pictures.label_placement import (
    Box,
    Label,
    Place,
    _cross_each_other,
    _crosses,
    place_labels,
)

BOUNDS = Box(0.0, 0.0, 460.0, 260.0)
HEIGHT = 9.0


def label(x: float, y: float, width: float = 60.0, reach: float = 0.0) -> Label:
    """A label of a round marker and an interval of ``reach`` up and down."""
    marker, interval = Box(x - 4, y - 4, x + 4, y + 4), Box(x - 3, y - reach, x + 3, y + reach)
    return Label(x, y, width, HEIGHT, (marker, interval) if reach else (marker,))


def boxes_of(places: list[Place | None]) -> list[Box]:
    found = [place.box for place in places if place is not None]
    assert len(found) == len(places)
    return found


def check(labels: list[Label], places: list[Place | None], bounds: Box) -> None:
    """All are placed, inside, of their own size, and over neither each other nor a marker or an interval."""
    boxes = boxes_of(places)
    for each, box in zip(labels, boxes, strict=True):
        assert box.within(bounds)
        assert np.allclose([box.right - box.left, box.top - box.bottom], [each.width, each.height])
        assert not any(box.overlaps(hurdle) for other in labels for hurdle in other.own)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


anything = st.builds(label, st.floats(10, 450), st.floats(10, 250), st.floats(5, 110), st.floats(0, 40))


@settings(deadline=None, max_examples=30)
@given(st.lists(anything, min_size=1, max_size=15))
def test_labels_of_any_points_overlap_nothing(labels: list[Label]) -> None:
    check(labels, place_labels(labels, BOUNDS), BOUNDS)


@settings(deadline=None, max_examples=8)
@given(st.lists(st.tuples(st.floats(0, 6), st.floats(0, 6)), min_size=15, max_size=15))
def test_labels_of_points_that_nearly_coincide_overlap_nothing(offsets: list[tuple[float, float]]) -> None:
    labels = [label(200 + x, 120 + y, reach=25.0) for x, y in offsets]
    check(labels, place_labels(labels, BOUNDS), BOUNDS)


def test_labels_of_fifteen_equal_points_fan_out_without_crossing() -> None:
    labels = [label(200.0, 130.0, width=40.0 + 3 * number) for number in range(15)]
    places = place_labels(labels, BOUNDS)
    check(labels, places, BOUNDS)
    lines = [Path([(200.0, 130.0), place.end]) for place in places if place is not None and place.leader]
    assert len(lines) >= 10
    for line, box in itertools.product(lines, boxes_of(places)):
        inside = Bbox.from_extents(box.left + 0.01, box.bottom + 0.01, box.right - 0.01, box.top - 0.01)
        assert not line.intersects_bbox(inside)


def test_fifteen_equal_points_in_a_corner_are_labelled_too() -> None:
    labels = [label(459.0, 1.0, width=100.0) for _ in range(15)]
    check(labels, place_labels(labels, BOUNDS), BOUNDS)


def test_a_single_label_stands_to_the_right_without_a_leader() -> None:
    (place,) = place_labels([label(200.0, 100.0)], BOUNDS)
    assert place is not None
    assert not place.leader
    assert place.box.left >= 204.0
    assert (place.box.bottom + place.box.top) / 2 == 100.0
    assert place.end == (place.box.left, 100.0)


def test_a_label_at_the_right_edge_stands_to_the_left() -> None:
    (place,) = place_labels([label(455.0, 100.0)], BOUNDS)
    assert place is not None
    assert place.box.right <= 451.0
    assert not place.leader


def test_a_label_that_is_far_off_or_closer_to_another_point_has_a_leader() -> None:
    wall = Label(300.0, 100.0, 1.0, 1.0, (Box(206.0, 60.0, 450.0, 140.0), Box(60.0, 60.0, 194.0, 140.0)))
    far, _ = place_labels([label(200.0, 100.0), wall], BOUNDS)
    assert far is not None
    assert far.leader
    left, middle, _ = place_labels([label(x, 100.0) for x in (197.0, 200.0, 203.0)], BOUNDS)
    assert left is not None
    assert middle is not None
    assert (left.leader, middle.leader) == (False, True)


def test_places_are_the_same_on_every_run_and_do_not_depend_on_far_labels() -> None:
    labels = [label(50.0 + 7 * number % 40, 60.0 + 5 * number % 30) for number in range(9)]
    assert place_labels(labels, BOUNDS) == place_labels(labels, BOUNDS)
    assert place_labels([*labels, label(400.0, 200.0)], BOUNDS)[:9] == place_labels(labels, BOUNDS)


corner = st.tuples(st.integers(0, 16), st.integers(0, 16), st.integers(1, 12), st.integers(1, 12))


@settings(deadline=None, max_examples=80)
@given(st.lists(corner, min_size=1, max_size=8), st.integers(3, 14), st.integers(3, 14))
def test_a_place_is_found_exactly_when_there_is_one(
    hurdles: list[tuple[int, int, int, int]], width: int, height: int
) -> None:
    """Among boxes of whole numbers a free place exists only if one with a whole lower left corner does: try all."""
    bounds = Box(0.0, 0.0, 20.0, 20.0)
    own = tuple(Box(float(x), float(y), float(x + w), float(y + h)) for x, y, w, h in hurdles)
    free = [
        box
        for x, y in itertools.product(range(21 - width), range(21 - height))
        if not any((box := Box(x, y, x + width, y + height)).overlaps(each) for each in own)
    ]
    (place,) = place_labels([Label(10.0, 10.0, width, height, own)], bounds)
    assert (place is not None) == bool(free)
    if place is not None:
        assert place.box.within(bounds)
        assert not any(place.box.overlaps(each) for each in own)


def test_a_label_without_room_has_no_place_and_does_not_keep_others_from_theirs() -> None:
    bounds = Box(0.0, 0.0, 50.0, 50.0)
    wide, narrow = place_labels([label(25.0, 25.0, width=60.0), label(25.0, 25.0, width=20.0)], bounds)
    assert wide is None
    assert narrow is not None


def test_a_tight_fit_is_found_by_placing_what_is_stuck_first() -> None:
    # Two rows: the long label fits only if the short ones share the row further from the point.
    bounds = Box(0.0, 0.0, 40.0, 18.0)
    labels = [Label(20.0, 4.5, width, 9.0, ()) for width in (20.0, 20.0, 40.0)]
    check(labels, place_labels(labels, bounds), bounds)


def test_a_segment_crosses_a_box_as_matplotlib_says() -> None:
    numbers = np.random.default_rng(0)
    starts, ends, first, second = numbers.uniform(0, 10, (4, 1500, 2))
    boxes = np.column_stack([np.minimum(first, second), np.maximum(first, second)])
    expected = [
        bool(Path([start, end]).intersects_bbox(Bbox.from_extents(*box), filled=True))
        for start, end, box in zip(starts, ends, boxes, strict=True)
    ]
    assert _crosses(starts, ends, boxes).tolist() == expected
    assert 200 < sum(expected) < 1300


def test_an_upright_segment_crosses_a_box_only_between_its_sides() -> None:
    box = np.asarray([[2.0, 2.0, 4.0, 4.0]])
    for x, crosses in ((1.0, False), (2.0, False), (3.0, True), (4.0, False)):
        assert _crosses(np.asarray([[x, 0.0]]), np.asarray([[x, 9.0]]), box).tolist() == [crosses]


def test_segments_cross_each_other_as_matplotlib_says() -> None:
    a, b, c, d = np.random.default_rng(1).uniform(0, 10, (4, 1500, 2))
    expected = [
        bool(Path([p, q]).intersects_path(Path([r, s]), filled=False)) for p, q, r, s in zip(a, b, c, d, strict=True)
    ]
    assert _cross_each_other(a, b, c, d).tolist() == expected
    assert 200 < sum(expected) < 1300
