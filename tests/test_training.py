from __future__ import annotations

import dataclasses

import pytest
import torch
from states import same

from synthaug.engine import Engine
from synthaug.gans.osmis import build_paper
from synthaug.gans.osmis.fast import FastOSMIS
from synthaug.plugins.diffaug import DiffAugment
from synthaug.plugins.diversity import Diversity
from synthaug.training import LoopSettings, TrainingState, _pick, train

LOOP = LoopSettings(
    iterations=4,
    batch_size=2,
    lr_generator=1e-3,
    lr_discriminator=1e-3,
    lr_pretrain=1e-3,
    betas=(0.0, 0.99),
    ema=0.9,
    share_fakes=True,
    seed=0,
)


def data():
    stream = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, 64, 64, generator=stream) * 2 - 1
    masks = torch.zeros(1, 2, 64, 64)
    masks[:, 1, 20:40, 20:40] = 1
    masks[:, 0] = 1 - masks[:, 1]
    return images, masks


def begin(loop=LOOP, **changes):
    torch.manual_seed(0)
    gan = FastOSMIS(32, 32, 2, pretrain_steps=1, bernoulli_steps=2, pretrained=False)
    gan.initialise(*data())
    loop = dataclasses.replace(loop, **changes)
    return TrainingState(gan, [DiffAugment(), Diversity()], loop)


def go(state, after_step=lambda terms: False):
    train(state, *data(), Engine("cpu", 1, "32-true"), after_step)
    return state


def test_pretraining_moves_the_generator_alone_then_both_learn():
    state = begin()
    before = {k: v.clone() for k, v in state.gan.state_dict().items()}
    names = []

    def after_step(terms):
        names.append({name.partition("/")[0] for name in terms})
        now = state.gan.state_dict()
        moved = {k.partition(".")[0] for k in now if not torch.equal(now[k], before[k])}
        assert moved == ({"generator"} if state.step == 1 else {"generator", "discriminator"})
        return False

    go(state, after_step)
    assert names == [{"pretrain"}, {"d", "g"}, {"d", "g"}, {"d", "g"}]
    assert state.step == 4
    assert all(p.requires_grad for p in state.gan.parameters())


@pytest.mark.parametrize("share_fakes", [True, False])
def test_layouts_are_compared_with_what_was_painted_and_not_augmented(share_fakes, monkeypatch):
    state = begin(iterations=2, share_fakes=share_fakes)
    painted, compared = [], []
    state.gan.generator.register_forward_hook(lambda *call: painted.append(call[-1]))
    monkeypatch.setattr(state.gan, "layout_terms", lambda fake: compared.append(fake) or {})
    go(state)
    assert torch.equal(compared[0].images[0], painted[-1].images[0])
    assert torch.equal(compared[0].mask, painted[-1].mask)


def test_every_term_is_a_finite_scalar_and_names_who_added_it():
    seen = {}
    go(begin(iterations=2), lambda terms: bool(seen.update(terms)))
    assert {"g/diversity", "g/layout_kept"} <= seen.keys()
    assert all(term.ndim == 0 and term.isfinite() for term in seen.values())


def test_the_average_follows_the_generator():
    state = begin(iterations=1)
    start = {k: v.clone() for k, v in state.ema.named_parameters()}
    go(state)
    for name, parameter in state.gan.generator.named_parameters():
        wanted = torch.lerp(start[name], parameter, 0.9)  # (step + 1) / (step + 10) = 0.1
        assert torch.allclose(dict(state.ema.named_parameters())[name], wanted, atol=1e-6)
    assert not any(p.requires_grad for p in state.ema.parameters())
    current = dict(state.gan.generator.named_buffers())
    assert current
    assert all(torch.equal(buffer, current[n]) for n, buffer in state.ema.named_buffers())


def test_the_average_shares_the_training_pictures(tmp_path):
    state = begin(iterations=1)
    torch.save(state.state_dict(), tmp_path / "checkpoint.pt")
    once = (tmp_path / "checkpoint.pt").stat().st_size
    assert state.ema.composition is state.gan.generator.composition
    kept = state.averaged_weights()
    torch.save({**state.state_dict(), "best": kept}, tmp_path / "checkpoint.pt")
    weights = sum(p.numel() * p.element_size() for p in state.ema.parameters())
    assert (tmp_path / "checkpoint.pt").stat().st_size < once + 1.2 * weights
    before = {name: value.clone() for name, value in kept.items()}
    go(state)
    assert same(kept, before)
    assert not same(state.averaged_weights(), before)


@pytest.mark.parametrize("share_fakes", [True, False])
def test_a_stopped_training_goes_on_bit_for_bit(share_fakes):
    whole = go(begin(share_fakes=share_fakes))
    stopped = begin(share_fakes=share_fakes)
    go(stopped, lambda terms: stopped.step == 2)
    assert stopped.step == 2
    torch.rand(7)  # whatever happens in between draws from the same stream
    fresh = begin(share_fakes=share_fakes)
    fresh.load_state_dict(stopped.state_dict())
    assert same(go(fresh).state_dict(), whole.state_dict())


def test_the_seed_decides():
    one, two, other = go(begin()), go(begin()), go(begin(seed=1))
    assert same(one.state_dict(), two.state_dict())
    assert not same(one.state_dict(), other.state_dict())


def test_the_loop_trains_the_published_networks_too():
    torch.manual_seed(0)
    gan = build_paper(64, 64, 2, max_size=64, base=4)
    loop = dataclasses.replace(LOOP, iterations=1, share_fakes=False)
    state = TrainingState(gan, [DiffAugment(), Diversity()], loop)
    seen = {}
    go(state, lambda terms: bool(seen.update(terms)))
    assert any(name.startswith("d/") for name in seen)
    assert all(term.isfinite() for term in seen.values())


def test_no_pair_is_twice_in_a_batch_where_there_are_enough():
    torch.manual_seed(0)
    for _ in range(20):
        assert len(set(_pick(10, 8).tolist())) == 8
        assert set(_pick(4, 4).tolist()) == {0, 1, 2, 3}
    few = torch.cat([_pick(3, 4) for _ in range(20)])
    assert set(few.tolist()) == {0, 1, 2}
