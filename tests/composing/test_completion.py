from __future__ import annotations

import numpy as np
import pytest

from synthaug.composing import completion
from synthaug.composing.completion import complete


def stripes(height=64, width=96, period=8):
    """Vertical stripes, dark and light, whose label is 1 where they are light."""
    wave = np.sin(np.arange(width) * (2 * np.pi / period))
    levels = np.rint(127 + 100 * wave).astype(np.uint8)
    image = np.broadcast_to(levels[None, :, None], (height, width, 3)).copy()
    return image, (image[..., 0] > 127).astype(np.uint8)


def box(size, top, left, height, width):
    hole = np.zeros(size, bool)
    hole[top : top + height, left : left + width] = True
    return hole


NOTHING = np.zeros((64, 96), bool)


def test_a_texture_is_continued_sharply_and_so_are_its_labels():
    image, mask = stripes()
    hole = box(mask.shape, 20, 36, 22, 24)
    spoilt, unlabelled = image.copy(), mask.copy()
    spoilt[hole], unlabelled[hole] = (255, 0, 0), 7
    filled, labels = complete(spoilt, unlabelled, hole, NOTHING)
    error = np.abs(filled.astype(int) - image)[hole].mean()
    assert error < 12  # the best flat fill is off by 64
    assert filled[hole].std() > 0.9 * image[hole].std()
    assert (labels == mask)[hole].mean() > 0.9


def test_known_pixels_are_untouched_and_unknown_ones_do_not_matter():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    mask = rng.integers(0, 3, (64, 96), dtype=np.uint8)
    hole = box(mask.shape, 10, 70, 30, 26)
    before = image.copy(), mask.copy()
    filled, labels = complete(image, mask, hole, NOTHING)
    assert np.array_equal(filled[~hole], image[~hole])
    assert np.array_equal(labels[~hole], mask[~hole])
    assert np.array_equal(image, before[0])
    assert np.array_equal(mask, before[1])
    spoilt = image.copy()
    spoilt[hole] = 0
    again, _ = complete(spoilt, mask, hole, NOTHING)
    assert np.array_equal(again, filled)


def test_nothing_is_copied_from_what_is_to_be_avoided():
    image = np.full((64, 96, 3), (30, 140, 60), np.uint8)
    mask = np.zeros((64, 96), np.uint8)
    hole, other = box(mask.shape, 20, 20, 16, 16), box(mask.shape, 20, 60, 16, 16)
    image[other], mask[other] = (250, 20, 20), 1
    image[hole], mask[hole] = (250, 20, 20), 1
    filled, labels = complete(image, mask, hole, other)
    assert np.abs(filled[hole].astype(int) - (30, 140, 60)).max() < 4
    assert labels[hole].max() == 0


def test_a_step_in_brightness_is_levelled():
    """A shadow's border that runs into the hole leaves no edge inside it."""
    ramp = np.linspace(60, 190, 96)
    image = np.broadcast_to(ramp[None, :, None], (64, 96, 3)).astype(np.uint8)
    hole = box((64, 96), 20, 36, 24, 24)
    filled, _ = complete(image, np.zeros((64, 96), np.uint8), hole, NOTHING)
    steps = np.abs(np.diff(filled[..., 0].astype(int), axis=1))
    assert steps[22:42, 34:62].max() < 14


@pytest.mark.parametrize("known", [0, 3])
def test_next_to_nothing_known_still_gives_a_picture(known):
    image, mask = stripes()
    hole = np.ones(mask.shape, bool)
    hole[:, :known] = False
    filled, labels = complete(image, mask, hole, NOTHING)
    assert filled.shape == image.shape
    assert set(np.unique(labels)) <= {0, 1}


def test_no_hole_is_no_change():
    image, mask = stripes()
    filled, labels = complete(image, mask, NOTHING, NOTHING)
    assert np.array_equal(filled, image)
    assert np.array_equal(labels, mask)


def test_it_draws_nothing_at_random():
    image, mask = stripes()
    hole = box(mask.shape, 5, 5, 20, 20)
    first, second = (complete(image, mask, hole, NOTHING)[0] for _ in range(2))
    assert np.array_equal(first, second)


def test_holes_of_large_pictures_are_filled_one_by_one_and_look_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    ramp = np.linspace(60, 190, 150)[None, :, None] + rng.normal(0, 8, (100, 150, 3))
    image = ramp.clip(0, 255).astype(np.uint8)
    mask = rng.integers(0, 3, image.shape[:2], dtype=np.uint8)
    places = [(0, 10), (3, 120), (20, 30), (80, 138)]  # two at the frame, two whose boxes touch
    hole = np.any([box(mask.shape, top, left, 16, 15) for top, left in places], 0)
    sizes = []

    class Spy(completion.Slopes):
        def __init__(self, inside):
            sizes.append(inside.size)
            super().__init__(inside)

    monkeypatch.setattr(completion, "Slopes", Spy)
    together, labels = complete(image, mask, hole, np.zeros_like(hole))
    assert len(sizes) == 1
    monkeypatch.setattr(completion, "ONE_BOX_PX", 0)
    apart, same = complete(image, mask, hole, np.zeros_like(hole))
    assert len(sizes) == 4
    assert sum(sizes[1:]) < 0.2 * mask.size
    assert np.array_equal(labels, same)
    assert np.abs(apart.astype(int) - together).max() <= 4
