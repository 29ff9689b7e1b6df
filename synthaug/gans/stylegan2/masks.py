"""Masks for the images of a trained StyleGAN2: a head on its features, and who judges it.

Masked content attention after Sushko et al. (OSMIS, thesis chapter 6), through discriminator blocks
that do not learn from it, so that a few labelled images suffice and the generator is not disturbed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

JUDGED_PX = 16
"""Least side of the features in which masks are judged; from 256 px up an eighth of the image's."""


class MaskHead(nn.Module):
    """Features of all sizes to class probabilities: 1x1 convolutions, up-sampled and summed.

    Args:
        channels: of the features at 4, 8, ... pixels.
        num_classes: N.
        joint: gradients go on into the features, and so into the generator; its images, which the
            judge sees beside the masks, still receive none.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, *, joint: bool = False) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.joint = joint
        self.convs = nn.ModuleList(nn.Conv2d(c, num_classes, 1) for c in channels)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Turn features (B, C, h, w), 4 px first, into (B, N, H, W) of the last one's size."""
        if not self.joint:
            features = [x.detach() for x in features]
        logits: Tensor = self.convs[0](features[0])
        for conv, x in zip(self.convs[1:], features[1:], strict=True):
            logits = F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
            logits = logits + conv(x)
        return logits.float().softmax(1)


class MaskJudge(nn.Module):
    """What is the content of each class's area: one of the classes, or generated?

    Args:
        channels: of the features.
        num_classes: N.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.judge = nn.Sequential(
            nn.Linear(channels, channels), nn.LeakyReLU(0.2), nn.Linear(channels, num_classes + 1)
        )

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Judge areas.

        Args:
            features: (B, C, h, w) of the images.
            mask: (B, N, H, W).

        Returns:
            Logits (B, N, N + 1): for each area, the classes and, last, "generated".
        """
        mask = F.interpolate(mask, features.shape[2:], mode="area")
        content = torch.einsum("bchw,bnhw->bnc", features.float(), mask.float())
        logits: Tensor = self.judge(content / (mask.shape[2] * mask.shape[3]))
        return logits


def judged_px(size: int) -> int:
    """Return the side of the features in which masks of ``size`` px are judged."""
    return min(max(JUDGED_PX, size // 8), size // 2)


def straight_through(soft: Tensor, *, draw: bool) -> Tensor:
    """Make probabilities (B, N, H, W) one-hot; gradients pass as if nothing had happened.

    Args:
        soft: probabilities.
        draw: draw the class of each pixel instead of taking the likeliest, so that early on no
            class dies out.
    """
    if draw:
        noise = -torch.log(-torch.log(torch.rand_like(soft).clamp(1e-9, 1 - 1e-6)))
        index = (soft.clamp_min(1e-9).log() + noise).argmax(1)
    else:
        index = soft.argmax(1)
    hard = F.one_hot(index, soft.shape[1]).movedim(-1, 1).to(soft.dtype)
    return hard + soft - soft.detach()


def content_loss(logits: Tensor, weights: Tensor, *, real: bool) -> Tensor:
    """Cross-entropy of the areas' contents, (B,): a sample's classes weigh as ``weights`` say.

    Args:
        logits: (B, N, N + 1).
        weights: (B, N), not negative.
        real: each area is to be called its own class; otherwise "generated".
    """
    B, N, _ = logits.shape
    own = torch.arange(N, device=logits.device)
    target = (own if real else torch.full_like(own, N)).expand(B, N)
    loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(B, N)
    return (loss * weights).sum(1) / weights.sum(1).clamp_min(1e-6)


def content_score(logits: Tensor, there: Tensor) -> Tensor:
    """Logits of the areas' own classes over that of "generated", averaged: (B,).

    Args:
        logits: (B, N, N + 1).
        there: (B, N), 1 for a class that the sample shows, else 0. Real pairs teach nothing of
            classes that they lack.
    """
    own = logits[:, :, :-1].diagonal(dim1=1, dim2=2) - logits[:, :, -1]
    return (own * there).sum(1) / there.sum(1).clamp_min(1e-6)
