"""Overlap of label maps: IoU per class and by frequency, mIoU; J and F of the DAVIS benchmark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

FREQUENCY_SHARES = (0.827, 0.125, 0.033, 0.015)
"""Shares of the pixels in the four groups of Cityscapes' classes (Sushko's thesis, table 4.7)."""


def confusion_matrix(
    target: NDArray[np.integer], prediction: NDArray[np.integer], num_classes: int
) -> NDArray[np.int64]:
    """Count pixels by true and predicted class.

    Args:
        target: class channels in [0, N), any shape; a value outside is ignored.
        prediction: class channels in [0, N), same shape.
        num_classes: N.

    Returns:
        (N, N) int64, rows are true classes. Matrices of several images add up.
    """
    labelled = (target >= 0) & (target < num_classes)
    cells = target[labelled].astype(np.int64) * num_classes + prediction[labelled]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def iou_per_class(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection over union of each class, (N,) in [0, 1]; NaN where no target holds it.

    A pixel that is taken for such a class counts against the one that it belongs to.
    """
    intersection, target = np.diag(confusion).astype(np.float64), confusion.sum(1)
    iou = np.full(len(confusion), np.nan)
    np.divide(intersection, confusion.sum(0) + target - intersection, out=iou, where=target > 0)
    return iou


def mean_iou(confusion: NDArray[np.int64], *, background: bool = True) -> float:
    """Mean IoU over the classes that the target holds, see `iou_per_class`.

    Args:
        confusion: (N, N), of one image or of a whole set.
        background: count class 0 too.

    Returns:
        A value in [0, 1]; NaN when the target holds none.
    """
    values = iou_per_class(confusion)[0 if background else 1 :]
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")


def frequency_groups(
    pixels: Sequence[int] | NDArray[np.integer],
    shares: Sequence[float] = FREQUENCY_SHARES,
) -> list[list[int]]:
    """Sort classes by their pixels and cut them into groups, the frequent ones first.

    A class falls into the group in whose range of the accumulated share its middle lies, so that
    the groups hold about ``shares`` of all pixels. Groups that stay empty are left out, and
    classes without a pixel join the last one.

    Args:
        pixels: (N,) pixels of every class.
        shares: wanted share of each group, summing to 1.

    Returns:
        Class channels in [0, N) of each group.
    """
    counts = np.asarray(pixels, np.float64)
    order = np.argsort(-counts, kind="stable")
    share = counts[order] / max(counts.sum(), 1)
    limits = np.cumsum(shares)[:-1]
    place = np.searchsorted(limits, np.cumsum(share) - share / 2, side="right")
    groups = [order[place == group].tolist() for group in range(len(shares))]
    return [group for group in groups if group]


def mean_iou_by_group(confusion: NDArray[np.int64], groups: Sequence[Sequence[int]]) -> list[float]:
    """Mean IoU of each group of class channels; absent classes are excluded, NaN if all are."""
    values = iou_per_class(confusion)
    found = [values[list(group)] for group in groups]
    kept = [group[~np.isnan(group)] for group in found]
    return [float(group.mean()) if len(group) else float("nan") for group in kept]


class JF(NamedTuple):
    """Region similarity and boundary measure of one frame, each in [0, 1]."""

    j: float
    f: float

    @property
    def mean(self) -> float:
        """J&F, the mean of both."""
        return (self.j + self.f) / 2


def region_similarity(target: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> float:
    """J of the DAVIS benchmark (Perazzi et al. 2016, section 5): the Jaccard index of two masks.

    Args:
        target: (H, W) bool, the object's true pixels.
        prediction: (H, W) bool.

    Returns:
        A value in [0, 1]; 1 when both masks are empty.
    """
    union = np.count_nonzero(target | prediction)
    return np.count_nonzero(target & prediction) / union if union else 1.0


def boundary_measure(
    target: NDArray[np.bool_], prediction: NDArray[np.bool_], bound: float = 0.008
) -> float:
    """F of the DAVIS benchmark (Perazzi et al. 2016, section 5): agreement of two outlines.

    A boundary pixel counts as found when the other mask has a boundary pixel within the
    tolerance, as the morphological approximation of the benchmark has it.

    Args:
        target: (H, W) bool, the object's true pixels.
        prediction: (H, W) bool.
        bound: tolerance; below 1 a share of the image diagonal, rounded up to whole pixels,
            otherwise pixels.

    Returns:
        2PR / (P + R) in [0, 1]. P is 1 where the prediction has no boundary and R is 1 where the
        target has none, so two maps without boundary give 1 and one alone gives 0.
    """
    radius = math.ceil(bound * math.hypot(*target.shape)) if bound < 1 else int(bound)
    true_outline, outline = _boundary(target), _boundary(prediction)
    true_count, count = np.count_nonzero(true_outline), np.count_nonzero(outline)
    if not true_count or not count:
        return float(true_count == count)
    disk = _disk(radius)
    precision = np.count_nonzero(outline & cv2.dilate(true_outline, disk)) / count
    recall = np.count_nonzero(true_outline & cv2.dilate(outline, disk)) / true_count
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def jf(target: NDArray[np.integer], prediction: NDArray[np.integer], num_classes: int) -> JF:
    """J and F of a frame with several objects: the mean over its objects.

    With equally many frames for every object, the mean over frames is the benchmark's figure of
    a video (mean over frames of each object, then over objects), but that its semi-supervised
    evaluator leaves out the last frame, too, which `synthaug.gain.runs.measure` counts.

    Args:
        target: (H, W) class channels, 0 = background, 1..N-1 = objects; a value outside [0, N) is
            void: such pixels belong to no object, in the prediction neither.
        prediction: (H, W) class channels in [0, N).
        num_classes: N, at least 2. An object that neither map shows counts as 1.

    Returns:
        J and F.
    """
    labelled = (target >= 0) & (target < num_classes)
    values = np.array(
        [
            (region_similarity(true, found), boundary_measure(true, found))
            for true, found in (
                (target == c, (prediction == c) & labelled) for c in range(1, num_classes)
            )
        ]
    )
    return JF(*values.mean(0).tolist())


def _boundary(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Pixels that differ from their right, lower or lower right neighbour, where there is one."""
    seg = np.asarray(mask, bool)
    edge = np.zeros(seg.shape, bool)
    edge[:, :-1] |= seg[:, :-1] != seg[:, 1:]
    edge[:-1] |= seg[:-1] != seg[1:]
    edge[:-1, :-1] |= seg[:-1, :-1] != seg[1:, 1:]
    return edge.view(np.uint8)


def _disk(radius: int) -> NDArray[np.uint8]:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    inside: NDArray[np.bool_] = x**2 + y**2 <= radius**2
    return inside.astype(np.uint8)
