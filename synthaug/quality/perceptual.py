"""Perceptual distance between images, diversity of a set, distance to the training pair.

The distance is built as LPIPS is (Zhang et al. 2018, arXiv:1801.03924): unit-normalise every
position's channels at each tap, square the difference, average over positions. It looks through
the bundled EfficientNet-Lite0 and averages its four taps with equal weights, so it is NOT LPIPS's
calibrated number: compare it only with itself. It lies in [0, 4].

It equals the squared Euclidean distance of one vector per image, so that a set's features are
computed once and all pairs follow by linear algebra.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from synthaug.quality.features import FeatureNet, Lite0Features, batch_size_for

WORKING_SIDE_PX = 256


class PerceptualSpace:
    """Embeds images so that squared Euclidean distance is the perceptual distance.

    Images are first brought to one working size: the given size, shrunk (by area) until the long
    side is at most 256 px.

    Args:
        height: height of the images in pixels.
        width: width of the images in pixels.
        net: the bundled network when the caller has it loaded already.
    """

    def __init__(self, height: int, width: int, net: Lite0Features | None = None) -> None:
        scale = min(1.0, WORKING_SIDE_PX / max(height, width))
        self.size = (max(32, round(height * scale)), max(32, round(width * scale)))
        self.net = net or Lite0Features()

    def embed(self, images: Tensor) -> Tensor:
        """Embed (B, 3, H, W) in [0, 1] of any size -> (B, D) float32."""
        with torch.inference_mode():
            if tuple(images.shape[-2:]) != self.size:
                images = F.interpolate(images, size=self.size, mode="area")
            return self.embed_maps(self.net(images))

    def embed_with(self, net: FeatureNet, images: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Embed images whose maps ``net`` has computed, without a second pass if they serve."""
        if net is self.net and tuple(images.shape[-2:]) == self.size:
            return self.embed_maps(maps)
        return self.embed(images)

    @staticmethod
    def embed_maps(maps: Sequence[Tensor]) -> Tensor:
        """Turn four maps (B, C, h, w) of the bundled network into (B, D)."""
        parts = []
        for tap in maps:
            unit = F.normalize(tap, dim=1, eps=1e-8)
            weight = 1 / math.sqrt(len(maps) * tap.shape[-2] * tap.shape[-1])
            parts.append(unit.flatten(1) * weight)
        return torch.cat(parts, 1)


class Diversity:
    """Mean perceptual distance over all pairs of a growing set, in constant memory.

    The mean of |a - b|^2 over the n(n-1)/2 pairs is 2 (sum |a|^2 - |sum a|^2 / n) / (n - 1): no
    pair needs to be visited.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum: Tensor | None = None
        self._squares = 0.0

    def add(self, embedded: Tensor) -> None:
        """Add images embedded as (B, D)."""
        vectors = embedded.double()
        total = vectors.sum(0)
        self._sum = total if self._sum is None else self._sum + total
        self._squares += float(vectors.square().sum())
        self.count += len(embedded)

    def value(self) -> float:
        """Return the mean over pairs; NaN for fewer than two images."""
        if self.count < 2 or self._sum is None:
            return float("nan")
        spread = self._squares - float(self._sum.square().sum()) / self.count
        return max(2 * spread / (self.count - 1), 0.0)


def pairwise_diversity(images: Tensor, space: PerceptualSpace | None = None) -> float:
    """Mean perceptual distance over all pairs of images (n, 3, H, W) in [0, 1]."""
    space = space or PerceptualSpace(images.shape[-2], images.shape[-1])
    diversity = Diversity()
    for batch in torch.split(images, batch_size_for(*space.size)):
        diversity.add(space.embed(batch))
    return diversity.value()


class TrainingSet:
    """The training images and their mirror images, for distances to the nearest of them.

    Args:
        reals: training images, each (3, H, W) float in [0, 1]; horizontal flips are added.
        space: where distances are measured.
    """

    def __init__(self, reals: Sequence[Tensor], space: PerceptualSpace) -> None:
        self.space = space
        self._reals = list(reals)
        first = space.embed(torch.stack([reals[0], reals[0].flip(-1)]))
        self.vectors = first.new_empty(2 * len(reals), first.shape[1])  # (2R, D), once: it is large
        self.vectors[:2] = first
        for number, real in enumerate(self._reals[1:], start=1):
            pair = space.embed(torch.stack([real, real.flip(-1)]))
            self.vectors[2 * number : 2 * number + 2] = pair

    def near_copy_threshold(self) -> float:
        """Distance under which an image is a near copy of a training image.

        It adapts to the picture: per training image the largest distance to its own mild
        variants (shifts by 0.5 % of the long side, at least 1 px, in four directions;
        brightness and contrast 10 % up and down; a 3x3 box blur); over several training images
        the smallest, so that nothing is accused falsely.
        """
        limits = []
        for real, vector in zip(self._reals, self.vectors[::2], strict=True):
            variants = self.space.embed(_mild_variants(real))
            limits.append(float((variants - vector).square().sum(1).max()))
        return min(limits)

    def distance(self, embedded: Tensor) -> Tensor:
        """Distance of images embedded as (B, D) to the nearest training image -> (B,)."""
        differences = [(embedded - vector).square().sum(1) for vector in self.vectors]
        return torch.stack(differences).amin(0)


def nearest_reals(
    fakes: Tensor, reals: Sequence[Tensor], space: PerceptualSpace
) -> tuple[Tensor, Tensor]:
    """Return where fakes (n, 3, H, W) lie, (n, D), and each one's nearest training image, (n,)."""
    centres = torch.cat([space.embed(real[None]) for real in reals])
    batches = torch.split(fakes, batch_size_for(*space.size))
    vectors = torch.cat([space.embed(batch) for batch in batches])
    distances = torch.stack([(vectors - centre).square().sum(1) for centre in centres])
    return vectors, distances.argmin(0)


def intra_diversity(vectors: Tensor, nearest: Tensor) -> float:
    """Diversity among the fakes that are nearest to the same training image: see `nearest_reals`.

    The protocol of intra-cluster LPIPS (Ojha et al. 2021, arXiv:2104.06820): every fake goes to its
    nearest training image, the distance is averaged over all pairs of a cluster, then over the
    clusters that have pairs. A generator that only repeats its few pictures comes near 0, however
    different those are. The published one takes at most 50 fakes of a cluster, and LPIPS.

    Args:
        vectors: (n, D), where fakes lie.
        nearest: (n,) int64, the training image of each.

    Returns:
        NaN if no two fakes share a training image.
    """
    values = []
    for index in range(int(nearest.max()) + 1):
        cluster = Diversity()
        cluster.add(vectors[nearest == index])
        if cluster.count > 1:
            values.append(cluster.value())
    return sum(values) / len(values) if values else float("nan")


def _mild_variants(image: Tensor) -> Tensor:
    """Variants that a viewer takes for the same picture, (9, 3, H, W)."""
    step = min(max(1, round(0.005 * max(image.shape[-2:]))), min(image.shape[-2:]) - 1)
    mean = image.mean((1, 2), keepdim=True)
    around = F.pad(image[None], (step,) * 4, mode="reflect")
    h, w = image.shape[-2:]
    variants = [
        around[0, :, y : y + h, x : x + w]
        for y, x in ((0, step), (2 * step, step), (step, 0), (step, 2 * step))
    ]
    variants += [image * 0.9, image * 1.1, mean + (image - mean) * 0.9, mean + (image - mean) * 1.1]
    variants.append(F.avg_pool2d(F.pad(image[None], (1, 1, 1, 1), mode="reflect"), 3, 1)[0])
    return torch.stack(variants).clamp(0, 1)
