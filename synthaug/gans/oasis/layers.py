"""Layers of OASIS' generator: label maps with noise, and the normalisation they modulate.

After Park et al., "Semantic Image Synthesis with Spatially-Adaptive Normalization" (SPADE, CVPR
2019), with the 3D noise of Sushko et al., "You Only Need Adversarial Supervision for Semantic
Image Synthesis" (OASIS, ICLR 2021, arXiv:2012.04781, section 3.2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from synthaug.gans.precision import exact

TAPS = 9
"""Positions of a 3x3 kernel."""


class Layout:
    """Label maps and their noise, at any resolution that divides theirs.

    Args:
        labels: (B, H, W) int64 channels in [0, L).
        noise: (B, Z), one vector per picture, or (B, Z, H, W), one per pixel.
    """

    def __init__(self, labels: Tensor, noise: Tensor) -> None:
        self.labels = labels
        self.noise = noise
        self._scaled: dict[tuple[int, int], Layout] = {}

    def at(self, size: tuple[int, int]) -> Layout:
        """Return the layout at (h, w) by nearest neighbour: the upper left pixel of each cell."""
        height, width = self.labels.shape[1:]
        if size == (height, width):
            return self
        if size not in self._scaled:
            rows, columns = height // size[0], width // size[1]
            noise = self.noise if self.noise.ndim == 2 else self.noise[..., ::rows, ::columns]
            self._scaled[size] = Layout(self.labels[:, ::rows, ::columns], noise)
        return self._scaled[size]


class LabelConv(nn.Module):
    """3x3 convolution over noise and one-hot labels that never makes the one-hot tensor.

    A convolution of a one-hot map adds up nine rows of its kernel, one per position, chosen by the
    labels around a pixel. With one noise vector per picture the noise's share depends on the
    picture and the position alone and is added to those rows. Memory therefore does not grow with
    the number of labels, and the result is the dense convolution's (zero padding included) up to
    the order of the sum.

    Args:
        labels: L, number of label channels.
        noise_dim: Z, number of noise channels; they come first in the weight.
        channels: of the output.

    Shapes: weight (channels, Z + L, 3, 3); layout of (B, h, w) -> (B, channels, h, w).
    """

    def __init__(self, labels: int, noise_dim: int, channels: int) -> None:
        super().__init__()
        self.noise_dim = noise_dim
        self.weight = nn.Parameter(torch.empty(channels, noise_dim + labels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.xavier_normal_(self.weight, gain=INIT_GAIN)

    def forward(self, layout: Layout) -> Tensor:
        """Convolve the layout."""
        labels, noise = layout.labels, layout.noise
        weight = self.weight.permute(2, 3, 1, 0).flatten(0, 1).float()  # (9, Z + L, C)
        rows = weight[:, None, self.noise_dim :]  # (9, 1, L, C)
        B, L = len(labels), rows.shape[2]
        if noise.ndim == 2:
            share = noise.float() @ weight[:, : self.noise_dim]  # (9, B, C)
            rows = rows + share[:, :, None]
        else:
            rows = rows.expand(-1, B, -1, -1)
        table = F.pad(rows.flatten(1, 2), (0, 0, 0, 1))  # (9, B L + 1, C), the last row is zero
        start = torch.arange(B, device=labels.device)[:, None, None] * L
        index = F.pad(labels + start, (1, 1, 1, 1), value=B * L)
        h, w = labels.shape[1:]
        around = [index[:, y : y + h, x : x + w] for y in range(3) for x in range(3)]
        offset = torch.arange(TAPS, device=labels.device) * (B * L + 1)
        bags = (torch.stack(around, 3) + offset).view(-1, TAPS)
        with exact(labels):
            total = F.embedding_bag(bags, table.flatten(0, 1), mode="sum")
        out = total.view(B, h, w, -1).permute(0, 3, 1, 2) + self.bias[:, None, None]
        if noise.ndim == 4:
            out = out + F.conv2d(noise, self.weight[:, : self.noise_dim], padding=1)
        return out


class SPADE(nn.Module):
    """Batch normalisation without parameters, then a scale and a shift per pixel by the layout.

    Shapes: (B, channels, h, w) and a layout -> (B, channels, h, w).

    Args:
        channels: of the features.
        labels: L, number of label channels.
        noise_dim: Z.
        hidden: channels of the shared convolution (published: 128).
    """

    def __init__(self, channels: int, labels: int, noise_dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.shared = LabelConv(labels, noise_dim, hidden)
        self.gamma = conv(hidden, channels, 3)
        self.beta = conv(hidden, channels, 3)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Normalise ``x`` and modulate it."""
        hidden = F.relu(self.shared(layout.at((x.shape[2], x.shape[3]))))
        out: Tensor = self.norm(x) * (1 + self.gamma(hidden)) + self.beta(hidden)
        return out


class SpadeBlock(nn.Module):
    """Residual block of two spectrally normalised 3x3 convolutions, each behind a SPADE.

    Where the widths differ the skip is a SPADE and a 1x1 convolution without bias or activation.

    Shapes: (B, c_in, h, w) and a layout -> (B, c_out, h, w).
    """

    def __init__(self, c_in: int, c_out: int, labels: int, noise_dim: int, hidden: int) -> None:
        super().__init__()
        middle = min(c_in, c_out)
        self.norm_0 = SPADE(c_in, labels, noise_dim, hidden)
        self.norm_1 = SPADE(middle, labels, noise_dim, hidden)
        self.conv_0 = normalised_conv(c_in, middle, 3)
        self.conv_1 = normalised_conv(middle, c_out, 3)
        self.learned_skip = c_in != c_out
        if self.learned_skip:
            self.norm_s = SPADE(c_in, labels, noise_dim, hidden)
            self.conv_s = normalised_conv(c_in, c_out, 1, bias=False)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Return the sum of both paths."""
        y = self.conv_0(F.leaky_relu(self.norm_0(x, layout), 0.2))
        y = self.conv_1(F.leaky_relu(self.norm_1(y, layout), 0.2))
        out: Tensor = y + (self.conv_s(self.norm_s(x, layout)) if self.learned_skip else x)
        return out


INIT_GAIN = 0.02


def conv(c_in: int, c_out: int, kernel: int, *, bias: bool = True) -> nn.Conv2d:
    """Convolution of "same" size with Xavier-normal weights of gain 0.02 and zero biases."""
    layer = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=bias)
    nn.init.xavier_normal_(layer.weight, gain=INIT_GAIN)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def normalised_conv(c_in: int, c_out: int, kernel: int, *, bias: bool = True) -> nn.Module:
    """As `conv`, with spectral normalisation (Miyato et al. 2018)."""
    return spectral_norm(conv(c_in, c_out, kernel, bias=bias))
