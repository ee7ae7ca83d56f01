"""Labels beside their points, none over another or over what it must not hide.

Where labels go is a small search, the same on every run: each label in turn takes the cheapest free place, then all are
taken up and put down again until none moves. Lengths are in any one unit, y upwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

DIRECTIONS = 16
DISTANCES = (0.0, 3.0, 6.0, 10.0, 15.0, 21.0, 28.0, 36.0, 46.0, 58.0, 72.0, 90.0, 110.0, 135.0, 160.0)
COLUMNS = (8.0, 16.0, 28.0, 45.0)
"""Distances of the columns in which labels of one crowd stand below each other, so that their leaders fan out."""
DEEPEST = 10
"""Labels of a column above its point, and below it."""
CROSSING = 150.0
"""Cost of a leader that runs over a label, a point or another leader, as a length."""
STRANGER = 12.0
"""Cost of a place that is nearer to another point than to its own, likewise."""
RESTARTS, SWEEPS = 15, 8
NEAREST = 200
"""Places of the exhaustive search that are weighed against each other, the nearest."""

BATCH = 2000
"""Places of it that are looked at together."""


@dataclass(frozen=True)
class Box:
    """A rectangle with sides along the axes; boxes that only touch do not overlap."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: Box) -> bool:
        """Whether the two share an area."""
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.top <= other.bottom or other.top <= self.bottom)

    def within(self, other: Box) -> bool:
        """Whether no part of this is outside ``other``."""
        wide = other.left <= self.left and self.right <= other.right
        return wide and other.bottom <= self.bottom and self.top <= other.top

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """Give the point of the box that is nearest to (x, y)."""
        return min(max(x, self.left), self.right), min(max(y, self.bottom), self.top)


@dataclass(frozen=True)
class Label:
    """What to place.

    Attributes:
        x: of the point it belongs to.
        y: likewise.
        width: of the label.
        height: likewise.
        own: what belongs to the point and no label may hide: first its marker, then others such as its interval.
    """

    x: float
    y: float
    width: float
    height: float
    own: tuple[Box, ...]


@dataclass(frozen=True)
class Place:
    """Where a label goes.

    Attributes:
        box: that it fills.
        end: where a line from the point meets it.
        leader: whether that line is needed to see whose label it is.
    """

    box: Box
    end: tuple[float, float]
    leader: bool


def place_labels(labels: Sequence[Label], bounds: Box, near: float = 4.0) -> list[Place | None]:
    """Find a place for every label.

    Args:
        labels: in any order; equal ones are fine.
        bounds: that no label may leave.
        near: labels further than this from their marker get a leader.

    Returns:
        one place per label; None only where a label found no room beside those already placed.
    """
    search = _Search(labels, bounds)
    search.run()
    found: list[Place | None] = []
    for number, label in enumerate(labels):
        box = search.placed.get(number)
        found.append(None if box is None else _finish(label, box, search.points_but(number), near))
    return found


def _finish(label: Label, box: Box, others: Sequence[tuple[float, float]], near: float) -> Place:
    """Say where a leader meets the box, and whether it is needed: the label is far off or closer to another point."""
    end = box.nearest(label.x, label.y)
    own = _distance(end, (label.x, label.y))
    gap = _gap(box, label.own[0]) if label.own else own
    closer = any(_distance(box.nearest(*other), other) <= own for other in others)
    return Place(box, end, gap > near or closer)


def _distance(one: tuple[float, float], other: tuple[float, float]) -> float:
    return float(((one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2) ** 0.5)


def _gap(one: Box, other: Box) -> float:
    """Distance between two boxes."""
    across = max(one.left - other.right, other.left - one.right, 0.0)
    return _distance((across, max(one.bottom - other.top, other.bottom - one.top, 0.0)), (0.0, 0.0))


class _Search:
    """The places of all labels so far."""

    def __init__(self, labels: Sequence[Label], bounds: Box) -> None:
        self.labels, self.bounds = labels, bounds
        self.placed: dict[int, Box] = {}

    def run(self) -> None:
        """Place all labels, the most crowded first; where one finds no room, start again with it."""
        order = sorted(range(len(self.labels)), key=lambda number: (-self._crowd(number), number))
        for _ in range(min(len(self.labels), RESTARTS)):
            self.placed = {}
            for number in order:
                self._place(number)
            stuck = [number for number in order if number not in self.placed]
            if not stuck or order[: len(stuck)] == stuck:
                break
            order = stuck + [number for number in order if number not in stuck]
        for _ in range(SWEEPS):
            before = dict(self.placed)
            for number in order:
                self._place(number)
            if self.placed == before:
                return

    def points_but(self, number: int) -> list[tuple[float, float]]:
        """List the points of all other labels that are not at the same place."""
        own = self.labels[number]
        return [(each.x, each.y) for each in self.labels if (each.x, each.y) != (own.x, own.y)]

    def _crowd(self, number: int) -> int:
        """Count the points that are closer than the label is wide."""
        own = self.labels[number]
        return sum(
            abs(each.x - own.x) < own.width and abs(each.y - own.y) < 3 * own.height
            for index, each in enumerate(self.labels)
            if index != number
        )

    def _place(self, number: int) -> None:
        """Move a label to its cheapest free place; leave it where it is if there is none."""
        import numpy as np

        label = self.labels[number]
        blocked = _array([*self._others(number), *(box for each in self.labels for box in each.own)])
        corners = np.asarray(list(_around(label)), dtype=np.float64)
        if number in self.placed:
            corners = np.vstack([corners, [[self.placed[number].left, self.placed[number].bottom]]])
        boxes = self._free(label, corners, blocked)
        if not len(boxes):
            boxes = self._nearest_free(label, blocked)
        if len(boxes):
            self.placed[number] = Box(*boxes[np.argmin(self._costs(number, boxes))].tolist())

    def _others(self, number: int) -> list[Box]:
        return [box for index, box in self.placed.items() if index != number]

    def _free(self, label: Label, corners: Floats, blocked: Floats) -> Floats:
        """Keep the boxes [K, 4] at lower left ``corners`` [K, 2] that are inside the bounds and overlap nothing."""
        import numpy as np

        boxes = np.column_stack([corners, corners[:, 0] + label.width, corners[:, 1] + label.height])
        limits = self.bounds
        inside = (boxes[:, 0] >= limits.left) & (boxes[:, 1] >= limits.bottom)
        boxes = boxes[inside & (boxes[:, 2] <= limits.right) & (boxes[:, 3] <= limits.top)]
        left, bottom, right, top = boxes.T[:, :, None]
        apart = (right <= blocked[:, 0]) | (left >= blocked[:, 2]) | (top <= blocked[:, 1]) | (bottom >= blocked[:, 3])
        free: Floats = boxes[apart.all(axis=1)]
        return free

    def _nearest_free(self, label: Label, blocked: Floats) -> Floats:
        """Search everywhere for free boxes, the nearest first, until there are `NEAREST`."""
        import numpy as np

        corners = _everywhere(label, self.bounds, blocked)
        sizes = np.asarray([label.width, label.height])
        reach = _reach(np.hstack([corners, corners + sizes]), np.asarray([label.x, label.y]))
        corners = corners[np.argsort(reach, kind="stable")]
        found = np.empty((0, 4))
        for start in range(0, len(corners), BATCH):
            found = np.vstack([found, self._free(label, corners[start : start + BATCH], blocked)])
            if len(found) >= NEAREST:
                break
        return found[:NEAREST]

    def _costs(self, number: int, boxes: Floats) -> Floats:
        """Weigh boxes [K, 4]: the best has a short leader that crosses nothing and is to the right of its point."""
        import numpy as np

        label = self.labels[number]
        start = np.asarray([label.x, label.y])
        ends = np.clip(start, boxes[:, :2], boxes[:, 2:])
        length = _reach(boxes, start)
        hurdles = [box for each in self.labels for box in each.own if box not in label.own] + self._others(number)
        crossed = _crosses(start, ends[:, None], _array(hurdles)).sum(axis=1)
        leaders = [(self.labels[index], box) for index, box in self.placed.items() if index != number]
        first = np.asarray([(each.x, each.y) for each, _ in leaders]).reshape(-1, 2)
        last = np.asarray([box.nearest(each.x, each.y) for each, box in leaders]).reshape(-1, 2)
        crossed = crossed + _crosses(first, last, boxes[:, None]).sum(axis=1)
        crossed += _cross_each_other(start, ends[:, None], first, last).sum(axis=1)
        points = np.asarray(self.points_but(number)).reshape(-1, 2)
        strangers = (_reach(boxes[:, None], points) <= length[:, None]).any(axis=1)
        middle = (boxes[:, 1] + boxes[:, 3]) / 2 - label.y
        turned = 2.0 * (boxes[:, 2] <= label.x) + 3.0 * (ends[:, 0] == label.x) + 0.15 * np.abs(middle)
        costs: Floats = length + turned + CROSSING * crossed + STRANGER * strangers
        return costs


def _array(boxes: Sequence[Box]) -> Floats:
    import numpy as np

    return np.asarray([(box.left, box.bottom, box.right, box.top) for box in boxes], dtype=np.float64).reshape(-1, 4)


def _reach(boxes: Floats, points: Floats) -> Floats:
    """Distances from boxes [..., 4] to points [..., 2]."""
    import numpy as np

    across, up = np.moveaxis(np.clip(points, boxes[..., :2], boxes[..., 2:]) - points, -1, 0)
    distances: Floats = np.hypot(across, up)
    return distances


def _around(label: Label) -> Iterator[tuple[float, float]]:
    """Give lower left corners of places near a label's point: in all directions from it, and in columns beside it."""
    import math

    marker = label.own[0] if label.own else Box(label.x, label.y, label.x, label.y)
    radius = max(label.x - marker.left, marker.right - label.x, label.y - marker.bottom, marker.top - label.y)
    for distance in DISTANCES:
        for step in range(DIRECTIONS):
            angle = 2 * math.pi * step / DIRECTIONS
            across, up = math.cos(angle), math.sin(angle)
            x = label.x + across * (radius + distance) + label.width / 2 * (max(-1.0, min(1.0, 1.6 * across)) - 1)
            y = label.y + up * (radius + distance) + label.height / 2 * (max(-1.0, min(1.0, 1.6 * up)) - 1)
            yield x, y
    for distance in COLUMNS:
        for step in range(-DEEPEST, DEEPEST + 1):
            y = label.y + step * label.height - label.height / 2
            yield label.x + radius + distance, y
            yield label.x - radius - distance - label.width, y


def _everywhere(label: Label, bounds: Box, blocked: Floats) -> Floats:
    """Give lower left corners [K, 2] that hold a free one if there is any at all.

    A free box can slide left and down until it meets a blocked one or the bounds; the corners where it then rests are
    all among these, as are those reached to the right and upwards, so that near ones are found too.
    """
    import numpy as np

    size = label.width, label.height
    x = np.unique([bounds.left, bounds.right - size[0], *blocked[:, 2], *(blocked[:, 0] - size[0])])
    y = np.unique([bounds.bottom, bounds.top - size[1], *blocked[:, 3], *(blocked[:, 1] - size[1])])
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def _crosses(starts: Floats, ends: Floats, boxes: Floats) -> Any:
    """Whether segments [..., 2] to [..., 2] run through the inside of boxes [..., 4] (Liang and Barsky's clipping)."""
    import numpy as np

    step = ends - starts
    still = step == 0.0
    safe = np.where(still, 1.0, step)
    first, last = (boxes[..., :2] - starts) / safe, (boxes[..., 2:] - starts) / safe
    inside = (boxes[..., :2] < starts) & (starts < boxes[..., 2:])
    low = np.where(still, np.where(inside, -np.inf, np.inf), np.minimum(first, last))
    high = np.where(still, np.where(inside, np.inf, -np.inf), np.maximum(first, last))
    return np.maximum(low.max(axis=-1), 0.0) < np.minimum(high.min(axis=-1), 1.0)


def _cross_each_other(start: Floats, ends: Floats, first: Floats, last: Floats) -> Any:
    """Whether segments ``start`` to ``ends`` and ``first`` to ``last``, all [..., 2], cross inside of both."""
    import numpy as np

    def side(a: Floats, b: Floats, c: Floats) -> Any:
        turn = (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])
        return np.sign(turn)

    apart = side(start, ends, first) * side(start, ends, last) < 0
    return apart & (side(first, last, start) * side(first, last, ends) < 0)
