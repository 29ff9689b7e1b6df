"""The published networks of OASIS, at any width: SPADE generator and U-Net discriminator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.gans.contract import PairBatch
from synthaug.gans.oasis.layers import (
    LabelConv,
    Layout,
    SpadeBlock,
    conv,
    normalised_conv,
)

NOISE_DIM = 64
LATENT_DIM = NOISE_DIM + 1
GENERATOR_WIDTHS = (16, 16, 16, 8, 4, 2, 1)
"""Channels before, between and after the generator's six blocks, in units of its base."""
ENCODER_WIDTHS = (3, 128, 128, 256, 256, 512, 512)
DECODER_WIDTHS = (512, 256, 256, 128, 128, 64)


class LabelMapGenerator(nn.Module, ABC):
    """What paints label maps: keeps the training maps, so that a latent alone names a sample.

    A latent (B, 65) is 64 numbers of noise and the number of a training map, counted round.
    Sub-classes implement `_paint`.

    Args:
        height: of the samples in pixels.
        width: of the samples in pixels.
        num_classes: N.

    Attributes:
        grid_px: what sides of label maps must be multiples of.
        silent: noise is taken for zero.
        maps: (P, H, W) int16 classes in [0, N), -1 where there is no label. Not part of the
            weights: whoever loads these sets the maps again.
    """

    maps: Tensor
    grid_px = 32
    silent = False

    def __init__(self, height: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.size = (height, width)
        self.num_classes = num_classes
        blank = torch.zeros(1, height, width, dtype=torch.int16)
        self.register_buffer("maps", blank, persistent=False)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> PairBatch:
        """Paint label maps.

        Args:
            z: latents (B, 65).
            labels: (B, H, W) int64 classes, -1 where there is no label; default: the maps that
                the latents name.

        Returns:
            Images (B, 3, H, W) with the labels as their mask.
        """
        if labels is None:
            number = z[:, NOISE_DIM].round().long() % len(self.maps)
            labels = self.maps[number].long()
        return PairBatch((self.paint(labels, z[:, :NOISE_DIM]),), labels)

    def paint(self, labels: Tensor, noise: Tensor) -> Tensor:
        """Paint label maps with given noise.

        Args:
            labels: (B, H, W) int64 classes, -1 where there is no label; sides multiples of
                ``grid_px``, others than in training are allowed.
            noise: (B, 64), or (B, 64, H, W) to steer places apart.

        Returns:
            (B, 3, H, W) in [-1, 1].
        """
        return self._paint(labels, torch.zeros_like(noise) if self.silent else noise)

    @abstractmethod
    def _paint(self, labels: Tensor, noise: Tensor) -> Tensor: ...


class OasisGenerator(LabelMapGenerator):
    """Six residual SPADE blocks from 1/32 of the size up to all of it.

    Args:
        height: multiple of 32.
        width: multiple of 32.
        num_classes: N; one more channel stands for pixels without a label.
        base: width of the last block (published: 64).
        hidden: width inside every SPADE (published: 128).
    """

    def __init__(
        self, height: int, width: int, num_classes: int, *, base: int = 64, hidden: int = 128
    ) -> None:
        super().__init__(height, width, num_classes)
        labels = num_classes + 1
        widths = [base * factor for factor in GENERATOR_WIDTHS]
        self.stem = LabelConv(labels, NOISE_DIM, widths[0])
        self.blocks = nn.ModuleList(
            SpadeBlock(c_in, c_out, labels, NOISE_DIM, hidden) for c_in, c_out in pairwise(widths)
        )
        self.image = conv(widths[-1], 3, 3)

    def _paint(self, labels: Tensor, noise: Tensor) -> Tensor:
        layout = Layout(labels + 1, noise)
        height, width = labels.shape[1:]
        x = self.stem(layout.at((height // self.grid_px, width // self.grid_px)))
        for index, block in enumerate(self.blocks):
            x = block(x if index == 0 else F.interpolate(x, scale_factor=2.0), layout)
        image: Tensor = self.image(F.leaky_relu(x, 0.2)).float().tanh()
        return image


class OasisDiscriminator(nn.Module):
    """U-Net that gives every pixel a class or calls it fake.

    Shapes: (B, 3, H, W) in [-1, 1], sides multiples of 64 -> logits (B, N + 2, H, W): fake, one
    that is never a target (pixels without a label, kept for the published weights), N classes.

    Args:
        num_classes: N.
        width: multiple of the published widths.
    """

    def __init__(self, num_classes: int, *, width: float = 1.0) -> None:
        super().__init__()

        def scaled(channels: int) -> int:
            return max(4, round(channels * width))

        encoder = [3, *map(scaled, ENCODER_WIDTHS[1:])]
        decoder = list(map(scaled, DECODER_WIDTHS))
        self.down = nn.ModuleList(
            DownBlock(encoder[i], encoder[i + 1], first=i == 0) for i in range(len(encoder) - 1)
        )
        inputs = [encoder[-1]] + [
            skip + below for skip, below in zip(encoder[-2:0:-1], decoder, strict=False)
        ]
        self.up = nn.ModuleList(
            UpBlock(c_in, c_out) for c_in, c_out in zip(inputs, decoder, strict=True)
        )
        self.logits = conv(decoder[-1], num_classes + 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits in float32."""
        skips = []
        x = image
        for block in self.down:
            x = block(x)
            skips.append(x)
        for index, block in enumerate(self.up):
            x = block(x if index == 0 else torch.cat([skips[-1 - index], x], 1))
        logits: Tensor = self.logits(x).float()
        return logits


class ResidualBlock(nn.Module):
    """What both kinds of blocks hold: two convolutions, and a third where the width changes."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv1 = normalised_conv(c_in, c_out, 3)
        self.conv2 = normalised_conv(c_out, c_out, 3)
        self.learned_skip = c_in != c_out
        if self.learned_skip:
            self.conv_s = normalised_conv(c_in, c_out, 1)

    def skip(self, x: Tensor) -> Tensor:
        """Bring the input to the width of the output."""
        out: Tensor = self.conv_s(x) if self.learned_skip else x
        return out


class DownBlock(ResidualBlock):
    """Residual block that halves the size by averaging; the first has no leading activation.

    Shapes: (B, c_in, h, w) -> (B, c_out, h/2, w/2).
    """

    def __init__(self, c_in: int, c_out: int, *, first: bool) -> None:
        super().__init__(c_in, c_out)
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both paths."""
        y = self.conv1(x if self.first else F.leaky_relu(x, 0.2))
        y = F.avg_pool2d(self.conv2(F.leaky_relu(y, 0.2)), 2)
        # a 1x1 convolution and a mean commute
        return y + self.skip(F.avg_pool2d(x, 2))


class UpBlock(ResidualBlock):
    """Residual block that doubles the size by nearest neighbour before its first convolution.

    Shapes: (B, c_in, h, w) -> (B, c_out, 2h, 2w).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both paths."""
        y = self.conv1(F.interpolate(F.leaky_relu(x, 0.2), scale_factor=2.0))
        y = self.conv2(F.leaky_relu(y, 0.2))
        out: Tensor = y + F.interpolate(self.skip(x), scale_factor=2.0)
        return out
