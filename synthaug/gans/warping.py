"""Pictures and masks through affine maps, as exact in mixed precision as without."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from synthaug.gans.precision import exact


def affine_places(theta: Tensor, size: tuple[int, int]) -> Tensor:
    """Return where a picture's pixels come from.

    Args:
        theta: (B, 2, 3), maps from places of the result to places of the input in [-1, 1].
        size: (H, W) of the result.

    Returns:
        (B, H, W, 2) float32, x and y in [-1, 1].
    """
    with exact(theta):
        return F.affine_grid(theta.float(), [len(theta), 1, *size], align_corners=False)


def sample_at(
    maps: Tensor, places: Tensor, padding: str = "reflection", mode: str = "bilinear"
) -> Tensor:
    """Sample maps (B, C, h, w) at places (B, H, W, 2); the result has the maps' dtype.

    Places are kept in float32: in bf16 those of a picture of 256 pixels are off by one.
    """
    with exact(maps):
        found = F.grid_sample(
            maps.float(), places, mode=mode, padding_mode=padding, align_corners=False
        )
    return found.to(maps.dtype)
