"""Structural similarity over several scales: MS-SSIM (Wang et al. 2003).

Z. Wang, E. Simoncelli, A. Bovik: "Multiscale structural similarity for image quality assessment",
Asilomar 2003. Contrast and structure are compared at every scale, luminance at the coarsest;
between scales images are halved by averaging 2x2 pixels. Here per RGB channel, averaged over them.
"""

from __future__ import annotations

from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, fine to coarse (the paper, section 3.2)."""
WINDOW_PX = 11
_SIGMA_PX = 1.5
_LUMINANCE, _CONTRAST = 0.01**2, 0.03**2  # the paper's stabilising constants for values in [0, 1]


def ms_ssim(images: Tensor, others: Tensor) -> Tensor:
    """MS-SSIM of pairs of images.

    Five scales need a shorter side of 176 px: the coarsest must hold the 11 px window. Smaller
    images are compared at as many scales as fit, whose weights are renormalised to sum to 1; such
    values do not compare with those over five scales.

    Args:
        images: (B, 3, H, W) float in [0, 1], at least 11 px a side.
        others: likewise.

    Returns:
        (B,) in [0, 1], 1 for equal images; negative structure at a scale counts as 0.
    """
    weights = torch.tensor(SCALE_WEIGHTS[: num_scales(*images.shape[-2:])], device=images.device)
    weights = weights / weights.sum()
    product = torch.ones(images.shape[:2], device=images.device)  # (B, 3)
    for scale, weight in enumerate(weights):
        if scale:
            images, others = F.avg_pool2d(images, 2), F.avg_pool2d(others, 2)
        luminance, structure = _terms(images, others)
        term = structure if scale < len(weights) - 1 else luminance * structure
        product = product * term.mean((2, 3)).clamp_min(0) ** weight
    return product.mean(1)


def num_scales(height: int, width: int) -> int:
    """Scales at which images of that size in pixels are compared, 1 to 5."""
    short, scales = min(height, width), 1
    while scales < len(SCALE_WEIGHTS) and short >> scales >= WINDOW_PX:
        scales += 1
    return scales


def pairwise_ms_ssim(images: Tensor) -> float:
    """Mean MS-SSIM over all pairs of images (n, 3, H, W) in [0, 1], n >= 2; 1 = all alike."""
    with torch.inference_mode():  # pair by pair: larger batches do not stay in the cache
        values = [ms_ssim(one[None], other[None]) for one, other in combinations(images, 2)]
    return float(torch.cat(values).mean())


def _terms(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance term, and contrast times structure, at every whole window, (B, 3, h, w) each."""
    mean_x, mean_y = _blurred(x), _blurred(y)
    variances = _blurred(x * x) - mean_x**2 + _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _LUMINANCE) / (mean_x**2 + mean_y**2 + _LUMINANCE)
    return luminance, (2 * covariance + _CONTRAST) / (variances + _CONTRAST)


def _blurred(x: Tensor) -> Tensor:
    """Gaussian means over whole 11 px windows: (B, C, H, W) -> (B, C, H - 10, W - 10)."""
    offsets = torch.arange(WINDOW_PX, device=x.device) - WINDOW_PX // 2
    window = torch.exp(-(offsets**2) / (2 * _SIGMA_PX**2)).to(x.dtype)
    window = window / window.sum()
    planes = x.flatten(0, 1)[:, None]
    planes = F.conv2d(F.conv2d(planes, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))
    return planes.view(*x.shape[:2], *planes.shape[2:])
