"""The overfitting meter, and a probability that it steers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EVERY_BATCHES = 4
"""Batches between two moves."""
SWING_PICTURES = 500_000
"""Real pictures in which the probability goes from 0 to 1 at most."""


class OverfitMeter(nn.Module):
    """How far a discriminator has learned its training pairs by heart, and a probability from it.

    eta = E[sign D(x)] over the real pairs of the last batches, 1 where all are found real. Every
    4 batches of B pairs the probability moves by 4 B / swing: up where eta is above the target,
    down where it is below; it stays in [0, most]. After Karras et al., "Training Generative
    Adversarial Networks with Limited Data" (NeurIPS 2020), equation 1 and section 3.1.

    Args:
        target: eta that is aimed at (published: 0.6).
        swing: real pictures in which the probability goes from 0 to 1 at most (published: 500,000,
            a quarter of the shortest published training).
        most: largest probability.
    """

    signs: Tensor
    count: Tensor
    batches: Tensor
    p: Tensor

    def __init__(self, target: float = 0.6, swing: int = SWING_PICTURES, most: float = 1.0) -> None:
        super().__init__()
        self.target = target
        self.most = most
        self.swing = swing
        self.register_buffer("signs", torch.zeros((), dtype=torch.int64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.register_buffer("p", torch.zeros((), dtype=torch.float64))

    @property
    def eta(self) -> float:
        """Mean sign of the scores since the last move, in [-1, 1]; 0 before the first batch."""
        return float(self.signs / self.count.clamp_min(1))

    def observe(self, real_scores: Tensor) -> None:
        """Count a batch of scores (B,); 0 counts as real."""
        self.signs += 2 * int((real_scores >= 0).sum()) - len(real_scores)
        self.count += len(real_scores)
        self.batches += 1

    def adapt(self) -> float:
        """Move the probability if it is due; return it."""
        if self.batches >= EVERY_BATCHES:
            direction = (self.eta > self.target) - (self.eta < self.target)
            move = direction * float(self.count) / self.swing
            self.p.add_(move).clamp_(0, self.most)
            for buffer in (self.signs, self.count, self.batches):
                buffer.zero_()
        return float(self.p)
