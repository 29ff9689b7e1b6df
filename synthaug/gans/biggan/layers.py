"""Layers that generator and discriminator of BigGAN share; names are those of public weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.gans.precision import exact

FIRST_ITERATIONS = 10
"""Steps of power iteration that fresh weights start with."""


class SpectralLayer(nn.Module):
    """What both kinds of layers hold: a weight that is divided by its largest singular value.

    The value is estimated by power iteration (Miyato et al. 2018), a step for every call of
    `iterate_norms`: passes in between see one and the same weight.

    Args:
        weight: (c_out, ...).
        bias: whether there is one.
        eps: least norm of the vectors.
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
        for _ in range(0 if weight.is_meta else FIRST_ITERATIONS):
            self.iterate()

    def weight(self) -> Tensor:
        """Return the normalised weight."""
        matrix = self.weight_orig.flatten(1)
        with exact(matrix):
            return self.weight_orig / (self.weight_u @ (matrix @ self.weight_v))

    @torch.no_grad()
    def iterate(self) -> None:
        """Improve the estimate by a step of power iteration."""
        matrix = self.weight_orig.flatten(1)
        self.weight_v.copy_(F.normalize(matrix.T @ self.weight_u, dim=0, eps=self.eps))
        self.weight_u.copy_(F.normalize(matrix @ self.weight_v, dim=0, eps=self.eps))


def iterate_norms(module: nn.Module) -> None:
    """Improve the estimates of all `SpectralLayer` in a module by a step."""
    for layer in module.modules():
        if isinstance(layer, SpectralLayer):
            layer.iterate()


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

    def forward(self, x: Tensor) -> Tensor:
        """Return the input and what it attends to."""
        B, _, h, w = x.shape
        query = self.snconv1x1_theta(x).flatten(2)  # (B, C/8, hw)
        key = F.max_pool2d(self.snconv1x1_phi(x), 2).flatten(2)  # (B, C/8, hw/4)
        value = F.max_pool2d(self.snconv1x1_g(x), 2).flatten(2)  # (B, C/2, hw/4)
        attention = (query.transpose(1, 2) @ key).softmax(2)  # (B, hw, hw/4)
        seen = (value @ attention.transpose(1, 2)).view(B, -1, h, w)
        out: Tensor = x + self.gamma * self.snconv1x1_o_conv(seen)
        return out
