from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from gan_contract import GANContract, total

from synthaug import gans
from synthaug.engine import Engine
from synthaug.errors import InputError
from synthaug.gans.biggan import BigDiscriminator, architecture
from synthaug.gans.biggan.layers import SpectralLayer, SpectralLinear, iterate_norms
from synthaug.gans.contract import PairBatch
from synthaug.training import LoopSettings, TrainingState, train

TINY = {"width": 8, "z_dim": 6, "embedding_dim": 5}


def tiny(num_classes=1, **options):
    gan = gans.build(architecture(32, num_classes=num_classes) | TINY | options)
    for module in gan.modules():
        if hasattr(module, "gamma"):  # attention starts at nothing, and teaches nothing then
            torch.nn.init.constant_(module.gamma, 0.5)
    return gan


class TestBigGAN(GANContract):
    size = (32, 32)
    num_classes = None
    without_verdict = ("final.bias", "heads.0.bias", "heads.1.bias")
    # within the margin of the hinge real and generated images pull a bias alike, to and fro

    def build(self):
        return tiny()


class TestAdaptingBigGAN(TestBigGAN):
    without_gradient = ("embeddings.",)

    def build(self):
        return tiny(4, adapted=True, block_heads=True, smoothness=5.0, frozen=1)


class TestClassConditionalBigGAN(TestBigGAN):
    def build(self):
        return tiny(3)

    def real(self, gan, labels=None):
        images = torch.rand(self.batch_size, 3, *self.size) * 2 - 1
        return gan.prepare(images, torch.arange(self.batch_size) % 3)

    def test_one_sample_is_enough(self, gan):
        real = gan.prepare(torch.zeros(1, 3, 32, 32), torch.tensor([2]))
        for term in gan.discriminator_terms(real, gan.generator(gan.latent(1)), 0).values():
            assert term.isfinite().all()


@pytest.mark.parametrize(("size", "millions"), [(128, 50.4), (256, 55.9), (512, 56.2)])
def test_published_sizes(size, millions):
    with torch.device("meta"):
        gan = gans.build(architecture(size, "paper", num_classes=1000))
    assert gan.generator.size == gan.discriminator.size == size
    assert _millions(gan.generator) == pytest.approx(millions, abs=0.05)
    if size == 128:
        assert _millions(gan.discriminator) == pytest.approx(34.6, abs=0.05)


@pytest.mark.parametrize("size", [32, 64])
def test_small_sizes_are_a_few_million_weights(size):
    gan = gans.build(architecture(size)).eval()
    assert 2 < _millions(gan.generator) < 4
    assert 1 < _millions(gan.discriminator) < 2
    with torch.no_grad():
        image = gan.generator(gan.latent(1)).images[0]
        assert image.shape == (1, 3, size, size)
        assert gan.discriminator(image)[-1].shape == (1, 1)


def test_other_sizes_and_presets_are_refused():
    with pytest.raises(InputError, match="32, 64, 128, 256, 512 pixels a side, not 48"):
        architecture(48)
    with pytest.raises(InputError, match="unknown BigGAN preset 'large': paper or small"):
        architecture(32, "large")


def test_the_discriminator_mirrors_the_generator():
    spec = architecture(64)
    generator = [(up, before, after) for up, before, after in spec["layers"]]
    discriminator = BigDiscriminator(generator, spec["attention_at"], width=8, block_heads=True)
    x = discriminator.first(torch.zeros(1, 3, 64, 64))
    shapes = [tuple(x.shape[1:])]
    for stage in discriminator.stages:
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(8, 64, 64), (16, 32, 32), (32, 16, 16), (64, 8, 8), (128, 4, 4)]
    assert [len(stage) for stage in discriminator.stages] == [3, 2, 2, 2]  # attention at 32 px
    assert discriminator.block_sizes == [32, 16, 8, 4]
    network = tiny().generator
    sides = [x.shape[2] for x in network.features(torch.zeros(1, 11))]
    assert sides == [4, 8, 8, 16, 16, 16, 32]  # flat, up, flat, up, attention, flat, up
    assert network.features(torch.zeros(1, 11), largest_px=16)[-1].shape == (1, 32, 16, 16)


def test_the_class_is_projected_onto_the_summed_features():
    torch.manual_seed(0)
    discriminator = tiny(3).discriminator
    seen = []
    discriminator.final.register_forward_hook(lambda _, inputs, out: seen.append((inputs[0], out)))
    image, classes = torch.randn(4, 3, 32, 32), torch.tensor([2, 0, 1, 2])
    (logits,) = discriminator(image, classes)
    summed, plain = seen[0]
    expected = plain[:, 0] + (discriminator.projection.weight()[classes] * summed).sum(1)
    assert torch.allclose(logits[:, 0], expected, atol=1e-5)
    assert tiny(1).discriminator.projection is None
    assert tiny(3, adapted=True).discriminator.projection is None


def test_the_hinge_stops_at_a_margin_and_every_block_counts_alike(monkeypatch):
    gan = tiny(block_heads=True)
    logits = {
        1.0: (torch.tensor([[3.0, -1.0]] * 2), torch.tensor([[0.5], [0.5]])),
        -1.0: (torch.tensor([[-3.0, 1.0]] * 2), torch.tensor([[-0.25], [-0.25]])),
    }
    monkeypatch.setattr(
        gan.discriminator, "forward", lambda image, *_: logits[float(image.flatten()[0])]
    )
    monkeypatch.setattr(type(gan.discriminator), "block_sizes", [8, 4])
    real, fake = (PairBatch((torch.full((2, 3, 32, 32), value),)) for value in (1.0, -1.0))
    terms = gan.discriminator_terms(real, fake, 0)
    values = {"real/8px": 0.5, "real/4px": 0.25, "fake/8px": 0.5, "fake/4px": 0.375}
    assert {name: term.tolist() for name, term in terms.items()} == {
        name: [value] * 2 for name, value in values.items()
    }
    assert terms.realness().tolist() == [0.75, 0.75]
    made = gan.generator_terms(fake, 0)
    assert {name: term.tolist() for name, term in made.items()} == {
        "real/8px": [0.5] * 2,
        "real/4px": [0.125] * 2,
    }


def test_frozen_sizes_stay_frozen_when_the_loop_thaws_the_discriminator():
    discriminator = tiny(frozen=2).discriminator
    discriminator.requires_grad_(False)
    discriminator.requires_grad_(True)
    learning = {n.partition("weight")[0] for n, p in discriminator.named_parameters()
                if p.requires_grad}  # fmt: skip
    assert not {n for n in learning if n.startswith(("first.", "stages.0.", "stages.1."))}
    assert {n for n in learning if n.startswith("stages.2.")}


def test_weights_are_divided_by_their_largest_singular_value():
    torch.manual_seed(0)
    layer = SpectralLinear(20, 30, 1e-12)
    for _ in range(200):
        iterate_norms(layer)
    assert torch.linalg.svdvals(layer.weight().detach())[0] == pytest.approx(1, abs=1e-3)
    before = layer.weight()
    layer(torch.randn(2, 20))
    assert torch.equal(layer.weight(), before)  # passes change nothing


def test_every_step_improves_the_norms_of_both_networks():
    torch.manual_seed(0)
    gan = tiny()
    layers = [layer for layer in gan.modules() if isinstance(layer, SpectralLayer)]
    before = [layer.weight_u.clone() for layer in layers if len(layer.weight_u) > 1]
    gan.before_step(0, gan.generator)
    after = [layer.weight_u for layer in layers if len(layer.weight_u) > 1]
    assert not any(map(torch.equal, before, after))
    for step in range(1, 200):
        gan.before_step(step, gan.generator)
    for layer in layers:
        largest = torch.linalg.svdvals(layer.weight().detach().flatten(1))[0]
        assert largest == pytest.approx(1, abs=1e-2)


def test_latents_hold_a_class_and_adapted_ones_an_embedding_like_the_known():
    stream = torch.Generator().manual_seed(1)
    gan = tiny(3)
    latent = gan.latent(300, stream)
    assert latent.shape == (300, gan.latent_dim) == (300, 9)
    assert torch.equal(latent[:, 6:].sum(0).sort()[0] > 50, torch.ones(3, dtype=torch.bool))
    fake = gan.generator(latent[:4])
    assert torch.equal(fake.classes, latent[:4, 6:].argmax(1))
    assert torch.equal(fake.detach().classes, fake.classes)
    embedded = gan.generator.embed(latent[:4, :6], fake.classes)
    gan.generator.eval()
    with torch.no_grad():
        known = gan.generator(latent[:4]).images[0]
        assert torch.allclose(known, gan.generator.draw(embedded), atol=1e-6)
    adapted = tiny(3, adapted=True)
    joint = adapted.latent(20_000, stream)
    table = adapted.generator.embeddings.weight.detach()
    assert joint[:, :6].std() == pytest.approx(1, abs=0.02)
    assert torch.allclose(joint[:, 6:].mean(0), table.mean(1), atol=0.02)
    assert torch.allclose(joint[:, 6:].std(0), table.std(1, correction=0), atol=0.02)


def test_the_averaged_generators_statistics_are_measured_before_use():
    torch.manual_seed(0)
    gan = tiny()
    given = []
    first = gan.generator.layers[0].bn_0
    first.register_forward_hook(lambda _, inputs, out: given.append(inputs[0].detach()))
    gan.refresh(gan.generator)
    means = torch.stack([x.mean((0, 2, 3)) for x in given])
    assert len(means) == 8
    assert torch.allclose(first.running_means[-1], means.mean(0), atol=1e-5)
    again = first.running_means.clone()
    gan.refresh(gan.generator)
    assert torch.equal(first.running_means, again)
    adapted = tiny(adapted=True)
    before = adapted.generator.bn.running_means.clone()
    adapted.refresh(adapted.generator)
    adapted.generator(adapted.latent(4))
    assert torch.equal(adapted.generator.bn.running_means, before)


def test_adapting_starts_from_the_source_without_its_projection():
    torch.manual_seed(0)
    source = tiny(3)
    torch.manual_seed(1)
    gan = tiny(3, adapted=True, smoothness=5.0, block_heads=True)
    head = gan.discriminator.heads[0].weight_orig.clone()
    gan.adapt(source.generator.state_dict(), source.discriminator.state_dict())
    assert torch.equal(gan.source.gen_z.weight_orig, source.generator.gen_z.weight_orig)
    assert torch.equal(gan.discriminator.final.weight_orig, source.discriminator.final.weight_orig)
    assert torch.equal(gan.discriminator.heads[0].weight_orig, head)
    with pytest.raises(RuntimeError, match="Missing key"):
        gan.adapt({})


def loop(gan, images, classes=None, **changes):
    settings = {"iterations": 1, "batch_size": 8, "lr_generator": 1e-3, "lr_discriminator": 2e-3}
    settings |= {"lr_pretrain": 1e-3, "betas": (0.0, 0.999), "ema": 0.9, "share_fakes": False}
    state = TrainingState(gan, [], LoopSettings(**settings | {"seed": 0} | changes))
    history = []
    train(state, images, classes, Engine("cpu", 1, "32-true"), lambda t: history.append(t) or False)
    return state, history


def test_smoothness_is_zero_at_the_source_in_the_loop_and_teaches_nothing_there():
    torch.manual_seed(0)
    gan = tiny(3, adapted=True, smoothness=5.0)
    gan.adapt(tiny(3).generator.state_dict())
    _, history = loop(gan, torch.rand(4, 3, 32, 32), iterations=2, batch_size=4)
    assert history[0]["g/smoothness"] == 0
    assert history[1]["g/smoothness"] > 0
    assert all(p.grad is None for p in gan.source.parameters())
    gan.adapt(gan.generator.state_dict())
    gan.zero_grad()
    fake = PairBatch((torch.zeros(3, 3, 32, 32),))
    term = gan.generator_terms(fake, 0)["smoothness"]
    assert torch.equal(term, torch.zeros(3))
    term.sum().backward()
    gradients = [p.grad for p in gan.generator.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients)
    with torch.no_grad():
        gan.generator.layers[0].conv_1.weight_orig[0].mul_(2)
    moved = gan.generator_terms(fake, 0)["smoothness"]
    assert (moved > 0).all()
    moved.sum().backward()
    assert gan.generator.layers[0].conv_1.weight_orig.grad.abs().sum() > 0
    assert total(gan.generator_terms(fake, 0)).isfinite()


def test_a_few_steps_of_the_loop_learn_the_colours_of_the_classes():
    torch.manual_seed(0)
    layers = [[False, 16, 16], [True, 16, 2], [False, 2, 1]]  # 8 px
    gan = tiny(2, layers=layers, attention_at=2)
    classes = torch.arange(8) % 2
    images = 0.05 * torch.randn(8, 3, 8, 8)
    images += torch.where(classes == 1, 0.6, -0.6)[:, None, None, None]
    state, _ = loop(gan, images, classes, iterations=80)
    gan.refresh(state.ema)
    z = torch.randn(16, 6)
    made = []
    for number in range(2):
        chosen = F.one_hot(torch.full((16,), number), 2)
        with torch.no_grad():
            made.append(state.ema(torch.cat([z, chosen], 1)).images[0].mean())
    assert made[0] < -0.3
    assert made[1] > 0.3


def _millions(module):
    return sum(p.numel() for p in module.parameters()) / 1e6
