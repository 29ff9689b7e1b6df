"""The frozen features that the fast presets' discriminators look at."""

from __future__ import annotations

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
