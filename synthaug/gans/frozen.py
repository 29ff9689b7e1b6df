"""The frozen features that the fast presets' discriminators look at."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from synthaug.backbone import FrozenLite0


class FrozenView:
    """Holds the frozen network outside the module tree: it has no place in a checkpoint."""

    def __init__(self, *, pretrained: bool = True) -> None:
        self.network = FrozenLite0(pretrained=pretrained)

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the four feature maps of images (B, 3, H, W) in [-1, 1]."""
        if next(self.network.parameters()).device != images.device:
            self.network.to(images.device)
        return tuple(self.network(images))

    def distance(self, seen: Sequence[Tensor], target: Tensor, spread: Tensor) -> Tensor:
        """Return how far features are from those of other images, (B,).

        Args:
            seen: feature maps of B images.
            target: the other images (B, 3, H, W) in [-1, 1]; receive no gradient.
            spread: (4,) standard deviations that the distances are divided by.
        """
        with torch.no_grad():
            wanted = self(target)
        distances = [
            (a.float() - b.float()).abs().mean((1, 2, 3)) / unit
            for a, b, unit in zip(seen, wanted, spread, strict=True)
        ]
        return torch.stack(distances).mean(0)
