from __future__ import annotations

import pytest
import torch

from synthaug import gans
from synthaug.errors import InputError
from synthaug.gans.contract import PairBatch
from synthaug.gans.focus import Focus
from synthaug.plugins.embedding import MaskEmbeddingPlugin
from synthaug.training import LoopSettings, TrainingState

SPEC = {"name": "osmis", "preset": "fast", "height": 32, "width": 48, "num_pairs": 1}
SMALL = {"size": 32, "channels": [8, 8, 8, 8], "z_dim": 8, "w_dim": 8, "n_mlp": 2}
BIG = {
    "name": "biggan",
    "layers": [[False, 16, 16], [True, 16, 8], [True, 8, 4], [True, 4, 2], [False, 2, 1]],
    "attention_at": 3,
    "width": 8,
    "z_dim": 8,
    "embedding_dim": 4,
    "statistics": 1,
}
LOOP = LoopSettings(1, 1, 1e-3, 1e-3, 1e-3, (0.0, 0.9), 0.9, True, 0)


def pairs():
    mask = torch.zeros(2, 3, 32, 48)
    mask[:, 0] = 1
    mask[0, :, 8:16, :24] = torch.tensor([0.2, 0.4, 0.4])[:, None, None]
    mask[1, :, :4] = 0  # not labelled
    return PairBatch((torch.zeros(2, 3, 32, 48),), mask)


def test_the_focus_is_a_large_box_or_the_pairs_own_objects():
    box = MaskEmbeddingPlugin().corrupt(pairs()).focus
    assert box.shape == (2, 1, 32, 48)
    assert set(box.unique().tolist()) <= {0.0, 1.0}
    assert all(0.7 < share <= 1 for share in box.mean((1, 2, 3)).tolist())
    own = MaskEmbeddingPlugin(objects=True).corrupt(pairs()).focus
    expected = torch.zeros(2, 1, 32, 48)
    expected[0, :, 8:16, :24] = 1
    assert torch.equal(own, expected)


def test_weights_begin_without_effect_and_then_act_inside_the_mask():
    torch.manual_seed(0)
    focus, features = Focus(4, 6), torch.randn(2, 6, 8, 8)
    mask = torch.zeros(2, 1, 32, 32)
    mask[:, :, :, :16] = 1
    assert not focus.state_dict()
    assert focus(features, mask, 1) is features
    focus.begin(features)
    assert torch.equal(focus(features, mask, 1), features)
    torch.nn.init.ones_(focus.embeddings[1].gain)
    weights = focus(features, mask, 1) / features
    assert (weights[..., 0] - weights[..., -1]).abs().max() > 0.05
    assert torch.equal(focus(features, None, 1), features)


@pytest.mark.parametrize("which", ["osmis", "stylegan2"])
def test_the_discriminator_judges_by_the_mask_and_learns_how(which):
    torch.manual_seed(0)
    if which == "osmis":
        gan = gans.build({**SPEC, "num_classes": 3, "pretrained": False})
        real = gan.look(gan.to_sample_size(pairs()), 0)
    else:
        gan = gans.build({"name": "stylegan2", **SMALL})
        real = PairBatch((torch.rand(2, 3, 32, 32),))
    state = TrainingState(gan, [MaskEmbeddingPlugin()], LOOP)
    learned = {id(p) for group in state.optimizer_d.param_groups for p in group["params"]}
    gains = [embedding.gain for embedding in gan.focus.embeddings]
    assert all(id(gain) in learned for gain in gains)
    gan.eval()
    for gain in gains:
        torch.nn.init.ones_(gain)

    def score(mask):
        batch = PairBatch(real.images, real.mask, seen=real.seen, focus=mask)
        return gan.discriminator_terms(batch, batch, 1).realness()

    size = real.images[0].shape[2:]
    everywhere = torch.ones(2, 1, *size)
    assert not torch.allclose(score(everywhere), score(torch.zeros(2, 1, *size)))


def test_masks_that_are_learnt_after_pictures_are_looked_at_from_then_on():
    torch.manual_seed(0)
    late = {"num_classes": 3, "mask_from": 5, "bernoulli_steps": 2}
    gan = gans.build({"name": "stylegan2", **SMALL, **late})
    plugin = MaskEmbeddingPlugin(objects=True)
    plugin.attach(gan)
    torch.nn.init.ones_(gan.focus.embeddings[1].gain)
    mask = torch.zeros(2, 3, 32, 32)
    mask[:, 0], mask[:, 0, 8:20, 8:20], mask[:, 1, 8:20, 8:20] = 1, 0, 1
    real = PairBatch((torch.rand(2, 3, 32, 32) * 2 - 1,), mask)
    judged = {}
    for step in (4, 6, 7):  # pictures; classes are drawn; masks as they are
        gan.before_step(step, gan.generator)
        seen = plugin.corrupt(real)
        assert (seen.focus is None) == (step < 5)
        here, there = (gan.discriminator_terms(b, b, step).realness() for b in (real, seen))
        judged[step] = torch.equal(here, there)
    assert judged == {4: True, 6: True, 7: False}
    assert torch.equal(seen.focus, mask[:, 1:2])


class Spy(gans.contract.GAN):
    """Notes what it is to call real."""

    def __init__(self, terms):
        super().__init__()
        self.discriminator = torch.nn.Module()
        self.discriminator.focus = Focus(3)
        self.discriminator.weight = torch.nn.Parameter(torch.zeros(1))
        self.terms, self.batches = terms, []

    prepare = discriminator_terms = generator_terms = None

    def real_terms(self, batch, step):
        self.batches.append(batch)
        self.focus(batch.images[0], batch.focus)
        return {name: torch.ones(batch.batch_size) for name in self.terms}


def test_regional_replacement_shows_real_pairs_in_boxes_over_generated_ones():
    torch.manual_seed(0)
    real, gan = pairs(), Spy(["one", "two"])
    soft = torch.tensor([0.3, 0.5, 0.2])[:, None, None].expand(2, 3, 32, 48)
    fake = PairBatch((torch.ones(2, 3, 32, 48),), soft)
    plugin = MaskEmbeddingPlugin(regions=True)
    plugin.attach(gan)
    terms = plugin.discriminator_terms(gan, real, fake, 0)
    assert {name: term.shape for name, term in terms.items()} == {
        "regions/identification": (2,),
        "regions/consistency": (2,),
        "regions/contrast": (2,),
    }
    assert torch.allclose(terms["regions/identification"], torch.tensor(0.2))
    mixed, near, own, made = gan.batches
    inside = mixed.focus.bool()
    assert 0 < inside.float().mean() < 1
    assert torch.equal(mixed.images[0][:, :1], torch.where(inside, 0.0, 1.0))
    assert torch.equal(mixed.mask[:, 1:2] == 1, ~inside | (real.mask[:, 1:2] == 1))
    assert ((mixed.focus != near.focus).float().mean((1, 2, 3)) <= 0.1).all()
    assert own.images is real.images
    assert made.images is fake.images
    assert not plugin.discriminator_terms(Spy([]), real, fake, 0)
    assert not MaskEmbeddingPlugin().discriminator_terms(gan, real, fake, 0)


@pytest.mark.parametrize("which", ["stylegan2", "biggan"])
def test_regions_train_the_embedding(which):
    torch.manual_seed(0)
    spec = {"name": "stylegan2", **SMALL} if which == "stylegan2" else BIG
    gan = gans.build(spec)
    plugin = MaskEmbeddingPlugin(regions=True)
    plugin.attach(gan)
    real, fake = (PairBatch((torch.rand(4, 3, 32, 32) * 2 - 1,)) for _ in range(2))
    terms = plugin.discriminator_terms(gan, real, fake, 1)
    for name, term in terms.items():
        (gradient,) = torch.autograd.grad(
            term.mean(), gan.focus.embeddings[0].gain, retain_graph=True
        )
        assert gradient.abs().max() > 0, name


def test_a_gan_without_feature_maps_is_refused():
    gan = gans.build({"name": "transgan", "size": 32, "widths": [16, 8, 8], "head_dim": 8})
    with pytest.raises(InputError, match="medgan weighs feature maps, of which TransGAN's"):
        TrainingState(gan, [MaskEmbeddingPlugin()], LOOP)
