"""Networks of the fast preset: a painter of compositions and heads over frozen features."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.backbone import TAP_CHANNELS
from synthaug.gans.contract import PairBatch
from synthaug.gans.focus import Focus
from synthaug.gans.osmis.composition import DRAWS, Composition
from synthaug.gans.osmis.feature_augmentation import augment_content, augment_layout
from synthaug.gans.osmis.losses import Judgement

GRID_PX = 8
LAYOUT_PX = 4
SHOWN_PX = 2
AREA_PX = 128 * 224
TEXTURE_DIM = 64
LATENT_DIM = TEXTURE_DIM + DRAWS + 1
TEXTURE_MAPS = 16


def fast_size(height: int, width: int, max_size: int | None = None) -> tuple[int, int]:
    """Return the training size: about 128 x 224 pixels in all, sides multiples of 8 from 32 up.

    Args:
        height: height of the picture in pixels.
        width: width of the picture in pixels.
        max_size: longer side in pixels instead of the area rule.
    """
    scale = math.sqrt(AREA_PX / (height * width))
    if max_size is not None:
        scale = max_size / max(height, width)
    sides = [max(32, round(side * scale / GRID_PX) * GRID_PX) for side in (height, width)]
    return sides[0], sides[1]


class PaintBlock(nn.Module):
    """Residual block; up-samples by nearest neighbour between its two 3x3 convolutions.

    Shapes: (B, c_in, h, w) -> (B, c_out, 2h, 2w), or (B, c_out, h, w) without ``up``.
    """

    def __init__(self, c_in: int, c_out: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.first = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.second = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both paths, scaled so that their mean energy is kept."""
        y, x = self.first(F.leaky_relu(x, 0.2)), self.shortcut(x)
        if self.up:
            y, x = F.interpolate(y, scale_factor=2.0), F.interpolate(x, scale_factor=2.0)
        y = self.second(F.leaky_relu(_unit(y), 0.2))
        out: Tensor = (x + y) * math.sqrt(0.5)
        return out


class FastGenerator(nn.Module):
    """Paints compositions: latent (B, 106) -> pairs of one scale.

    A latent is 64 numbers of texture, those that place the parts, and one that picks the pair.
    The painter is shown the composition in cells of 2 x 2 px, all that is finer is its own.

    Args:
        height: height of the samples in pixels, a multiple of 8.
        width: width of the samples in pixels, a multiple of 8.
        num_classes: N, background first; None for pictures without masks.
        num_pairs: number of training pairs.
        flip: whether mirror images are plausible.
        enlarge: whether small objects are shown larger, too.
        smooth_texture: whether the texture runs smoothly from cell to cell of 8 px; otherwise every
            cell's border is one that strokes can cling to, as in generators fitted before.
        widths: channels of the blocks at strides 4, 2 and 1.
    """

    position: Tensor

    def __init__(
        self,
        height: int,
        width: int,
        num_classes: int | None,
        num_pairs: int = 1,
        *,
        flip: bool = True,
        enlarge: bool = True,
        smooth_texture: bool = False,
        widths: tuple[int, int, int] = (128, 64, 32),
    ) -> None:
        super().__init__()
        self.size = (height, width)
        self.num_classes = num_classes
        self.num_pairs = num_pairs
        self.smooth_texture = smooth_texture
        self.coarse = (height // LAYOUT_PX, width // LAYOUT_PX)
        self.texture_size = (height // GRID_PX, width // GRID_PX)
        N = num_classes or 1
        self.composition = Composition(
            2 * height, 2 * width, num_classes, num_pairs, flip=flip, enlarge=enlarge
        )
        self.layout_in = nn.Conv2d(4 * (3 + N) + 2, widths[0], 3, padding=1)
        self.texture = nn.Linear(TEXTURE_DIM, TEXTURE_MAPS * math.prod(self.texture_size))
        self.texture_in = nn.Conv2d(TEXTURE_MAPS, widths[0], 1)
        channels = (widths[0], *widths)
        self.blocks = nn.ModuleList(
            [PaintBlock(widths[0], widths[0], up=False)]
            + [PaintBlock(channels[i], channels[i + 1], up=i > 0) for i in range(len(widths))]
        )
        self.head = nn.Conv2d(widths[-1], 3 * N + (num_classes or 0), 3, padding=1)
        axes = [torch.linspace(-1, 1, side) for side in self.coarse]
        position = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        self.register_buffer("position", position[None], persistent=False)
        _initialise(self)
        nn.init.normal_(self.texture.weight, 0, 1 / math.sqrt(TEXTURE_DIM))
        with torch.no_grad():
            self.head.weight.mul_(0.1)
        self.to(memory_format=torch.channels_last)

    def compose(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the composition of latents (B, 106) at twice the samples' size.

        Returns:
            Image (B, 3, 2H, 2W) and mask (B, N, 2H, 2W).
        """
        with torch.no_grad():
            choice = torch.special.ndtr(z[:, -1]) * self.num_pairs
            pair = choice.long().clamp(0, self.num_pairs - 1)
            composed: tuple[Tensor, Tensor] = self.composition(z[:, TEXTURE_DIM:-1], pair)
            return composed

    def forward(self, z: Tensor) -> PairBatch:
        """Paint latents (B, 106); features are the blocks' outputs, layout the composition."""
        B = len(z)
        image, mask = self.compose(z)
        shown = F.avg_pool2d(torch.cat([image, mask], 1), 2 * SHOWN_PX)  # (B, 3 + N, 2h, 2w)
        base = F.interpolate(shown, self.size, mode="bilinear", align_corners=False)
        position = self.position.expand(B, -1, -1, -1)
        layout = torch.cat([F.pixel_unshuffle(shown, 2), position], 1)
        texture = self.texture(z[:, :TEXTURE_DIM]).view(B, TEXTURE_MAPS, *self.texture_size)
        texture = self.texture_in(texture.contiguous(memory_format=torch.channels_last))
        x = self.layout_in(layout.contiguous(memory_format=torch.channels_last))
        mode = "bilinear" if self.smooth_texture else "nearest"
        x = x + F.interpolate(texture, self.coarse, mode=mode)
        features = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        painted = self.head(F.leaky_relu(x, 0.2)).float()
        start = torch.atanh(0.97 * base[:, None, :3])
        colours = start + painted[:, : 3 * mask.shape[1]].unflatten(1, (-1, 3))
        colours = colours.tanh()  # (B, N, 3, H, W)
        if self.num_classes is None:
            return PairBatch((colours[:, 0],), None, tuple(features), (image, None))
        soft = ((base[:, 3:] + 0.02).log() + painted[:, 3 * self.num_classes :]).softmax(1)
        # The picture must not pull at the mask: dark relief would be painted as background.
        mixed = (soft.detach()[:, :, None] * colours).sum(1)  # -> (B, 3, H, W)
        return PairBatch((mixed,), soft, tuple(features), (image, mask))


class FastDiscriminator(nn.Module):
    """Heads over the four frozen feature maps and over pixels.

    Args:
        num_classes: N, background first; None judges images alone.
        width: channels that the feature maps are projected to.
        augment_features: probability of each feature augmentation of real pairs.
    """

    spread: Tensor
    area: Tensor

    def __init__(
        self, num_classes: int | None, width: int = 64, augment_features: float = 0.4
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.augment_features = augment_features
        N = num_classes or 1
        logits = 1 if num_classes is None else N + 1
        taps = len(TAP_CHANNELS)
        self.register_buffer("spread", torch.ones(taps))
        self.register_buffer("area", torch.full((N,), 1 / N))
        self.project = nn.ModuleList([nn.Conv2d(c, width, 1) for c in TAP_CHANNELS])
        self.low = nn.ModuleList([_patch_head(width) for _ in range(taps)])
        self.content = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Linear(width + 1, width), nn.LeakyReLU(0.2), nn.Linear(width, logits)
                )
                for _ in range(taps)
            ]
        )
        self.squeeze = nn.ModuleList([nn.Conv2d(width, 1, 1) for _ in range(2)])
        self.layout = nn.ModuleList([_layout_head() for _ in range(2)])
        self.pixels = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(32, 32, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(32, 1, 3, padding=1),
        )
        self.focus = Focus(*[width] * taps)
        _initialise(self)
        self.to(memory_format=torch.channels_last)

    def forward(self, batch: PairBatch, real: bool, step: int) -> Judgement:
        """Judge pairs whose ``seen`` holds the frozen features; see `Judgement`."""
        image, mask = batch.images[0], batch.mask
        if mask is None:
            mask = torch.ones_like(image[:, :1])
        low, content, layout = [self.pixels(image).float()], [], []
        for tap, features in enumerate(batch.seen):
            projected = self.project[tap](features / self.spread[tap])
            projected = self.focus(projected, batch.focus, tap)
            low.append(self.low[tap](projected).float())
            share = F.adaptive_avg_pool2d(mask, projected.shape[2:])
            content.append(self._objects(tap, projected.float(), share, real).float())
            if tap >= 2:
                squeezed = self.squeeze[tap - 2](projected).float()
                if real:
                    squeezed, _ = augment_layout(squeezed, None, self.augment_features)
                layout.append(self.layout[tap - 2](squeezed).float())
        if self.num_classes is None:
            return Judgement(low, content, layout)
        areas = mask.detach().float().mean((2, 3)).T  # (N, B)
        return Judgement(low, content, layout, areas > 1e-4, areas)

    def _objects(self, tap: int, projected: Tensor, share: Tensor, real: bool) -> Tensor:
        """Masked content attention: (B, C, h, w), (B, N, h, w) -> logits (N, B, K).

        The mean of a class's features is taken over its own area, and that area, relative to the
        training pairs', is told beside it: the published mean over all positions carries both in
        one number, which leaves small objects without a voice.
        """
        size = projected.shape[2] * projected.shape[3]
        total = torch.einsum("bnhw,bchw->nbc", share.float(), F.leaky_relu(projected, 0.2)) / size
        area = share.float().mean((2, 3)).T[..., None]  # (N, B, 1)
        vectors = total / (area + 0.2 * self.area[:, None, None])
        if real:
            vectors = augment_content(vectors, self.augment_features)
        relative = area / self.area[:, None, None]
        logits: Tensor = self.content[tap](torch.cat([vectors, relative], 2))
        return logits


def _unit(x: Tensor) -> Tensor:
    """Scale every position's channels to mean square 1 (Karras et al. 2018): keeps Adam stable."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)


def _patch_head(width: int) -> nn.Module:
    return nn.Sequential(
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, width, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 1, 1),
    )


def _layout_head() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, 1, 1),
    )


def _initialise(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, a=0.2)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
