"""Small blobs that no object of the training pairs explains, taken out of image and mask alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from synthaug.sample import ClassMap, Sample

OF_SMALLEST = 0.25
OF_LARGEST = 0.1
COVERAGE = 0.99
HALO = 0.01


class StrayRemover:
    """Knows how small a connected region of each class may be.

    A region is stray if it is smaller than a quarter of the smallest main region of its class in
    the training pairs (main regions are the largest that together cover 99 % of the class) and
    than a tenth of the largest region of its class in the sample.

    Args:
        pairs: the training pairs.
        classes: their classes.
    """

    def __init__(self, pairs: Sequence[Sample], classes: ClassMap) -> None:
        self._smallest = {
            class_id: min(
                (_smallest_main(pair.mask == class_id) for pair in pairs if class_id in pair.mask),
                default=0.0,
            )
            for class_id in classes.ids
        }

    def __call__(self, sample: Sample) -> Sample:
        """Give every stray region the class around it, and its pixels the colours around it.

        The colours of a rim of 1 % of the longer side go too, as far as it has that class.

        Args:
            sample: (H, W) pair.

        Returns:
            The same sample if there is no stray region, else a changed copy.
        """
        stray = self.find(sample.mask)
        if not stray.any() or stray.all():
            return sample
        nearest = _nearest(stray)
        mask = sample.mask.flatten()[nearest]
        reach = max(1, round(HALO * max(stray.shape)))
        rim = cv2.dilate(stray.astype(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8)) > 0
        around = cv2.dilate(np.where(stray, mask, 0), np.ones((2 * reach + 1,) * 2, np.uint8))
        hole = stray | (rim & (sample.mask == around))
        if hole.all():
            hole = stray
        image = cv2.inpaint(sample.image, hole.astype(np.uint8), 3, cv2.INPAINT_TELEA)
        return replace(sample, image=image, mask=mask)

    def find(self, mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Mark the stray regions of an (H, W) mask of ids, (H, W) bool."""
        stray = np.zeros(mask.shape, bool)
        for class_id, smallest in self._smallest.items():
            count, numbered, areas = _regions(mask == class_id)
            if count < 2:
                continue
            limit = min(OF_SMALLEST * smallest * mask.size, OF_LARGEST * areas[1:].max())
            small = areas < limit
            small[0] = False
            stray |= small[numbered]
        return stray


def _regions(of_class: NDArray[np.bool_]) -> tuple[int, NDArray[np.int32], NDArray[np.int32]]:
    count, numbered, table, _ = cv2.connectedComponentsWithStats(of_class.astype(np.uint8))
    return count, numbered, table[:, cv2.CC_STAT_AREA]


def areas_of(region: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Pixels of each 8-connected part of a region, the largest first."""
    return np.sort(_regions(region)[2][1:].astype(np.int64))[::-1]


def count_main(areas: NDArray[np.int64]) -> int:
    """Count the largest parts, the largest first, that cover 99 % together; at least 1."""
    return int(np.searchsorted(areas.cumsum(), COVERAGE * areas.sum())) + 1


def _smallest_main(of_class: NDArray[np.bool_]) -> float:
    """Share of the picture that the smallest main region covers."""
    areas = areas_of(of_class)
    return float(areas[count_main(areas) - 1] / of_class.size)


def _nearest(stray: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For every pixel the flat index of the nearest one that is not stray, (H, W)."""
    _, numbers = cv2.distanceTransformWithLabels(
        stray.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    index = np.zeros(numbers.max() + 1, np.int64)
    kept = np.flatnonzero(~stray)
    index[numbers.flatten()[kept]] = kept
    found: NDArray[np.int64] = index[numbers]
    return found
