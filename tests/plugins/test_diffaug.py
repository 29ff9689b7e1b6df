from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from synthaug.gans.contract import PairBatch
from synthaug.plugins.diffaug import DiffAugment


def encoded_batch(B=8, size=(32, 48)):
    """Smooth pictures whose red and green channels are their masks, at two scales."""
    torch.manual_seed(0)
    soft = F.interpolate(torch.randn(B, 2, 4, 6) * 3, size, mode="bilinear").softmax(1)
    image = torch.cat([soft, soft[:, :1]], 1) * 2 - 1
    return PairBatch((image, F.avg_pool2d(image, 2)), soft)


def test_image_and_mask_stay_aligned_at_every_scale():
    batch = encoded_batch()
    out = DiffAugment(p=0.7).transform(batch)
    assert not torch.allclose(out.mask, batch.mask, atol=0.05)
    assert torch.allclose(out.images[0][:, :2] / 2 + 0.5, out.mask, atol=1e-5)
    assert torch.allclose(out.mask.sum(1), torch.ones(8, 32, 48), atol=1e-5)
    error = (out.images[1] - F.avg_pool2d(out.images[0], 2)).abs()
    assert error.mean() < 0.02


def test_nothing_happens_at_p_zero():
    batch = encoded_batch()
    assert DiffAugment(0.0).transform(batch) is batch


def test_pictures_keep_their_places_in_mixed_precision():
    batch = encoded_batch(size=(192, 256))
    lens = DiffAugment(1.0, close_up=1.0, zoom=(1.0, 1.0), rotation=0.0, shift=(0.0, 0.0))
    with torch.autocast("cpu", torch.bfloat16):
        out = lens.transform(batch)
    assert torch.allclose(out.images[0], batch.images[0].flip(3), atol=1e-4)
    labels = torch.arange(192 * 256).view(1, 192, 256)
    with torch.autocast("cpu", torch.bfloat16):
        turned = lens.transform(PairBatch(batch.images, labels.expand(8, -1, -1)))
    assert torch.equal(turned.mask, labels.flip(2).expand(8, -1, -1))


def test_samples_fire_on_their_own():
    batch = encoded_batch(64)
    out = DiffAugment(0.3).transform(batch)
    same = (out.images[0] - batch.images[0]).abs().amax((1, 2, 3)) < 1e-3
    assert 0 < same.sum() < 64


def test_a_flip_mirrors():
    batch = encoded_batch()
    only_flip = DiffAugment(1.0, close_up=1.0, zoom=(1.0, 1.0), rotation=0.0, shift=(0.0, 0.0))
    out = only_flip.transform(batch)
    assert torch.allclose(out.images[0], batch.images[0].flip(3), atol=1e-4)
    assert torch.allclose(out.mask, batch.mask.flip(3), atol=1e-4)


def test_a_shift_is_filled_by_mirroring():
    batch = encoded_batch(size=(40, 40))
    only_shift = DiffAugment(
        1.0, close_up=1.0, zoom=(1.0, 1.0), rotation=0.0, flip=False, shift=(0.25, 0.25)
    )
    out = only_shift.transform(batch).mask
    y = torch.cat([torch.arange(9, -1, -1), torch.arange(40), torch.arange(39, 29, -1)])
    padded = batch.mask[:, :, y][:, :, :, y]
    candidates = [padded[:, :, a : a + 40, b : b + 40] for a in (0, 20) for b in (0, 20)]
    errors = torch.stack([(out - c).abs().amax((1, 2, 3)) for c in candidates])
    assert (errors.amin(0) < 1e-3).all()


def test_gradients_reach_images_and_mask():
    batch = encoded_batch()
    image, mask = batch.images[0].requires_grad_(), batch.mask.requires_grad_()
    out = DiffAugment(0.7, colour=0.2).transform(PairBatch((image,), mask))
    (out.images[0].square().sum() + out.mask.square().sum()).backward()
    assert image.grad.abs().sum() > 0
    assert mask.grad.abs().sum() > 0


@pytest.mark.parametrize("masked", [True, False])
def test_colour_changes_the_image_alone(masked):
    batch = encoded_batch()
    batch = batch if masked else PairBatch(batch.images)
    still = {"close_up": 1.0, "zoom": (1.0, 1.0), "rotation": 0.0, "flip": False}
    out = DiffAugment(1.0, **still, shift=(0.0, 0.0), colour=0.3).transform(batch)
    assert (out.images[0] - batch.images[0]).abs().amax((1, 2, 3)).min() > 0.01
    if masked:
        assert torch.allclose(out.mask, batch.mask, atol=1e-4)
    else:
        assert out.mask is None
