from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from states import same_sample

from synthaug.errors import InputError
from synthaug.rendering import PatchRenderer
from synthaug.sample import IGNORE_ID, ClassMap, Sample
from synthaug.seeding import numpy_stream

SIZE = (120, 200)


def pair_of(size=SIZE, ids=(2, 7), seed=0, grey=False):
    """Rough ground with a rough disc of another colour per further class, side by side."""
    rng = numpy_stream(seed, "pair")
    height, width = size
    fine = rng.normal(0, 14, (*size, 3))
    broad = cv2.resize(rng.normal(0, 25, (6, 8, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    image = np.array([90, 130, 70]) + fine + broad
    mask = np.full(size, ids[0], np.uint8)
    rows, columns = np.mgrid[:height, :width]
    for number, class_id in enumerate(ids[1:]):
        x = width * (number + 0.5) / (len(ids) - 1)
        disc = np.hypot(rows - height / 2, columns - x) < min(size) / 4
        colour = np.roll([210, 60, 50], number)
        image[disc] = colour + fine[disc] + 40 * np.sin(columns[disc] / 2)[:, None]
        mask[disc] = class_id
    if grey:
        image = image.mean(2, keepdims=True).repeat(3, 2)
    return Sample(np.rint(image).clip(0, 255).astype(np.uint8), mask, "pair", grey)


def blurred(sample, factor=3):
    height, width = sample.size
    small = cv2.resize(
        sample.image, (width // factor, height // factor), interpolation=cv2.INTER_AREA
    )
    return replace(sample, image=cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))


def shifted(sample, by, name="shifted"):
    return replace(
        sample, image=np.roll(sample.image, by, 1), mask=np.roll(sample.mask, by, 1), id=name
    )


def psnr(a, b):
    error = np.mean((a.image.astype(float) - b.image) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-3))


def iou(a, b, class_id=7):
    inside = [s.mask == class_id for s in (a, b)]
    return (inside[0] & inside[1]).sum() / (inside[0] | inside[1]).sum()


def detail(image):
    """Mean absolute difference to the image without its finest octave."""
    height, width = image.shape[:2]
    coarse = cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    back = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.abs(image.astype(float) - back).mean()


PAIR = pair_of()


@pytest.fixture(scope="module")
def renderer():
    return PatchRenderer([PAIR])


def test_a_training_pair_is_recovered_from_its_blurred_self(renderer):
    soft = blurred(PAIR)
    (found,) = renderer.render([soft])
    assert psnr(found, PAIR) > 30 > psnr(soft, PAIR)
    assert iou(found, PAIR) > 0.97


def test_a_small_coarse_pair_is_rendered_at_the_pairs_size(renderer):
    size = (SIZE[1] // 2, SIZE[0] // 2)
    coarse = Sample(
        cv2.resize(PAIR.image, size, interpolation=cv2.INTER_AREA),
        cv2.resize(PAIR.mask, size, interpolation=cv2.INTER_NEAREST),
        "coarse",
    )
    (found,) = renderer.render([coarse])
    assert found.size == SIZE
    assert found.id == "coarse"
    assert psnr(found, PAIR) > 22
    assert iou(found, PAIR) > 0.9


def test_detail_comes_back_where_the_object_moved(renderer):
    moved = shifted(PAIR, 41)
    soft = blurred(moved)
    (found,) = renderer.render([soft])
    assert detail(soft.image) < 0.3 * detail(PAIR.image)
    assert 0.8 < detail(found.image) / detail(PAIR.image) < 1.2
    assert iou(found, moved) > 0.9


def test_image_and_mask_agree_where_the_coarse_mask_erred(renderer):
    wrong = replace(blurred(PAIR), mask=np.roll(PAIR.mask, 3, 1))
    (found,) = renderer.render([wrong])
    red = found.image[..., 0].astype(int) - found.image[..., 1] > 60
    labelled = found.mask == 7
    agreement = (red & labelled).sum() / (red | labelled).sum()
    truth = (PAIR.image[..., 0].astype(int) - PAIR.image[..., 1] > 60) & (PAIR.mask == 7)
    assert agreement > 0.9 * truth.sum() / (PAIR.mask == 7).sum()


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    sample = blurred(shifted(PAIR, 33))
    first, again = (PatchRenderer([PAIR], seed=3).render([sample])[0] for _ in range(2))
    (other,) = PatchRenderer([PAIR], seed=4).render([sample])
    assert same_sample(first, again)
    assert not same_sample(first, other)


def test_a_batch_equals_its_samples_one_by_one(renderer):
    samples = [blurred(shifted(PAIR, by, f"s{by}")) for by in (0, 17, 60)]
    for alone, together in zip(samples, renderer.render(samples), strict=True):
        assert same_sample(renderer.render([alone])[0], together)
        assert together.id == alone.id


def test_threads_do_not_change_a_sample(renderer):
    sample = blurred(shifted(PAIR, 25))
    (one,) = renderer.render([sample])
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        assert same_sample(one, renderer.render([sample])[0])
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_bits(renderer):
    sample = blurred(shifted(PAIR, 25))
    there = PatchRenderer([PAIR], device="cuda")
    assert same_sample(renderer.render([sample])[0], there.render([sample])[0])


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (32, 150), (6, 40), (241, 115)])
def test_any_size_is_kept(size):
    pair = pair_of(size)
    (found,) = PatchRenderer([pair]).render([pair])
    assert found.size == size
    assert found.image.shape == (*size, 3)
    assert set(np.unique(found.mask)) <= {2, 7}


def test_a_larger_picture_can_be_asked_for():
    coarse = blurred(PAIR)
    (found,) = PatchRenderer([PAIR], size=(180, 300)).render([coarse])
    assert found.size == (180, 300)
    assert found.image.shape == (180, 300, 3)
    assert detail(found.image) > 0.7 * detail(PAIR.image)


def test_a_picture_far_larger_than_its_pairs_can_be_asked_for():
    pair = pair_of((32, 48))
    (found,) = PatchRenderer([pair], size=(480, 640)).render([pair])
    assert found.size == (480, 640)
    assert set(np.unique(found.mask)) <= {2, 7}


def test_every_class_keeps_its_id():
    pair = pair_of(ids=(0, 3, 200))
    moved = shifted(pair, 29)
    (found,) = PatchRenderer([pair]).render([blurred(moved)])
    assert set(np.unique(found.mask)) == {0, 3, 200}
    for class_id in (3, 200):
        assert iou(found, moved, class_id) > 0.9


def test_several_pairs_of_several_sizes_lend_their_patches():
    other = pair_of((90, 150), seed=1)
    other = replace(other, image=other.image[..., ::-1].copy())
    renderer = PatchRenderer([PAIR, other], size=(90, 150))
    (found,) = renderer.render([blurred(other)])
    assert psnr(found, other) > 30
    assert iou(found, other) > 0.97
    (poor,) = PatchRenderer([PAIR], size=(90, 150)).render([blurred(other)])
    assert psnr(poor, other) < psnr(found, other) - 5


def test_mirror_images_lend_their_patches_only_if_plausible():
    pair = replace(PAIR, image=PAIR.image.copy())
    pair.image[..., 1] = np.linspace(0, 255, SIZE[1]).astype(np.uint8)
    mirrored = replace(pair, image=pair.image[:, ::-1].copy(), mask=pair.mask[:, ::-1].copy())
    (free,) = PatchRenderer([pair]).render([mirrored])
    (fixed,) = PatchRenderer([pair], flip=False).render([mirrored])
    assert psnr(free, mirrored) > 30 > psnr(fixed, mirrored)


def test_grey_pairs_give_grey_samples():
    pair = pair_of(grey=True)
    (found,) = PatchRenderer([pair]).render([blurred(pair)])
    assert found.grey
    assert (found.image == found.image[..., :1]).all()


def test_pictures_without_masks_are_rendered():
    pair = replace(PAIR, mask=np.full(SIZE, IGNORE_ID, np.uint8))
    (found,) = PatchRenderer([pair], ClassMap(())).render([blurred(pair)])
    assert psnr(found, pair) > 30
    assert (found.mask == IGNORE_ID).all()


def test_ignored_pixels_of_a_pair_never_enter_a_mask():
    mask = PAIR.mask.copy()
    mask[20:50, 60:160] = IGNORE_ID
    (found,) = PatchRenderer([replace(PAIR, mask=mask)]).render([blurred(PAIR)])
    assert set(np.unique(found.mask)) == {2, 7}
    assert iou(found, PAIR) > 0.9


def test_a_stray_blob_vanishes_from_image_and_mask(renderer):
    image, mask = PAIR.image.copy(), PAIR.mask.copy()
    image[20:26, 20:26] = PAIR.image[57:63, 97:103]
    mask[20:26, 20:26] = 7
    (found,) = renderer.render([replace(PAIR, image=image, mask=mask)])
    assert (found.mask[10:36, 10:36] == 2).all()
    around = found.image[18:28, 18:28].astype(int)
    assert (around[..., 0] - around[..., 1] < 60).all()
    assert iou(found, PAIR) > 0.97


def test_an_object_without_a_mask_does_not_stay(renderer):
    image = PAIR.image.copy()
    image[10:40, 10:40] = PAIR.image[45:75, 85:115]
    (found,) = renderer.render([replace(PAIR, image=image)])
    box = found.image[14:36, 14:36].astype(int)
    assert (box[..., 0] - box[..., 1] > 60).mean() < 0.1
    assert (found.mask[10:40, 10:40] == 2).all()


def test_no_pairs_or_too_small_ones_are_refused():
    with pytest.raises(InputError, match="at least one"):
        PatchRenderer([])
    with pytest.raises(InputError, match="5 px is too small"):
        PatchRenderer([PAIR], size=(5, 80))
