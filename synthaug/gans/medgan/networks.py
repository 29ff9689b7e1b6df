"""MED-GAN's networks: a discriminator around any trunk, small ones for images, ones for points."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from synthaug.errors import InputError
from synthaug.gans.focus import MaskEmbedding

START_PX = 4


def _blocks(size: int) -> int:
    """How often `START_PX` is doubled to reach a size."""
    blocks = size.bit_length() - START_PX.bit_length()
    if blocks < 1 or size != START_PX << blocks:
        raise InputError(f"MED-GAN: no images of {size} px a side: use 8, 16, 32, 64, ...")
    return blocks


class Verdict(NamedTuple):
    """What the discriminator says: logits (B,), above 0 is real, and its embedded features."""

    logits: Tensor
    features: Tensor


class MedDiscriminator(nn.Module):
    """Judges samples of a class, with more attention to the inside of a box.

    Features of the trunk are weighted by 1 + A_mask(m) (eq. 2), pooled, weighted by 1 + A_label(y)
    (eq. 3), and become one logit. Pooling is the sum over places, as in BigGAN (the paper leaves it
    open): the mean of features under spectral norm hardly tells anything apart.

    Args:
        trunk: D_f, any module from samples to (B, C, h, w), or (B, C) where there are no places.
        channels: C.
        classes: K.
        embed_masks: with A_mask; without, masks are ignored.
    """

    def __init__(
        self, trunk: nn.Module, channels: int, classes: int, *, embed_masks: bool = True
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.embed_mask = MaskEmbedding(channels) if embed_masks else None
        self.embed_label = nn.Embedding(classes, channels)
        self.head = nn.Linear(channels, 1)

    def forward(self, x: Tensor, mask: Tensor | None, y: Tensor) -> Verdict:
        """Judge samples.

        Args:
            x: samples (B, ...) for the trunk.
            mask: (B, 1, H, W), 1 inside the box.
            y: classes (B,) int64.
        """
        features: Tensor = self.trunk(x)
        if self.embed_mask is not None and mask is not None:
            size = (features.shape[2], features.shape[3])
            features = features * (1 + self.embed_mask(mask, size))
        pooled = features.sum((2, 3)) if features.ndim == 4 else features
        logits: Tensor = self.head(pooled * (1 + self.embed_label(y)))
        return Verdict(logits[:, 0], features)


class ConditionalNorm(nn.Module):
    """Batch normalisation with a scale and a shift for each class."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = nn.Embedding(classes, channels)
        self.shift = nn.Embedding(classes, channels)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Normalise (B, C, h, w) for classes (B,)."""
        scale, shift = (embed(y)[:, :, None, None] for embed in (self.scale, self.shift))
        out: Tensor = self.norm(x) * scale + shift
        return out


class UpBlock(nn.Module):
    """Residual generator block: twice the side, class-conditional."""

    def __init__(self, in_channels: int, out_channels: int, classes: int) -> None:
        super().__init__()
        self.norm1 = ConditionalNorm(in_channels, classes)
        self.norm2 = ConditionalNorm(out_channels, classes)
        self.first = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Map (B, in, h, w) to (B, out, 2h, 2w)."""
        h = self.first(F.interpolate(F.relu(self.norm1(x, y)), scale_factor=2.0))
        h = self.second(F.relu(self.norm2(h, y)))
        out: Tensor = h + F.interpolate(self.shortcut(x), scale_factor=2.0)
        return out


class ImageGenerator(nn.Module):
    """Noise and a class to an image, in the manner of a small BigGAN.

    Args:
        size: side of the images in pixels, a power of 2 from 8.
        classes: K.
        width: channels of the last block; they double towards the noise, up to 4 times.
        latent_dim: length of z.

    Shapes: z (B, latent_dim), y (B,) int64 -> (B, 3, size, size) in [-1, 1].

    Raises:
        InputError: another size.
    """

    def __init__(self, size: int, classes: int, width: int = 32, latent_dim: int = 64) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        blocks = _blocks(size)
        widths = [width * min(4, 2 ** (blocks - i)) for i in range(blocks + 1)]
        self.embed_label = nn.Embedding(classes, latent_dim)
        self.stem = nn.Linear(2 * latent_dim, widths[0] * START_PX**2)
        self.blocks = nn.ModuleList(
            UpBlock(before, after, classes) for before, after in pairwise(widths)
        )
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Generate images."""
        x = self.stem(torch.cat([z, self.embed_label(y)], 1))
        x = x.view(len(z), -1, START_PX, START_PX)
        for block in self.blocks:
            x = block(x, y)
        image: Tensor = self.head(F.relu(self.norm(x)))
        return image.tanh()


class DownBlock(nn.Module):
    """Residual discriminator block with spectral norm, half the side."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = spectral_norm(nn.Conv2d(in_channels, out_channels, 3, padding=1))
        self.second = spectral_norm(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.shortcut = spectral_norm(nn.Conv2d(in_channels, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, h, w) to (B, out, h / 2, w / 2)."""
        h = self.second(F.leaky_relu(self.first(F.leaky_relu(x, 0.2)), 0.2))
        out: Tensor = F.avg_pool2d(h, 2) + self.shortcut(F.avg_pool2d(x, 2))
        return out


class ImageTrunk(nn.Module):
    """D_f of images: (B, 3, size, size) to (B, channels, 4, 4).

    Args:
        size: side of the images in pixels, a power of 2 from 8.
        width: channels of the first block; they double, up to 4 times.

    Attributes:
        channels: of the last block.

    Raises:
        InputError: another size.
    """

    def __init__(self, size: int, width: int = 32) -> None:
        super().__init__()
        blocks = _blocks(size)
        widths = [width * min(4, 2**i) for i in range(blocks)]
        self.channels = widths[-1]
        self.stem = spectral_norm(nn.Conv2d(3, width, 3, padding=1))
        self.blocks = nn.Sequential(
            *(DownBlock(widths[max(0, i - 1)], widths[i]) for i in range(blocks))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return feature maps."""
        return F.leaky_relu(self.blocks(self.stem(x)), 0.2)


def image_classifier(classes: int, width: int = 32) -> nn.Sequential:
    """Build C of images: (B, 3, H, W) to logits (B, classes); sides of at least 8 px."""
    layers: list[nn.Module] = []
    widths = [3, width, 2 * width, 4 * width]
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(4, after)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, classes)]
    return nn.Sequential(*layers)


class PointGenerator(nn.Module):
    """Noise and a class to a point in the plane.

    Shapes: z (B, latent_dim), y (B,) int64 -> (B, 2).
    """

    def __init__(self, classes: int, width: int = 128, latent_dim: int = 16) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.embed_label = nn.Embedding(classes, latent_dim)
        self.net = mlp(2 * latent_dim, width, 2)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Generate points."""
        points: Tensor = self.net(torch.cat([z, self.embed_label(y)], 1))
        return points


def mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Build three linear layers with two leaky ReLUs: trunks and classifiers of points."""
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, outputs),
    )
