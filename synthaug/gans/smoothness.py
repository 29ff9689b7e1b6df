"""Smoothness similarity: two generators' features answer alike to small moves of the latent.

After Sushko, Wang and Gall, "Smoothness Similarity Regularization for Few-Shot GAN Adaptation"
(ICCV 2023; thesis section 7.2.1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LARGEST_PX = 32
LEAST_LATENTS = 32
"""Smoothness is compared on: the mean of a few is mostly the noise of their random directions."""

Features = Callable[[Tensor], Tensor]
"""Latents (B, Z) to features (B, ...); samples must not influence each other."""


def smoothness_px(size: int, smallest: int) -> int:
    """Return the side in pixels of the features that are compared, for pictures of ``size`` px.

    An eighth of the picture, as the paper's 32 of 256 px; at a half its both terms together are
    worse than the loss over blocks alone (thesis table 7.4). Only layers up to there are held.

    Args:
        size: side of the pictures.
        smallest: least side; an eighth of a small picture is before most layers.
    """
    return max(smallest, min(LARGEST_PX, size // 8))


def project_jacobian(
    features: Tensor, z: Tensor, y: Tensor, *, create_graph: bool = False
) -> Tensor:
    """Return J(z)^T y for every sample (eq. 7.1), (B, Z).

    Over y ~ N(0, I) the expected squared norm is the squared Frobenius norm of the Jacobian J.

    Args:
        features: of the generator at z.
        z: (B, Z), with gradient.
        y: of the shape of the features.
        create_graph: keep what is needed to derive the result once more.
    """
    (gradient,) = torch.autograd.grad((features * y).sum(), z, create_graph=create_graph)
    return gradient


def smoothness_similarity(source: Features, target: Features, z: Tensor, scale: float) -> Tensor:
    """Distance of both generators' directional derivatives (eq. 7.2), (B,), not squared.

    Args:
        source: features of the frozen generator; receives no gradient.
        target: features of the trained one, made with the same noise maps.
        z: latents (B, Z).
        scale: of the random directions, which are N(0, 1) times it. The paper leaves it open; at
            one over the root of the number of places, as in path-length regularisation, the
            published weight of 5 is mild.

    Returns:
        Exactly zero, with a zero gradient, where the derivatives are equal.
    """
    with torch.enable_grad():
        z = z.detach().requires_grad_(True)
        features = source(z)
        y = torch.randn_like(features) * scale
        wanted = project_jacobian(features, z, y)
        difference = project_jacobian(target(z), z, y, create_graph=True) - wanted
        distance: Tensor = torch.linalg.vector_norm(difference, dim=1)
    return distance
