from __future__ import annotations

import pytest
import torch

from synthaug.errors import InputError
from synthaug.plugins.atopk import ATopK
from synthaug.plugins.meter import OverfitMeter

MEAN_K = {
    4: {0.032: 3.97, 0.25: 3.55, 0.4: 2.98, 0.5: 2.5, 0.75: 1.45, 1.0: 1.0},
    64: {0.25: 63.5, 0.4: 62.0, 0.5: 32.5, 0.6: 3.0, 0.75: 1.5},
}
"""Batch size -> p -> mean k at rest."""


def transitions(p, B):
    """The chain that the plug-in walks: T[i, j] = P(k goes from i + 1 to j + 1)."""
    T = torch.zeros(B, B, dtype=torch.float64)
    for draw, weight in ((0.0, p), (1.0, 1 - p)):  # below p: down; else: up
        for k in range(1, B + 1):
            if weight == 0:
                continue
            plugin = started(p, B, k)
            plugin.adapt(draw)
            T[k - 1, int(plugin.k) - 1] += weight
    return T


class Scripted(ATopK):
    """Walks by a given draw."""

    def adapt(self, draw):
        original = torch.rand
        try:
            torch.rand = lambda *_, **__: torch.tensor(draw)
            super().adapt()
        finally:
            torch.rand = original


def started(p, B, k):
    plugin = Scripted()
    plugin.select(torch.randn(B))
    plugin.meter.p.fill_(p)
    plugin.k.fill_(k)
    return plugin


@pytest.mark.parametrize(("B", "p"), [(B, p) for B, table in MEAN_K.items() for p in table])
def test_k_rests_at_the_closed_form(B, p):
    k = torch.arange(1, B + 1, dtype=torch.float64)
    odds = (1 - p) / p
    closed = (
        torch.zeros(B).double() if p == 1 else (k * torch.tensor(odds).double().log()).softmax(0)
    )
    if p == 1:
        closed[0] = 1
    T = transitions(p, B)
    assert torch.allclose(T.sum(1), torch.ones(B).double())
    assert torch.allclose(closed @ T, closed, atol=1e-7)
    mean = float((closed * k).sum())
    digits = 2 if B == 4 else (1 if MEAN_K[B][p] != 62.0 else 0)
    assert round(mean, digits) == MEAN_K[B][p]


def test_the_walk_itself_has_that_mean():
    plugin = ATopK(seed=1)
    plugin.select(torch.randn(4))
    plugin.meter.p.fill_(0.5)
    ks = []
    for _ in range(4000):
        plugin.adapt()
        ks.append(int(plugin.k))
    assert {1, 2, 3, 4} == set(ks)
    assert abs(sum(ks) / len(ks) - 2.5) < 0.15


def test_an_always_overfitting_discriminator_lets_k_fall_as_foretold():
    """B = 4: mean k about 3.97 at 4,000 steps, 2.95 at 50,000, 2.0 at 75,000, 1 from 125,000."""
    meter, at = OverfitMeter(), {}
    for step in range(4, 125_001, 4):
        for buffer, of_four_batches in ((meter.signs, 16), (meter.count, 16), (meter.batches, 4)):
            buffer.fill_(of_four_batches)
        meter.adapt()
        if step in (4000, 50_000, 75_000, 125_000):
            at[step] = float(meter.p)
    assert at == pytest.approx({4000: 0.032, 50_000: 0.4, 75_000: 0.6, 125_000: 1.0})


def test_the_best_k_share_the_whole_weight():
    plugin = ATopK("fixed", k=2)
    scores = torch.tensor([0.1, 3.0, -2.0, 1.0])
    assert torch.equal(plugin.select(scores), torch.tensor([0.0, 2.0, 0.0, 2.0]))
    loss = torch.tensor([5.0, 1.0, 7.0, 2.0])
    assert float((loss * plugin.select(scores)).mean()) == 1.5
    plugin.adapt()
    assert int(plugin.k) == 2


def test_k_starts_at_the_batch_size_and_knows_its_floor():
    plugin = ATopK(least=0.5)
    assert torch.equal(plugin.select(torch.randn(4)), torch.ones(4))
    plugin.meter.p.fill_(1.0)
    for _ in range(9):
        plugin.adapt()
    assert int(plugin.k) == 2


def test_linear_falls_to_one():
    plugin, ks = ATopK("linear", steps=6), []
    for _ in range(8):
        ks.append(int((plugin.select(torch.randn(4)) > 0).sum()))
        plugin.adapt()
    assert ks == sorted(ks, reverse=True)
    assert (ks[0], ks[6], ks[7]) == (4, 1, 1)


def test_the_walk_is_its_own_stream_and_goes_on_from_its_state():
    def walk(plugin, steps):
        ks = []
        for _ in range(steps):
            plugin.select(torch.randn(8))
            plugin.observe(torch.ones(8))
            plugin.meter.p.fill_(0.5)
            plugin.adapt()
            ks.append(int(plugin.k))
        return ks

    whole = walk(ATopK(seed=3), 20)
    first, second = ATopK(seed=3), ATopK(seed=3)
    begun = walk(first, 7)
    second.load_state_dict(first.state_dict(), strict=True)
    assert begun + walk(second, 13) == whole
    assert walk(ATopK(seed=4), 20) != whole


def test_contradicting_options_are_refused():
    for options in ({"schedule": "fixed"}, {"schedule": "linear"}, {"k": 2}, {"steps": 3}):
        with pytest.raises(InputError, match="schedule"):
            ATopK(**options)
    with pytest.raises(InputError, match="least"):
        ATopK(least=2.0)


def test_eta_is_the_mean_sign_and_zero_counts_as_real():
    meter = OverfitMeter()
    meter.observe(torch.tensor([0.0, 2.0, -1.0, 0.3]))
    assert meter.eta == 0.5


@pytest.mark.parametrize(("score", "direction"), [(1.0, 1), (-1.0, -1)])
def test_p_moves_every_four_batches_and_stays_in_range(score, direction):
    meter = OverfitMeter()
    meter.p.fill_(0.5)
    moves = []
    for _ in range(8):
        meter.observe(torch.full((50,), score))
        moves.append(meter.adapt())
    step = direction * 4 * 50 / 500_000
    wanted = [0.5] * 3 + [0.5 + step] * 4 + [0.5 + 2 * step]
    assert moves == pytest.approx(wanted)
    meter.p.fill_(1.0 if direction > 0 else 0.0)
    for _ in range(4):
        meter.observe(torch.full((50,), score))
    assert meter.adapt() == max(direction, 0)


def test_the_swing_is_the_way_from_0_to_1():
    meter = OverfitMeter(swing=40)
    for _ in range(8):
        meter.observe(torch.ones(5))
        meter.adapt()
    assert float(meter.p) == pytest.approx(1.0)


def test_p_rests_where_eta_meets_the_target():
    meter = OverfitMeter(target=0.5)
    meter.p.fill_(0.3)
    for _ in range(4):
        meter.observe(torch.tensor([1.0, 1.0, 1.0, -1.0]))
    assert meter.adapt() == pytest.approx(0.3)
