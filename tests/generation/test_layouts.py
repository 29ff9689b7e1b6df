"""New label maps: edits, moved objects, maps as they are, and more of rare classes."""

from __future__ import annotations

import numpy as np
import pytest

from synthaug.errors import InputError
from synthaug.generation import Layouts
from synthaug.sample import ClassMap

SKY, ROAD, CAR, SIGN = 0, 1, 5, 9
CLASSES = ClassMap((SKY, ROAD, CAR, SIGN), ("Sky", "Road", "Car", "Sign"))


def scene(car_left=None, sign=False):
    """Sky over road, perhaps a car of 10x16 px that stands on the road at row 40."""
    mask = np.full((64, 96), SKY, np.uint8)
    mask[32:] = ROAD
    if car_left is not None:
        mask[30:40, car_left : car_left + 16] = CAR
    if sign:
        mask[4:10, 70:76] = SIGN
    return mask


def box(mask, top, left, height, width):
    flags = np.zeros(mask.shape, bool)
    flags[top : top + height, left : left + width] = True
    return flags


@pytest.fixture
def maps():
    return [scene(), scene(20), scene(60), scene(40, sign=True)]


@pytest.mark.parametrize("kind", ["edited", "moved", "given"])
def test_a_seed_names_a_map(kind, maps):
    before = [mask.copy() for mask in maps]
    layouts = Layouts(maps, CLASSES, kind=kind)
    drawn = [layouts.layout(seed) for seed in range(12)]
    again = Layouts(maps, CLASSES, kind=kind)
    assert all(np.array_equal(again.layout(seed), mask) for seed, mask in enumerate(drawn))
    assert len({mask.tobytes() for mask in drawn}) > (3 if kind == "given" else 8)
    for mask in drawn:
        assert mask.shape == (64, 96)
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {SKY, ROAD, CAR, SIGN, 255}
        mask[:] = 7  # the caller's own
    assert all(np.array_equal(a, b) for a, b in zip(maps, before, strict=True))


def test_edits_keep_the_order_of_things_and_leave_the_unknown_unlabelled(maps):
    layouts = Layouts(maps, CLASSES)
    drawn = [layouts.layout(seed) for seed in range(60)]
    unknown = [(mask == 255).mean() for mask in drawn]
    assert 0 < np.mean(unknown) < 0.05
    assert max(unknown) < 0.2
    for mask in drawn:  # nothing is turned upside down
        middle = mask[:, 48]
        sky, road = np.flatnonzero(middle == SKY), np.flatnonzero(middle == ROAD)
        assert not len(sky) or not len(road) or sky.max() < road.max()


def test_edits_mirror_only_where_that_is_plausible():
    mask = np.full((64, 96), SKY, np.uint8)
    mask[:, 48:] = ROAD
    for flip in (True, False):
        layouts = Layouts([mask], CLASSES, flip=flip)
        mirrored = 0
        for drawn in map(layouts.layout, range(40)):
            columns = [np.argwhere(drawn == class_id)[:, 1].mean() for class_id in (SKY, ROAD)]
            mirrored += columns[0] > columns[1]
        assert (mirrored > 8) if flip else (mirrored == 0)


def test_objects_move_over_a_filled_background_and_stand_on_what_they_stood_on(maps):
    layouts = Layouts(maps, CLASSES, kind="moved")
    places = set()
    for mask in map(layouts.layout, range(40)):
        cars = mask == CAR
        rows, columns = np.nonzero(cars)
        places |= set(columns.tolist())
        if cars.any():
            assert rows.max() >= 32  # on the road, at least the nearest of them
        ground = np.where(cars | (mask == SIGN), scene(), mask)
        assert set(np.unique(ground)) == {SKY, ROAD}
        different = ground != scene()
        assert not different[:30].any()  # only behind cars is it unknown where the road ends
        assert not different[40:].any()
    assert len(places) > 80


def test_an_object_that_leaves_is_filled_with_the_nearest_class_and_not_with_a_thin_one():
    mask = scene(40)
    mask[20:40, 38:40] = SIGN  # a pole right beside the car
    objects = [[(CAR, box(mask, 30, 40, 10, 16))], [(CAR, box(mask, 30, 4, 10, 16))]]
    layouts = Layouts([mask, scene(4)], CLASSES, kind="moved", objects=objects, flip=False)
    emptied = 0
    for drawn in map(layouts.layout, range(60)):
        if (drawn[20:30, 38:40] == SIGN).all() and not (drawn[30:40, 40:56] == CAR).any():
            emptied += 1
            filled = drawn[30:40, 40:56]
            assert (filled[:2] == SKY).all()
            assert (filled[-4:] == ROAD).all()
            assert set(np.unique(filled)) == {SKY, ROAD}
    assert emptied >= 3


def test_what_stands_lower_is_in_front():
    near = scene()
    near[44:60, 0:96] = SIGN  # a wide thing in front of all cars; the frame cuts it: it stays
    far = scene(40)
    objects = [[(SIGN, near == SIGN)], [(CAR, far == CAR)]]
    layouts = Layouts([near, far], CLASSES, kind="moved", objects=objects, rare={"Sign": 1.0})
    seen = 0
    for drawn in map(layouts.layout, range(20)):
        assert (drawn[44:60] == SIGN).all()
        seen += (drawn == CAR).any()
    assert seen == 20  # only the car can be put in


def test_later_annotations_are_in_front_of_earlier_ones():
    mask = scene()
    behind, before = box(mask, 30, 20, 14, 20), box(mask, 30, 30, 14, 20)
    mask[behind], mask[before] = CAR, SIGN
    objects = [[(CAR, behind), (SIGN, before)]]
    layouts = Layouts([mask], CLASSES, kind="moved", objects=objects, rare={"Car": 1.0})
    kept = [m for m in map(layouts.layout, range(40)) if (m[31:43, 32:48] == SIGN).all()]
    assert kept  # where both stay, the sign is seen whole


@pytest.mark.parametrize("kind", ["edited", "moved", "given"])
@pytest.mark.parametrize("rare", [("Sign",), (9,), "9", ("auto",)])
def test_rare_classes_appear_more_often(kind, rare):
    maps = [scene(20)] * 19 + [scene(40, sign=True)]
    usual, asked = (
        np.mean([(layouts.layout(seed) == SIGN).any() for seed in range(120)])
        for layouts in (Layouts(maps, CLASSES, kind=kind, rare=named) for named in ((), rare))
    )
    assert asked > 0.2 > usual


def test_moved_layouts_hold_much_of_what_is_wanted():
    maps = [scene(20)] * 19 + [scene(40, sign=True)]
    shares = []
    for rare in ((), {SIGN: 1.0}):
        layouts = Layouts(maps, CLASSES, kind="moved", rare=rare)
        drawn = np.stack([layouts.layout(seed) for seed in range(60)])
        shares.append((drawn == SIGN).mean() / (drawn == CAR).mean())
    assert shares[1] > 5 * shares[0]


def test_a_share_per_class_is_kept(maps):
    maps = [scene()] * 9 + [scene(40, sign=True)]
    layouts = Layouts(maps, CLASSES, rare={"sign": 0.6, "Road": 0.1})
    assert layouts.shares == {SIGN: 0.6, ROAD: 0.1}
    held = [(layouts.layout(seed) == SIGN).any() for seed in range(200)]
    assert 0.5 < np.mean(held) < 0.75
    always = Layouts(maps, CLASSES, rare={SIGN: 1.0})
    assert all((always.layout(seed) == SIGN).any() for seed in range(50))


@pytest.mark.parametrize("rare", ["10", 10, np.int64(10), "Pole", ["Pole"]])
def test_one_class_alone_is_that_class(rare):
    mask = scene(20)
    mask[4:10, 70:72] = 10
    classes = ClassMap((0, 1, 5, 10), ("Sky", "Road", "Car", "Pole"))
    assert Layouts([mask], classes, rare=rare).shares == {10: 0.5}
    assert len(Layouts([mask], classes, rare="auto").shares) == 4


def test_a_small_class_of_a_wide_map_stays_in_sight():
    mask = np.full((64, 320), ROAD, np.uint8)
    mask[4:7, 40:43] = SIGN
    layouts = Layouts([mask], CLASSES, rare={SIGN: 1.0})
    assert all((layouts.layout(seed) == SIGN).any() for seed in range(3000))


def test_maps_can_come_from_an_endless_source():
    def draw(seed):
        return scene(seed % 70, sign=seed % 8 == 0)

    layouts = Layouts(draw, CLASSES, kind="given")
    assert any(
        np.array_equal(layouts.layout(3), scene(left, s)) for left in range(70) for s in (0, 1)
    )
    rare = Layouts(draw, CLASSES, kind="given", rare={"Sign": 1.0})
    often, seldom = (
        np.mean([(of.layout(seed) == SIGN).any() for seed in range(80)]) for of in (rare, layouts)
    )
    assert often > 2 * seldom


def test_impossible_layouts_are_refused(maps):
    with pytest.raises(InputError, match="no class cow: known are 0 "):
        Layouts(maps, CLASSES, rare=("cow",))
    with pytest.raises(InputError, match="no map holds class 9"):
        Layouts(maps[:3], CLASSES, rare=("Sign",))
    with pytest.raises(InputError, match="at most 1"):
        Layouts(maps, CLASSES, rare={"Car": 0.7, "Road": 0.7})
    with pytest.raises(InputError, match="a rare class is named twice"):
        Layouts(maps, CLASSES, rare={"5": 0.3, 5: 0.3})
    with pytest.raises(InputError, match="no layouts foo: take edited, moved, given"):
        Layouts(maps, CLASSES, kind="foo")
    with pytest.raises(InputError, match=r"maps are of shapes \(50, 96\) and \(64, 96\)"):
        Layouts([maps[0], maps[1][:50]], CLASSES)
    with pytest.raises(InputError, match="auto, which means all alike, or named: not both"):
        Layouts(maps, CLASSES, rare=("auto", "Car"))
    with pytest.raises(InputError, match="no map holds an object"):
        Layouts([scene()], CLASSES, kind="moved")
    with pytest.raises(InputError, match="no map has a label"):
        Layouts([np.full((64, 96), 255, np.uint8)], CLASSES)
