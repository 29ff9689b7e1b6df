"""Judging images after several blocks of a discriminator.

The loss over all blocks is that of Sushko, Wang and Gall, "Smoothness Similarity Regularization for
Few-Shot GAN Adaptation" (ICCV 2023; thesis eq. 7.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def loss_by_block(
    loss: Callable[[Tensor], Tensor], logits: Sequence[Tensor], sizes: Sequence[int]
) -> dict[str, Tensor]:
    """Loss of every judged block over their number.

    The sum is the loss over all blocks; how it divides is the balance that the discriminator
    finds by itself. With one block it is the plain loss.

    Args:
        loss: of single logits, elementwise.
        logits: (B, P) of every block, P places.
        sizes: sides of the blocks' features in pixels, which name the terms.

    Returns:
        (B,) per block: the mean over its places, divided by the number of blocks.
    """
    return {
        f"{size}px": loss(logit).mean(1) / len(logits)
        for logit, size in zip(logits, sizes, strict=True)
    }


def mean_logit(logits: Sequence[Tensor]) -> Tensor:
    """Average places within blocks, then blocks: (B,)."""
    return torch.stack([logit.mean(1) for logit in logits]).mean(0)
