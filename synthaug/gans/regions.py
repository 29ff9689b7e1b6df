"""Boxes to look at and to mix two pictures by, and what features should make of the mix (MED-GAN).

Equations are those of Liu et al. (CVPR 2021).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IDENTIFICATION, MARGIN = 0.1, 0.5
"""Published weight mu of mixed pictures taken for real ones (eq. 11); gamma of the contrast."""

LEAST_AREA = 1 / 16
"""Smallest share of the picture that a box of `mixing_boxes` covers."""


def looking_boxes(count: int, height: int, width: int) -> Tensor:
    """Draw large boxes, q_m of equation 6: 75 to 100 % of the picture, sides from 3:4 to 4:3.

    Areas are uniform and sides relative to the picture's; the ratio of the sides is log-uniform
    over what fits.

    Args:
        count: B, number of boxes.
        height: of the picture in pixels.
        width: of the picture in pixels.

    Returns:
        (B, 4) int64: top, left, bottom, right in pixels, the last two exclusive.
    """
    area = torch.rand(count) * 0.25 + 0.75
    # Ratios within [area, 1 / area] fit, which is within [3/4, 4/3].
    half_log = (torch.rand(count) - 0.5) * -area.log()
    side = area.sqrt()
    return _place(side * half_log.exp(), side * (-half_log).exp(), height, width)


def mixing_boxes(count: int, height: int, width: int, alpha: float = 0.2) -> Tensor:
    """Draw boxes of side sqrt(1 - lambda) with lambda ~ Beta(alpha, alpha) (section 3).

    Unlike the paper's they lie wholly inside the picture, at every place alike, and those under
    `LEAST_AREA` are drawn again.

    Args:
        count: B, number of boxes.
        height: of the picture in pixels.
        width: of the picture in pixels.
        alpha: small: most boxes are nearly all or next to nothing.

    Returns:
        (B, 4) int64, as `looking_boxes`.
    """
    drawn = torch.distributions.Beta(alpha, alpha)
    side = (1 - drawn.sample((count,))).sqrt()
    while (small := side.square() < LEAST_AREA).any():
        side[small] = (1 - drawn.sample((int(small.sum()),))).sqrt()
    return _place(side, side, height, width)


def jitter_boxes(boxes: Tensor, height: int, width: int, share: float = 0.1) -> Tensor:
    """Move every edge a little: the similar boxes of the consistency loss (eq. 4).

    Args:
        boxes: (B, 4) int64.
        height: of the picture in pixels.
        width: of the picture in pixels.
        share: edges move by at most this share of the box's side, and at most this share of the
            picture changes; a box whose draw changes more stays as it was.

    Returns:
        (B, 4) int64, none of them empty.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    moved = boxes + ((torch.rand(boxes.shape) * 2 - 1) * share * sides).round().long()
    limits = torch.tensor([height, width, height, width])
    moved = torch.minimum(moved.clamp_min(0), limits)
    flipped = (box_masks(moved, height, width) != box_masks(boxes, height, width)).float()
    keep = (flipped.mean((1, 2, 3)) <= share) & (moved[:, 2:] > moved[:, :2]).all(1)
    return torch.where(keep[:, None], moved, boxes)


def box_masks(boxes: Tensor, height: int, width: int) -> Tensor:
    """Turn boxes (B, 4) into masks (B, 1, height, width) float, 1 inside."""
    top, left, bottom, right = boxes[:, :, None].unbind(1)
    y, x = torch.arange(height), torch.arange(width)
    rows, columns = (y >= top) & (y < bottom), (x >= left) & (x < right)
    return (rows[:, :, None] & columns[:, None, :])[:, None].float()


def looking_masks(images: Tensor) -> Tensor:
    """Draw masks (B, 1, H, W) of large boxes to look at images (B, C, H, W) through."""
    B, _, height, width = images.shape
    return box_masks(looking_boxes(B, height, width), height, width).to(images)


def mixing_masks(images: Tensor) -> tuple[Tensor, Tensor]:
    """Draw masks (B, 1, H, W) of boxes to mix images (B, C, H, W) by, and of similar boxes."""
    B, _, height, width = images.shape
    boxes = mixing_boxes(B, height, width)
    near = jitter_boxes(boxes, height, width)
    return box_masks(boxes, height, width).to(images), box_masks(near, height, width).to(images)


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


def _place(tall: Tensor, wide: Tensor, height: int, width: int) -> Tensor:
    """Put boxes of relative sides (B,) anywhere inside the picture."""
    sides = torch.stack([tall * height, wide * width], 1).round().long().clamp_min(1)
    free = torch.tensor([height, width]) - sides
    corner = (torch.rand(sides.shape) * (free + 1)).long().clamp(max=free)
    return torch.cat([corner, corner + sides], 1)
