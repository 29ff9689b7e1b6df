from __future__ import annotations

import pytest
import torch
from gan_contract import GANContract
from torch.nn.attention import SDPBackend, sdpa_kernel

from synthaug import gans
from synthaug.errors import InputError
from synthaug.gans.transgan import networks

TINY = {
    "widths": [16, 8, 8],
    "blocks": [1, 1, 2],
    "discriminator_widths": [8, 16],
    "discriminator_blocks": [1, 2],
    "z_dim": 8,
    "head_dim": 8,
}


def tiny(**options):
    return gans.build({"name": "transgan", "size": 32} | TINY | options)


class TestTransGAN(GANContract):
    size = (32, 32)
    num_classes = None

    def build(self):
        return tiny()


class TestTransGANAt64(TestTransGAN):
    size = (64, 64)

    def build(self):
        return tiny(size=64, widths=[16, 8, 8, 8], blocks=[1, 1, 1, 1])


@pytest.mark.parametrize("size", [32, 64])
def test_the_networks_are_small_and_free_of_convolutions(size):
    gan = gans.build({"name": "transgan", "size": size})
    for network in (gan.generator, gan.discriminator):
        assert 0.3e6 < sum(p.numel() for p in network.parameters()) < 1.3e6
        assert not any("Conv" in type(module).__name__ for module in network.modules())
    with torch.no_grad():
        image = gan.generator(gan.latent(2)).images[0]
        assert image.shape == (2, 3, size, size)
        assert gan.discriminator(image).shape == (2,)


def test_other_sizes_are_refused():
    with pytest.raises(InputError, match="32 or 64 pixels a side, not 48"):
        gans.build({"name": "transgan", "size": 48})
    with pytest.raises(InputError, match=r"64 px needs 4 widths .* not 3"):
        tiny(size=64)
    with pytest.raises(InputError, match="multiples of head_dim, 8, not 12"):
        tiny(widths=[16, 12, 8])


def test_the_gradient_penalty_is_due_every_few_steps_and_has_a_gradient():
    torch.manual_seed(0)
    gan = tiny(r1=2.0, r1_every=3)
    real = gan.prepare(torch.rand(2, 3, 32, 32) * 2 - 1, None)
    fake = gan.generator(gan.latent(2))
    due = ["r1" in gan.discriminator_terms(real, fake, step) for step in range(7)]
    assert due == [True, False, False, True, False, False, True]
    gan.discriminator_terms(real, fake, 0)["r1"].sum().backward()
    attention = gan.discriminator.fine.blocks[0].qkv.weight.grad
    assert attention.abs().sum() > 0


def test_the_gradient_penalty_is_that_of_finite_differences():
    torch.manual_seed(0)
    gan = tiny(r1=2.0, r1_every=1)
    real = gan.prepare(torch.rand(1, 3, 32, 32) * 2 - 1, None)
    penalty = gan.discriminator_terms(real, real, 0)["r1"].detach()
    gan.double()
    image = real.images[0].double().requires_grad_(True)
    gan.discriminator(image).sum().backward()  # the fused attention's own gradient
    way = torch.randn_like(image)
    with torch.no_grad():
        ahead, behind = (gan.discriminator(image + step * way) for step in (1e-5, -1e-5))
    slope = float((image.grad * way).sum())
    assert slope == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-4)
    assert float(penalty) == pytest.approx(float(image.grad.square().sum()), rel=1e-3)


def test_second_derivatives_are_right():
    torch.manual_seed(0)
    block = networks.Block(8, 4).double()
    x = torch.randn(1, 3, 8, dtype=torch.float64, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH):
        assert torch.autograd.gradgradcheck(block, (x,))


def test_without_weight_there_is_no_penalty():
    gan = tiny(r1=0.0)
    real = gan.prepare(torch.zeros(2, 3, 32, 32), None)
    assert set(gan.discriminator_terms(real, real, 0)) == {"real", "fake"}


def test_grids_are_blocks_of_neighbours_and_come_back():
    tokens = torch.arange(32 * 32).view(1, -1, 1)
    grids = networks.to_grids(tokens, 32)
    assert grids.shape == (4, 256, 1)
    expected = torch.arange(32 * 32).view(32, 32)[:16, 16:].flatten()
    assert torch.equal(grids[1, :, 0], expected)
    assert torch.equal(networks.from_grids(grids, 32), tokens)


def test_patches_and_maps_keep_their_places():
    image = torch.rand(1, 3, 8, 8)
    patches = networks.to_patches(image, 4)
    assert patches.shape == (1, 4, 48)
    assert torch.equal(patches[0, 1].view(3, 4, 4), image[0, :, :4, 4:])
    assert torch.equal(networks.to_map(networks.to_tokens(image)), image)


def test_images_begin_smooth():
    torch.manual_seed(0)
    gan = tiny()
    layer = gan.generator.widen[0]
    shuffled = torch.pixel_shuffle(networks.to_map(layer(torch.randn(2, 16, 16))), 2)
    assert torch.equal(shuffled[..., ::2, ::2], shuffled[..., 1::2, 1::2])
    with torch.no_grad():
        images = gan.generator(gan.latent(16)).images[0]
    assert images.std((2, 3)).mean() < images.mean((2, 3)).std() / 2


def test_half_precision_trains():
    torch.manual_seed(0)
    gan = tiny()
    real = gan.prepare(torch.rand(2, 3, 32, 32) * 2 - 1, None)
    with torch.autocast("cpu", torch.bfloat16):
        terms = gan.discriminator_terms(real, gan.generator(gan.latent(2)), 0)
    assert {name: term.dtype for name, term in terms.items()} == dict.fromkeys(
        ("real", "fake", "r1"), torch.float32
    )
    sum(term.mean() for term in terms.values()).backward()
