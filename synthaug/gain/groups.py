"""Rare and frequent classes: the gain of each group of classes, by frequency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from synthaug.formats.splits import Unit
from synthaug.quality.overlap import frequency_groups


def class_groups(unit: Unit) -> list[dict[str, Any]]:
    """Group the classes of a unit by their share of the labelled training pixels.

    Args:
        unit: of kind ``images``; others, and those of one class beside the background, have no
            groups.

    Returns:
        ``ids`` and ``share`` (of the pixels, in [0, 1]) of every group of
        `synthaug.quality.overlap.frequency_groups`, the frequent classes first.
    """
    if unit.kind != "images" or len(unit.classes) < 3:
        return []
    pixels = unit.classes.count_pixels(sample.mask for sample in unit.training)
    return [
        {
            "ids": [unit.classes.ids[channel] for channel in group],
            "share": float(pixels[group].sum() / max(pixels.sum(), 1)),
        }
        for group in frequency_groups(pixels)
    ]


def group_runs(
    cells: Mapping[tuple[str, int], Mapping[str, Any]], ids: Sequence[int]
) -> dict[tuple[str, int], dict[str, Any]]:
    """Return runs as if a group of their classes were all there is.

    Args:
        cells: (unit, seed) -> run.
        ids: classes of the group; those that no test mask of a run holds do not count in it.

    Returns:
        (unit, seed) -> ``measures`` with the group's mIoU, in [0, 1]; runs without any of the
        classes are left out.
    """
    found = {}
    for cell, run in cells.items():
        listed = [run["per_class"].get(str(class_id)) for class_id in ids]
        values = [value for value in listed if value is not None]
        if values:
            found[cell] = {"measures": {"mIoU": sum(values) / len(values)}}
    return found
