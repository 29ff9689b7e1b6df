from __future__ import annotations

import cv2
import numpy as np
import pytest

from synthaug.bank import write_bank
from synthaug.composing.cutting import (
    _limits,
    count_movable,
    cut_out,
    empty,
    generated_backgrounds,
    harvest,
    is_scene,
    movable_objects,
    take_apart,
    why_none_moves,
)
from synthaug.sample import ClassMap, Sample

SIZE = (60, 90)
GROUND, RED = (40, 130, 70), (230, 30, 40)
CLASSES = ClassMap((0, 5, 8))


def scene(*boxes, ground=GROUND, sample_id="scene"):
    """Flat ground with a red box (top, left, height, width, class id) per object."""
    image = np.full((*SIZE, 3), ground, np.uint8)
    mask = np.zeros(SIZE, np.uint8)
    for top, left, height, width, class_id in boxes:
        image[top : top + height, left : left + width] = RED
        mask[top : top + height, left : left + width] = class_id
    return Sample(image, mask, sample_id)


def ids(objects):
    return [CLASSES.ids[channel] for channel, _ in objects]


def test_objects_move_and_large_areas_and_specks_stay():
    pair = scene((5, 5, 20, 20, 5), (40, 50, 10, 12, 8))
    assert ids(movable_objects(pair.mask, CLASSES)) == [5, 8]
    assert ids(movable_objects(scene((10, 10, 45, 60, 5)).mask, CLASSES)) == []
    assert ids(movable_objects(scene((10, 10, 2, 2, 5)).mask, CLASSES)) == []


def test_where_all_objects_of_a_class_are_small_they_move_and_specks_stay():
    mask = np.zeros((400, 600), np.uint8)  # 0.1 % of it are 240 pixels
    for row, side in enumerate((14, 6, 4, 3)):
        mask[80 * row + 20 : 80 * row + 20 + side, 50 : 50 + side] = 5
    mask[200:203, 500:504] = 8
    moved = movable_objects(mask, CLASSES)
    assert [(channel, component.sum()) for channel, component in moved] == [
        (1, 196),
        (1, 36),
        (2, 12),
    ]
    mask[100:130, 300:330] = 5
    assert [component.sum() for _, component in movable_objects(mask, CLASSES)] == [900, 196, 12]


def test_small_objects_are_joined_over_small_gaps_alone():
    mask = np.zeros((900, 1200), np.uint8)  # 2.5 % of a side are 30 pixels
    for left in (100, 120, 140, 145):
        mask[50:58, left : left + 4] = 5
    assert [component.sum() for _, component in movable_objects(mask, CLASSES)] == [64, 32, 32]
    mask[:] = 0
    for left in (100, 190):
        mask[300:400, left : left + 70] = 5
    assert [component.sum() for _, component in movable_objects(mask, CLASSES)] == [14_000]


def test_classes_take_turns_where_more_objects_than_24_move():
    mask = np.zeros((900, 1200), np.uint8)
    for number in range(40):
        top, left = 60 * (number // 10) + 20, 60 * (number % 10) + 20
        side, class_id = (4, 8) if number >= 30 else (10 + number % 3, 5)
        mask[top : top + side, left : left + side] = class_id
    moved = movable_objects(mask, CLASSES)
    assert ids(moved) == [5] * 14 + [8] * 10
    assert [component.sum() for _, component in moved] == [144] * 10 + [121] * 4 + [16] * 10
    assert count_movable(mask, CLASSES) == 40


def test_what_keeps_objects_in_place_is_told():
    specks = [scene((10, 10, 2, 2, 5), (30, 30, 1, 3, 8))]
    assert "covers 4 pixels, and from 6 up they move" in why_none_moves(specks, CLASSES)
    assert "over 40% of its picture" in why_none_moves([scene((10, 10, 45, 60, 5))], CLASSES)


def test_what_lies_along_the_frame_stays_and_what_the_frame_cuts_moves():
    assert ids(movable_objects(scene((50, 0, 10, 90, 5)).mask, CLASSES)) == []
    assert ids(movable_objects(scene((50, 30, 10, 20, 5)).mask, CLASSES)) == [5]


def test_in_a_scene_only_compact_objects_away_from_the_frame_move():
    road_and_car = scene((20, 0, 40, 90, 5), (30, 40, 10, 14, 8))
    assert is_scene(road_and_car.mask, CLASSES)
    assert ids(movable_objects(road_and_car.mask, CLASSES)) == [8]
    at_the_frame = scene((20, 0, 40, 90, 5), (50, 40, 10, 14, 8))
    assert movable_objects(at_the_frame.mask, CLASSES) == []
    assert not is_scene(scene((30, 40, 10, 14, 8)).mask, CLASSES)


def test_a_class_most_of_which_stays_stays():
    mask = scene((0, 0, 60, 30, 5), (20, 60, 8, 8, 5)).mask
    assert movable_objects(mask, CLASSES) == []


def test_at_most_24_objects_move():
    boxes = [(4 + 9 * row, 5 + 14 * column, 5, 5, 5) for row in range(6) for column in range(6)]
    assert len(movable_objects(scene(*boxes).mask, CLASSES)) == 24


def test_an_emptied_pair_shows_no_trace_of_the_object():
    pair = scene((15, 20, 20, 25, 5))
    ground = empty(pair, movable_objects(pair.mask, CLASSES), CLASSES)
    assert np.abs(ground.image.astype(int) - GROUND).max() < 4
    assert ground.mask.max() == 0
    assert pair.mask.max() == 5


def test_labels_travel_with_the_pixels_that_fill_a_hole():
    pair = scene((20, 0, 40, 90, 5), (30, 40, 10, 14, 8))
    pair.image[pair.mask == 5] = (90, 90, 95)
    ground = empty(pair, movable_objects(pair.mask, CLASSES), CLASSES)
    assert set(np.unique(ground.mask)) == {0, 5}
    assert (ground.mask[28:50, 36:60] == 5).all()


def test_ignored_pixels_stay_ignored_and_are_not_copied():
    pair = scene((15, 20, 20, 25, 5))
    pair.mask[:, 70:] = 255
    pair.mask[14, 20:45] = 255
    pair.image[:, 70:] = (250, 240, 20)
    ground = empty(pair, movable_objects(pair.mask, CLASSES), CLASSES)
    assert np.array_equal(ground.mask == 255, pair.mask == 255)
    assert np.abs(ground.image[:, :70].astype(int) - GROUND).max() < 4


def test_a_cutout_has_its_own_colours_to_the_edge_and_a_soft_alpha():
    pair = scene((15, 20, 20, 25, 5))
    blurred = cv2.GaussianBlur(pair.image, (3, 3), 0)  # the object's outline is mixed
    cutout = cut_out(blurred, pair.mask == 5, 5, 0)
    alpha = cutout.rgba[..., 3]
    assert (alpha >= 128).sum() == 500
    assert cutout.corner == (14, 9)
    assert cutout.sides == ""
    assert alpha[0].max() == alpha[:, -1].max() == 0
    assert ((alpha > 0) & (alpha < 255)).any()
    assert np.abs(cutout.rgba[alpha > 0][:, :3].astype(int) - RED).max() <= 2


def test_thin_parts_are_not_lost():
    mask = np.zeros(SIZE, bool)
    mask[20:40, 20:40] = True
    mask[30, 40:60] = True  # one pixel wide
    mask[10:20, 25:27] = True  # two
    cutout = cut_out(np.full((*SIZE, 3), 50, np.uint8), mask, 5, 0)
    assert (cutout.rgba[..., 3] >= 128).sum() == mask.sum()


@pytest.mark.parametrize(
    ("box", "sides"),
    [((0, 20, 10, 10, 5), "t"), ((50, 80, 10, 10, 5), "rb"), ((20, 0, 10, 10, 5), "l")],
)
def test_sides_that_the_frame_cuts_are_noted_and_continued(box, sides):
    pair = scene(box)
    cutout = cut_out(pair.image, pair.mask == 5, 5, 0)
    assert set(cutout.sides) == set(sides)
    alpha = cutout.rgba[..., 3]
    edge = {"l": alpha[:, 0], "r": alpha[:, -1], "t": alpha[0], "b": alpha[-1]}
    for side, values in edge.items():
        assert (values.max() == 255) == (side in sides)


def test_pairs_are_taken_apart_one_by_one():
    seen = []
    pairs = [scene((15, 20, 20, 25, 5)), scene((8, 8, 10, 10, 8), ground=(200, 190, 180))]
    backgrounds, cutouts = take_apart(pairs, CLASSES, lambda *step: seen.append(step))
    assert [c.background for c in cutouts] == [0, 1]
    assert [c.class_id for c in cutouts] == [5, 8]
    assert not any(b.generated for b in backgrounds)
    assert np.abs(backgrounds[1].sample.image.astype(int) - (200, 190, 180)).max() < 4
    assert seen == [(1, 2), (2, 2)]


@pytest.fixture
def bank(tmp_path):
    samples = [
        scene((20, 30, 20, 25, 5)),  # as the real one
        scene((20, 30, 10, 12, 5)),  # too small
        scene((10, 30, 40, 40, 5)),  # too large
        scene((20, 20, 20, 12, 5), (20, 33, 20, 12, 5)),  # in two pieces
        scene((20, 30, 20, 25, 5), (50, 5, 5, 8, 5)),  # with a stray blob
        scene((20, 30, 20, 25, 8)),  # of a class without a real object
        scene((10, 50, 22, 24, 5), ground=(90, 80, 200)),
    ]
    records = [(sample, {}) for sample in samples]
    return write_bank(tmp_path / "bank", records, samples[:1], CLASSES, {})


def test_only_clean_objects_are_harvested(bank):
    pair = scene((15, 20, 20, 25, 5))
    real = [cut_out(pair.image, pair.mask == 5, 5, 0)]
    found = harvest(bank, CLASSES, real)
    assert [(c.corner, c.background) for c in found] == [((24, 14), None), ((44, 4), None)]
    assert {c.class_id for c in found} == {5}


def test_generated_backgrounds_have_no_objects(bank):
    backgrounds = generated_backgrounds(bank, CLASSES)
    assert len(backgrounds) == 7
    assert all(b.generated for b in backgrounds)
    last = backgrounds[-1].sample
    assert np.abs(last.image.astype(int) - (90, 80, 200)).max() < 4
    assert last.mask.max() == 0


def test_small_objects_all_over_a_small_picture_leave_their_ground():
    """With the margins around them they cover it all, and nothing was left to copy from."""
    image, mask = np.full((40, 40, 3), GROUND, np.uint8), np.full((40, 40), 5, np.uint8)
    for top in range(1, 40, 8):
        for left in range(1, 40, 8):
            image[top : top + 4, left : left + 4] = RED
            mask[top : top + 4, left : left + 4] = 8
    pair, classes = Sample(image, mask, "dots"), ClassMap((5, 8))
    emptied = empty(pair, movable_objects(mask, classes), classes)
    assert (emptied.mask == 5).all()
    assert np.abs(emptied.image.astype(int) - GROUND).mean() < 10


def test_an_object_that_the_frame_cuts_lies_within_its_own_limits():
    pair = scene((0, 0, 30, 4, 5))
    ((channel, component),) = movable_objects(pair.mask, CLASSES)
    real = cut_out(pair.image, component, CLASSES.ids[channel], 0)
    assert _limits([real])[5].hold(component)
