from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.stats import wasserstein_distance
from skimage import data
from skimage.color import rgb2lab
from skimage.feature import local_binary_pattern

from synthaug.quality.appearance import (
    COLOUR_RANGES,
    ClassAppearance,
    binary_patterns,
    colour_distances,
    texture_distances,
)

CAT = data.chelsea()[:120, :160]
COFFEE = data.coffee()[100:220, 200:360]
halves = np.arange(120)[:, None] // 60 + np.zeros((1, 160), np.int64)  # class 0 above, 1 below


def appearance(image: np.ndarray, labels: np.ndarray = halves, num_classes: int = 3):
    found = ClassAppearance(num_classes)
    found.add(image, labels)
    return found


def test_colour_distance_is_that_of_scipy_up_to_the_bins() -> None:
    found = colour_distances(appearance(CAT), appearance(COFFEE))
    labs = [rgb2lab(image) for image in (CAT, COFFEE)]
    for label in (0, 1):
        a, b = (lab[halves == label] for lab in labs)
        exact = sum(wasserstein_distance(a[:, c], b[:, c]) for c in range(3))
        assert found[label] == pytest.approx(exact, rel=0.02)
    assert np.isnan(found[2])


def test_colour_distance_of_binned_values_is_exact() -> None:
    one, other = appearance(CAT), appearance(COFFEE)
    expected = 0.0
    for c, (low, high) in enumerate(COLOUR_RANGES):
        centres = low + (np.arange(64) + 0.5) * (high - low) / 64
        weights = one.colours[1, c], other.colours[1, c]
        expected += wasserstein_distance(centres, centres, *weights)
    assert colour_distances(one, other)[1] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("image", [CAT, COFFEE, np.full((20, 30, 3), 77, np.uint8)])
def test_patterns_are_those_of_scikit_image(image: np.ndarray) -> None:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    expected = local_binary_pattern(grey, 8, 1, "uniform")[1:-1, 1:-1]
    found = binary_patterns(image)
    assert found.shape == (image.shape[0] - 2, image.shape[1] - 2)
    # where interpolated values equal the centre's, scikit-image goes by its rounding
    assert (found == expected).mean() > 0.98


def test_texture_distance_is_chi_squared() -> None:
    one, other = appearance(CAT), appearance(COFFEE)
    p, q = (side.textures[0] / side.textures[0].sum() for side in (one, other))
    kept = p + q > 0
    expected = 0.5 * ((p - q)[kept] ** 2 / (p + q)[kept]).sum()
    assert texture_distances(one, other)[0] == pytest.approx(expected)
    blurred = cv2.GaussianBlur(CAT, (0, 0), 3)
    assert texture_distances(one, appearance(blurred))[0] > 0.05
    assert colour_distances(one, appearance(blurred))[0] < 5


def test_equal_sets_are_0_and_pictures_add_up() -> None:
    twice = appearance(CAT)
    twice.add(CAT, halves)
    for distances in (colour_distances, texture_distances):
        assert distances(twice, appearance(CAT))[:2].tolist() == [0, 0]


def test_small_and_unlabelled_classes_do_not_count() -> None:
    labels = halves.copy()
    labels[:5, :10] = 2
    labels[50:70] = -1
    found = appearance(CAT, labels)
    assert found.colours.sum((1, 2)).tolist() == [3 * 7950, 3 * 8000, 3 * 50]
    assert np.isnan(colour_distances(found, found)).tolist() == [False, False, True]
    assert np.isnan(texture_distances(found, found, floor=30)).tolist() == [False, False, False]
