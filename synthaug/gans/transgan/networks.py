"""Generator and discriminator without convolutions: tokens, attention and pixel shuffles.

Shapes: B images, T = h·w tokens in the order of rows, C channels, g the side of a grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.gans.contract import PairBatch
from synthaug.gans.deviation import minibatch_deviation
from synthaug.gans.precision import full

SMALLEST_PX = 8
"""Side of the generator's first map, in tokens (published)."""
FINEST = 16
"""Side of the discriminator's first map, in tokens."""
MLP_RATIO = 4
GRID = 16
"""Tokens a side that attend to one another on maps that are cut into grids (published)."""
WHOLE = 32
"""Tokens a side up to which maps stay whole (published)."""
MADE, READ = 0.02, 0.5
"""Standard deviation of positions at first, in generator and discriminator: tokens of pictures have
about 0.4, beside which 0.02 would leave a bag of patches to judge."""
GROUP, NARROW, HEAD = 4, 16, 64
"""The discriminator ends with: samples compared, channels of a token, of all tokens together."""


class TokenGenerator(nn.Module):
    """Latents to tokens of 8x8, then stages of blocks; each next stage has twice the side.

    Between stages a linear layer and a pixel shuffle turn a token into four; a token of the last
    stage is a pixel. All tokens of the first map begin alike, and so do the four of each shuffle
    (Aitken et al. 2017, ICNR), but for their positions: images begin smooth.

    Args:
        widths: channels C at 8, 16, 32, ... tokens a side.
        blocks: transformer blocks of each stage.
        z_dim: length of latents.
        head_dim: channels of one attention head.
    """

    def __init__(
        self, widths: Sequence[int], blocks: Sequence[int], *, z_dim: int, head_dim: int
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.size = SMALLEST_PX << (len(widths) - 1)
        self.start = nn.Linear(z_dim, SMALLEST_PX**2 * widths[0])
        self.stages = nn.ModuleList(
            Stage(width, SMALLEST_PX << level, depth, head_dim)
            for level, (width, depth) in enumerate(zip(widths, blocks, strict=True))
        )
        self.widen = nn.ModuleList(nn.Linear(here, 4 * above) for here, above in pairwise(widths))
        _repeat_rows(self.start, SMALLEST_PX**2)
        for layer in self.widen:
            _repeat_rows(layer, 4)
        self.to_rgb = nn.Sequential(TokenNorm(), nn.Linear(widths[-1], 3))

    def forward(self, z: Tensor) -> PairBatch:
        """Turn latents (B, z_dim) into images (B, 3, size, size) in [-1, 1], without masks."""
        x = self.start(z).unflatten(1, (-1, SMALLEST_PX**2)).transpose(1, 2)  # (B, 64, C)
        for level, stage in enumerate(self.stages):
            if level > 0:
                shuffled = F.pixel_shuffle(to_map(self.widen[level - 1](x)), 2)
                x = to_tokens(shuffled)  # (B, T, 4C') -> (B, 4T, C')
            x = stage(x)
        return PairBatch((to_map(self.to_rgb(x)).tanh(),))


class TokenDiscriminator(nn.Module):
    """Patches of two sizes to one logit.

    16x16 fine patches go through a stage of blocks; their tokens, averaged 2x2, are joined by
    those of 8x8 patches of twice the side for a second stage. The tokens it ends with, each in its
    place, and how much they differ between samples, decide together.

    Args:
        size: side of the images, a multiple of 16 pixels.
        widths: channels C of the two stages, the second wider.
        blocks: transformer blocks of the two stages.
        head_dim: channels of one attention head.
    """

    def __init__(
        self, size: int, widths: Sequence[int], blocks: Sequence[int], *, head_dim: int
    ) -> None:
        super().__init__()
        self.patch = size // FINEST
        fine, coarse = widths
        self.embed_fine = nn.Linear(3 * self.patch**2, fine)
        self.embed_coarse = nn.Linear(3 * (2 * self.patch) ** 2, coarse - fine)
        self.fine = Stage(fine, FINEST, blocks[0], head_dim, READ)
        self.coarse = Stage(coarse, FINEST // 2, blocks[1], head_dim, READ)
        self.norm = TokenNorm()
        self.narrow = nn.Linear(coarse + 1, NARROW)
        places = (FINEST // 2) ** 2
        self.head = nn.Sequential(nn.Linear(places * NARROW, HEAD), nn.GELU(), nn.Linear(HEAD, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Judge images (B, 3, size, size): logits (B,)."""
        fine = self.fine(self.embed_fine(to_patches(image, self.patch)))  # (B, 256, C)
        pooled = to_tokens(F.avg_pool2d(to_map(fine), 2))  # (B, 64, C)
        coarse = self.embed_coarse(to_patches(image, 2 * self.patch))
        x = self.norm(self.coarse(torch.cat([pooled, coarse], 2)))
        x = to_tokens(minibatch_deviation(to_map(x), GROUP))
        logits: Tensor = self.head(self.narrow(x).flatten(1)).squeeze(1)
        return full(logits)


class Stage(nn.Module):
    """Learned positions are added to tokens of one map, then come blocks.

    On maps above 32x32 tokens attend within grids of 16x16 alone (TransGAN, 3.4).

    Args:
        width: channels of a token.
        side: of the map, in tokens.
        depth: number of blocks.
        head_dim: channels of one attention head.
        spread: standard deviation of the positions at first.
    """

    def __init__(
        self, width: int, side: int, depth: int, head_dim: int, spread: float = MADE
    ) -> None:
        super().__init__()
        self.side = side
        self.positions = nn.Parameter(spread * torch.randn(1, side**2, width))
        self.blocks = nn.ModuleList(Block(width, head_dim) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """Transform tokens (B, side·side, C)."""
        x = x + self.positions
        if self.side <= WHOLE:
            for block in self.blocks:
                x = block(x)
            return x
        x = to_grids(x, self.side)
        for block in self.blocks:
            x = block(x)
        return from_grids(x, self.side)


class Block(nn.Module):
    """Attention and a two-layer network, each behind a token norm and beside the identity.

    Args:
        width: channels of a token, a multiple of ``head_dim``.
        head_dim: channels of one attention head.
    """

    def __init__(self, width: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.norm1 = TokenNorm()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.norm2 = TokenNorm()
        self.mlp = nn.Sequential(
            nn.Linear(width, MLP_RATIO * width), nn.GELU(), nn.Linear(MLP_RATIO * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform tokens (B, T, C), each of which sees all T."""
        qkv = self.qkv(self.norm1(x)).unflatten(2, (3, -1, self.head_dim))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, T, 3, heads, d) -> 3 x (B, heads, T, d)
        seen = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(seen.transpose(1, 2).flatten(2))  # (B, heads, T, d) -> (B, T, C)
        mixed: Tensor = x + self.mlp(self.norm2(x))
        return mixed


class TokenNorm(nn.Module):
    """Divide a token by the root of its mean square; nothing is learned (TransGAN, 3.3)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., C) over its last dimension."""
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()


@torch.no_grad()
def _repeat_rows(layer: nn.Module, times: int) -> None:
    """Let consecutive outputs of a linear layer begin alike."""
    for parameter in layer.parameters():
        parameter.copy_(parameter[::times].repeat_interleave(times, 0))


def to_map(x: Tensor) -> Tensor:
    """Tokens (B, h·h, C) to a square map (B, C, h, h)."""
    side = round(x.shape[1] ** 0.5)
    return x.transpose(1, 2).reshape(len(x), -1, side, side)


def to_tokens(x: Tensor) -> Tensor:
    """A map (B, C, h, w) to tokens (B, h·w, C)."""
    return x.flatten(2).transpose(1, 2)


def to_patches(image: Tensor, patch: int) -> Tensor:
    """Images (B, 3, H, W) to the pixels of patches, (B, (H/p)·(W/p), 3·p·p)."""
    return to_tokens(F.pixel_unshuffle(image, patch))


def to_grids(x: Tensor, side: int) -> Tensor:
    """Tokens (B, side·side, C) to those of grids, (B·n·n, g·g, C); n = side / g."""
    n = side // GRID
    x = x.reshape(len(x), n, GRID, n, GRID, -1)  # (B, n, g, n, g, C)
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def from_grids(x: Tensor, side: int) -> Tensor:
    """Undo `to_grids`."""
    n = side // GRID
    x = x.reshape(-1, n, n, GRID, GRID, x.shape[-1])  # (B, n, n, g, g, C)
    return x.transpose(2, 3).flatten(1, 4)
