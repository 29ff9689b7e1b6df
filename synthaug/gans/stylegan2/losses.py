"""Losses of StyleGAN2 and of its adaptation, per sample."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from synthaug.gans.blocks import loss_by_block, mean_logit

__all__ = ["logistic_by_block", "mean_logit", "path_lengths"]


def logistic_by_block(
    logits: Sequence[Tensor], sizes: Sequence[int], *, real: bool
) -> dict[str, Tensor]:
    """Non-saturating logistic loss of every judged block, see `loss_by_block`.

    Args:
        logits: (B, P) of every block.
        sizes: sides of the blocks' features in pixels, which name the terms.
        real: whether the images are to be called real: the discriminator's loss of real images,
            the generator's of fakes; False: the discriminator's of fakes.

    Returns:
        (B,) per block: the mean over its places, divided by the number of blocks.
    """
    sign = -1.0 if real else 1.0
    return loss_by_block(lambda logit: F.softplus(sign * logit), logits, sizes)


def path_lengths(image: Tensor, ws: Tensor, y: Tensor | None = None) -> Tensor:
    """Norm of J^T y, the image's response to its styles (Karras et al. 2020, eq. 4), (B,).

    Args:
        image: (B, 3, H, W), made from ``ws``.
        ws: (B, L, w_dim) that requires gradients; squared norms are averaged over the L styles.
        y: (B, 3, H, W) noise; default: N(0, 1) over the root of the number of pixels.
    """
    if y is None:
        y = torch.randn_like(image) / math.sqrt(image.shape[2] * image.shape[3])
    (gradient,) = torch.autograd.grad((image * y).sum(), ws, create_graph=True)
    norms: Tensor = torch.linalg.vector_norm(gradient, dim=(1, 2))
    return norms / math.sqrt(ws.shape[1])
