"""A fitted painter in Python: what its masks, its noise and the place to resample may be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scene_painter import quick

from synthaug.errors import InputError
from synthaug.gans.oasis.noise import image_noise, pixel_noise
from synthaug.generation import MapGenerator

PLACE = np.zeros((48, 64), bool)
PLACE[20:28, 4:20] = True


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    return MapGenerator(quick(tmp_path_factory.mktemp("painter"), iterations=1))


@pytest.fixture(scope="module")
def mask(painter):
    return painter.pairs[0].mask


@pytest.mark.parametrize(
    "place",
    [
        PLACE.astype(np.uint8),
        PLACE.astype(int),
        PLACE[:, ::-1].copy()[:, ::-1],
        torch.from_numpy(PLACE),
        torch.from_numpy(PLACE).float(),
    ],
)
def test_a_place_is_told_in_any_kind_of_array(place, painter, mask):
    first, last = painter.versions(mask, 2, resample=PLACE)
    assert not np.array_equal(first, last)
    assert np.array_equal(painter.versions(mask, 2, resample=place)[1], last)
    between = painter.between(mask, (0, 1), 2, resample=place)
    assert np.abs(between[1].astype(int) - last).max() <= 1


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (PLACE[:24], r"shape \(24, 64\) lies in no mask of shape \(48, 64\)"),
        (np.ascontiguousarray(PLACE.T), r"shape \(64, 48\) lies in no mask"),
        (PLACE[..., None], r"shape \(48, 64, 1\) lies in no mask"),
        (torch.zeros(48, 64, dtype=torch.bool), "place to resample is empty"),
        (PLACE * 255, "other values than 0 and 1"),
    ],
)
def test_a_place_that_is_not_of_the_mask_is_refused(place, words, painter, mask):
    with pytest.raises(InputError, match=words):
        painter.versions(mask, 2, resample=place)
    with pytest.raises(InputError, match=words):
        painter.between(mask, (0, 1), 2, resample=place)


def test_noise_is_a_seed_a_vector_or_a_field(painter, mask):
    vector = image_noise(3)
    expected = painter.render(mask, vector)
    for noise in (3, np.int64(3), vector.numpy(), vector.double(), vector.numpy()[::-1][::-1]):
        assert np.array_equal(painter.render(mask, noise), expected)
    field = pixel_noise(mask.shape, 3)
    expected = painter.render(mask, field)
    assert np.array_equal(painter.render(mask, field.numpy()), expected)


@pytest.mark.parametrize(
    ("noise", "words"),
    [
        (torch.zeros(10), r"shape \(10,\) cannot paint a mask of shape \(48, 64\): pass \(64,\)"),
        (torch.zeros(1, 64), r"shape \(1, 64\) cannot"),
        (np.zeros((64, 64, 48)), r"shape \(64, 64, 48\) cannot .* \(64, 48, 64\)"),
        (0.5, "noise of float cannot"),
    ],
)
def test_noise_of_another_shape_is_refused(noise, words, painter, mask):
    with pytest.raises(InputError, match=words):
        painter.render(mask, noise)


def test_no_version_at_all_is_refused(painter, mask):
    with pytest.raises(InputError, match="0 versions are none"):
        painter.versions(mask, 0)


@pytest.mark.parametrize("mask", [np.full((20, 64), 3, np.uint8), np.full((96, 64), 3, np.uint8)])
def test_a_pair_is_mixed_with_a_mask_of_its_size_alone(mask, painter):
    with pytest.raises(InputError, match=r"shape \(48, 64\) is not mixed with a mask of shape"):
        painter.mix(painter.pairs[0], 1, 0.5, mask=mask)


def test_one_class_alone_is_kept(painter):
    pair = painter.pairs[0]
    assert np.array_equal(
        painter.mix(pair, 1, keep="7").image, painter.mix(pair, 1, keep=[7]).image
    )
