"""The generator of BigGAN-deep, as the public PyTorch weights have it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.errors import InputError

START_PX = 4
START_WIDTH = 16
"""Channels at 4 px, in units of the generator's width."""
Layer = tuple[bool, int, int]
"""Whether a block doubles the size; its channels before and after, in units of the width."""


class BigGenerator(nn.Module):
    """Noise and a class to an image, through residual bottleneck blocks and one attention layer.

    After Brock et al. (ICLR 2019, arXiv:1809.11096, appendix B, figure 16). Latents of `forward`
    are joint, [noise; class embedding], as adaptation to a domain without classes uses them
    (Sushko and Gall, thesis section 7.3); `embeddings` has the embedding of every known class.

    Args:
        layers: the blocks in order.
        attention_at: number of blocks before the attention layer.
        width: channels of the last block.
        z_dim: length of the noise.
        embedding_dim: length of class embeddings.
        num_classes: known classes.
        statistics: how many sets of batch statistics are kept, one per truncation of the noise
            from 0 to 1 in equal steps.
        eps: of the normalisations.

    Attributes:
        latent_dim: length of joint latents.
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
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.latent_dim = z_dim + embedding_dim
        self.width = width
        self.size = START_PX << sum(up for up, _, _ in layers)
        self.embeddings = nn.Linear(num_classes, embedding_dim, bias=False)
        self.gen_z = SpectralLinear(
            self.latent_dim, START_PX**2 * START_WIDTH * width, eps, bias=True
        )
        self.layers = nn.ModuleList()
        for index, (up, before, after) in enumerate(layers):
            if index == attention_at:
                self.layers.append(SelfAttention(before * width, eps))
            self.layers.append(
                BottleneckBlock(before * width, after * width, self.latent_dim, statistics, eps, up)
            )
        self.bn = GridNorm(width, None, statistics, eps)
        self.conv_to_rgb = SpectralConv(width, width, 3, eps)

    def embed(self, z: Tensor, classes: Tensor) -> Tensor:
        """Join noise (B, z_dim) and classes (B,) int64 to latents (B, latent_dim)."""
        return torch.cat([z, self.embeddings.weight.T[classes]], 1)

    def forward(self, latent: Tensor, truncation: float = 1.0) -> Tensor:
        """Draw images.

        Args:
            latent: joint latents (B, latent_dim); noise ~ N(0, 1), cut off at two deviations and
                times ``truncation`` as published.
            truncation: chooses the batch statistics; must be one that has some.

        Returns:
            (B, 3, size, size) in [-1, 1].
        """
        x = self.features(latent, truncation)[-1]
        image: Tensor = self.conv_to_rgb(F.relu(self.bn(x, None, truncation)))
        return image[:, :3].tanh()

    def features(self, latent: Tensor, truncation: float = 1.0) -> list[Tensor]:
        """Return the features (B, C, h, w) after every layer, attention included."""
        x = self.gen_z(latent).view(-1, START_PX, START_PX, START_WIDTH * self.width)
        x = x.permute(0, 3, 1, 2).contiguous()
        maps = []
        for layer in self.layers:
            x = layer(x, latent, truncation)
            maps.append(x)
        return maps


class GridNorm(nn.Module):
    """Normalisation with stored statistics, one set per truncation, optionally conditional.

    The public code mixes neighbouring sets for truncations in between with what look like swapped
    weights; here only truncations that have a set are taken.

    Args:
        channels: C.
        condition: length of the condition that scales and shifts; None: plain weight and bias.
        statistics: sets.
        eps: added to variances.
    """

    running_means: Tensor
    running_vars: Tensor

    def __init__(self, channels: int, condition: int | None, statistics: int, eps: float) -> None:
        super().__init__()
        self.register_buffer("running_means", torch.zeros(statistics, channels))
        self.register_buffer("running_vars", torch.ones(statistics, channels))
        self.eps = eps
        self.conditional = condition is not None
        if condition is not None:
            self.scale = SpectralLinear(condition, channels, eps)
            self.offset = SpectralLinear(condition, channels, eps)
        else:
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, condition: Tensor | None, truncation: float) -> Tensor:
        """Normalise (B, C, h, w)."""
        steps = len(self.running_means) - 1
        index = round(truncation * steps)
        if not 0 < index <= steps or not math.isclose(index, truncation * steps, abs_tol=1e-6):
            raise InputError(
                f"no batch statistics for truncation {truncation}: take a multiple of 1/{steps} "
                "in (0, 1]"
            )
        mean, variance = self.running_means[index], self.running_vars[index]
        if self.conditional:
            scale: Tensor = 1 + self.scale(condition)[:, :, None, None]
            offset: Tensor = self.offset(condition)[:, :, None, None]
        else:
            scale, offset = self.weight[:, None, None], self.bias[:, None, None]
        x = (x - mean[:, None, None]) * torch.rsqrt(variance + self.eps)[:, None, None]
        return x * scale + offset


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


class SelfAttention(nn.Module):
    """Every place looks at all others, at half the size (Zhang et al., SAGAN, 2019).

    Shapes: (B, C, h, w) -> (B, C, h, w).
    """

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()

        self.snconv1x1_theta = SpectralConv(channels, channels // 8, 1, eps, bias=False)
        self.snconv1x1_phi = SpectralConv(channels, channels // 8, 1, eps, bias=False)
        self.snconv1x1_g = SpectralConv(channels, channels // 2, 1, eps, bias=False)
        self.snconv1x1_o_conv = SpectralConv(channels // 2, channels, 1, eps, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, condition: Tensor, truncation: float) -> Tensor:
        """Return the input and what it attends to; condition and truncation play no part."""
        B, _, h, w = x.shape
        query = self.snconv1x1_theta(x).flatten(2)  # (B, C/8, hw)
        key = F.max_pool2d(self.snconv1x1_phi(x), 2).flatten(2)  # (B, C/8, hw/4)
        value = F.max_pool2d(self.snconv1x1_g(x), 2).flatten(2)  # (B, C/2, hw/4)
        attention = (query.transpose(1, 2) @ key).softmax(2)  # (B, hw, hw/4)
        seen = (value @ attention.transpose(1, 2)).view(B, -1, h, w)
        out: Tensor = x + self.gamma * self.snconv1x1_o_conv(seen)
        return out


class SpectralLayer(nn.Module):
    """What both kinds of layers hold: a weight that is divided by its largest singular value.

    The value is estimated by power iteration (Miyato et al. 2018), one step per pass in training
    mode, none in evaluation mode. Names are those of the public weights.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, weight: Tensor, bias: bool, eps: float) -> None:
        super().__init__()
        self.weight_orig = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(len(weight))) if bias else None
        matrix = weight.flatten(1)
        self.register_buffer("weight_u", F.normalize(torch.randn(len(matrix)), dim=0))
        self.register_buffer("weight_v", F.normalize(torch.randn(matrix.shape[1]), dim=0))
        self.eps = eps
        self._iterate()

    def weight(self) -> Tensor:
        """Return the normalised weight."""
        if self.training:
            self._iterate()
        matrix = self.weight_orig.flatten(1)
        # copies: the next pass changes the buffers, which this one's gradient needs
        return self.weight_orig / (self.weight_u.clone() @ (matrix @ self.weight_v.clone()))

    @torch.no_grad()
    def _iterate(self) -> None:
        matrix = self.weight_orig.flatten(1)
        self.weight_v.copy_(F.normalize(matrix.T @ self.weight_u, dim=0, eps=self.eps))
        self.weight_u.copy_(F.normalize(matrix @ self.weight_v, dim=0, eps=self.eps))


class SpectralLinear(SpectralLayer):
    """Linear layer (B, c_in) -> (B, c_out)."""

    def __init__(self, c_in: int, c_out: int, eps: float, *, bias: bool = False) -> None:
        super().__init__(nn.init.xavier_normal_(torch.empty(c_out, c_in)), bias, eps)

    def forward(self, x: Tensor) -> Tensor:
        """Return features."""
        return F.linear(x, self.weight(), self.bias)


class SpectralConv(SpectralLayer):
    """Convolution (B, c_in, h, w) -> (B, c_out, h, w) of an odd kernel."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int, eps: float, *, bias: bool = True
    ) -> None:
        super().__init__(
            nn.init.xavier_normal_(torch.empty(c_out, c_in, kernel, kernel)), bias, eps
        )
        self.padding = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        """Return features."""
        return F.conv2d(x, self.weight(), self.bias, padding=self.padding)
