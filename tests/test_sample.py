from __future__ import annotations

import numpy as np
import pytest

from synthaug.errors import InputError
from synthaug.sample import ClassMap, Sample


def _mask(*ids):
    return np.array([ids], np.uint8)


def test_classes_are_the_sorted_ids_without_ignore():
    classes = ClassMap.from_masks([_mask(9, 255, 0), _mask(9, 4)])
    assert classes.ids == (0, 4, 9)
    assert classes.names == ("class_0", "class_4", "class_9")
    assert len(classes) == 3


def test_sparse_ids_survive_the_round_trip():
    classes = ClassMap((2, 7, 200))
    mask = _mask(7, 2, 200, 7)
    assert classes.encode(mask).tolist() == [[1, 0, 2, 1]]
    assert np.array_equal(classes.decode(classes.encode(mask)), mask)
    assert classes.decode(classes.encode(mask)).dtype == np.uint8


def test_ignored_and_unknown_pixels_have_no_channel():
    assert ClassMap((0, 1)).encode(_mask(0, 255, 1, 33)).tolist() == [[0, -1, 1, -1]]


def test_pixels_are_counted_by_class():
    masks = [_mask(0, 255, 4, 4), _mask(4, 9)]
    assert ClassMap((0, 4)).count_pixels(masks).tolist() == [1, 3]


def test_classes_get_names():
    classes = ClassMap((0, 4)).named({0: "sky", 3: "bus", 4: "Car"})
    assert (classes.ids, classes.names) == ((0, 4), ("sky", "Car"))
    assert classes.find("car") == 4
    with pytest.raises(InputError, match=r"class id 4 has no name: named are 0, 1; .*4=NAME"):
        ClassMap((0, 4)).named({0: "sky", 1: "car"})
    with pytest.raises(InputError, match="ids 0 and 4 are both named Sky"):
        ClassMap((0, 4)).named({0: "sky", 4: "Sky"})


@pytest.mark.parametrize(
    ("named", "class_id"),
    [(8, 8), ("8", 8), (np.int64(8), 8), ("6", 5), ("Tree", 4), ("9", 8)],
)
def test_an_id_wins_over_a_name(named, class_id):
    assert ClassMap((4, 5, 7, 8), ("tree", "6", "8", "9")).find(named) == class_id


def test_an_integer_is_no_name():
    with pytest.raises(InputError, match="no class 9: known are 8 "):
        ClassMap((8,), ("9",)).find(9)


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        ((0, 0), r"holds only one class \(ids \[0\]\): write the object .*1 and 0"),
        ((0, 255), r'holds only one class \(ids \[0\]\); 255 .* "not labelled": write .*1 and 0'),
        ((255, 255), 'is wholly unlabelled; 255 .* "not labelled": write .*1 and 0'),
    ],
)
def test_one_class_is_refused(ids, told):
    with pytest.raises(InputError, match=f"mask scene.png {told}"):
        ClassMap.from_masks([_mask(*ids)], "mask scene.png")


def test_more_than_64_classes_are_refused():
    assert len(ClassMap.from_masks([_mask(*range(64))])) == 64
    with pytest.raises(InputError, match="holds 65 classes, at most 64"):
        ClassMap.from_masks([_mask(*range(65))])


def test_size_is_height_and_width():
    sample = Sample(np.zeros((3, 5, 3), np.uint8), np.zeros((3, 5), np.uint8))
    assert sample.size == (3, 5)
