from __future__ import annotations

import pytest
import torch

from synthaug.mixing.inpainting import inpaint


def stripes(height, width, period=8):
    """Vertical stripes of two colours with soft borders."""
    wave = torch.sin(torch.arange(width) * (2 * torch.pi / period))
    return torch.stack([0.8 * wave, -0.6 * wave, 0.3 * wave])[:, None].expand(3, height, width)


def box(size, top, left, height, width):
    hole = torch.zeros(size, dtype=torch.bool)
    hole[top : top + height, left : left + width] = True
    return hole


def test_a_texture_is_continued():
    image, hole = stripes(64, 96), box((64, 96), 20, 36, 22, 24)
    spoilt = torch.where(hole, torch.ones(()), image)
    filled = inpaint(spoilt, hole)
    error = (filled - image).abs()[:, hole].mean()
    flat = image.abs()[:, hole].mean()  # of a fill by the mean colour, which is 0
    assert error < 0.25 * flat


def test_known_pixels_are_untouched_and_unknown_ones_do_not_matter():
    image, hole = stripes(48, 64), box((48, 64), 10, 20, 16, 16)
    before = image.clone()
    filled = inpaint(image, hole)
    assert torch.equal(filled[:, ~hole], image[:, ~hole])
    assert torch.equal(image, before)
    spoilt = torch.where(hole, -torch.ones(()), image)
    assert torch.allclose(inpaint(spoilt, hole), filled, atol=1e-6)


def test_it_draws_nothing_at_random():
    image = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    hole = box((40, 40), 8, 8, 12, 12)
    before = torch.get_rng_state()
    assert torch.equal(inpaint(image, hole), inpaint(image, hole))
    assert torch.equal(before, torch.get_rng_state())


def test_nothing_and_everything_missing_leave_the_image():
    image = stripes(32, 40)
    for hole in (torch.zeros(32, 40, dtype=torch.bool), torch.ones(32, 40, dtype=torch.bool)):
        assert torch.equal(inpaint(image, hole), image)


@pytest.mark.parametrize(
    ("size", "hole"),
    [
        ((32, 32), (8, 8, 12, 12)),
        ((32, 32), (0, 0, 20, 20)),
        ((32, 32), (0, 2, 32, 30)),
        ((32, 200), (4, 20, 24, 90)),
        ((61, 37), (30, 10, 31, 9)),
    ],
)
def test_small_images_and_holes_at_the_border(size, hole):
    image, hole = stripes(*size), box(size, *hole)
    filled = inpaint(image, hole)
    assert filled.shape == image.shape
    assert filled.isfinite().all()
    assert filled.abs().max() <= 1
    assert torch.equal(filled[:, ~hole], image[:, ~hole])


def test_a_flat_surrounding_gives_a_flat_fill():
    image = torch.tensor([0.5, -0.2, 0.9])[:, None, None].expand(3, 40, 48).clone()
    hole = box((40, 48), 10, 10, 16, 20)
    image[:, hole] = -1
    filled = inpaint(image, hole)
    wanted = torch.tensor([0.5, -0.2, 0.9])[:, None]
    assert (filled[:, hole] - wanted).abs().max() < 0.03


def test_patches_of_what_is_to_be_avoided_are_not_copied():
    image = torch.full((3, 64, 64), -0.5)
    image[:, 8:24, 8:24] = 1.0
    image[:, 8:24, 36:52] = 1.0
    image[:, 40:56, 20:36] = 1.0
    hole = torch.zeros(64, 64, dtype=torch.bool)
    hole[6:26, 6:26] = True
    filled = inpaint(image, hole, avoid=image[0] > 0)
    assert filled[:, hole].max() < 0


def test_next_to_nothing_known_fills_the_rest_with_it():
    image = torch.full((3, 64, 96), 0.6)
    hole = ~box((64, 96), 30, 40, 3, 5)
    filled = inpaint(torch.where(hole, -1.0, image), hole)
    assert filled[:, hole].mean() == pytest.approx(0.6, abs=0.1)
