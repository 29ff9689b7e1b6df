"""ADA: augmentation whose probability follows the discriminator's overfitting."""

from __future__ import annotations

import torch
from torch import Tensor

from synthaug.gans.contract import PairBatch
from synthaug.plugins.diffaug import DiffAugment
from synthaug.plugins.hooks import Plugin
from synthaug.plugins.meter import SWING_PICTURES, OverfitMeter


class ADA(Plugin):
    """Geometry, colour and cut-out, each with probability p; `OverfitMeter` steers p from 0.

    After Karras et al., "Training Generative Adversarial Networks with Limited Data" (NeurIPS
    2020), with `DiffAugment`'s operations in place of the published pipeline. Geometry acts on
    image and mask alike, colour and cut-out on the image. Gradients flow through.

    Args:
        target: eta of the meter that p aims at.
        swing: pictures in which p goes from 0 to 1 at most.
        flip: whether to flip.
        colour: strength of brightness, contrast and saturation jitter.
        cutout: side of the square that is cut out (set to 0), as a share of the picture's.
        most: largest p in use: at 1 every sample would be transformed, and the generator could no
            longer tell transformed pictures from real ones (published: safe below 0.8).
    """

    name = "ada"
    needs_scores = True

    def __init__(
        self,
        *,
        target: float = 0.6,
        swing: int = SWING_PICTURES,
        flip: bool = True,
        colour: float = 0.4,
        cutout: float = 0.5,
        most: float = 0.8,
    ) -> None:
        super().__init__()
        self.meter = OverfitMeter(target, swing, most)
        self.lens = DiffAugment(p=0.0, close_up=1.0, flip=flip, colour=colour)
        self.cutout = cutout

    @property
    def p(self) -> float:
        """Probability of each operation."""
        return float(self.meter.p)

    def transform(self, batch: PairBatch) -> PairBatch:
        """Move image and mask together, then change the image's colours."""
        self.lens.p = self.p
        return self.lens.transform(batch)

    def corrupt(self, batch: PairBatch) -> PairBatch:
        """Cut a square out of the images of all scales."""
        p = self.p
        if p <= 0 or self.cutout <= 0:
            return batch
        first = batch.images[0]
        B, device = len(first), first.device
        fires = torch.rand(B, device=device) < p
        centre = torch.rand(2, B, 1, device=device)
        images = []
        for image in batch.images:
            y, x = (
                (((torch.arange(n, device=device) + 0.5) / n - c).abs() < self.cutout / 2)
                for n, c in zip(image.shape[2:], centre, strict=True)
            )
            hole = y[:, :, None] & x[:, None, :] & fires[:, None, None]
            images.append(image.masked_fill(hole[:, None], 0))
        return batch.with_pair(images, batch.mask)

    def observe(self, real_scores: Tensor) -> None:
        """Show the real scores to the meter."""
        self.meter.observe(real_scores)

    def adapt(self) -> None:
        """Move p if it is due."""
        self.meter.adapt()
