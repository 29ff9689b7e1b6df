"""ATop-k: where the discriminator overfits, the generator learns from its best samples alone."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from synthaug.errors import InputError
from synthaug.plugins.hooks import Plugin
from synthaug.plugins.meter import SWING_PICTURES, OverfitMeter
from synthaug.seeding import torch_stream


class ATopK(Plugin):
    """Keep the k samples of a batch that look most real; k follows the discriminator's overfitting.

    After "Understanding and Improving the Training of Data-Efficient GANs" (submitted to TMLR);
    the linear schedule after Sinha et al., "Top-k Training of GANs" (NeurIPS 2020), who let k fall
    by a factor per epoch: ours falls evenly.

    k starts at the batch size B. After every generator step it falls by one with probability p and
    else rises by one, within [1, B]; `OverfitMeter` steers p. Resting at one p, k has the
    distribution pi_k ~ ((1 - p) / p)^k, which for large batches is nearly a switch at p = 0.5:
    ``least`` bounds how much is thrown away. k is one process's, and the same in all of them.

    Args:
        schedule: ``adaptive``; ``fixed`` keeps ``k``; ``linear`` lets k fall from B to the least
            over ``steps`` generator steps (baselines).
        target: eta of the meter that p aims at.
        swing: pictures in which p goes from 0 to 1 at most.
        least: smallest k as a share of B; 0: one sample.
        k: of ``fixed``.
        steps: of ``linear``.
        seed: of the walk, which is a random stream of its own.

    Raises:
        InputError: ``fixed`` without k, ``linear`` without steps, or a value out of range.
    """

    name = "atopk"
    needs_scores = True
    k: Tensor
    done: Tensor
    batch_size: Tensor

    def __init__(
        self,
        schedule: Literal["adaptive", "linear", "fixed"] = "adaptive",
        *,
        target: float = 0.6,
        swing: int = SWING_PICTURES,
        least: float = 0.0,
        k: int | None = None,
        steps: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if (k is None) == (schedule == "fixed") or (steps is None) == (schedule == "linear"):
            raise InputError("top-k: the schedule fixed takes k, linear takes steps, no other does")
        if not 0 <= least <= 1 or min(k or 1, steps or 1) < 1:
            raise InputError("top-k: least lies in [0, 1], k and steps from 1 up")
        self.schedule = schedule
        self.least = least
        self.steps = steps
        self.seed = seed
        self.meter = OverfitMeter(target, swing)
        self.register_buffer("k", torch.tensor(k or 0))  # 0: not started
        self.register_buffer("done", torch.tensor(0))
        self.register_buffer("batch_size", torch.tensor(0))

    def observe(self, real_scores: Tensor) -> None:
        """Show the real scores to the meter."""
        self.meter.observe(real_scores)

    def select(self, fake_scores: Tensor) -> Tensor:
        """Return weights (B,): B / k for the k highest scores, so that means are over them."""
        B = len(fake_scores)
        self.batch_size.fill_(B)
        if self.k == 0:
            self.k.fill_(B)
        k = min(int(self.k), B)
        weights = torch.zeros_like(fake_scores)
        weights[fake_scores.topk(k).indices] = B / k
        return weights

    def adapt(self) -> None:
        """Take one step of the walk, or of the schedule."""
        p = self.meter.adapt()
        B, step = int(self.batch_size), int(self.done)
        self.done += 1
        floor = max(1, math.ceil(self.least * B))
        if self.schedule == "linear":
            assert self.steps is not None
            left = max(0.0, 1 - (step + 1) / self.steps)
            self.k.fill_(floor + round((B - floor) * left))
        elif self.schedule == "adaptive":
            draw = float(torch.rand((), generator=torch_stream(self.seed, "atopk", step)))
            self.k.add_(-1 if draw < p else 1).clamp_(floor, max(floor, B))
