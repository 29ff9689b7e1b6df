"""Overlap of label maps: confusion matrix, IoU per class, mIoU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
    """Intersection over union of each class, (N,) in [0, 1]; NaN where it is in neither map."""
    intersection = np.diag(confusion).astype(np.float64)
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    iou = np.full(len(confusion), np.nan)
    np.divide(intersection, union, out=iou, where=union > 0)
    return iou


def mean_iou(confusion: NDArray[np.int64], *, background: bool = True) -> float:
    """Mean IoU over the classes present in target or prediction; absent classes are excluded.

    Args:
        confusion: (N, N), of one image or of a whole set.
        background: count class 0 too.

    Returns:
        A value in [0, 1]; NaN when no class is present.
    """
    values = iou_per_class(confusion)[0 if background else 1 :]
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")
