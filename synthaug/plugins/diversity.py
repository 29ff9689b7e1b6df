"""Diversity regularisation: the features of generated samples are pushed apart."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from synthaug.gans.contract import PairBatch
from synthaug.plugins.hooks import Plugin


class Diversity(Plugin):
    """Reward the L1 distance between the samples of a batch at every block of the generator.

    After Sushko et al., SIV-GAN (thesis eq. 5.3): features pass through tanh, every pair of
    latents counts alike however near the latents are.

    Args:
        weight: strength (published: 0.15).
        normalisation: ``code`` divides the sum over layers and pairs by L (L - 1) / 2 for L
            layers, as the released implementation does, which is B (B - 1) / (L - 1) times
            ``thesis``: the mean over layers and pairs.
    """

    name = "diversity"

    def __init__(
        self, weight: float = 0.15, normalisation: Literal["code", "thesis"] = "code"
    ) -> None:
        super().__init__()
        self.weight = weight
        self.normalisation = normalisation

    def generator_terms(self, fake: PairBatch) -> dict[str, Tensor]:
        """Return ``{"diversity": (B,)}``, negative; a sample's share is half of its pairs'.

        Args:
            fake: pairs whose ``features`` hold L maps (B, C, ...); without features, or with a
                single sample, the term is zero.
        """
        B, L = fake.batch_size, len(fake.features)
        if B < 2 or L == 0:
            return {"diversity": fake.images[0].new_zeros(B)}
        total = fake.images[0].new_zeros(B)
        for feature in fake.features:
            flat = feature.tanh()
            for shift in range(1, B // 2 + 1):
                distance = (flat - flat.roll(shift, 0)).abs().flatten(1).mean(1).float()
                both = distance + distance.roll(-shift, 0)  # to the sample before and after
                total = total + (both / 2 if 2 * shift == B else both)
        pairs = max(1, L - 1) if self.normalisation == "code" else B * (B - 1)
        scale = 2 / (L * pairs)
        # The mean over samples of (B / 2) x (a sample's distances) is the sum over pairs.
        return {"diversity": -self.weight * scale * B / 2 * total}
