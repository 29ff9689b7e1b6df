"""Where a discriminator's features are weighed by a mask: inside it they matter more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class MaskEmbedding(nn.Module):
    """A_mask: weights for feature maps from the region that is looked at (MED-GAN, eq. 2).

    The mask is averaged down to the maps' size, then passes two 3x3 convolutions with spectral
    norm. The gain in front of the result starts at 0, so that training starts without weights.

    Args:
        channels: C of the feature maps.
        hidden: channels in between.
    """

    def __init__(self, channels: int, hidden: int = 32) -> None:
        super().__init__()
        self.first = spectral_norm(nn.Conv2d(1, hidden, 3, padding=1))
        self.second = spectral_norm(nn.Conv2d(hidden, channels, 3, padding=1))
        self.gain = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, mask: Tensor, size: tuple[int, int]) -> Tensor:
        """Map masks (B, 1, H, W) to weights (B, C, h, w)."""
        small = F.adaptive_avg_pool2d(mask, size)
        weights: Tensor = self.gain * self.second(F.leaky_relu(self.first(small), 0.2))
        return weights


class Focus(nn.Module):
    """The places in a discriminator that a `MaskEmbedding` may weigh.

    Without weights of its own, and without effect, until `begin`.

    Args:
        *channels: of the feature maps at every place.
    """

    def __init__(self, *channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.embeddings = nn.ModuleList()
        self._record: list[Tensor] | None = None

    def begin(self, like: Tensor) -> None:
        """Make the embeddings, on the device of a tensor."""
        made = (MaskEmbedding(channels).to(like.device) for channels in self.channels)
        self.embeddings = nn.ModuleList(made)

    @contextmanager
    def recorded(self) -> Iterator[list[Tensor]]:
        """Collect the features that are weighed meanwhile, place after place."""
        found: list[Tensor] = []
        self._record = found
        try:
            yield found
        finally:
            self._record = None

    def forward(self, features: Tensor, mask: Tensor | None, place: int = 0) -> Tensor:
        """Weigh features (B, C, h, w) by 1 + A_mask of masks (B, 1, H, W); None: not at all."""
        if mask is None or not self.embeddings:
            return features
        weights = self.embeddings[place](mask, (features.shape[2], features.shape[3]))
        weighed: Tensor = features * (1 + weights)
        if self._record is not None:
            self._record.append(weighed)
        return weighed
