"""Every (GAN, plug-in) pair trains, saves and goes on to the same bits, or is refused by name."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from states import same

from synthaug import gans
from synthaug.engine import Engine
from synthaug.errors import InputError
from synthaug.gans.contract import GAN, Terms
from synthaug.plugins.atopk import ATopK
from synthaug.plugins.diversity import Diversity
from synthaug.plugins.hooks import Plugin
from synthaug.plugins.named import (
    NEEDS_MASKS,
    PLUGINS,
    REFUSED,
    Settings,
    build_plugins,
    check_plugins,
)
from synthaug.training import LoopSettings, TrainingState, train

SIZE = (32, 32)
FAST = {"height": 32, "width": 32, "pretrain_steps": 1, "pretrained": False}
PAPER = {"height": 32, "width": 32, "max_size": 64, "base": 4, "bernoulli_steps": 2}
GANS = {
    "osmis fast": {"name": "osmis", "preset": "fast", "num_classes": 2, "num_pairs": 2, **FAST},
    "sivgan fast": {"name": "osmis", "preset": "fast", "num_classes": None, "num_pairs": 2, **FAST},
    "osmis paper": {"name": "osmis", "preset": "paper", "num_classes": 2, **PAPER},
    "stylegan2": {
        "name": "stylegan2",
        "size": 32,
        "channels": [8, 8, 8, 8],
        "z_dim": 8,
        "w_dim": 8,
        "n_mlp": 2,
        "path": 1.0,
        "num_classes": None,
    },
    "stylegan2 with masks": {
        "name": "stylegan2",
        "size": 32,
        "channels": [8, 8, 8, 8],
        "z_dim": 8,
        "w_dim": 8,
        "n_mlp": 2,
        "num_classes": 2,
        "mask_from": 1,
        "bernoulli_steps": 1,
    },
    "biggan": {
        "name": "biggan",
        "layers": [[False, 16, 16], [True, 16, 8], [True, 8, 4], [True, 4, 2], [False, 2, 1]],
        "attention_at": 3,
        "width": 8,
        "z_dim": 8,
        "embedding_dim": 4,
        "statistics": 1,
    },
    "transgan": {
        "name": "transgan",
        "size": 32,
        "widths": [16, 8, 8],
        "discriminator_widths": [8, 16],
        "z_dim": 8,
        "head_dim": 8,
    },
    "oasis fast": {"name": "oasis", "preset": "fast", "num_classes": 2, **FAST},
}
LOOP = LoopSettings(
    iterations=5,
    batch_size=3,
    lr_generator=1e-3,
    lr_discriminator=1e-3,
    lr_pretrain=1e-3,
    betas=(0.0, 0.99),
    ema=0.9,
    share_fakes=True,
    seed=0,
)


def begin(which, names, share=True):
    torch.manual_seed(0)
    spec = GANS[which]
    gan = gans.build(spec)
    images, masks = data(gan, spec.get("num_classes"))
    gan.initialise(images, masks)
    plugins = [Diversity(), *build_plugins(names, Settings(0, True, 1000))]
    for plugin in plugins:
        meter = getattr(plugin, "meter", None)
        if meter is not None:
            meter.p.fill_(1.0)
    loop = dataclasses.replace(LOOP, share_fakes=share)
    return TrainingState(gan, plugins, loop), images, masks


def data(gan, num_classes):
    stream = torch.Generator().manual_seed(0)
    scale = gan.real_scale
    size = (SIZE[0] * scale, SIZE[1] * scale)
    images = torch.rand(2, 3, *size, generator=stream) * 2 - 1
    labels = torch.zeros(2, *size, dtype=torch.long)
    labels[:, size[0] // 4 : size[0] // 2, size[1] // 4 :] = 1
    if num_classes is None:
        return images, None
    if gan.paints_masks:
        return images, labels.to(torch.int16)
    return images, torch.nn.functional.one_hot(labels, 2).permute(0, 3, 1, 2).float()


def go(begun, stop=None, precision="32-true"):
    state, images, masks = begun
    train(state, images, masks, Engine("cpu", 1, precision), lambda _: state.step == stop)
    return state


@functools.cache
def plain_weights(which):
    return go(begin(which, []), stop=3).gan.state_dict()


PAIRS = [(which, name) for which in GANS for name in PLUGINS]
MASKLESS = [which for which in GANS if GANS[which].get("num_classes", 0) is None]
ALLOWED = [
    (w, n)
    for w, n in PAIRS
    if (GANS[w]["name"], n) not in REFUSED and not (w in MASKLESS and n in NEEDS_MASKS)
]


@pytest.mark.parametrize(("which", "name"), ALLOWED)
def test_an_allowed_pair_trains_and_goes_on_bit_for_bit(which, name):
    check_plugins(GANS[which]["name"], [name])
    whole = go(begin(which, [name]))
    assert whole.step == 5
    assert all(v.isfinite().all() for v in whole.gan.state_dict().values())
    stopped = go(begin(which, [name]), stop=3)
    assert not same(stopped.gan.state_dict(), plain_weights(which))
    torch.rand(5)
    fresh = begin(which, [name])
    fresh[0].load_state_dict(stopped.state_dict())
    assert same(go(fresh).state_dict(), whole.state_dict())


UNUSED = {"osmis paper": ("heads.0.", "heads.1.", "heads.2.")}
"""Which weights no sample is made of: heads that only looks between need."""


@pytest.mark.parametrize("which", GANS)
def test_in_half_precision_every_weight_moves_and_every_buffer_is_taken_over(which):
    begun = begin(which, [], share=False)
    generator = begun[0].gan.generator
    before = {name: weight.clone() for name, weight in generator.named_parameters()}
    go(begun, precision="bf16-mixed")
    still = [n for n, weight in generator.named_parameters() if torch.equal(weight, before[n])]
    assert [name for name in still if not name.startswith(UNUSED.get(which, ("-",)))] == []
    buffers = dict(generator.named_buffers())
    assert all(torch.equal(b, buffers[n]) for n, b in begun[0].ema.named_buffers())


@pytest.mark.parametrize("share", [True, False])
def test_all_together_on_one_gan(share):
    names = ["maskedgan", "atopk", "ada"]
    one, two = (go(begin("osmis fast", names, share), stop=4) for _ in range(2))
    assert same(one.state_dict(), two.state_dict())
    assert set(one.state_dict()["plugins"]) == {"diversity", *names}


@pytest.mark.parametrize(("which", "name"), [pair for pair in PAIRS if pair not in ALLOWED])
def test_other_pairs_are_refused_by_name(which, name):
    gan = GANS[which]["name"]
    words = "looks at the objects of masks" if which in MASKLESS else f"does not go with {gan}"
    with pytest.raises(InputError, match=f"plug-in {name} {words}"):
        check_plugins(gan, [name], labelled=which not in MASKLESS)


def test_unknown_and_double_names_are_refused():
    with pytest.raises(InputError, match="unknown plug-in maskgan: did you mean maskedgan"):
        check_plugins("osmis", ["maskgan"])
    with pytest.raises(InputError, match="known are maskedgan"):
        check_plugins("osmis", ["zzz"])
    with pytest.raises(InputError, match="plug-in ada is asked for twice"):
        check_plugins("osmis", ["ada", "ada"])
    with pytest.raises(InputError, match="medgan and medgan-regions exclude each other"):
        check_plugins("osmis", ["medgan", "ada", "medgan-regions"])


def test_a_gan_without_scores_is_named():
    class Silent(type(begin("osmis fast", [])[0].gan)):
        scores_samples = False

    gan = Silent(32, 32, 2, pretrained=False)
    with pytest.raises(InputError, match="atopk needs one score per sample, which Silent"):
        TrainingState(gan, [ATopK()], LOOP)


class Recorder(Plugin):
    """Writes down what the hooks are given."""

    name = "recorder"
    needs_scores = True

    def __init__(self):
        super().__init__()
        self.calls, self.sizes = [], []

    def corrupt(self, batch):
        self.calls.append("corrupt")
        self.sizes.append(tuple(batch.images[0].shape[2:]))
        assert not batch.seen
        return batch

    def observe(self, real_scores):
        self.calls.append("observe")
        assert real_scores.shape == (3,)

    def select(self, fake_scores):
        self.calls.append("select")
        assert fake_scores.shape == (3,)
        assert not fake_scores.requires_grad

    def adapt(self):
        self.calls.append("adapt")


@pytest.mark.parametrize("share", [True, False])
def test_the_hooks_are_called_in_order_and_change_nothing(share):
    state, *pairs = begin("osmis fast", [], share)
    recorder = Recorder()
    watched = TrainingState(state.gan, [*state.plugins, recorder], state.settings)
    go((watched, *pairs), stop=2)
    again = [] if share else ["corrupt"]
    assert recorder.calls == ["corrupt", "corrupt", "observe", *again, "select", "adapt"]
    assert set(recorder.sizes) == {SIZE}  # real pairs come twice as large
    plain = go(begin("osmis fast", [], share), stop=2)
    assert same(watched.gan.state_dict(), plain.gan.state_dict())


@pytest.mark.parametrize("which", GANS)
def test_scores_rise_with_the_discriminators_belief(which):
    """After steps of the discriminator alone, real pairs score higher than generated ones."""
    state, images, masks = begin(which, [])
    gan: GAN = state.gan
    real = gan.look(gan.to_sample_size(gan.prepare(images, masks)), 10)
    with torch.no_grad():
        z = gan.latent(2)
        made = gan.generator(z, real.mask) if gan.paints_masks else gan.generator(z)
    fake = gan.look(made, 10)
    for _ in range(20):
        terms = gan.discriminator_terms(real, fake, 10)
        state.optimizer_d.zero_grad()
        torch.stack([term.mean() for term in terms.values()]).sum().backward()
        state.optimizer_d.step()
    terms, made_terms = gan.discriminator_terms(real, fake, 10), gan.generator_terms(fake, 10)
    assert isinstance(terms, Terms)
    assert isinstance(made_terms, Terms)
    assert terms.realness().shape == made_terms.realness().shape == (2,)
    assert terms.realness().min() > made_terms.realness().max()


def test_regularisers_are_not_selected():
    class Half(Plugin):
        name, needs_scores = "half", True

        def select(self, fake_scores):
            return torch.tensor([3.0, 0.0, 0.0])

    seen = {}
    for plugins in ([], [Half()]):
        state, *pairs = begin("stylegan2", [])
        state = TrainingState(state.gan, plugins, state.settings)
        begun = (state, *pairs)
        given = state.gan.generator_terms

        def spied(fake, step, given=given):
            terms = given(fake, step)
            assert terms.beside == ({"path"} if step % 4 == 0 else set())
            return terms

        state.gan.generator_terms = spied
        terms = seen[len(plugins)] = {}
        train(
            *begun,
            Engine("cpu", 1, "32-true"),
            lambda step, terms=terms: bool(terms.update(step)) or True,
        )
    assert torch.equal(seen[0]["g/path"], seen[1]["g/path"])
    adversarial = [name for name in seen[0] if name.startswith("g/real")]
    assert adversarial
    assert not any(torch.equal(seen[0][name], seen[1][name]) for name in adversarial)
