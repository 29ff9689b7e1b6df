"""The generator of BigGAN-deep, as the public PyTorch weights have it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.errors import InputError
from synthaug.gans.biggan.layers import SelfAttention, SpectralConv, SpectralLinear
from synthaug.gans.contract import PairBatch

START_PX = 4
START_WIDTH = 16
"""Channels at 4 px, in units of the generator's width."""
MOMENTUM = 0.1
"""Share of the newest batch in the running statistics."""
Layer = tuple[bool, int, int]
"""Whether a block doubles the size; its channels before and after, in units of the width."""


class BigGenerator(nn.Module):
    """Noise and a class to an image, through residual bottleneck blocks and one attention layer.

    After Brock et al. (ICLR 2019, arXiv:1809.11096, appendix B, figure 16). Every block sees the
    joint latent [noise; class embedding]; `embeddings` has the embedding of every known class.

    Args:
        layers: the blocks in order.
        attention_at: number of blocks before the attention layer.
        width: channels of the last block.
        z_dim: length of the noise.
        embedding_dim: length of class embeddings.
        num_classes: known classes.
        statistics: how many sets of batch statistics are kept, one per truncation of the noise
            from 0 to 1 in equal steps; 1: that of no truncation alone.
        eps: of the normalisations.
        joint: latents of `forward` are joint, as adaptation to a domain without classes uses them
            (Sushko and Gall, thesis section 7.3.6), and statistics stay as they are; otherwise
            they are [noise; one-hot class], and in training mode each batch is normalised by its
            own statistics, which also move the last kept set.

    Attributes:
        latent_dim: length of the latents of `forward`.
        size: side of the images in pixels.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        attention_at: int,
        *,
        width: int = 128,
        z_dim: int = 128,
        embedding_dim: int = 128,
        num_classes: int = 1000,
        statistics: int = 51,
        eps: float = 1e-4,
        joint: bool = True,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.joint = joint
        self.num_classes = num_classes
        self.latent_dim = z_dim + (embedding_dim if joint else num_classes)
        self.width = width
        self.size = START_PX << sum(up for up, _, _ in layers)
        condition = z_dim + embedding_dim
        self.embeddings = nn.Linear(num_classes, embedding_dim, bias=False)
        self.gen_z = SpectralLinear(condition, START_PX**2 * START_WIDTH * width, eps, bias=True)
        self.layers = nn.ModuleList()
        for index, (up, before, after) in enumerate(layers):
            if index == attention_at:
                self.layers.append(SelfAttention(before * width, eps))
            self.layers.append(
                BottleneckBlock(before * width, after * width, condition, statistics, eps, up)
            )
        self.bn = GridNorm(width, None, statistics, eps)
        self.conv_to_rgb = SpectralConv(width, width, 3, eps)
        for norm in self._norms():
            norm.batch_statistics = not joint

    def embed(self, z: Tensor, classes: Tensor) -> Tensor:
        """Join noise (B, z_dim) and classes (B,) int64 to (B, z_dim + embedding_dim)."""
        return torch.cat([z, self.embeddings.weight.T[classes]], 1)

    def forward(self, latent: Tensor) -> PairBatch:
        """Generate images (B, 3, size, size) in [-1, 1] from latents (B, latent_dim).

        One-hot classes may be mixed; the likeliest is the class that the pairs carry.
        """
        if self.joint:
            return PairBatch((self.draw(latent),))
        z, classes = latent[:, : self.z_dim], latent[:, self.z_dim :]
        joint = torch.cat([z, self.embeddings(classes)], 1)
        return PairBatch((self.draw(joint),), classes=classes.argmax(1))

    def draw(self, latent: Tensor, truncation: float = 1.0) -> Tensor:
        """Draw images from joint latents.

        Args:
            latent: (B, z_dim + embedding_dim); noise ~ N(0, 1), cut off at two deviations and
                times ``truncation`` as published.
            truncation: chooses the batch statistics; must be one that has some.

        Returns:
            (B, 3, size, size) in [-1, 1].
        """
        x = self.features(latent, truncation)[-1]
        image: Tensor = self.conv_to_rgb(F.relu(self.bn(x, None, truncation)))
        return image[:, :3].tanh()

    def features(
        self, latent: Tensor, truncation: float = 1.0, largest_px: int | None = None
    ) -> list[Tensor]:
        """Return the features (B, C, h, w) after every layer, attention included.

        Args:
            latent: joint latents (B, z_dim + embedding_dim).
            truncation: see `draw`.
            largest_px: side of the last features to compute; None: all.
        """
        x = self.gen_z(latent).view(-1, START_PX, START_PX, START_WIDTH * self.width)
        x = x.permute(0, 3, 1, 2).contiguous()
        maps: list[Tensor] = []
        for layer in self.layers:
            if isinstance(layer, SelfAttention):
                x = layer(x)
            else:
                if layer.up and x.shape[2] == largest_px:
                    break
                x = layer(x, latent, truncation)
            maps.append(x)
        return maps

    @torch.no_grad()
    def measure_statistics(self, latents: Iterable[Tensor]) -> None:
        """Average the statistics of several batches, and keep them for no truncation.

        Args:
            latents: batches (B, latent_dim).
        """
        training = self.training
        self.train()
        for index, latent in enumerate(latents):
            for norm in self._norms():
                norm.momentum = 1 / (index + 1)
            self(latent)
        for norm in self._norms():
            norm.momentum = MOMENTUM
        self.train(training)

    def _norms(self) -> list[GridNorm]:
        return [module for module in self.modules() if isinstance(module, GridNorm)]


class GridNorm(nn.Module):
    """Normalisation with stored statistics, one set per truncation, optionally conditional.

    The public code mixes neighbouring sets for truncations in between with what look like swapped
    weights; here only truncations that have a set are taken.

    Args:
        channels: C.
        condition: length of the condition that scales and shifts; None: plain weight and bias.
        statistics: sets.
        eps: added to variances.

    Attributes:
        batch_statistics: in training mode batches are normalised by their own statistics.
        momentum: share of the newest batch in the statistics then kept.
    """

    running_means: Tensor
    running_vars: Tensor

    def __init__(self, channels: int, condition: int | None, statistics: int, eps: float) -> None:
        super().__init__()
        self.register_buffer("running_means", torch.zeros(statistics, channels))
        self.register_buffer("running_vars", torch.ones(statistics, channels))
        self.eps = eps
        self.batch_statistics = False
        self.momentum = MOMENTUM
        self.conditional = condition is not None
        if condition is not None:
            self.scale = SpectralLinear(condition, channels, eps)
            self.offset = SpectralLinear(condition, channels, eps)
        else:
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, condition: Tensor | None, truncation: float) -> Tensor:
        """Normalise (B, C, h, w)."""
        mean, variance = self._statistics(truncation)
        if self.conditional:
            scale: Tensor = 1 + self.scale(condition)[:, :, None, None]
            offset: Tensor = self.offset(condition)[:, :, None, None]
        else:
            scale, offset = self.weight[:, None, None], self.bias[:, None, None]
        if self.training and self.batch_statistics:
            x = F.batch_norm(
                *(x.to(mean.dtype), mean, variance),
                training=True,
                momentum=self.momentum,
                eps=self.eps,
            )
        else:
            x = (x - mean[:, None, None]) * torch.rsqrt(variance + self.eps)[:, None, None]
        return x * scale + offset

    def _statistics(self, truncation: float) -> tuple[Tensor, Tensor]:
        """Views of the set's mean and variance, (C,) each."""
        sets = len(self.running_means)
        steps = max(1, sets - 1)
        index = round(truncation * steps)
        if not 0 < index <= steps or not math.isclose(index, truncation * steps, abs_tol=1e-6):
            raise InputError(
                f"no batch statistics for truncation {truncation}: take a multiple of 1/{steps} "
                "in (0, 1]"
            )
        index = min(index, sets - 1)
        return self.running_means[index], self.running_vars[index]


class BottleneckBlock(nn.Module):
    """1x1 down to a quarter, two 3x3, 1x1 up; surplus channels of the input are dropped.

    Shapes: (B, c_in, h, w) -> (B, c_out, h, w), doubled if ``up``.
    """

    def __init__(
        self, c_in: int, c_out: int, condition: int, statistics: int, eps: float, up: bool
    ) -> None:
        super().__init__()
        middle = c_in // 4
        self.bn_0 = GridNorm(c_in, condition, statistics, eps)
        self.bn_1 = GridNorm(middle, condition, statistics, eps)
        self.bn_2 = GridNorm(middle, condition, statistics, eps)
        self.bn_3 = GridNorm(middle, condition, statistics, eps)
        self.conv_0 = SpectralConv(c_in, middle, 1, eps)
        self.conv_1 = SpectralConv(middle, middle, 3, eps)
        self.conv_2 = SpectralConv(middle, middle, 3, eps)
        self.conv_3 = SpectralConv(middle, c_out, 1, eps)
        self.c_out = c_out
        self.up = up

    def forward(self, x: Tensor, condition: Tensor, truncation: float) -> Tensor:
        """Return the sum of both paths."""
        y = self.conv_0(F.relu(self.bn_0(x, condition, truncation)))
        y = F.relu(self.bn_1(y, condition, truncation))
        if self.up:
            y = F.interpolate(y, scale_factor=2.0)
        y = self.conv_2(F.relu(self.bn_2(self.conv_1(y), condition, truncation)))
        y = self.conv_3(F.relu(self.bn_3(y, condition, truncation)))
        skip = x[:, : self.c_out]
        out: Tensor = y + (F.interpolate(skip, scale_factor=2.0) if self.up else skip)
        return out
