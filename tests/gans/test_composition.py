from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from synthaug.gans.osmis.composition import DRAWS, MAX_OBJECTS, Composition

SIZE = (48, 64)
GROUND = torch.tensor([-0.5, 0.1, 0.6])
COLOURS = torch.tensor([[0.9, -0.8, -0.7], [-0.9, 0.7, -0.6]])


def scene(boxes, num_classes=2, ground=GROUND):
    """Flat background with a coloured box (top, left, height, width, label) per object."""
    image = ground[:, None, None].expand(3, *SIZE).clone()
    labels = torch.zeros(SIZE, dtype=torch.long)
    for top, left, height, width, label in boxes:
        image[:, top : top + height, left : left + width] = COLOURS[label - 1][:, None, None]
        labels[top : top + height, left : left + width] = label
    return image, F.one_hot(labels, num_classes).permute(2, 0, 1).float()


def learned(pairs, num_classes=2, **options):
    composition = Composition(*SIZE, num_classes, len(pairs), **{"flip": True, **options})
    masks = torch.stack([mask for _, mask in pairs]) if num_classes else None
    composition.learn(torch.stack([image for image, _ in pairs]), masks)
    return composition


def draw(composition, count=12, pair=0):
    draws = torch.randn(count, DRAWS, generator=torch.Generator().manual_seed(1))
    return composition(draws, torch.full((count,), pair))


def eroded(mask, by=2):
    return -F.max_pool2d(-mask[:, None], 2 * by + 1, 1, by)[:, 0] > 0.99


def test_the_object_is_where_the_mask_says_in_its_own_colours():
    image, mask = draw(learned([scene([(14, 20, 16, 16, 1)])]))
    assert image.shape == (12, 3, *SIZE)
    assert mask.shape == (12, 2, *SIZE)
    assert torch.allclose(mask.sum(1), torch.ones(12, *SIZE), atol=1e-4)
    inside, outside = eroded(mask[:, 1]), eroded(mask[:, 0])
    assert (inside.sum((1, 2)) > 40).all()
    colours = image.permute(0, 2, 3, 1)
    assert (colours[inside] - COLOURS[0]).abs().mean() < 0.02
    assert (colours[outside] - GROUND).abs().mean() < 0.02
    assert (colours[outside] - GROUND).abs().max() < 0.2  # no ghost of the object is left


def test_the_place_of_an_object_looks_like_what_is_around_it():
    image, mask = scene([(14, 20, 16, 16, 1)])
    grain = torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(0)) - 0.5
    textured = torch.where(mask[0] > 0, (image + 0.6 * grain).clamp(-1, 1), image)
    ground = learned([(textured, mask)]).backgrounds[0]
    place = (slice(None), slice(16, 28), slice(22, 34))
    spread = [part.flatten(1).std(1) for part in (ground[:3][place], textured[:, 34:, :])]
    assert (spread[0] > 0.7 * spread[1]).all()
    assert ground[3:][place][0].min() == 1


def test_training_in_mixed_precision_sees_what_sampling_draws():
    composition = learned([scene([(14, 20, 16, 16, 1)])])
    exact = draw(composition)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = draw(composition)
    for own, other in zip(exact, mixed, strict=True):
        assert torch.equal(own, other)


def test_places_differ_and_stay_in_the_picture():
    _, mask = draw(learned([scene([(14, 20, 16, 16, 1)])]))
    columns = torch.arange(SIZE[1]).float()
    centres = (mask[:, 1].sum(1) * columns).sum(1) / mask[:, 1].sum((1, 2))
    assert centres.std() > 4
    original = 16 * 16
    areas = mask[:, 1].sum((1, 2))
    assert (areas < 2 * original).all()
    assert (areas > 0.3 * original).all()


def test_small_objects_are_shown_larger_too_unless_told_not_to():
    pair = scene([(20, 28, 6, 5, 1)])  # a hundredth of the picture

    def sides(**options):
        _, mask = draw(learned([pair], **options), 60)
        return (mask[:, 1].sum((1, 2)) / 30).sqrt()

    wide, usual = sides(), sides(enlarge=False)
    assert 3 < wide.max() < 4.2
    assert 1.2 < usual.max() < 1.5
    for factors in (wide, usual):
        assert 0.6 < factors.min() < 0.9
    two = scene([(4, 4, 12, 12, 1), (30, 40, 10, 11, 1)])  # 8 % of it together
    assert learned([two]).largest.tolist() == [1.0]


def lopsided():
    """An object whose left half is of one colour and whose right half is of another."""
    image, mask = scene([(14, 18, 16, 20, 1)])
    image[:, 14:30, 28:38] = COLOURS[1][:, None, None]
    return image, mask


def left_is_left(image, mask):
    """Per composition, whether the first colour lies left of the second."""
    pixels = image.permute(0, 2, 3, 1)
    columns = torch.arange(SIZE[1]).float()
    places = []
    for colour in COLOURS:
        near = ((pixels - colour).abs().sum(3) < 0.3) & (mask[:, 1] > 0.9)
        places.append((near * columns).sum((1, 2)) / near.sum((1, 2)))
    return places[0] < places[1]


def test_nothing_is_mirrored_without_flip():
    assert left_is_left(*draw(learned([lopsided()], flip=False))).all()


def test_about_half_is_mirrored_with_flip():
    kept = left_is_left(*draw(learned([lopsided()]), count=24)).float().mean()
    assert 0.2 < kept < 0.8


def test_the_background_is_not_mirrored_without_flip():
    image, mask = scene([(14, 20, 16, 16, 1)])
    image = image + torch.linspace(-0.3, 0.3, SIZE[1]) * (mask[0] > 0)
    composed, _ = draw(learned([(image, mask)], flip=False))
    assert (composed[:, 0, :3, -4:].mean((1, 2)) > composed[:, 0, :3, :4].mean((1, 2))).all()


def test_objects_beyond_the_sixth_stay_with_the_background_each_class_in_turn():
    places = [(4, 4), (4, 24), (4, 44), (20, 4), (20, 24), (20, 44)]
    boxes = [(top, left, 9, 9, 1) for top, left in places]
    small, smaller = (38, 28, 5, 5, 1), (38, 44, 4, 4, 2)
    composition = learned([scene([*boxes[:5], small, smaller], 3)], 3)
    assert composition.classes[0].tolist() == [1, 1, 1, 1, 1, 2]
    ground = composition.backgrounds[0]
    assert (ground[3 + 1].sum(), ground[3 + 2].sum()) == (25, 0)
    composition = learned([scene([*boxes, small], 3)], 3)
    assert (composition.classes >= 0).sum() == MAX_OBJECTS
    ground = composition.backgrounds[0]
    assert ground[3 + 1].sum() == 25
    assert (ground[:3, 39:42, 29:32].mean((1, 2)) - COLOURS[0]).abs().max() < 0.02


def test_specks_and_large_areas_do_not_move():
    speck = (2, 2, 1, 1, 1)
    large = (8, 8, 36, 50, 2)
    composition = learned([scene([speck, large], 3)], 3)
    assert (composition.classes == -1).all()
    assert composition.backgrounds[0, 3 + 2].sum() == 36 * 50


def test_each_pair_gives_its_own_compositions():
    composition = learned(
        [
            scene([(14, 20, 16, 16, 1)], 3),
            scene([(10, 10, 12, 12, 2), (30, 40, 9, 9, 2)], 3, ground=-GROUND),
        ],
        3,
    )
    for pair, (label, ground) in enumerate([(1, GROUND), (2, -GROUND)]):
        image, mask = draw(composition, pair=pair)
        assert mask[:, label].sum((1, 2)).min() > 20
        assert mask[:, 3 - label].max() == 0
        outside = image.permute(0, 2, 3, 1)[eroded(mask[:, 0])]
        assert (outside - ground).abs().mean() < 0.02
    both, _ = composition(torch.zeros(2, DRAWS), torch.tensor([0, 1]))
    for pair in (0, 1):
        alone, _ = composition(torch.zeros(1, DRAWS), torch.tensor([pair]))
        assert torch.allclose(both[pair], alone[0], atol=1e-6)


def test_a_loaded_composition_draws_what_the_learned_one_does():
    learnt = learned([scene([(14, 20, 16, 16, 1), (34, 40, 9, 9, 1)])])
    loaded = Composition(*SIZE, 2, flip=True)
    loaded.load_state_dict(learnt.state_dict(), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(draw(loaded), draw(learnt), strict=True))


def test_composing_asks_the_device_for_no_number():
    composition = learned([scene([(14, 20, 16, 16, 1), (34, 40, 9, 9, 1)])])
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        draw(composition)
    assert "aten::_local_scalar_dense" not in {event.key for event in seen.key_averages()}


def test_without_masks_the_whole_picture_is_background():
    image, _ = scene([(14, 20, 16, 16, 1)])
    composition = learned([(image, None)], None)
    composed, mask = draw(composition)
    assert (composition.classes == -1).all()
    assert torch.allclose(mask, torch.ones(12, 1, *SIZE), atol=1e-5)
    assert composed[:, 0].amax((1, 2)).min() > 0.5


def test_ignored_pixels_stay_without_a_class_and_objects_may_cover_them():
    image, mask = scene([(14, 20, 16, 16, 1)])
    mask[:, :6] = 0
    composition = learned([(image, mask)])
    assert composition.backgrounds[0, 3:, :6].max() == 0
    assert torch.allclose(composition.backgrounds[0, 3:, 6:].sum(0), torch.ones(42, SIZE[1]))
    _, composed = draw(composition)
    assert composed.sum(1).max() <= 1 + 1e-4
    assert (composed.sum(1) < 0.5).any()
    assert composed[:, 1].sum((1, 2)).min() > 77


@pytest.mark.parametrize("scale", [0.5, 2])
def test_pictures_of_another_size_are_brought_to_the_parts_size(scale):
    image, mask = scene([(14, 20, 16, 16, 1)])
    other = [F.interpolate(part[None], scale_factor=scale)[0] for part in (image, mask)]
    _, composed = draw(learned([tuple(other)]))
    assert composed.shape == (12, 2, *SIZE)
    assert abs(composed[:, 1].sum((1, 2)).mean() - 256) < 130
