"""Frozen per-pixel features for the segmenters that train no network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from synthaug.backbone import FrozenLite0
from synthaug.quality.features import image_tensor
from synthaug.sample import ClassMap, resize_image
from synthaug.segmenters.contract import Item, Stream
from synthaug.segmenters.semantic import collate, resized

STRIDE_PX = 8


class PixelFeatures(nn.Module):
    """ImageNet EfficientNet-Lite0 at strides 4, 8 and 16, brought to stride 8 and concatenated.

    Each tap is scaled to unit length before, all of them after: a dot product of two pixels is
    the mean of the taps' cosine similarities.

    Shapes: (B, 3, H, W) float in [0, 1] -> (B, 176, H/8, W/8), sizes rounded up.
    """

    def __init__(self) -> None:
        super().__init__()
        self.net = FrozenLite0()

    def forward(self, images: Tensor) -> Tensor:
        """Return unit-length features."""
        _, fine, middle, coarse = self.net(images * 2 - 1)
        grid = middle.shape[-2:]
        taps = [
            F.adaptive_avg_pool2d(fine, grid),
            middle,
            F.interpolate(coarse, grid, mode="bilinear", align_corners=False),
        ]
        return F.normalize(torch.cat([F.normalize(tap, dim=1) for tap in taps], 1), dim=1)

    def of_items(
        self, items: Sequence[Item], classes: ClassMap, size: tuple[int, int] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return features and soft labels of labelled items, each at ``size`` (None = its own).

        Returns:
            Features (M, C) of all items' M labelled cells, the share (M, N) of each class in a
            cell, and the item's weight (M,). Cells less than half labelled are left out.
        """
        features, shares, weights = [], [], []
        for item in items:
            image, target = collate([resized(item, size)], classes)
            found = self(image)  # (1, C, h, w)
            labelled = (target >= 0).float()[:, None]
            truth = F.one_hot(target.clamp(min=0), len(classes)).permute(0, 3, 1, 2) * labelled
            grid = found.shape[-2:]
            share = flat(F.adaptive_avg_pool2d(truth, grid))  # (h w, N)
            seen = share.sum(1) >= 0.5
            features.append(flat(found)[seen])
            shares.append(share[seen] / share[seen].sum(1, keepdim=True))
            weights.append(torch.full((int(seen.sum()),), item.weight))
        return torch.cat(features), torch.cat(shares), torch.cat(weights)

    def of_image(self, image: NDArray[np.uint8], size: tuple[int, int] | None) -> Tensor:
        """Return the features (1, C, h, w) of an image at ``size`` (None = its own)."""
        shown = image if size is None else resize_image(image, size)
        found: Tensor = self(image_tensor([shown]))
        return found


def flat(maps: Tensor) -> Tensor:
    """Turn maps (1, C, h, w) into rows (h w, C)."""
    return maps[0].flatten(1).T


def enlarged(rows: Tensor, grid: tuple[int, int], image: NDArray[np.uint8]) -> Tensor:
    """Turn rows (h w, N) of a grid (h, w) into maps (N, H, W) of the image's size, bilinearly."""
    maps = rows.T.reshape(1, -1, *grid)
    return F.interpolate(maps, image.shape[:2], mode="bilinear", align_corners=False)[0]


def distinct_items(stream: Stream, batches: int, limit: int) -> list[Item]:
    """Return the items of the first batches that have a weight, equal ones once, in order.

    Every batch has an equal part in the limit. Of a larger one items are taken evenly from its
    first to its last: real items come first in a batch, what is mixed in last.
    """
    found: dict[tuple[bytes, bytes], Item] = {}
    batches = min(batches, stream.steps)
    each = max(1, limit // max(1, batches))
    for step in range(batches):
        items = [item for item in stream.batch(step) if item.weight > 0]
        count = min(each, len(items))
        for item in (items[index * len(items) // count] for index in range(count)):
            found.setdefault((item.image.tobytes(), item.mask.tobytes()), item)
    return list(found.values())
