"""How real pictures look, as latents: so that regression onto them need not average over looks.

The colours of every class, as mean and spread, are standardised over the training pictures and
reduced to whitened principal components, which are distributed like the noise that samples are
drawn from: mean 0, variance 1, uncorrelated. A painter that is given a picture's own components
beside its map learns what they stand for, such as light and weather; drawn at random they give a
map other looks. They take the place of a variational encoder of styles (Park et al. 2019, SPADE),
and cost nothing to train.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MOST = 16
LEAST_SHARE = 1e-3
"""A class that covers less of a picture tells nothing of its colours."""
LEAST_SIZE = 0.05
"""Components that vary less than this, relative to the first, are noise."""
LARGEST = 3.0


class AppearanceCodes(nn.Module):
    """Codes of pictures, once measured on the training pictures; not part of the weights.

    Attributes:
        length: number of components k, at most 16 and half of the number of pictures.
    """

    centre: Tensor
    gain: Tensor
    basis: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("centre", "gain", "basis"):
            self.register_buffer(name, torch.zeros(0), persistent=False)

    @property
    def length(self) -> int:
        """Number of components."""
        return self.basis.shape[1] if self.basis.ndim == 2 else 0

    @torch.no_grad()
    def measure(self, images: Tensor, labels: Tensor, num_classes: int) -> None:
        """Learn centre, scale and components.

        Args:
            images: (P, 3, H, W) in [-1, 1].
            labels: (P, H, W) classes in [0, N), -1 where there is no label.
            num_classes: N.
        """
        colours, shares = class_colours(images, labels, num_classes)  # (P, N, 6), (P, N)
        known = colours.isfinite()
        seen = known.sum(0).clamp_min(1)
        centre = colours.nan_to_num().sum(0) / seen
        away = torch.where(known, colours - centre, 0.0)
        spread = (away.square().sum(0) / (seen - 1).clamp_min(1)).sqrt()
        gain = shares.mean(0).sqrt()[:, None] / spread.clamp_min(1e-2)
        self.centre, self.gain = centre, torch.where(seen > 1, gain, 0.0)
        most = min(MOST, len(images) // 2)
        rows = (away * self.gain).flatten(1).double()
        _, sizes, directions = torch.linalg.svd(rows, full_matrices=False)
        kept = sizes[:most] > LEAST_SIZE * sizes[0].clamp_min(1e-9)
        deviations = sizes[:most][kept] / max(1, len(images) - 1) ** 0.5
        self.basis = (directions[:most][kept] / deviations[:, None]).T.float()

    @torch.no_grad()
    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the codes (B, k), within ±3, of pictures (B, 3, H, W) with labels (B, H, W)."""
        colours, _ = class_colours(images, labels, len(self.centre))
        rows = torch.where(colours.isfinite(), colours - self.centre, 0.0) * self.gain
        codes: Tensor = (rows.flatten(1) @ self.basis).clamp(-LARGEST, LARGEST)
        return codes


def class_colours(images: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every class' colours.

    Args:
        images: (B, 3, H, W).
        labels: (B, H, W) classes in [0, N), -1 where there is no label.
        num_classes: N.

    Returns:
        (B, N, 6), NaN where a class covers less than 0.1 % of a picture, and the shares of the
        classes (B, N).
    """
    values = images.float().flatten(2)
    values = torch.cat([values, values.square()], 1)  # (B, 6, H W)
    index = (labels.long() + 1).flatten(1)
    counts = torch.zeros(len(images), num_classes + 1, device=images.device)
    counts.scatter_add_(1, index, torch.ones_like(values[:, 0]))
    sums = torch.zeros(len(images), 6, num_classes + 1, device=images.device)
    sums.scatter_add_(2, index[:, None].expand(-1, 6, -1), values)
    mean, square = (sums / counts[:, None].clamp_min(1)).chunk(2, 1)
    found = torch.cat([mean, (square - mean.square()).clamp_min(0).sqrt()], 1)
    shares = counts / index.shape[1]
    found = found.masked_fill((shares < LEAST_SHARE)[:, None], torch.nan)
    return found[..., 1:].transpose(1, 2), shares[:, 1:]
