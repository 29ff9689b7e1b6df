from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from synthaug.errors import InputError
from synthaug.gans.contract import PairBatch
from synthaug.plugins.masking import (
    MaskedGAN,
    band_content,
    band_images,
    keep_bands,
    spatial_mask,
)


def smooth(B=4, size=(32, 48)):
    torch.manual_seed(0)
    coarse = F.interpolate(torch.randn(B, 3, 6, 8), size, mode="bilinear")
    return (coarse + 0.1 * torch.randn(B, 3, *size)).clamp(-1, 1)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 40)])
@pytest.mark.parametrize("bands", [1, 8, 16])
def test_band_images_sum_to_the_picture(size, bands):
    image = smooth(size=size)
    parts = band_images(image, bands)
    assert parts.shape == (bands, *image.shape)
    assert torch.allclose(parts.sum(0), image, atol=1e-4)


def test_a_wave_lies_in_the_band_of_its_frequency():
    x = torch.arange(64) * 2 * torch.pi / 64
    for period, band in ((1, 0), (8, 2), (14, 3), (31, 7)):  # radius = waves / 32
        wave = torch.sin(period * x).expand(1, 3, 64, 64)
        assert band_content(wave, 8)[0, band] > 0.99
    assert torch.allclose(band_content(torch.full((1, 3, 64, 64), 0.3), 8)[0, 0], torch.tensor(1.0))


def test_kept_bands_are_summed():
    image = smooth()
    keep = torch.rand(4, 8) < 0.5
    wanted = torch.einsum("cbnhw,bc->bnhw", band_images(image, 8), keep.float())
    assert torch.allclose(keep_bands(image, keep, (32, 48)), wanted, atol=1e-5)


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("bands", [4, 8])
def test_one_band_is_dropped_in_expectation(adaptive, bands):
    plugin = MaskedGAN(spatial=False, adaptive=adaptive, bands=bands)
    image = smooth(1, (32, 32)).expand(8000, -1, -1, -1)[:, :, :16, :16]
    torch.manual_seed(1)
    dropped = (~plugin._kept_bands(image, bands)).float()
    share = band_content(image[:1], bands)[0] if adaptive else torch.full((bands,), 1 / bands)
    assert abs(float(dropped.sum(1).mean()) - 1) < 0.04
    assert torch.allclose(dropped.mean(0), share, atol=0.025)
    assert dropped.sum(1).max() < bands


def test_the_shift_makes_every_pixel_alike():
    image = torch.zeros(20000, 3, 16, 16)
    borders = {}
    for shift in (True, False):
        torch.manual_seed(0)
        visible = spatial_mask(image, 4, 0.5, shift=shift)[:, 0]
        hidden = 1 - visible.mean(0)
        assert torch.allclose(hidden, torch.full_like(hidden, 0.5), atol=0.02)
        # How often a border runs between two columns: everywhere alike, or at multiples of 4 only.
        borders[shift] = (visible[:, :, 1:] != visible[:, :, :-1]).float().mean((0, 1))
    assert torch.allclose(borders[True], torch.full((15,), 0.125), atol=0.01)
    grid = torch.tensor([0.5 if column % 4 == 0 else 0.0 for column in range(1, 16)])
    assert torch.allclose(borders[False], grid, atol=0.01)


@pytest.mark.parametrize("ratio", [0.25, 0.75])
def test_patches_are_square_and_the_ratio_is_kept(ratio):
    torch.manual_seed(0)
    visible = spatial_mask(torch.zeros(4000, 3, 32, 64), 4, ratio, shift=False)
    assert visible.shape == (4000, 1, 32, 64)
    assert torch.equal(visible, F.interpolate(visible[:, :, ::8, ::8], (32, 64), mode="nearest"))
    assert abs(float(visible.mean()) - (1 - ratio)) < 0.01


def test_hidden_pixels_get_no_gradient_and_others_all_of_it():
    image = smooth().requires_grad_()
    torch.manual_seed(3)
    out = MaskedGAN(spectral=False).corrupt(PairBatch((image,))).images[0]
    out.sum().backward()
    hidden = out.detach() == 0
    assert 0.2 < hidden.float().mean() < 0.8
    assert torch.equal(image.grad == 0, hidden)
    assert torch.equal(image.grad[~hidden], torch.ones_like(image.grad[~hidden]))


def test_samples_draw_on_their_own_and_every_call_anew():
    image = smooth(1).expand(6, -1, -1, -1)
    torch.manual_seed(0)
    plugin = MaskedGAN()
    one, two = (plugin.corrupt(PairBatch((image,))).images[0] for _ in range(2))
    assert not torch.equal(one, two)
    assert len({tuple(sample.flatten().tolist()) for sample in one}) == 6


def test_all_scales_lose_the_same_and_the_mask_stays():
    fine = F.avg_pool2d(smooth(size=(128, 128)), 2)  # little left near the finest Nyquist
    batch = PairBatch((fine, F.avg_pool2d(fine, 2)), torch.rand(4, 2, 64, 64))
    for plugin in (MaskedGAN(spectral=False), MaskedGAN(spatial=False)):
        torch.manual_seed(2)
        out = plugin.corrupt(batch)
        assert out.mask is batch.mask
        assert [i.shape for i in out.images] == [i.shape for i in batch.images]
        lost = (batch.images[1] - out.images[1]).square().mean()
        error = (F.avg_pool2d(out.images[0], 2) - out.images[1]).square().mean()
        assert error < 0.1 * lost


def test_masking_nothing_is_refused():
    with pytest.raises(InputError, match="neither"):
        MaskedGAN(spatial=False, spectral=False)
    with pytest.raises(InputError, match="ratio"):
        MaskedGAN(ratio=1.5)
