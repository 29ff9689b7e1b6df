"""How much samples differ: what lets a discriminator see that they are all alike."""

from __future__ import annotations

import torch
from torch import Tensor


def minibatch_deviation(x: Tensor, group: int) -> Tensor:
    """Append the mean standard deviation within groups of the batch as one more channel.

    Args:
        x: (B, C, h, w).
        group: samples per group; where B is no multiple of it, the next smaller that divides B.

    Returns:
        (B, C + 1, h, w).
    """
    B, C, h, w = x.shape
    size = next(n for n in range(min(group, B), 0, -1) if B % n == 0)
    grouped = x.view(size, B // size, C, h, w)
    deviation = (grouped.var(0, correction=0) + 1e-8).sqrt().mean((1, 2, 3))  # (B / size,)
    return torch.cat([x, deviation.repeat(size)[:, None, None, None].expand(-1, 1, h, w)], 1)
