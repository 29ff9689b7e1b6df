from __future__ import annotations

from dataclasses import replace

import numpy as np

from synthaug.rendering.strays import StrayRemover
from synthaug.sample import ClassMap, Sample

CLASSES = ClassMap((0, 1, 4))


def sample_of(*boxes):
    """Grey ground with a box (top, left, side, id) of value 200 each."""
    image, mask = np.full((80, 100, 3), 90, np.uint8), np.zeros((80, 100), np.uint8)
    for top, left, side, class_id in boxes:
        image[top : top + side, left : left + side] = 200
        mask[top : top + side, left : left + side] = class_id
    return Sample(image, mask)


PAIR = sample_of((10, 10, 30, 1), (50, 60, 12, 4))
remove = StrayRemover([PAIR], CLASSES)


def test_a_clean_sample_is_returned_as_it_is():
    assert remove(PAIR) is PAIR
    empty = sample_of()
    assert remove(empty) is empty


def test_a_small_blob_takes_the_class_and_colours_around_it():
    found = remove(sample_of((10, 10, 30, 1), (60, 20, 5, 1)))
    assert (found.mask[55:70, 15:30] == 0).all()
    assert np.abs(found.image[55:70, 15:30].astype(int) - 90).max() < 4
    assert (found.mask == 1).sum() == 900


def test_a_hole_in_an_object_is_closed():
    sample = sample_of((10, 10, 30, 1), (20, 20, 4, 0))
    sample.image[20:24, 20:24] = 90
    found = remove(sample)
    assert (found.mask[10:40, 10:40] == 1).all()
    assert np.abs(found.image[15:30, 15:30].astype(int) - 200).max() < 4


def test_objects_of_a_size_seen_in_training_stay():
    twice = sample_of((10, 10, 30, 1), (50, 60, 12, 4), (50, 20, 11, 4), (5, 60, 20, 1))
    assert remove(twice) is twice


def test_a_sample_of_small_regions_alone_is_left_alone():
    scattered = sample_of((10, 10, 4, 1), (40, 40, 4, 1))
    assert (remove(scattered).mask == 1).sum() == 32


def test_the_input_is_not_written_to():
    sample = sample_of((10, 10, 30, 1), (60, 20, 5, 1))
    before = replace(sample, image=sample.image.copy(), mask=sample.mask.copy())
    remove(sample)
    assert np.array_equal(sample.image, before.image)
    assert np.array_equal(sample.mask, before.mask)
