"""Exemplar-based inpainting: a hole is filled from patches of the known part, coarse to fine.

After Wexler et al., "Space-Time Completion of Video" (PAMI 2007): every patch that touches the
hole looks up its nearest known patch, and the overlapping patches vote.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

PATCH_PX = 7
OCTAVES = 4
ROUNDS = 4
MAX_SOURCES = 6000


@torch.no_grad()
def inpaint(image: Tensor, hole: Tensor, avoid: Tensor | None = None) -> Tensor:
    """Fill a hole.

    Args:
        image: (C, H, W) float in [-1, 1], on the CPU.
        hole: (H, W) bool, True where unknown.
        avoid: (H, W) bool, True where patches must not be taken from, such as other objects;
            where that leaves no patch at all it is ignored.

    Returns:
        (C, H, W); pixels outside the hole are untouched. An image that is all hole is returned
        as it is.
    """
    if not hole.any() or hole.all():
        return image
    known = (~hole).float()[None, None]
    filled: Tensor | None = None
    for octave in reversed(range(OCTAVES)):
        size = [max(PATCH_PX + 1, side >> octave) for side in hole.shape]
        unknown = F.interpolate(1 - known, size, mode="area")[0, 0] > 0.01
        if filled is None and unknown.all():
            continue  # too little is known to be seen at this octave
        weight = F.interpolate(known, size, mode="area")[0].clamp_min(1e-3)
        start = F.interpolate((image * known[0])[None], size, mode="area")[0] / weight
        if filled is None:
            guess = _diffuse(start, unknown)
        else:
            guess = F.interpolate(filled[None], size, mode="bicubic", align_corners=False)[0]
        shun = unknown
        if avoid is not None:
            shun = unknown | (F.interpolate(avoid[None, None].float(), size, mode="area")[0, 0] > 0)
        rounds = ROUNDS if octave else 2
        filled = _vote(torch.where(unknown, guess, start), unknown, shun, rounds)
    assert filled is not None
    if filled.shape != image.shape:
        filled = F.interpolate(filled[None], hole.shape, mode="bicubic", align_corners=False)[0]
    return torch.where(hole, filled, image).clamp(-1, 1)


def _vote(image: Tensor, unknown: Tensor, shun: Tensor, rounds: int) -> Tensor:
    """Replace the hole by the average of its patches' nearest known patches, some rounds."""
    C, h, w = image.shape
    radius = PATCH_PX // 2
    touching = _near(unknown, radius)
    inside = torch.zeros_like(unknown)
    inside[radius : h - radius, radius : w - radius] = True
    sources = (~_near(shun, radius) & inside).flatten().nonzero()[:, 0]
    if len(sources) == 0:
        sources = (~touching & inside).flatten().nonzero()[:, 0]
    targets = touching.flatten().nonzero()[:, 0]
    if len(sources) == 0:
        return image
    if len(sources) > MAX_SOURCES:
        even = torch.linspace(0, len(sources) - 1, MAX_SOURCES, dtype=torch.float64)
        sources = sources[even.long()]  # float32 would round past the end of 2^24 places
    count = torch.zeros(PATCH_PX**2, h * w)
    count[:, targets] = 1
    votes = F.fold(count[None], (h, w), PATCH_PX, padding=radius)[0].clamp_min(1)
    for _ in range(rounds):
        patches = F.unfold(image[None], PATCH_PX, padding=radius)[0].T  # (h*w, C*49)
        known = patches[sources]
        norms = known.square().sum(1)
        nearest = torch.cat(
            [(norms - 2 * patches[part] @ known.T).argmin(1) for part in torch.split(targets, 2048)]
        )
        chosen = torch.zeros(C * PATCH_PX**2, h * w)
        chosen[:, targets] = known[nearest].T
        total = F.fold(chosen[None], (h, w), PATCH_PX, padding=radius)[0]
        image = torch.where(unknown, total / votes, image)
    return image


def _diffuse(image: Tensor, unknown: Tensor) -> Tensor:
    """First guess at the coarsest octave: values diffuse in from the border of the hole."""
    picture = ((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).contiguous()
    mask = unknown.numpy().astype(np.uint8)
    filled = cv2.inpaint(picture.numpy(), mask, 3, cv2.INPAINT_TELEA)
    return torch.from_numpy(filled).permute(2, 0, 1).float() / 127.5 - 1


def _near(mask: Tensor, radius: int) -> Tensor:
    return F.max_pool2d(mask[None, None].float(), 2 * radius + 1, 1, radius)[0, 0] > 0
