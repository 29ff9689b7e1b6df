"""Layers of StyleGAN2 in plain PyTorch: equalised, modulated, filtered. All can be derived twice.

After Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (CVPR 2020,
arXiv:1912.04958). Names of parameters and buffers are those of the public PyTorch ports.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.gans.precision import exact

FIR = (1.0, 3.0, 3.0, 1.0)
"""Taps of the binomial filter that all resampling goes through."""


def fir_kernel(gain: float = 1.0) -> Tensor:
    """Return the separable filter (4, 4), its sum ``gain``."""
    taps = torch.tensor(FIR)
    return torch.outer(taps, taps) / taps.sum().square() * gain


class Fir(torch.autograd.Function):
    """`fir`, whose derivative is a filter again.

    Derived twice, a grouped convolution becomes one convolution per channel, for the sake of a
    derivative by the kernel that nobody asks for.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, pad: tuple[int, int]) -> Tensor:
        """Filter; see `fir`."""
        ctx.save_for_backward(kernel)
        ctx.pad = pad
        x = F.pad(x, (*pad, *pad))
        return F.conv2d(x, kernel.to(x.dtype).expand(x.shape[1], 1, -1, -1), groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Filter the gradient with the kernel turned round, at the gradient's own precision."""
        (kernel,), (before, after) = ctx.saved_tensors, ctx.pad
        most = len(kernel) - 1
        with exact(grads[0]):
            turned = kernel.flip(0, 1)
            return Fir.apply(grads[0], turned, (most - before, most - after)), None, None


def fir(x: Tensor, kernel: Tensor, pad: tuple[int, int]) -> Tensor:
    """Filter every channel of (B, C, h, w), ``pad`` zeros before and after both axes.

    The kernel (k, k) is taken for a constant: it gets no gradient.
    """
    y: Tensor = Fir.apply(x, kernel, pad)
    return y


def leaky(x: Tensor, clamp: float | None = None) -> Tensor:
    """Leaky ReLU of slope 0.2, times the root of two so that the variance stays."""
    return clamped(F.leaky_relu(x, 0.2) * math.sqrt(2), clamp)


def clamped(x: Tensor, limit: float | None) -> Tensor:
    """Clamp to [-limit, limit], or nothing without a limit."""
    return x if limit is None else x.clamp(-limit, limit)


class PixelNorm(nn.Module):
    """Bring latents (B, C) to a mean square of 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Return latents of the same shape."""
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


class EqualLinear(nn.Module):
    """Linear layer whose weights are scaled by 1 / sqrt(fan in) while it runs.

    Args:
        c_in: features of the input.
        c_out: features of the output.
        bias: of the output at first.
        lr_mul: learning rate relative to other layers'.
        activate: leaky ReLU after it.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        bias: float = 0.0,
        lr_mul: float = 1.0,
        activate: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in) / lr_mul)
        self.bias = nn.Parameter(torch.full((c_out,), bias))
        self.scale = lr_mul / math.sqrt(c_in)
        self.lr_mul = lr_mul
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in) -> (B, c_out)."""
        y = F.linear(x, self.weight * self.scale, self.bias * self.lr_mul)
        return leaky(y) if self.activate else y


class EqualConv(nn.Module):
    """Convolution whose weights are scaled by 1 / sqrt(fan in) while it runs; no bias.

    Shapes: (B, c_in, h, w) -> (B, c_out, h', w').
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int, *, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, kernel, kernel))
        self.scale = 1 / math.sqrt(c_in * kernel**2)
        self.stride = stride
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        return F.conv2d(x, self.weight * self.scale, stride=self.stride, padding=self.padding)


class Activation(nn.Module):
    """Bias (C,) and leaky ReLU of maps (B, C, h, w)."""

    def __init__(self, channels: int, clamp: float | None = None) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.clamp = clamp

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of the same shape."""
        return leaky(x + self.bias[:, None, None], self.clamp)


class Blur(nn.Module):
    """The filter, before a convolution of stride 2 or after a transposed one.

    Args:
        pad: zeros before and after both axes.
        gain: 4 where zeros were inserted in both axes.
    """

    kernel: Tensor

    def __init__(self, pad: tuple[int, int], gain: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("kernel", fir_kernel(gain))
        self.pad = pad

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h + pad - 3, w + pad - 3)."""
        return fir(x, self.kernel, self.pad)


class Upsample(nn.Module):
    """Double the size of (B, C, h, w): zeros between the pixels, then the filter."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", fir_kernel(4.0))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, 2h, 2w)."""
        B, C, h, w = x.shape
        spread = F.pad(x.reshape(B, C, h, 1, w, 1), (0, 1, 0, 0, 0, 1))
        return fir(spread.reshape(B, C, 2 * h, 2 * w), self.kernel, (2, 1))


class ModulatedConv(nn.Module):
    """Convolution whose input channels a style scales; outputs brought back to unit variance.

    Scaling the input and dividing the output is the published product of weights (section 2.2),
    reordered so that all samples share one convolution.

    Shapes: (B, c_in, h, w) and styles (B, style) -> (B, c_out, h, w), doubled if ``upsample``.

    Args:
        c_in: channels of the input.
        c_out: channels of the output.
        kernel: side of the kernel.
        style: length of the style.
        demodulate: divide by each output channel's expected standard deviation.
        upsample: double the size by a transposed convolution and the filter.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        style: int,
        *,
        demodulate: bool = True,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, c_out, c_in, kernel, kernel))
        self.modulation = EqualLinear(style, c_in, bias=1.0)
        if upsample:
            self.blur = Blur((1, 1), gain=4.0)
        self.scale = 1 / math.sqrt(c_in * kernel**2)
        self.padding = kernel // 2
        self.demodulate = demodulate
        self.upsample = upsample

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Convolve."""
        weight = self.weight[0] * self.scale  # (c_out, c_in, k, k)
        s = self.modulation(style)  # (B, c_in)
        x = x * s[:, :, None, None]
        if self.upsample:
            y: Tensor = self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        else:
            y = F.conv2d(x, weight, padding=self.padding)
        if self.demodulate:
            variance = s.square() @ weight.square().sum((2, 3)).T  # (B, c_out)
            y = y * torch.rsqrt(variance + 1e-8)[:, :, None, None]
        return y


class NoiseInjection(nn.Module):
    """Add noise (B or 1, 1, h, w) at a learned strength, 0 at first."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Return maps of the same shape."""
        return x + self.weight * noise.to(x.dtype)


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU.

    Shapes: as `ModulatedConv`; noise at the size of the output.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        style: int,
        *,
        upsample: bool = False,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.conv = ModulatedConv(c_in, c_out, 3, style, upsample=upsample)
        self.noise = NoiseInjection()
        self.activate = Activation(c_out, clamp)

    def forward(self, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        """Return the features."""
        features: Tensor = self.activate(self.noise(self.conv(x, style), noise))
        return features


class ToRGB(nn.Module):
    """Features (B, C, h, w) to colours, added to the upsampled colours of the level below."""

    def __init__(
        self, channels: int, style: int, *, upsample: bool = True, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.conv = ModulatedConv(channels, 3, 1, style, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        if upsample:
            self.upsample = Upsample()
        self.clamp = clamp

    def forward(self, x: Tensor, style: Tensor, below: Tensor | None = None) -> Tensor:
        """Return colours (B, 3, h, w); ``below`` is (B, 3, h/2, w/2)."""
        colours = clamped(self.conv(x, style) + self.bias, self.clamp)
        return colours if below is None else colours + self.upsample(below)


class ResBlock(nn.Module):
    """Block of the discriminator that halves the size.

    Shapes: (B, c_in, h, w) -> (B, c_out, h/2, w/2).
    """

    def __init__(self, c_in: int, c_out: int, clamp: float | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(EqualConv(c_in, c_in, 3, padding=1), Activation(c_in, clamp))
        self.conv2 = nn.Sequential(
            Blur((2, 2)), EqualConv(c_in, c_out, 3, stride=2), Activation(c_out, clamp)
        )
        self.skip = nn.Sequential(Blur((1, 1)), EqualConv(c_in, c_out, 1, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both paths over the root of two."""
        y: Tensor = self.conv2(self.conv1(x)) + self.skip(x)
        return y / math.sqrt(2)
