"""Smoothness similarity: two generators' features answer alike to small moves of the latent.

After Sushko, Wang and Gall, "Smoothness Similarity Regularization for Few-Shot GAN Adaptation"
(ICCV 2023; thesis section 7.2.1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LARGEST_PX, SMALLEST_PX = 32, 4

Features = Callable[[Tensor], Tensor]
"""Latents (B, Z) to features (B, ...); samples must not influence each other."""


def smoothness_px(size: int) -> int:
    """Return the side in pixels of the features that are compared, for pictures of ``size`` px.

    An eighth of the picture, as the paper's 32 of 256 px; at a half its both terms together are
    worse than the loss over blocks alone (thesis table 7.4).
    """
    return max(SMALLEST_PX, min(LARGEST_PX, size // 8))


def project_jacobian(
    features: Features, z: Tensor, y: Tensor, *, create_graph: bool = False
) -> Tensor:
    """Return J(z)^T y for every sample (eq. 7.1), (B, Z).

    Over y ~ N(0, I) the expected squared norm is the squared Frobenius norm of the Jacobian J.

    Args:
        features: of the generator.
        z: (B, Z).
        y: of the shape of the features.
        create_graph: keep what is needed to derive the result once more.
    """
    with torch.enable_grad():
        z = z.detach().requires_grad_(True)
        product = (features(z) * y).sum()
        (gradient,) = torch.autograd.grad(product, z, create_graph=create_graph)
    return gradient


def smoothness_similarity(source: Features, target: Features, z: Tensor, y: Tensor) -> Tensor:
    """Distance of both generators' directional derivatives (eq. 7.2), (B,), not squared.

    Args:
        source: features of the frozen generator; receives no gradient.
        target: features of the trained one, made with the same noise maps.
        z: latents (B, Z).
        y: random directions of the shape of the features. The paper leaves their scale open;
            divided by the root of the number of places, as in path-length regularisation, the
            published weight of 5 is mild.

    Returns:
        Exactly zero, with a zero gradient, where the derivatives are equal.
    """
    wanted = project_jacobian(source, z, y).detach()
    difference = project_jacobian(target, z, y, create_graph=True) - wanted
    distance: Tensor = torch.linalg.vector_norm(difference, dim=1)
    return distance
