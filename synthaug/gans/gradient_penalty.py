"""R1, the gradient penalty of real images (Mescheder et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor


def gradient_penalty(score: Tensor, image: Tensor) -> Tensor:
    """Squared norm of the score's gradient at the image, (B,).

    Args:
        score: (B,), of ``image``.
        image: (B, 3, H, W) that requires gradients.
    """
    (gradient,) = torch.autograd.grad(score.sum(), image, create_graph=True)
    return gradient.square().flatten(1).sum(1)
