from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from gan_contract import GANContract, total
from torch.profiler import ProfilerActivity, profile

from synthaug import gans
from synthaug.errors import InputError
from synthaug.gans.contract import PairBatch
from synthaug.gans.deviation import minibatch_deviation
from synthaug.gans.gradient_penalty import gradient_penalty
from synthaug.gans.smoothness import smoothness_px
from synthaug.gans.stylegan2 import losses
from synthaug.gans.stylegan2.layers import ModulatedConv, Upsample, fir, fir_kernel
from synthaug.gans.stylegan2.networks import (
    StyleDiscriminator,
    StyleGenerator,
    channel_widths,
)

TINY = {"channels": [16, 16, 12, 8], "z_dim": 12, "w_dim": 10, "n_mlp": 2}


def tiny(**options):
    return gans.build({"name": "stylegan2", "size": 32} | TINY | options)


class TestStyleGAN2(GANContract):
    size = (32, 32)
    num_classes = None

    def build(self):
        return tiny()

    def test_generated_pairs_have_the_size_and_range_of_real_ones(self, gan):
        fake, real = gan.generator(gan.latent(self.batch_size)), self.real(gan)
        assert fake.images[0].shape == real.images[0].shape
        assert fake.mask is None
        assert gan.render(fake).images[0].abs().max() <= 1  # unbounded while training


class TestAdaptingStyleGAN2(TestStyleGAN2):
    def build(self):
        return tiny(block_heads=True, smoothness=5.0, path=2.0, frozen=1)


class TestJointMasks(GANContract):
    size = (32, 32)

    def build(self):
        return tiny(num_classes=3, joint_masks=True, block_heads=True)

    def test_generated_pairs_have_the_size_and_range_of_real_ones(self, gan):
        fake, real = gan.generator(gan.latent(self.batch_size)), self.real(gan)
        assert fake.images[0].shape == real.images[0].shape
        assert fake.mask.shape == real.mask.shape


def test_the_256_preset_has_the_public_keys_and_sizes():
    with torch.device("meta"):
        gan = gans.build({"name": "stylegan2", "size": 256, "preset": "paper"})
    generator, discriminator = gan.generator.state_dict(), gan.discriminator.state_dict()
    del generator["latent_avg"]
    assert len(generator) == 135
    assert len(discriminator) == 50
    assert _millions(gan.generator) == pytest.approx(30.03, abs=0.01)
    assert _millions(gan.discriminator) == pytest.approx(28.86, abs=0.01)
    expected = {
        "style.8.weight": (512, 512),
        "input.input": (1, 512, 4, 4),
        "conv1.conv.weight": (1, 512, 512, 3, 3),
        "conv1.conv.modulation.weight": (512, 512),
        "conv1.noise.weight": (1,),
        "convs.0.conv.blur.kernel": (4, 4),
        "convs.11.conv.weight": (1, 128, 128, 3, 3),
        "convs.10.activate.bias": (128,),
        "to_rgb1.bias": (1, 3, 1, 1),
        "to_rgbs.5.conv.weight": (1, 3, 128, 1, 1),
        "to_rgbs.5.upsample.kernel": (4, 4),
        "noises.noise_0": (1, 1, 4, 4),
        "noises.noise_12": (1, 1, 256, 256),
    }
    assert {key: tuple(generator[key].shape) for key in expected} == expected
    expected = {
        "convs.0.0.weight": (128, 3, 1, 1),
        "convs.1.conv1.1.bias": (128,),
        "convs.1.conv2.0.kernel": (4, 4),
        "convs.1.conv2.1.weight": (256, 128, 3, 3),
        "convs.6.skip.1.weight": (512, 512, 1, 1),
        "final_conv.0.weight": (512, 513, 3, 3),
        "final_linear.0.weight": (512, 8192),
        "final_linear.1.weight": (1, 512),
    }
    assert {key: tuple(discriminator[key].shape) for key in expected} == expected


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_every_size_of_the_small_preset_is_about_a_million_weights(size):
    gan = gans.build({"name": "stylegan2", "size": size})
    assert 0.9 < _millions(gan.generator) < 1.3
    assert 0.9 < _millions(gan.discriminator) < 1.3
    gan.eval()
    with torch.no_grad():
        image = gan.generator(gan.latent(1)).images[0]
        assert image.shape == (1, 3, size, size)
        assert gan.discriminator(image)[-1].shape == (1, 1)


def test_other_sizes_and_presets_are_refused():
    with pytest.raises(InputError, match="not 48"):
        gans.build({"name": "stylegan2", "size": 48})
    with pytest.raises(InputError, match="unknown StyleGAN2 preset 'large'"):
        gans.build({"name": "stylegan2", "size": 32, "preset": "large"})
    with pytest.raises(InputError, match="32 px needs 4 numbers of channels, not 2"):
        gans.build({"name": "stylegan2", "size": 32, "channels": [8, 8]})
    with pytest.raises(InputError, match="no features at 64 px"):
        tiny().generator.synthesise(torch.zeros(1, 8, 10), taps=[64])
    with pytest.raises(InputError, match="noise must have the sides"):
        tiny().generator.synthesise(torch.zeros(1, 8, 10), noise=[torch.zeros(1, 1, 4, 4)])


@pytest.mark.parametrize("upsample", [False, True])
def test_modulation_equals_a_convolution_of_each_sample_with_weights_of_its_own(upsample):
    torch.manual_seed(0)
    conv = ModulatedConv(5, 7, 3, 4, upsample=upsample).double()
    x, style = torch.randn(3, 5, 8, 8).double(), torch.randn(3, 4).double()
    s = conv.modulation(style)
    expected = []
    for n in range(3):
        weight = conv.weight[0] / (5 * 9) ** 0.5 * s[n][None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if upsample:
            y = F.conv_transpose2d(x[n : n + 1], weight.transpose(0, 1), stride=2)
            expected.append(conv.blur(y))
        else:
            expected.append(F.conv2d(x[n : n + 1], weight, padding=1))
    assert torch.allclose(conv(x, style), torch.cat(expected), atol=1e-10)


def test_upsampling_keeps_a_constant_and_doubles_the_size():
    image = torch.full((1, 3, 6, 6), 0.7)
    up = Upsample()(image)
    assert up.shape == (1, 3, 12, 12)
    assert torch.allclose(up[:, :, 2:-2, 2:-2], torch.tensor(0.7))


@pytest.mark.parametrize("pad", [(2, 1), (1, 1), (2, 2), (0, 3)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_filter_is_a_convolution_up_to_its_second_derivative(pad, layout):
    kernel = fir_kernel(4.0).double() * torch.arange(1.0, 5.0)  # not symmetric
    results = []
    for filtered in (_convolved, fir):
        x = torch.sin(torch.arange(2.0 * 5 * 9 * 7).double()).view(2, 5, 9, 7)
        x = x.to(memory_format=layout).requires_grad_()
        y = filtered(x, kernel, pad)
        (gradient,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), x)
        results.append((y, gradient, second))
    wanted, found = results
    assert torch.equal(found[0], wanted[0])
    assert found[0].is_contiguous(memory_format=layout)
    torch.testing.assert_close(found[1:], wanted[1:])
    small = torch.rand(1, 2, 5, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: fir(x, kernel, pad), small)
    assert torch.autograd.gradgradcheck(lambda x: fir(x, kernel, pad), small)


@pytest.mark.parametrize("exact_backward", [True, False])
def test_the_filter_under_autocast_is_as_exact_as_a_convolution(exact_backward):
    results = []
    for filtered in (_convolved, fir):
        x = torch.linspace(-1, 1, 2 * 3 * 64).view(2, 3, 8, 8).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y = filtered(x, fir_kernel(), (2, 1))
            with torch.autocast("cpu", torch.bfloat16, enabled=not exact_backward):
                (gradient,) = torch.autograd.grad(y.float().square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), x)
        results.append((y, gradient, second))
    wanted, found = results
    assert torch.equal(found[0], wanted[0])
    assert [t.dtype for t in found] == [t.dtype for t in wanted]
    torch.testing.assert_close(found[1:], wanted[1:], rtol=0.02, atol=0.02)


def test_the_filter_derived_twice_takes_a_few_convolutions_however_many_the_channels():
    x = torch.rand(1, 64, 8, 8, requires_grad=True)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        y = Upsample()(x)
        (gradient,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
        gradient.square().sum().backward()
    assert sum(e.count for e in seen.key_averages() if e.key == "aten::convolution") < 6


def _convolved(x, kernel, pad):
    kernels = kernel.to(x.dtype).expand(x.shape[1], 1, -1, -1)
    return F.conv2d(F.pad(x, (*pad, *pad)), kernels, groups=x.shape[1])


def test_the_deviation_is_that_of_interleaved_groups():
    x = torch.randn(8, 3, 4, 4)
    appended = minibatch_deviation(x, 4)
    assert appended.shape == (8, 4, 4, 4)
    group = x[1::2]  # samples 1, 3, 5, 7
    expected = (group.var(0, correction=0) + 1e-8).sqrt().mean()
    assert torch.allclose(appended[1::2, 3], expected)
    assert minibatch_deviation(x[:5], 4)[0, 3, 0, 0] == pytest.approx(1e-4)  # five: alone each


def test_noise_is_fixed_in_use_explicit_if_given_and_fresh_in_training():
    torch.manual_seed(0)
    generator = tiny(mixing=0.0).generator
    for module in (generator.conv1, *generator.convs):
        torch.nn.init.constant_(module.noise.weight, 0.5)
    z = torch.randn(2, 12)
    with torch.no_grad():
        first, second = generator(z).images[0], generator(z).images[0]
        assert not torch.equal(first, second)
        generator.eval()
        assert torch.equal(generator(z).images[0], generator(z).images[0])
        drawn = [generator.draw_noise(2, torch.Generator().manual_seed(4)) for _ in range(2)]
        ws = generator.styles(z)
        images = [generator.synthesise(ws, noise)[0] for noise in drawn]
        assert torch.equal(*images)
        assert not torch.equal(images[0], generator.synthesise(ws)[0])


def test_mixed_styles_change_late_layers_only():
    torch.manual_seed(0)
    generator = tiny(mixing=1.0).generator
    z = torch.randn(64, 12)
    own, mixed = generator.styles(z), generator.mixed_styles(z)
    same = (own == mixed).all(2)
    assert same[:, 0].all()
    assert not same[:, -1].any()
    assert (same[:, :-1] >= same[:, 1:]).all()
    assert len(same.sum(1).unique()) == generator.num_styles - 1
    generator.mixing = 0.0
    assert torch.equal(generator.mixed_styles(z), own)


def test_truncation_pulls_towards_the_measured_mean():
    torch.manual_seed(0)
    gan = tiny()
    gan.refresh(gan.generator)
    w = gan.generator.styles(torch.randn(4000, 12))[:, 0]
    mean = gan.generator.latent_avg
    assert torch.allclose(w.mean(0), mean, atol=0.1)
    z = torch.randn(2, 12)
    assert torch.allclose(gan.generator.styles(z, 0.0)[:, 0], mean.expand(2, -1))
    half = (gan.generator.styles(z)[:, 0] + mean) / 2
    assert torch.allclose(gan.generator.styles(z, 0.5)[:, 0], half, atol=1e-6)


def test_taps_are_the_features_at_a_size():
    gan = tiny()
    ws = gan.generator.styles(torch.randn(2, 12))
    image, taps = gan.generator.synthesise(ws, taps=[16, 4])
    assert [tuple(tap.shape) for tap in taps] == [(2, 12, 16, 16), (2, 16, 4, 4)]
    assert torch.equal(image, gan.generator.synthesise(ws)[0])


def test_every_block_is_judged_and_counts_alike():
    torch.manual_seed(0)
    gan = tiny(block_heads=True)
    logits = gan.discriminator(torch.randn(4, 3, 32, 32))
    assert gan.discriminator.block_sizes == [16, 8, 4]
    assert [logit.shape[1] for logit in logits] == [256, 64, 1]
    terms = losses.logistic_by_block(logits, [16, 8, 4], real=False)
    assert list(terms) == ["16px", "8px", "4px"]
    for logit, term in zip(logits, terms.values(), strict=True):
        assert torch.allclose(term, (1 + logit.exp()).log().mean(1) / 3, atol=1e-6)
    flipped = losses.logistic_by_block([-logit for logit in logits], [16, 8, 4], real=True)
    assert torch.equal(flipped["8px"], terms["8px"])
    plain = tiny().discriminator
    assert plain.block_sizes == [4]


def test_block_heads_leave_the_published_logit_alone():
    torch.manual_seed(0)
    plain = StyleDiscriminator([16, 16, 12, 8])
    headed = StyleDiscriminator([16, 16, 12, 8], block_heads=True)
    headed.load_state_dict(headed.state_dict() | plain.state_dict())
    image = torch.randn(4, 3, 32, 32)
    assert torch.equal(plain(image)[0], headed(image)[-1])


def test_frozen_blocks_stay_frozen_when_the_loop_thaws_the_discriminator():
    discriminator = tiny(frozen=1).discriminator
    discriminator.requires_grad_(False)
    discriminator.requires_grad_(True)
    learning = {n for n, p in discriminator.named_parameters() if p.requires_grad}
    assert not {n for n in learning if n.startswith(("convs.0.", "convs.1."))}
    assert {n for n in learning if n.startswith("convs.2.")}


def test_the_gradient_penalty_is_that_of_finite_differences():
    torch.manual_seed(0)
    discriminator = StyleDiscriminator([4, 4], group=1).double()
    image = torch.randn(2, 3, 8, 8).double().requires_grad_(True)
    penalty = gradient_penalty(losses.mean_logit(discriminator(image)), image)
    gradient = torch.zeros(2, 192).double()
    with torch.no_grad():
        for index in range(192):
            step = torch.zeros(192).double()
            step[index] = 1e-5
            step = step.view(1, 3, 8, 8)
            up, down = discriminator(image + step)[0], discriminator(image - step)[0]
            gradient[:, index] = (up - down)[:, 0] / 2e-5
    assert torch.allclose(penalty, gradient.square().sum(1), rtol=1e-4)
    penalty.sum().backward()
    assert discriminator.convs[0][0].weight.grad.abs().sum() > 0


def test_the_penalty_is_lazy_and_weighted_by_its_interval():
    torch.manual_seed(0)
    gan = tiny(r1=3.0, r1_every=5)
    real, fake = gan.prepare(torch.randn(2, 3, 32, 32), None), gan.generator(gan.latent(2))
    due = [s for s in range(11) if "r1" in gan.discriminator_terms(real, fake, s)]
    assert due == [0, 5, 10]
    term = gan.discriminator_terms(real, fake, 0)["r1"]
    image = real.images[0].requires_grad_(True)
    penalty = gradient_penalty(losses.mean_logit(gan.discriminator(image)), image)
    assert torch.allclose(term, 3.0 / 2 * 5 * penalty)


def test_path_lengths_are_those_of_the_jacobian():
    torch.manual_seed(0)
    generator = StyleGenerator([4, 4], z_dim=3, w_dim=3, n_mlp=1).double().eval()
    ws = torch.randn(2, 4, 3).double().requires_grad_(True)
    image, _ = generator.synthesise(ws)
    y = torch.randn_like(image)
    lengths = losses.path_lengths(image, ws, y)
    for n in range(2):
        whole = torch.autograd.functional.jacobian(
            lambda w: generator.synthesise(w[None])[0][0].flatten(), ws[n].detach()
        )  # (192, 4, 3)
        product = torch.einsum("plw,p->lw", whole, y[n].flatten())
        assert torch.allclose(lengths[n], product.square().sum(1).mean().sqrt())


def test_path_length_regularisation_follows_its_mean():
    torch.manual_seed(0)
    gan = tiny(path=2.0, path_every=4)
    fake = gan.generator(gan.latent(4))
    assert "path" not in gan.generator_terms(fake, 1)
    term = gan.generator_terms(fake, 4)["path"]
    assert term.shape == (4,)
    assert gan.path_mean > 0
    length = gan.path_mean / 0.01  # a hundredth of the way from zero
    assert term[0] >= 2.0 * 4 * (length - gan.path_mean).square() * 0.999


def test_every_sample_has_a_grain_of_its_own():
    torch.manual_seed(0)
    gan = tiny().eval()
    z = gan.latent(2)[:1].repeat(2, 1)

    def sample(seed):
        return gan.sample(gan.generator, z, torch.Generator().manual_seed(seed)).images[0]

    assert torch.equal(sample(1), gan.generator(z).images[0])  # noise begins without weight
    for module in (gan.generator.conv1, *gan.generator.convs):
        torch.nn.init.constant_(module.noise.weight, 0.5)
    assert torch.equal(sample(1), sample(1))
    assert (sample(1) - sample(2)).abs().max() > 0.1
    assert (sample(1)[0] - sample(1)[1]).abs().max() > 0.1


@pytest.mark.parametrize(("size", "px"), [(16, 4), (32, 4), (64, 8), (256, 32), (1024, 32)])
def test_smoothness_is_compared_at_an_eighth_of_the_picture(size, px):
    assert smoothness_px(size, 4) == px
    assert smoothness_px(size, 8) == max(px, 8)


def test_smoothness_holds_more_than_the_first_convolution():
    torch.manual_seed(0)
    gan = tiny(smoothness=5.0)
    gan.adapt(gan.generator.state_dict())
    with torch.no_grad():
        gan.generator.convs[1].conv.weight.mul_(1.1)
    term = gan.generator_terms(PairBatch((torch.zeros(3, 3, 32, 32),)), 0)["smoothness"]
    assert term.shape == (3,)
    term.mean().backward()
    assert gan.generator.convs[1].conv.weight.grad.abs().sum() > 0


def test_smoothness_is_zero_at_the_source_and_teaches_nothing_there():
    torch.manual_seed(0)
    gan = tiny(smoothness=5.0)
    for module in (gan.generator.conv1, *gan.generator.convs):
        torch.nn.init.constant_(module.noise.weight, 0.5)
    gan.adapt(gan.generator.state_dict())
    fake = PairBatch((torch.zeros(3, 3, 32, 32),))
    term = gan.generator_terms(fake, 0)["smoothness"]
    assert torch.equal(term, torch.zeros(3))
    term.sum().backward()
    gradients = [p.grad for p in gan.generator.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients)
    with torch.no_grad():
        gan.generator.conv1.conv.weight.mul_(1.1).add_(0.1)
    moved = gan.generator_terms(fake, 0)["smoothness"]
    assert (moved > 0).all()
    moved.sum().backward()
    assert gan.generator.conv1.conv.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in gan.source.parameters())


def test_adapting_starts_from_the_source_and_keeps_new_heads():
    torch.manual_seed(0)
    source = tiny()
    torch.manual_seed(1)
    gan = tiny(smoothness=5.0, block_heads=True)
    head = gan.discriminator.heads[0].conv.weight.clone()
    gan.adapt(source.generator.state_dict(), source.discriminator.state_dict())
    assert torch.equal(gan.source.conv1.conv.weight, source.generator.conv1.conv.weight)
    assert torch.equal(
        gan.discriminator.convs[1].conv1[0].weight, source.discriminator.convs[1].conv1[0].weight
    )
    assert torch.equal(gan.discriminator.heads[0].conv.weight, head)
    with pytest.raises(RuntimeError, match="Missing key"):
        gan.adapt({})


def test_losses_can_be_derived_twice_everywhere():
    torch.manual_seed(0)
    generator = StyleGenerator([3, 3], z_dim=2, w_dim=2, n_mlp=1).double().eval()
    discriminator = StyleDiscriminator([3, 3], group=2).double()

    def score(z):
        return discriminator(generator.synthesise(generator.styles(z))[0])[0]

    z = torch.randn(2, 2).double().requires_grad_(True)
    assert torch.autograd.gradgradcheck(score, z, atol=1e-4)


def loop_settings(iterations, batch_size, lr):
    """One rate for all networks, fresh fakes for each step."""
    from synthaug.training import LoopSettings

    return LoopSettings(
        iterations=iterations,
        batch_size=batch_size,
        lr_generator=lr,
        lr_discriminator=lr,
        lr_pretrain=lr,
        betas=(0.0, 0.99),
        ema=0.9,
        share_fakes=False,
        seed=0,
    )


def test_a_few_steps_of_the_loop_learn_the_colour_of_the_images():
    from synthaug.engine import Engine
    from synthaug.training import TrainingState, train

    torch.manual_seed(0)
    gan = gans.build(
        {"name": "stylegan2", "size": 16, "channels": [12, 12, 8], "z_dim": 8, "w_dim": 8}
        | {"n_mlp": 2, "r1": 1.0, "block_heads": True}
    )
    images = torch.full((4, 3, 16, 16), 0.6) + 0.05 * torch.randn(4, 3, 16, 16)
    images[:, 2] = -0.6
    state = TrainingState(gan, [], loop_settings(60, 8, 0.003))
    seen = {}
    train(state, images, None, Engine("cpu", 1, "32-true"), lambda terms: bool(seen.update(terms)))
    with torch.no_grad():
        made = gan.render(state.ema(gan.latent(32))).images[0]
    red, green, blue = made.mean((0, 2, 3))
    assert red > 0.2
    assert green > 0.2
    assert blue < -0.2
    assert {"d/real/8px", "d/fake/4px", "d/r1", "g/real/8px"} <= set(seen)


def test_the_published_widths():
    assert channel_widths(256) == [512, 512, 512, 512, 512, 256, 128]
    assert channel_widths(256, 16384) == [512, 512, 512, 512, 256, 128, 64]


def _millions(module):
    return sum(p.numel() for p in module.parameters()) / 1e6


def test_the_smoothness_term_enters_the_sum():
    torch.manual_seed(0)
    gan = tiny(smoothness=5.0, block_heads=True)
    terms = gan.generator_terms(gan.generator(gan.latent(4)), 0)
    assert set(terms) == {"real/16px", "real/8px", "real/4px", "smoothness"}
    assert total(terms).isfinite()


def test_processes_share_one_mean_of_path_lengths():
    """Each estimates its own; the first one's alone is kept for a resume."""
    from synthaug.engine import Engine
    from synthaug.training import TrainingState, train

    class WithAnother(Engine):
        def gather(self, values):
            return torch.cat([values, values + 2])

    gan = gans.build(
        {"name": "stylegan2", "size": 16, "channels": [12, 12, 8], "z_dim": 8, "w_dim": 8}
        | {"n_mlp": 2, "path": 2.0}
    )
    train(
        TrainingState(gan, [], loop_settings(1, 2, 0.0)),
        torch.zeros(2, 3, 16, 16),
        None,
        WithAnother("cpu", 1, "32-true"),
        lambda _: False,
    )
    assert 1 < gan.path_mean < 1.5  # a hundredth of the first length, and half of the two apart
