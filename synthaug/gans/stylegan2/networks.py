"""Generator and discriminator of StyleGAN2 (skip generator, residual discriminator)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn

from synthaug.errors import InputError
from synthaug.gans.contract import PairBatch
from synthaug.gans.deviation import minibatch_deviation
from synthaug.gans.focus import Focus
from synthaug.gans.precision import full
from synthaug.gans.stylegan2.layers import (
    Activation,
    EqualConv,
    EqualLinear,
    PixelNorm,
    ResBlock,
    StyledConv,
    ToRGB,
)
from synthaug.gans.stylegan2.masks import MaskHead, MaskJudge, judged_px
from synthaug.seeding import torch_stream

SMALLEST_PX = 4
MEAN_LATENTS = 4096


def channel_widths(size: int, base: int = 32768, largest: int = 512) -> list[int]:
    """Return the channels at 4, 8, ..., ``size`` pixels: min(largest, base / pixels).

    Args:
        size: a power of two, at least 8.
        base: published: 32768 (channel multiplier 2 of the PyTorch ports), 16384 (multiplier 1).
        largest: published: 512.
    """
    if size < 2 * SMALLEST_PX or size & (size - 1):
        raise InputError(f"StyleGAN2 makes squares of 8, 16, 32, ... pixels a side, not {size}")
    levels = int(math.log2(size)) - 1
    return [min(largest, base // (SMALLEST_PX << level)) for level in range(levels)]


class StyleGenerator(nn.Module):
    """Latents to images through a mapping network and styled convolutions.

    Two styled convolutions per size, one at 4 px; one style each, and one more for the last
    colours: ``num_styles`` = 2 log2(size) - 2. In training mode `forward` mixes styles and draws
    fresh noise from torch's global generator; in evaluation mode it uses the noise maps it is
    given, by default those kept with the weights, with which an image depends on its latent alone.

    Args:
        channels: at 4, 8, ... pixels, as `channel_widths`.
        z_dim: length of latents.
        w_dim: length of styles.
        n_mlp: layers of the mapping network.
        lr_mlp: learning rate of the mapping network relative to the rest (published: 0.01).
        mixing: probability in training that a sample takes its later styles from another latent.
        clamp: limit of activations and colours, as NVIDIA's ports have it (256); None: none.
        num_classes: of the masks that a head makes from the features; None: images alone.
        joint_masks: see `MaskHead`'s ``joint``.

    Attributes:
        latent_avg: (w_dim,) mean of w, towards which truncation pulls.
    """

    latent_avg: Tensor

    def __init__(
        self,
        channels: Sequence[int],
        *,
        z_dim: int = 512,
        w_dim: int = 512,
        n_mlp: int = 8,
        lr_mlp: float = 0.01,
        mixing: float = 0.9,
        clamp: float | None = None,
        num_classes: int | None = None,
        joint_masks: bool = False,
    ) -> None:
        super().__init__()
        self.channels = list(channels)
        self.size = SMALLEST_PX << (len(channels) - 1)
        self.z_dim = z_dim
        self.w_dim = w_dim
        self.n_mlp = n_mlp
        self.clamp = clamp
        self.mixing = mixing
        self.num_styles = 2 * len(channels)
        widths = [z_dim] + [w_dim] * n_mlp
        self.style = nn.Sequential(
            PixelNorm(),
            *(EqualLinear(widths[i], w_dim, lr_mul=lr_mlp, activate=True) for i in range(n_mlp)),
        )
        self.input = _Constant(channels[0])
        self.conv1 = StyledConv(channels[0], channels[0], w_dim, clamp=clamp)
        self.to_rgb1 = ToRGB(channels[0], w_dim, upsample=False, clamp=clamp)
        self.convs = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        for below, here in pairwise(channels):
            self.convs.append(StyledConv(below, here, w_dim, upsample=True, clamp=clamp))
            self.convs.append(StyledConv(here, here, w_dim, clamp=clamp))
            self.to_rgbs.append(ToRGB(here, w_dim, clamp=clamp))
        self.noises = nn.Module()
        for index, side in enumerate(self.noise_sizes()):
            self.noises.register_buffer(f"noise_{index}", torch.randn(1, 1, side, side))
        self.register_buffer("latent_avg", torch.zeros(w_dim))
        self.mask_head = None
        if num_classes is not None:
            self.mask_head = MaskHead(channels, num_classes, joint=joint_masks)

    def noise_sizes(self) -> list[int]:
        """Return the sides of the noise maps in pixels: 4, 8, 8, 16, 16, ..."""
        return [SMALLEST_PX << (index + 1) // 2 for index in range(self.num_styles - 1)]

    def kept_noise(self) -> list[Tensor]:
        """Return the noise maps kept with the weights, each (1, 1, h, h)."""
        return list(self.noises.buffers())

    def draw_noise(self, batch_size: int, generator: torch.Generator | None = None) -> list[Tensor]:
        """Draw noise maps (B, 1, h, h) ~ N(0, 1), on the CPU if a generator is given."""
        device = self.latent_avg.device if generator is None else torch.device("cpu")
        maps = [
            torch.randn(batch_size, 1, side, side, generator=generator, device=device)
            for side in self.noise_sizes()
        ]
        return [noise.to(self.latent_avg.device) for noise in maps]

    @torch.no_grad()
    def measure_latent_avg(self) -> None:
        """Take the mean of w over 4096 latents of a stream of its own."""
        z = torch.randn(MEAN_LATENTS, self.z_dim, generator=torch_stream(0, "statistics"))
        self.latent_avg = self.style(z.to(self.latent_avg.device)).mean(0)

    def styles(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        """Map latents to styles, without mixing.

        Args:
            z: (B, z_dim).
            truncation: 1 leaves w as it is, 0 is the mean image.

        Returns:
            (B, num_styles, w_dim).
        """
        w: Tensor = self.style(z)
        if truncation != 1.0:
            w = torch.lerp(self.latent_avg.to(w.dtype).expand_as(w), w, truncation)
        return w[:, None].expand(-1, self.num_styles, -1)

    def mixed_styles(self, z: Tensor) -> Tensor:
        """Map latents to styles; with probability ``mixing`` late ones are of another latent."""
        own = self.styles(z)
        if self.mixing <= 0:
            return own
        B, L = len(z), self.num_styles
        other = self.styles(torch.randn_like(z))
        crossover = torch.randint(1, L, (B, 1), device=z.device)
        fires = torch.rand(B, 1, device=z.device) < self.mixing
        foreign = fires & (torch.arange(L, device=z.device) >= crossover)
        return torch.where(foreign[..., None], other, own)

    def synthesise(
        self, ws: Tensor, noise: Sequence[Tensor] | None = None, taps: Sequence[int] = ()
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Draw images from styles.

        Args:
            ws: (B, num_styles, w_dim).
            noise: one map (B or 1, 1, h, h) per styled convolution; default: the kept ones.
            taps: sizes in pixels whose features are wanted.

        Returns:
            Images (B, 3, size, size), in [-1, 1] only as far as training taught it, and the
            features (B, C, px, px) after the last convolution at each size of ``taps``.
        """
        maps = self.kept_noise() if noise is None else list(noise)
        if [n.shape[-1] for n in maps] != self.noise_sizes():
            raise InputError(f"noise must have the sides {self.noise_sizes()}")
        seen: dict[int, Tensor] = {}
        image: Tensor | None = None
        for level, x in enumerate(self._features(ws, maps)):
            seen[x.shape[-1]] = x
            to_rgb = self.to_rgbs[level - 1] if level else self.to_rgb1
            image = to_rgb(x, ws[:, 2 * level + 1], image)
        assert image is not None
        unknown = [px for px in taps if px not in seen]
        if unknown:
            raise InputError(f"no features at {unknown[0]} px: there are {sorted(seen)}")
        return image, tuple(seen[px] for px in taps)

    def features_at(self, ws: Tensor, noise: Sequence[Tensor], px: int) -> Tensor:
        """Return the features (B, C, px, px) of one size alone, without what comes behind them."""
        return next(x for x in self._features(ws, noise) if x.shape[-1] == px)

    def _features(self, ws: Tensor, maps: Sequence[Tensor]) -> Iterator[Tensor]:
        """Features after the last convolution at 4, 8, ... pixels, one size after the other."""
        x: Tensor = self.conv1(self.input(len(ws)), ws[:, 0], maps[0])
        yield x
        for i in range(0, len(self.convs), 2):
            x = self.convs[i](x, ws[:, i + 1], maps[i + 1])
            x = self.convs[i + 1](x, ws[:, i + 2], maps[i + 2])
            yield x

    def forward(
        self, z: Tensor, noise: Sequence[Tensor] | None = None, truncation: float = 1.0
    ) -> PairBatch:
        """Generate images (B, 3, size, size), with class probabilities if there is a head.

        Args:
            z: (B, z_dim).
            noise: as `synthesise` takes it, in evaluation mode.
            truncation: as `styles` takes it, in evaluation mode.
        """
        taps = [SMALLEST_PX << i for i in range(len(self.channels))] if self.mask_head else []
        if self.training:
            ws, noise = self.mixed_styles(z), self.draw_noise(len(z))
            image, features = self.synthesise(ws, noise, taps)
        else:
            image, features = self.synthesise(self.styles(z, truncation), noise, taps)
        return PairBatch((image,), None if self.mask_head is None else self.mask_head(features))


class _Constant(nn.Module):
    """The learned (1, C, 4, 4) that every image starts from."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, SMALLEST_PX, SMALLEST_PX))

    def forward(self, batch_size: int) -> Tensor:
        """Return (B, C, 4, 4)."""
        return self.input.expand(batch_size, -1, -1, -1)


class StyleDiscriminator(nn.Module):
    """Residual blocks down to 4 px, the deviation within the batch, two linear layers.

    Args:
        channels: at 4, 8, ... pixels, as `channel_widths`.
        group: samples whose deviation is measured together.
        clamp: as `StyleGenerator`.
        block_heads: judge after every residual block, for the loss over all blocks (Sushko and
            Gall, thesis eq. 7.3): a 3x3 convolution to one logit per place after all but the last
            block, the published epilogue after that.
        frozen: residual blocks from the image on that never learn (Mo et al., FreezeD, 2020), the
            layer before them included; 0: everything learns.
        num_classes: of the masks that are judged too; None: images alone.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        group: int = 4,
        clamp: float | None = None,
        block_heads: bool = False,
        frozen: int = 0,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.channels = list(channels)
        self.size = SMALLEST_PX << (len(channels) - 1)
        self.group = group
        self.frozen = frozen
        first = nn.Sequential(EqualConv(3, channels[-1], 1), Activation(channels[-1], clamp))
        steps = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.convs = nn.Sequential(first, *(ResBlock(i, o, clamp) for i, o in steps))
        self.final_conv = nn.Sequential(
            EqualConv(channels[0] + 1, channels[0], 3, padding=1), Activation(channels[0], clamp)
        )
        self.final_linear = nn.Sequential(
            EqualLinear(channels[0] * SMALLEST_PX**2, channels[0], activate=True),
            EqualLinear(channels[0], 1),
        )
        self.heads = nn.ModuleList(BlockHead(o) for _, o in steps[:-1]) if block_heads else None
        self.judged_px = judged_px(self.size)
        self.focus = Focus(channels[0])
        self.mask_judge = None
        if num_classes is not None:
            width = channels[(self.judged_px // SMALLEST_PX).bit_length() - 1]
            self.focus = Focus(channels[0], width)
            self.mask_judge = MaskJudge(width, num_classes)
        self.requires_grad_(True)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Let the weights learn or not; those of frozen blocks never do."""
        super().requires_grad_(requires_grad)
        if self.frozen:
            self.convs[: self.frozen + 1].requires_grad_(False)
        return self

    @property
    def block_sizes(self) -> list[int]:
        """Sides in pixels of the features that are judged, in the order of the logits."""
        if self.heads is None:
            return [SMALLEST_PX]
        return [self.size >> (index + 1) for index in range(len(self.heads) + 1)]

    def forward(self, image: Tensor, focus: Tensor | None = None) -> tuple[Tensor, ...]:
        """Judge images (B, 3, size, size), with regard to masks (B, 1, size, size).

        Returns:
            Logits (B, P), P places, of every judged block, early ones first; the last is (B, 1).
        """
        logits = []
        x = self.convs[0](image)
        for index, block in enumerate(list(self.convs)[1:]):
            x = block(x)
            if self.heads is not None and index < len(self.heads):
                logits.append(full(self.heads[index](x).flatten(1)))
        x = self.focus(x, focus)
        x = self.final_conv(minibatch_deviation(x, self.group))
        logits.append(full(self.final_linear(x.flatten(1))))
        return tuple(logits)

    def judge_masks(self, image: Tensor, mask: Tensor, focus: Tensor | None = None) -> Tensor:
        """Judge masks (B, N, size, size) of images through blocks that do not learn from it.

        What the blocks see is weighed with regard to ``focus`` (B, 1, size, size).

        Returns:
            Logits (B, N, N + 1), see `MaskJudge`.
        """
        assert self.mask_judge is not None
        x = image
        with torch.no_grad():
            for block in self.convs:
                x = block(x)
                if x.shape[-1] == self.judged_px:
                    break
        logits: Tensor = self.mask_judge(self.focus(x, focus, 1), mask)
        return logits


class BlockHead(nn.Module):
    """Equalised 3x3 convolution (B, C, h, w) -> (B, 1, h, w), no activation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = EqualConv(channels, 1, 3, padding=1)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.conv(x) + self.bias
        return logits
