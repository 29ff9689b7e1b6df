from __future__ import annotations

import pytest
import torch

from synthaug.gans.oasis.noise import (
    class_noise,
    combine,
    image_noise,
    interpolate,
    pixel_noise,
    region_noise,
)

LABELS = torch.tensor([[-1, 0, 0], [2, 2, 0]])


def test_a_class_has_one_vector_wherever_it_stands():
    noise = class_noise(LABELS, 3)
    assert noise.shape == (64, 2, 3)
    assert torch.equal(noise[:, 0, 1], noise[:, 1, 2])
    assert not torch.equal(noise[:, 0, 0], noise[:, 0, 1])
    assert torch.equal(class_noise(LABELS.flip(0), 3).flip(1), noise)
    assert not torch.equal(class_noise(LABELS, 4), noise)


def test_kinds_of_noise_are_independent():
    fields = [class_noise(LABELS, 3), region_noise(LABELS, 3), pixel_noise((2, 3), 3)]
    vectors = [image_noise(3), *(field[:, 1, 0] for field in fields)]
    for index, one in enumerate(vectors):
        assert not any(torch.equal(one, other) for other in vectors[:index])
    assert len(pixel_noise((2, 3), 3).flatten(1).T.unique(dim=0)) == 6


def test_only_the_chosen_place_is_exchanged():
    old, new = image_noise(1), image_noise(2)
    mixed = combine(old, new, LABELS == 2)
    assert torch.equal(mixed[:, 1, 0], new)
    assert torch.equal(mixed[:, 0, 0], old)


def test_interpolation_meets_both_ends():
    old, new = image_noise(1), image_noise(2)
    assert torch.allclose(interpolate(old, new, 0.0), old, atol=1e-5)
    assert torch.allclose(interpolate(old, new, 1.0), new, atol=1e-5)
    same = interpolate(old, old, 0.3)
    assert torch.allclose(same, old)


def test_the_way_between_two_noises_keeps_their_length():
    old = image_noise(1)
    new = torch.randn(64)
    new = new / new.norm() * old.norm()
    halfway = interpolate(old, new, 0.5)
    assert halfway.norm() == pytest.approx(float(old.norm()), rel=1e-4)
    assert torch.lerp(old, new, 0.5).norm() < 0.9 * old.norm()  # the straight line does not


def test_local_interpolation_leaves_the_rest():
    old, new = image_noise(1), pixel_noise((2, 3), 2)
    part = interpolate(old, new, 0.5, where=LABELS == 2)
    assert torch.equal(part[:, 0, 2], old)
    assert not torch.equal(part[:, 1, 0], old)
