from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from synthaug.gans.contract import PairBatch
from synthaug.plugins.ada import ADA


def encoded(B=8, size=(32, 48)):
    """Smooth pictures whose red and green channels are their masks, at two scales."""
    torch.manual_seed(0)
    soft = F.interpolate(torch.randn(B, 2, 4, 6) * 3, size, mode="bilinear").softmax(1)
    image = torch.cat([soft, soft[:, :1]], 1) * 2 - 1
    return PairBatch((image, F.avg_pool2d(image, 2)), soft)


def at(p, **options):
    ada = ADA(**options)
    ada.meter.p.fill_(p)
    return ada


def test_nothing_happens_before_the_meter_moves():
    batch, ada = encoded(), ADA()
    state = torch.random.get_rng_state()
    assert ada.corrupt(ada.transform(batch)) is batch
    assert torch.equal(torch.random.get_rng_state(), state)


def test_p_follows_the_meter_up_to_a_bound():
    ada = ADA()
    for _ in range(4):
        assert ada.p == 0
        ada.observe(torch.ones(100))
        ada.adapt()
    assert ada.p == pytest.approx(4 * 100 / 500_000)
    for _ in range(4):
        ada.observe(-torch.ones(100))
        ada.adapt()
    assert ada.p == 0
    eager = ADA(swing=100)
    for scores in (torch.ones(100), torch.ones(100), -torch.ones(20)):
        for _ in range(4):
            eager.observe(scores)
        eager.adapt()
        assert eager.p <= 0.8
    assert eager.p == pytest.approx(0.0)  # 80 pictures of 100 later, not 20 of wind-up first


def test_image_and_mask_move_alike():
    batch = encoded()
    out = at(0.8, colour=0.0).transform(batch)
    assert not torch.allclose(out.mask, batch.mask, atol=0.05)
    assert torch.allclose(out.images[0][:, :2] / 2 + 0.5, out.mask, atol=1e-5)


def test_squares_are_cut_out_of_all_scales_and_the_mask_stays():
    batch = encoded(400, (32, 32))
    out = at(0.5).corrupt(batch)
    assert out.mask is batch.mask
    holes = [(image == 0).all(1) for image in out.images]
    cut = holes[0].flatten(1).any(1)
    assert abs(float(cut.float().mean()) - 0.5) < 0.08
    assert holes[0].flatten(1).sum(1).max() == 16 * 16
    assert torch.equal(holes[1].flatten(1).any(1), cut)


def test_gradients_reach_images_and_mask():
    batch = encoded()
    image, mask = batch.images[0].requires_grad_(), batch.mask.requires_grad_()
    ada = at(0.8)
    out = ada.corrupt(ada.transform(PairBatch((image,), mask)))
    (out.images[0].square().sum() + out.mask.square().sum()).backward()
    assert image.grad.abs().sum() > 0
    assert mask.grad.abs().sum() > 0
