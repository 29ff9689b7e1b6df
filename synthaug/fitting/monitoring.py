"""Watch a generator while it trains: quality and diversity decide which snapshot is kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.errors import InputError
from synthaug.gans.contract import GAN, PairBatch
from synthaug.plugins.diffaug import DiffAugment
from synthaug.quality.features import Lite0Features
from synthaug.quality.frechet import SifidReference, frechet_distances, positions
from synthaug.quality.perceptual import PerceptualSpace, pairwise_diversity
from synthaug.seeding import derive_seed, torch_seeded, torch_stream

SAMPLES = 16
ENOUGH_DIVERSITY = 0.6
COLLAPSED = 0.05
"""Samples whose diversity is below this are all but one picture."""


@dataclass(frozen=True)
class Verdict:
    """One look at the averaged generator.

    Attributes:
        quality: SIFID over the real picture's own spread, mean of the first three taps; lower is
            better, 0 is the picture itself.
        diversity: perceptual diversity relative to augmented copies of the real pictures.
        score: ``quality`` plus the shortfall of diversity under 0.6; the lowest is kept.
    """

    quality: float
    diversity: float
    score: float


class Monitor:
    """Judges a generator on 16 fixed latents.

    Args:
        images: (P, 3, H, W) real pictures in [-1, 1]; the first eight are used.
        size: size of the samples in pixels.
        seed: of the latents and the reference augmentation.
    """

    def __init__(self, images: Tensor, size: tuple[int, int], seed: int) -> None:
        self.net = Lite0Features()
        self.seed = seed
        self.space = PerceptualSpace(*size, self.net)
        reals = F.interpolate(images[:8].cpu(), size, mode="area")
        with torch_seeded(derive_seed(seed, "monitor")), torch.inference_mode():
            copies = reals.repeat(-(-SAMPLES // len(reals)), 1, 1, 1)[:SAMPLES]
            lens = DiffAugment(p=0.8, close_up=1.0)
            copies = lens.transform(PairBatch((copies,))).images[0]
            self.reference = pairwise_diversity((copies + 1) / 2, self.space)
            self.statistics = SifidReference(list((reals + 1) / 2), self.net).statistics

    def judge(self, gan: GAN, generator: nn.Module) -> Verdict:
        """Sample ``generator``, the averaged twin of ``gan.generator``, and score it.

        Raises:
            InputError: its samples are not finite.
        """
        stream = torch_stream(self.seed, "monitor", "latent")
        z = gan.latent(SAMPLES, stream)
        device = next(generator.parameters()).device
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            parts = torch.split(z.to(device), 4)
            images = torch.cat([gan.sample(generator, p, stream).images[0].cpu() for p in parts])
            if not images.isfinite().all():
                raise InputError("the generator's samples are not finite")
            images = ((images.float() + 1) / 2).clamp(0, 1)
            diversity = pairwise_diversity(images, self.space) / max(self.reference, 1e-9)
            quality = self._quality(images)
        return Verdict(quality, diversity, quality + max(0.0, ENOUGH_DIVERSITY - diversity))

    def _quality(self, images: Tensor) -> float:
        ratios = []
        for tap, features in enumerate(self.net(images)[:3]):
            rows = positions(features)
            reals = [real[tap] for real in self.statistics]
            traces = torch.stack([real.trace for real in reals])
            per_real = frechet_distances(reals, rows) / traces[:, None]
            ratios.append(per_real.amin(0).mean())
        return float(torch.stack(ratios).mean())
