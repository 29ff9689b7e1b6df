from __future__ import annotations

import pytest
import torch
from torch import nn

from synthaug.errors import InputError
from synthaug.fitting.monitoring import ENOUGH_DIVERSITY, Monitor
from synthaug.gans.contract import GAN, PairBatch
from synthaug.plugins.diffaug import DiffAugment

SIZE = (64, 96)


class Pretender(nn.Module):
    """A generator that shows ``make(z)``."""

    def __init__(self, make):
        super().__init__()
        self.make = make
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, z):
        return PairBatch((self.make(z),))


class PretenderGAN(GAN):
    def __init__(self):
        super().__init__()
        self.generator = self.discriminator = nn.Identity()
        self.latent_dim = 8

    def prepare(self, images, masks):
        raise NotImplementedError

    def discriminator_terms(self, real, fake, step):
        raise NotImplementedError

    def generator_terms(self, fake, step):
        raise NotImplementedError


def picture():
    """Stripes with two discs, in [-1, 1]."""
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")
    image = torch.stack([(rows / 5).sin(), (columns / 9).cos(), (rows + columns) / 80 - 1])
    for row, column, colour in ((20, 30, 0.9), (40, 70, -0.9)):
        image[:, (rows - row) ** 2 + (columns - column) ** 2 < 120] = colour
    return image.clamp(-1, 1)[None]


@pytest.fixture(scope="module")
def monitor():
    return Monitor(picture(), SIZE, seed=3)


def copies(z):
    torch.manual_seed(0)
    real = picture().repeat(len(z), 1, 1, 1)
    return DiffAugment(p=0.8, close_up=1.0).transform(PairBatch((real,))).images[0]


def noise(z):
    return (
        torch.rand(
            len(z), 3, *SIZE, generator=torch.Generator().manual_seed(int(abs(z[0, 0]) * 1e6))
        )
        * 2
        - 1
    )


def same(z):
    return picture().repeat(len(z), 1, 1, 1)


def grey(z):
    return torch.zeros(len(z), 3, *SIZE)


def judge(monitor, make):
    return monitor.judge(PretenderGAN(), Pretender(make))


def test_augmented_copies_rank_before_noise_and_emptiness(monitor):
    good, bad, empty = (judge(monitor, make) for make in (copies, noise, grey))
    assert good.quality < 0.5 * bad.quality
    assert good.quality < empty.quality
    assert good.score < bad.score
    assert good.score < empty.score


def test_a_collapsed_generator_has_no_diversity_and_pays_for_it(monitor):
    verdict = judge(monitor, same)
    assert verdict.quality == pytest.approx(0, abs=0.02)
    assert verdict.diversity == pytest.approx(0, abs=1e-3)
    assert verdict.score == pytest.approx(verdict.quality + ENOUGH_DIVERSITY, abs=1e-2)
    assert judge(monitor, copies).score < verdict.score


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_samples_that_are_not_finite_are_refused(monitor, value):
    with pytest.raises(InputError, match="the generator's samples are not finite"):
        judge(monitor, lambda z: noise(z) * value)


def test_the_diversity_of_augmented_copies_is_about_one(monitor):
    assert 0.5 < judge(monitor, copies).diversity < 2


def test_a_verdict_is_repeatable_and_draws_nothing_from_the_training(monitor):
    def shades(z):
        return z[:, :1, None, None].tanh().expand(-1, 3, *SIZE)

    before = torch.get_rng_state()
    one = judge(monitor, shades)
    assert torch.equal(before, torch.get_rng_state())
    assert judge(Monitor(picture(), SIZE, seed=3), shades) == one


def test_the_nearest_of_several_pictures_counts():
    pictures = torch.cat([picture(), picture().flip(1).roll(20, 3)])
    monitor = Monitor(pictures, SIZE, seed=3)
    verdict = judge(monitor, lambda z: pictures[torch.arange(len(z)) % 2])
    assert verdict.quality == pytest.approx(0, abs=0.02)
