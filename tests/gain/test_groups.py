from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from synthaug.formats.splits import Unit
from synthaug.gain.groups import class_groups
from synthaug.sample import IGNORE_ID, ClassMap, Sample


@pytest.fixture
def unit() -> Unit:
    """Three classes, of 900, 90 and 10 training pixels, and a strip without labels."""
    mask = np.full((30, 40), IGNORE_ID, np.uint8)
    mask.flat[:900], mask.flat[900:910], mask.flat[910:1000] = 7, 2, 4
    sample = Sample(np.zeros((30, 40, 3), np.uint8), mask)
    other = Sample(sample.image, np.full((30, 40), 2, np.uint8))  # test masks do not count
    return Unit("scenes", [sample], [other], ClassMap((2, 4, 7)), "images")


def test_classes_are_grouped_by_their_training_pixels(unit: Unit) -> None:
    assert class_groups(unit) == [
        {"ids": [7], "share": 0.9},
        {"ids": [4], "share": 0.09},
        {"ids": [2], "share": 0.01},
    ]


def test_videos_and_single_objects_have_no_groups(unit: Unit) -> None:
    assert class_groups(replace(unit, kind="video")) == []
    assert class_groups(replace(unit, classes=ClassMap((2, 7)))) == []
