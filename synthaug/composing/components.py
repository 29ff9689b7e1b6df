"""Which parts of a mask are objects that can be moved."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from synthaug.sample import ClassMap

MIN_OBJECT_AREA = 0.001
MIN_OBJECT_PX = 12
MIN_OF_LARGEST = 0.1
"""Share of the largest of a class from which objects under `MIN_OBJECT_AREA` are no specks."""
MAX_OBJECT_AREA = 0.4
MAX_GAP = 0.025
MAX_OWN_GAP = 0.5
SMALL_SHARE = 0.05
"""Share of the picture below which objects are enlarged, too."""
MOST_ENLARGED = 4.0


class Component(NamedTuple):
    """A movable object of a mask, within the box that holds it."""

    channel: int
    area: int
    box: tuple[slice, slice]
    inside: NDArray[np.bool_]

    def whole(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return the object in the mask, (H, W)."""
        mask = np.zeros(shape, bool)
        mask[self.box] = self.inside
        return mask

    def along_frame(self, shape: tuple[int, ...]) -> float:
        """Return the share of the pixels of the frame of a mask (H, W) that it covers."""
        rows, columns = (np.arange(size)[part] for size, part in zip(shape, self.box, strict=True))
        on_row, on_column = np.isin(rows, (0, shape[0] - 1)), np.isin(columns, (0, shape[1] - 1))
        covered = (self.inside & (on_row[:, None] | on_column[None])).sum()
        return float(covered / (shape[0] * shape[1] - (shape[0] - 2) * (shape[1] - 2)))


def list_components(
    labels: NDArray[np.integer], num_classes: int, *, tiny: bool = False
) -> list[Component]:
    """List the movable objects of a mask, the largest first; thousands take little memory.

    An object is a connected component of a class other than the background that covers between
    0.1 % and 40 % of the picture; parts less than 2.5 % of the longer side apart are one object,
    so that a pole before a dog does not cut it.

    Args:
        labels: (H, W) channels, 0 the background; negative where ignored.
        num_classes: N, the background included.
        tiny: where all objects of a class are small, as defects on a large surface are, also take
            those of fewer pixels: from a tenth of the class' largest, and 12 pixels; and join only
            what is no further apart than half the side of a square as large as the class' largest.
    """
    found = []
    least, most = MIN_OBJECT_AREA * labels.size, MAX_OBJECT_AREA * labels.size
    reach = max(1, round(MAX_GAP / 2 * max(labels.shape)))
    for label in range(1, num_classes):
        of_class = labels == label
        near = reach
        if tiny:  # a gap may be half as wide as the largest object
            side = math.sqrt(largest_part(of_class))
            near = min(reach, max(1, round(MAX_OWN_GAP / 2 * side)))
        grown = grow(of_class, near).astype(np.uint8)
        count, numbered, boxes, _ = cv2.connectedComponentsWithStats(grown)
        areas = np.bincount(numbered[of_class], minlength=count)
        floor = max(MIN_OBJECT_PX, MIN_OF_LARGEST * areas[1:].max(initial=0)) if tiny else least
        fitting = (areas >= min(least, floor)) & (areas <= most)
        for number in np.flatnonzero(fitting[1:]) + 1:
            left, top, width, height = boxes[number, : cv2.CC_STAT_AREA].tolist()
            box = slice(top, top + height), slice(left, left + width)
            inside = (numbered[box] == number) & of_class[box]
            found.append(Component(label, int(areas[number]), box, inside))
    return sorted(found, key=lambda part: -part.area)


def in_turns(parts: Sequence[Component], limit: int) -> list[Component]:
    """Return the largest objects, each class in turn, at most ``limit``, in their order."""
    rank, turns = Counter[int](), list[tuple[int, int]]()
    for place, part in enumerate(parts):
        turns.append((rank[part.channel], place))
        rank[part.channel] += 1
    return [parts[place] for place in sorted(place for _, place in sorted(turns)[:limit])]


def largest_area(mask: NDArray[np.uint8], classes: ClassMap) -> int:
    """Return the pixels of the largest object, of any size, of a mask (H, W) of ids."""
    labels = classes.encode(mask)
    return max((largest_part(labels == label) for label in range(1, len(classes))), default=0)


def largest_part(inside: NDArray[np.bool_]) -> int:
    """Return the pixels of the largest connected part of an (H, W) bool."""
    _, _, parts, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8))
    return int(parts[1:, cv2.CC_STAT_AREA].max(initial=0))


def object_share(mask: NDArray[np.uint8], classes: ClassMap) -> float:
    """Return the share of a mask (H, W) of ids that belongs to all classes but the background."""
    return float(np.isin(mask, classes.ids[1:]).mean())


def largest_scale(share: float) -> float:
    """Return the largest plausible factor on the sides of a picture's objects, 1 or more.

    One picture shows its objects at one distance, and the smaller they are there, the nearer they
    come in others: the factor is 5 % over their share, 4 at most.

    Args:
        share: of the picture that is not background; 0 where there is no object.
    """
    if share <= 0:
        return 1.0
    return float(np.clip(SMALL_SHARE / share, 1, MOST_ENLARGED))


def grow(component: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Dilate an (H, W) bool by a square of ``2 by + 1`` pixels a side."""
    kernel = np.ones((2 * by + 1, 2 * by + 1), np.uint8)
    grown: NDArray[np.bool_] = cv2.dilate(component.astype(np.uint8), kernel) > 0
    return grown
