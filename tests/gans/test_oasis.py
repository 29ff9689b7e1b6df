from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from gan_contract import GANContract, total
from torch.nn.utils.parametrize import is_parametrized

from synthaug import gans
from synthaug.gans.contract import PairBatch
from synthaug.gans.oasis import losses
from synthaug.gans.oasis.layers import LabelConv, Layout

TINY = {"base": 2, "hidden": 8, "discriminator_width": 1 / 16, "statistics_batches": 3}


def tiny(num_classes=3, size=(64, 64), **options):
    """A narrow OASIS that keeps four random maps with some pixels unlabelled."""
    spec = {"name": "oasis", "preset": "small", "height": size[0], "width": size[1]}
    gan = gans.build(spec | {"num_classes": num_classes} | TINY | options)
    stream = torch.Generator().manual_seed(7)
    maps = torch.randint(-1, num_classes, (4, size[0] // 8, size[1] // 8), generator=stream)
    gan.initialise(torch.zeros(4, 3, *size), maps.repeat_interleave(8, 1).repeat_interleave(8, 2))
    return gan


class TestOasis(GANContract):
    size = (64, 64)

    def build(self):
        return tiny()


@pytest.mark.parametrize(
    ("channels", "size", "millions"),
    [(151, (256, 256), 74.3), (183, (256, 256), 75.2), (35, (256, 512), 71.1)],
    ids=["ade20k", "coco-stuff", "cityscapes"],
)
def test_the_published_widths_have_the_published_parameters(channels, size, millions):
    with torch.device("meta"):  # one of the channels is that of unlabelled pixels
        spec = {"name": "oasis", "preset": "paper", "num_classes": channels - 1}
        gan = gans.build(spec | {"height": size[0], "width": size[1]})
    assert _millions(gan.generator) == pytest.approx(millions, abs=0.05)
    assert _millions(gan.discriminator) == pytest.approx(22.3, abs=0.05)


def _millions(module):
    return sum(p.numel() for p in module.parameters()) / 1e6


@pytest.mark.parametrize("per_pixel", [False, True])
def test_label_convolution_equals_the_dense_one(per_pixel):
    torch.manual_seed(0)
    conv = LabelConv(5, 6, 7)
    torch.nn.init.normal_(conv.bias)
    labels = torch.randint(0, 5, (3, 8, 12))
    noise = torch.randn(3, 6, 8, 12) if per_pixel else torch.randn(3, 6)
    spread = noise if per_pixel else noise[:, :, None, None].expand(-1, -1, 8, 12)
    dense = torch.cat([spread, F.one_hot(labels, 5).permute(0, 3, 1, 2)], 1)
    expected = F.conv2d(dense, conv.weight, conv.bias, padding=1)
    assert torch.allclose(conv(Layout(labels, noise)), expected, atol=1e-6)
    wanted = torch.autograd.grad(expected.square().sum(), conv.weight)[0]
    got = torch.autograd.grad(conv(Layout(labels, noise)).square().sum(), conv.weight)[0]
    assert torch.allclose(got, wanted, atol=1e-4)


def test_balanced_cross_entropy_is_the_mean_over_classes_of_their_means():
    torch.manual_seed(1)
    logits = torch.randn(2, 6, 5, 5)
    labels = torch.randint(-1, 3, (2, 5, 5))  # class 3 is absent
    each = F.cross_entropy(logits, labels + 2, reduction="none")
    expected = torch.stack([each[labels == c].mean() for c in range(3)]).mean()
    assert torch.allclose(losses.balanced_cross_entropy(logits, labels).mean(), expected)
    plain = losses.balanced_cross_entropy(logits, labels, balance=False).mean()
    assert torch.allclose(plain, each[labels >= 0].sum() / labels.numel())


def test_weights_are_capped_and_absent_classes_have_none():
    labels = torch.zeros(1, 10, 10, dtype=torch.long)
    labels[0, 0, 0] = 2
    assert losses.class_weights(labels, 4).tolist() == pytest.approx([100 / 198, 0, 50, 0])
    assert losses.class_weights(labels, 4, 7.0)[2] == 7


def test_unlabelled_pixels_teach_nothing_about_classes():
    logits = torch.randn(2, 5, 4, 4, requires_grad=True)
    nothing = torch.full((2, 4, 4), -1)
    loss = losses.balanced_cross_entropy(logits, nothing)
    assert loss.tolist() == [0, 0]
    loss.sum().backward()
    assert logits.grad.abs().max() == 0
    assert (losses.fake_cross_entropy(logits) > 0).all()


def test_labelmix_keeps_whole_classes_and_tosses_for_every_picture():
    torch.manual_seed(0)
    labels = torch.randint(-1, 3, (400, 4, 4))
    mask = losses.labelmix_mask(labels, 3)
    assert mask.shape == (400, 1, 4, 4)
    shares = []
    for value in (-1, 0, 1, 2):
        tosses = []
        for picture in range(400):
            chosen = mask[picture, 0][labels[picture] == value]
            assert len(chosen.unique()) <= 1
            tosses += chosen[:1].tolist()
        shares.append(sum(tosses) / len(tosses))
    assert all(0.4 < share < 0.6 for share in shares)


def test_labelmix_is_zero_for_a_discriminator_that_judges_pixel_by_pixel():
    torch.manual_seed(0)
    real, fake = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    mask = losses.labelmix_mask(torch.randint(0, 3, (2, 8, 8)), 3)
    judge = torch.nn.Conv2d(3, 5, 1)
    mixed = judge(torch.lerp(fake, real, mask))
    assert losses.mixing_loss(mixed, judge(real), judge(fake), mask).max() < 1e-10


def test_what_labelmix_finds_is_punished():
    gan = tiny(labelmix=10.0)
    real = gan.prepare(torch.rand(2, 3, 64, 64), torch.randint(-1, 3, (2, 64, 64)))
    terms = gan.discriminator_terms(real, gan.generator(gan.latent(2)), 0)
    assert (terms["labelmix"] > 0).all()


def test_labelmix_can_be_left_out():
    gan = tiny(labelmix=0.0)
    fake = gan.generator(gan.latent(2))
    real = gan.prepare(torch.zeros(2, 3, 64, 64), fake.mask)
    assert set(gan.discriminator_terms(real, fake, 0)) == {"real", "fake"}


def test_refreshed_statistics_are_those_of_the_averaged_weights():
    torch.manual_seed(0)
    gan = tiny()
    averaged = copy.deepcopy(gan.generator).requires_grad_(False).eval()
    before = torch.get_rng_state()
    gan.refresh(averaged)
    assert torch.equal(before, torch.get_rng_state())
    assert not averaged.training
    norm = averaged.blocks[5].norm_1.norm
    first = norm.running_var.clone()
    assert not torch.allclose(first, torch.ones_like(first))
    gan.refresh(averaged)
    assert torch.equal(norm.running_var, first)


def test_averaged_weights_get_spectral_norms_of_their_own():
    averaged = copy.deepcopy(tiny().generator)
    with torch.no_grad():
        for mine, other in zip(averaged.parameters(), tiny().generator.parameters(), strict=True):
            mine.lerp_(other, 0.5)
    averaged.requires_grad_(False).eval()

    def largest():
        scaled = [m for m in averaged.modules() if is_parametrized(m, "weight")]
        return [torch.linalg.matrix_norm(m.weight.flatten(1), 2).item() for m in scaled]

    assert max(largest()) > 1.2
    tiny().refresh(averaged)
    assert largest() == pytest.approx([1.0] * len(largest()), abs=1e-4)
    assert not any(module.training for module in averaged.modules())


def test_noise_per_picture_equals_the_same_noise_everywhere():
    torch.manual_seed(0)
    generator = tiny().generator.eval()
    labels = torch.randint(-1, 3, (1, 64, 64))
    noise = torch.randn(1, 64)
    with torch.no_grad():
        whole = generator.paint(labels, noise)
        spread = generator.paint(labels, noise[:, :, None, None].expand(-1, -1, 64, 64))
        other = generator.paint(labels, torch.randn(1, 64))
    assert torch.allclose(whole, spread, atol=1e-5)
    assert not torch.allclose(whole, other, atol=1e-5)


class TestFastOasis(GANContract):
    size = (32, 48)

    def build(self):
        spec = {"name": "oasis", "preset": "fast", "height": 32, "width": 48, "num_classes": 3}
        gan = gans.build(spec | {"pretrained": False})
        gan.generator.maps = torch.arange(-1, 3, dtype=torch.int16)[:, None, None].expand(
            -1, 32, 48
        )
        return gan


def test_the_fast_painter_first_learns_the_real_pictures():
    torch.manual_seed(0)
    gan = TestFastOasis().build()
    images = torch.rand(4, 3, 32, 48) * 2 - 1
    gan.initialise(images, gan.generator.maps)
    fake = gan.generator(gan.latent(2))
    other, same = (
        PairBatch(images_, fake.mask, layout=(fake.images[0], None))
        for images_ in ((images[:2],), fake.images)
    )
    assert all(term.abs().max() == 0 for term in gan.pretrain_terms(same).values())
    assert all(term.min() > 0 for term in gan.pretrain_terms(other).values())
    for name in ("features", "light"):
        pull = gan.generator_terms(other, 0)[name]
        assert pull[0] > 0  # half of a batch is painted with any noise
        assert pull[1] == 0


def test_the_fast_painter_keeps_out_of_saturation():
    """Where tanh is flat nothing is learned any more: training on few pictures once ended so."""
    torch.manual_seed(0)
    gan = TestFastOasis().build()
    flat = torch.tensor([-0.9, -0.2, 0.4, 0.95])[:, None, None, None].expand(-1, 3, 32, 48)
    gan.initialise(flat, gan.generator.maps)
    optimizer = torch.optim.Adam(gan.generator.parameters(), lr=1e-3, betas=(0.0, 0.999))
    for _ in range(60):
        fake = gan.generator(gan.latent(4))
        wanted = torch.stack([flat[int(mask[0, 0]) + 1] for mask in fake.mask])
        loss = (fake.images[0] - wanted).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert (fake.images[0].abs() > 0.98).float().mean() < 0.1
    assert loss < 0.3


def test_a_local_change_of_noise_stays_local():
    torch.manual_seed(0)
    generator = TestFastOasis().build().generator.eval()
    labels = torch.zeros(1, 32, 256, dtype=torch.long)
    noise = torch.randn(1, 64, 1, 1).repeat(1, 1, 32, 256)
    changed = noise.clone()
    changed[..., :64] = torch.randn(1, 64, 1, 1)
    with torch.no_grad():
        before, after = generator.paint(labels, noise), generator.paint(labels, changed)
    change = (before - after).abs().mean((0, 1, 2))
    assert change[:64].min() > 0
    assert change[-64:].max() == 0


def test_a_long_tail_of_classes_trains():
    """200 classes, 95 % of the pixels background."""
    torch.manual_seed(0)
    spec = {"name": "oasis", "preset": "fast", "height": 64, "width": 96, "num_classes": 200}
    gan = gans.build(spec | {"pretrained": False, "largest_weight": 20.0})
    cells = torch.zeros(2, 16, 24, dtype=torch.long)
    rare = torch.rand(2, 16, 24) < 0.05
    cells[rare] = torch.randint(1, 200, (int(rare.sum()),))
    labels = cells.repeat_interleave(4, 1).repeat_interleave(4, 2)
    images = (torch.rand(200, 3) * 2 - 1)[labels].permute(0, 3, 1, 2)
    gan.initialise(images, labels)
    real = gan.look(gan.prepare(images, labels), 0)
    adams = [
        torch.optim.Adam(module.parameters(), 2e-3, (0.0, 0.999))
        for module in (gan.discriminator, gan.generator)
    ]
    judged = []
    for step in range(12):
        fake = gan.look(gan.generator(gan.latent(2), labels), step)
        d_terms = gan.discriminator_terms(real, fake.detach(), step)
        for adam, terms in zip(adams, (d_terms, gan.generator_terms(fake, step)), strict=True):
            adam.zero_grad()
            total(terms).backward(inputs=[p for g in adam.param_groups for p in g["params"]])
        for adam in adams:
            adam.step()
        judged.append(float(d_terms["real"].detach().mean()))
        assert all(term.isfinite().all() for term in d_terms.values())
    assert judged[-1] < 0.8 * judged[0]


@pytest.mark.parametrize("preset", ["small", "fast"])
def test_without_noise_every_map_is_painted_in_one_way(preset):
    torch.manual_seed(0)
    spec = {"name": "oasis", "preset": preset, "height": 64, "width": 64, "num_classes": 3}
    spec |= TINY if preset == "small" else {"pretrained": False}
    labels = torch.randint(-1, 3, (1, 64, 64))
    for noise in (True, False):
        generator = gans.build(spec | {"noise": noise}).generator.eval()
        with torch.no_grad():
            one, other = (generator.paint(labels, torch.randn(1, 64)) for _ in range(2))
            field = generator.paint(labels, torch.randn(1, 64, 64, 64))
        assert torch.equal(one, other) is not noise
        assert torch.allclose(one, field, atol=1e-5) is not noise
