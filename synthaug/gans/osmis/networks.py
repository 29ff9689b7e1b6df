"""The published networks of OSMIS and SIV-GAN, computed with less work.

Three identities keep the arithmetic and shrink the cost: a 3x3 convolution after nearest
up-sampling is one transposed 4x4 convolution of stride 2 (16 products instead of 36 for each four
pixels); a 3x3 convolution before 2x2 average pooling is one 4x4 convolution of stride 2; and 1x1
convolutions commute with both, so that shortcuts run at the lower resolution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from synthaug.gans.contract import PairBatch
from synthaug.gans.focus import Focus
from synthaug.gans.osmis.feature_augmentation import augment_content, augment_layout
from synthaug.gans.osmis.losses import Judgement, OsmisOptions, straight_through_mask

MIN_DEPTH, MAX_DEPTH = 5, 9
LOW_BLOCKS = {5: 2, 6: 3, 7: 3, 8: 4, 9: 4}
BRANCH_BLOCKS = {5: 4, 6: 4, 7: 4, 8: 3, 9: 4}


class Size(NamedTuple):
    """What the size of the training image decides; H, W = (h0, w0) * 2^(depth - 1)."""

    h0: int
    w0: int
    depth: int
    low_blocks: int
    branch_blocks: int

    @property
    def height(self) -> int:
        """Height of the networks' images in pixels."""
        return self.h0 << (self.depth - 1)

    @property
    def width(self) -> int:
        """Width of the networks' images in pixels."""
        return self.w0 << (self.depth - 1)


def size_rule(height: int, width: int, max_size: int) -> Size:
    """Choose depth and stem for an image; defined for every size.

    The published rule: cap the longer side at ``max_size``, take the depth at which both sides
    have come down to a stem of 3 to 7 cells. Beyond it, where that rule fails: depth is clamped
    to 5..9, lowered while the shorter side of the stem would be under 2 cells, the stem has at
    least 2 cells a side, and the branches have no more blocks than the map can be halved.

    Args:
        height: height of the training image in pixels.
        width: width of the training image in pixels.
        max_size: cap of the longer side in pixels.
    """
    shrink = min(1.0, max_size / max(height, width))
    sides = (height * shrink, width * shrink)
    depth = MIN_DEPTH
    while depth < MAX_DEPTH and max(sides) / 2 ** (depth - 1) > 7:
        depth += 1
    while depth > MIN_DEPTH and min(sides) / 2 ** (depth - 1) < 1.5:
        depth -= 1
    h0, w0 = (max(2, round(side / 2 ** (depth - 1))) for side in sides)
    low = LOW_BLOCKS[depth]
    halvings = int(math.log2(min(h0, w0))) + depth - 1
    return Size(h0, w0, depth, low, min(BRANCH_BLOCKS[depth], halvings - low))


class SpectralConv2d(nn.Conv2d):
    """A convolution with spectral norm (one power iteration per training forward).

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel_size: 1 or 3, zero padding keeps the size.
        bias: whether to add a bias.
        resample: ``up`` nearest up-sampling by 2 first; ``down`` 2x2 average pooling afterwards
            (odd sides lose their last row or column); both folded into the convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        resample: Literal["up", "down"] | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias
        )
        self.resample = resample
        nn.init.normal_(self.weight, 0.0, 0.02)
        spectral_norm(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, h, w) to (B, out_channels, h', w')."""
        weight = self.weight  # normalised anew at every access
        if self.kernel_size == (1, 1):
            if self.resample == "down":
                x = F.avg_pool2d(x, 2)
            x = F.conv2d(x, weight, self.bias)
            return F.interpolate(x, scale_factor=2.0) if self.resample == "up" else x
        if self.resample is None:
            return F.conv2d(x, weight, self.bias, padding=1)
        padded = F.pad(weight, (1, 1, 1, 1))
        wide = padded[..., 1:, :] + padded[..., :-1, :]
        wide = wide[..., 1:] + wide[..., :-1]  # (out, in, 4, 4): the kernel over 2x2 ones
        if self.resample == "down":
            return F.conv2d(x, wide * 0.25, self.bias, stride=2, padding=1)
        wide = wide.flip(2, 3).transpose(0, 1)
        return F.conv_transpose2d(x, wide, self.bias, stride=2, padding=1)


class UpBlock(nn.Module):
    """Generator block: two 3x3 convolutions and a learned shortcut, no norm layer."""

    def __init__(self, in_channels: int, out_channels: int, up: bool) -> None:
        super().__init__()
        middle = min(in_channels, out_channels)
        resample: Literal["up"] | None = "up" if up else None
        self.first = SpectralConv2d(in_channels, middle, 3, resample=resample)
        self.second = SpectralConv2d(middle, out_channels, 3)
        self.shortcut = SpectralConv2d(in_channels, out_channels, 1, bias=False, resample=resample)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, h, w) to (B, out_channels, 2h, 2w), or (h, w) without ``up``."""
        y = self.first(F.leaky_relu(x, 0.2))
        out: Tensor = self.second(F.leaky_relu_(y, 0.2)) + self.shortcut(x)
        return out


class DownBlock(nn.Module):
    """Discriminator block: two 3x3 convolutions, a learned shortcut, 2x2 average pooling."""

    def __init__(self, in_channels: int, out_channels: int, activate: bool = True) -> None:
        super().__init__()
        middle = min(in_channels, out_channels)
        self.activate = activate
        self.first = SpectralConv2d(in_channels, middle, 3)
        self.second = SpectralConv2d(middle, out_channels, 3, resample="down")
        self.shortcut = SpectralConv2d(in_channels, out_channels, 1, bias=False, resample="down")

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, h, w) to (B, out_channels, h // 2, w // 2)."""
        y = self.first(F.leaky_relu(x, 0.2) if self.activate else x)
        out: Tensor = self.second(F.leaky_relu_(y, 0.2)) + self.shortcut(x)
        return out


class VectorBlock(nn.Module):
    """Residual block of the content branch on vectors (..., in_channels)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        middle = min(in_channels, out_channels)
        self.first = SpectralConv2d(in_channels, middle, 1)
        self.second = SpectralConv2d(middle, out_channels, 1)
        self.shortcut = (
            SpectralConv2d(in_channels, out_channels, 1, bias=False)
            if in_channels != out_channels
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_channels) to (..., out_channels)."""
        y = _linear(self.first, F.leaky_relu(x, 0.2))
        y = _linear(self.second, F.leaky_relu_(y, 0.2))
        return y + (x if self.shortcut is None else _linear(self.shortcut, x))


def _linear(conv: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(conv, SpectralConv2d)
    return F.linear(x, conv.weight.flatten(1), conv.bias)


class OsmisGenerator(nn.Module):
    """Generator of images at several scales and, with classes, of the mask.

    Args:
        height0: height of the stem's map.
        width0: width of the stem's map.
        depth: number of blocks, 5 to 9; images have (height0, width0) * 2^(depth - 1) pixels.
        num_classes: N, channels of the mask; None for images alone.
        base: width of the finest block; the published one is 32.
        latent_dim: length of the latent.
    """

    def __init__(
        self,
        height0: int,
        width0: int,
        depth: int,
        num_classes: int | None,
        base: int = 32,
        latent_dim: int = 64,
    ) -> None:
        super().__init__()
        widths = [8 * base] * (depth - 2) + [4 * base, 2 * base, base]
        self.scales = LOW_BLOCKS[depth]
        self.stem = nn.ConvTranspose2d(latent_dim, widths[0], (height0, width0))
        self.blocks = nn.ModuleList(
            UpBlock(widths[i], widths[i + 1], up=i > 0) for i in range(depth)
        )
        # One head a block as published; only the last ``scales`` are ever computed.
        self.heads = nn.ModuleList(SpectralConv2d(width, 3, 3) for width in widths[1:])
        self.mask_head: nn.Conv2d | None = None
        if num_classes is not None:
            self.mask_head = nn.Conv2d(base, num_classes, 3, padding=1)
            nn.init.normal_(self.mask_head.weight, 0.0, 0.02)

    def forward(self, z: Tensor) -> PairBatch:
        """Generate from latents (B, latent_dim).

        Returns:
            Images from fine to coarse, each (B, 3, H/2^i, W/2^i) in [-1, 1]; the mask
            (B, N, H, W) as class probabilities or None; all blocks' raw outputs as features.
        """
        x = self.stem(z[:, :, None, None]).contiguous(memory_format=torch.channels_last)
        features = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        fine = zip(self.heads[-self.scales :], features[-self.scales :], strict=True)
        images = [torch.tanh(head(feature)) for head, feature in fine]
        mask = None if self.mask_head is None else self.mask_head(x).softmax(1)
        return PairBatch(tuple(reversed(images)), mask, tuple(features))


class OsmisDiscriminator(nn.Module):
    """Low-level blocks, then a branch for content or objects and one for layout.

    Args:
        low_blocks: number of low-level blocks; as many image scales are consumed.
        branch_blocks: number of blocks of either branch.
        num_classes: N, channels of the mask; None judges images alone (SIV-GAN).
        base: width of the first block; the published one is 32.
        options: behaviour switches.
        bernoulli_steps: length of the random phase of the straight-through mask in iterations.
    """

    def __init__(
        self,
        low_blocks: int,
        branch_blocks: int,
        num_classes: int | None,
        base: int = 32,
        options: OsmisOptions | None = None,
        bernoulli_steps: int = 15000,
    ) -> None:
        super().__init__()
        self.options = options or OsmisOptions()
        self.bernoulli_steps = bernoulli_steps
        last = low_blocks + branch_blocks
        widths = [min(base << j, 8 * base) for j in range(last + 1)]
        if num_classes is not None:
            for j in range(low_blocks + 1, last):
                widths[j] = 2 * widths[j]
        self.stem = SpectralConv2d(3, base, 3)
        self.injections = nn.ModuleList(
            SpectralConv2d(3, widths[i] // 8, 3) for i in range(1, low_blocks)
        )
        self.low = nn.ModuleList()
        for i in range(low_blocks):
            width = widths[i] + (widths[i] // 8 if i else 0)
            self.low.append(DownBlock(width, widths[i + 1], activate=i > 0))
        self.low_heads = _heads(widths[1 : low_blocks + 1], 1)
        branch = range(low_blocks, last)
        self.content = nn.ModuleList(VectorBlock(widths[j], widths[j + 1]) for j in branch)
        logits = 1 if num_classes is None else num_classes + 1
        self.content_heads = _heads(widths[low_blocks + 1 :], logits)
        self.layout = nn.ModuleList(
            DownBlock(widths[low_blocks] if j == low_blocks else 1, 1) for j in branch
        )
        self.layout_heads = _heads([1] * branch_blocks, 1)
        self.focus = Focus(widths[low_blocks])

    def forward(self, batch: PairBatch, real: bool, step: int) -> Judgement:
        """Judge pairs.

        Args:
            batch: at least ``low_blocks`` image scales and, with classes, the mask.
            real: whether these are real pairs: their features are augmented (in training) and
                their masks used as they are; generated masks are made hard, straight through.
            step: iteration of the training.
        """
        y = self.stem(batch.images[0].contiguous(memory_format=torch.channels_last))
        low = []
        for i, (block, head) in enumerate(zip(self.low, self.low_heads, strict=True)):
            if i:
                y = torch.cat([y, self.injections[i - 1](batch.images[i])], 1)
            y = block(y)
            low.append(head(y))
        y = self.focus(y, batch.focus)
        mask, presence, areas = None, None, None
        if batch.mask is None:
            vectors = y.mean((2, 3))[None]  # (1, B, C)
        else:
            areas = batch.mask.detach().sum((2, 3)).t()
            mask = F.interpolate(batch.mask, y.shape[2:], mode="nearest")
            if not real:
                mask = straight_through_mask(mask, step, self.bernoulli_steps)
            presence = (mask.detach() > 0).flatten(2).any(2).t()
            vectors = torch.einsum("bnhw,bchw->nbc", mask, y) / mask[0, 0].numel()
        if real and self.training:
            p, per_sample = self.options.augment_features, self.options.fire_per_sample
            swap = self.options.swap_content
            vectors = augment_content(vectors, p, per_sample=per_sample, swap=swap)
            y, _ = augment_layout(y, mask, p, per_sample=per_sample)
        content = []
        for block, head in zip(self.content, self.content_heads, strict=True):
            vectors = block(vectors)
            content.append(_linear(head, vectors))
        layout = []
        for block, head in zip(self.layout, self.layout_heads, strict=True):
            y = block(y)
            layout.append(head(y))
        return Judgement(low, content, layout, presence, areas)


def _heads(widths: Sequence[int], logits: int) -> nn.ModuleList:
    return nn.ModuleList(SpectralConv2d(width, logits, 1) for width in widths)
