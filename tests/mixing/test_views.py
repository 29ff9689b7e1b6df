from __future__ import annotations

import numpy as np
import pytest

from synthaug.mixing.views import held_out_views
from synthaug.sample import IGNORE_ID, ClassMap, Sample

CLASSES = ClassMap((0, 1))


def pair(box: tuple[int, int, int, int] = (20, 40, 24, 54), *, grey: bool = False) -> Sample:
    """A red box (top, bottom, left, right) on a bluish ground."""
    mask = np.zeros((64, 80), np.uint8)
    mask[box[0] : box[1], box[2] : box[3]] = 1
    image = np.where(mask[..., None] == 1, (220, 40, 40), (60, 90, 140)).astype(np.uint8)
    if grey:
        image = np.repeat(image[..., :1], 3, 2)
    return Sample(image, mask, "pair", grey)


def test_half_of_the_views_move_the_object_apart() -> None:
    views = held_out_views(pair(), CLASSES, 8)
    assert [view.id for view in views] == [*(f"whole{i}" for i in range(4))] + [
        f"apart{i}" for i in range(4)
    ]
    for view in views:
        assert view.size == (64, 80)
        assert view.image.dtype == view.mask.dtype == np.uint8
        assert set(np.unique(view.mask)) <= {0, 1, IGNORE_ID}
        assert (view.mask == 1).sum() >= 60
        inside, outside = view.image[view.mask == 1], view.image[view.mask == 0]
        assert inside[:, 0].mean() > outside[:, 0].mean() + 40  # labels move with the pixels


def test_views_differ_from_the_pair_and_among_themselves() -> None:
    own = pair()
    views = held_out_views(own, CLASSES, 8)
    masks = [view.mask == 1 for view in views]
    for index, mask in enumerate(masks):
        overlap = (mask & (own.mask == 1)).sum() / (mask | (own.mask == 1)).sum()
        assert overlap < 0.8
        assert not any((mask == other).all() for other in masks[:index])


def test_a_view_follows_from_the_seed_and_its_number() -> None:
    first, more, other = (
        held_out_views(pair(), CLASSES, count, seed=seed)
        for count, seed in ((4, 1), (8, 1), (4, 2))
    )
    named = {view.id: view for view in more}
    for view, strange in zip(first, other, strict=True):
        assert np.array_equal(view.image, named[view.id].image)
        assert np.array_equal(view.mask, named[view.id].mask)
        assert not np.array_equal(view.image, strange.image)


@pytest.mark.parametrize(
    ("box", "edge"), [((20, 40, 0, 20), np.s_[:, 0]), ((40, 64, 30, 50), np.s_[-1])]
)
def test_an_object_that_the_frame_cuts_stays_at_its_side(
    box: tuple[int, int, int, int], edge: object
) -> None:
    views = held_out_views(pair(box), CLASSES, 12)[6:]
    assert all((view.mask[edge] == 1).any() for view in views)


def test_a_pair_without_objects_has_whole_views_only() -> None:
    views = held_out_views(pair((32, 64, 0, 80)), CLASSES, 4)  # the ground, no object
    assert [view.id for view in views] == [f"whole{i}" for i in range(4)]


def test_grey_pairs_stay_grey() -> None:
    for view in held_out_views(pair(grey=True), CLASSES, 4):
        assert view.grey
        assert (view.image == view.image[..., :1]).all()
