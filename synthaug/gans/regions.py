"""Pictures mixed from two by boxes, and what features should make of them (MED-GAN).

Equations are those of Lee et al., "MED-GAN".
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def mix(inside: Tensor, outside: Tensor, mask: Tensor) -> Tensor:
    """Regional replacement T (eq. 1): ``inside`` where the mask (B, 1, H, W) is 1."""
    return mask * inside + (1 - mask) * outside


def feature_distance(first: Tensor, second: Tensor) -> Tensor:
    """Squared distance (B,) in [0, 4] of features (B, ...), flattened and brought to length 1."""
    a, b = (F.normalize(features.flatten(1), dim=1) for features in (first, second))
    return (a - b).square().sum(1)


def contrastive(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Contrastive loss (B,) (eq. 5): the negative is farther than the positive by the margin."""
    near, far = feature_distance(anchor, positive), feature_distance(anchor, negative)
    return (near - far + margin).clamp_min(0)
