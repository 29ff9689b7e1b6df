"""The fast preset: OASIS over frozen pre-trained features, for a CPU.

What stays of OASIS: a class or "fake" for every pixel, balanced classes, LabelMix, 3D noise, EMA.
What is new, each for speed:

- the discriminator is a decoder over a frozen ImageNet EfficientNet-Lite0 (the idea of Projected
  GAN, Sauer et al. 2021, arXiv:2111.01007), plus a few convolutions over pixels;
- the label map is read once by a small encoder, whose features modulate the painter at every
  size; channels are normalised pixel by pixel (Karras et al. 2018), without batch statistics, the
  last ones too: large ones would drive tanh to where it passes no gradient, for good;
- the painter first learns its training pairs by plain regression onto pixels and frozen features,
  and a weak pull of the features and of coarse colours stays for half of a batch; there the first
  numbers of the noise are the pictures' own looks, see `appearance`, or else the painter would
  learn their average and heed no noise.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.backbone import TAP_CHANNELS
from synthaug.gans.contract import PairBatch, Terms
from synthaug.gans.frozen import FrozenView
from synthaug.gans.oasis import OASIS
from synthaug.gans.oasis.appearance import AppearanceCodes
from synthaug.gans.oasis.networks import NOISE_DIM, LabelMapGenerator

WIDTHS = (24, 48, 72, 96, 128)
"""Channels at strides 1, 2, 4, 8 and 16, of encoder and painter."""
DECODER_WIDTH = 48
COARSE_PX = 16
LIGHT = 8.0
"""Weight of the pull of coarse colours, relative to that of the features."""


class FastPainter(LabelMapGenerator):
    """Encoder of the label map and noise, and a painter that its features modulate.

    Args:
        height: multiple of 16.
        width: multiple of 16.
        num_classes: N; one more label stands for pixels without one.
    """

    grid_px = 16

    def __init__(self, height: int, width: int, num_classes: int) -> None:
        super().__init__(height, width, num_classes)
        self.embedding = nn.Embedding(num_classes + 1, WIDTHS[0])
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(WIDTHS)
        )
        self.noise = nn.ModuleList(nn.Linear(NOISE_DIM, width, bias=False) for width in WIDTHS)
        self.middle = nn.Conv2d(WIDTHS[-1], WIDTHS[-1], 3, padding=1)
        self.blocks = nn.ModuleList(
            ModulatedBlock(above, width)
            for above, width in zip((WIDTHS[-1], *WIDTHS[:0:-1]), WIDTHS[::-1], strict=True)
        )
        self.image = nn.Conv2d(WIDTHS[0], 3, 3, padding=1)
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(part.weight, a=0.2)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        with torch.no_grad():
            self.image.weight.mul_(0.1)
            for layer in self.noise:
                layer.get_parameter("weight").mul_(0.3)

    def _paint(self, labels: Tensor, noise: Tensor) -> Tensor:
        x = self.embedding(labels + 1).permute(0, 3, 1, 2)
        x = x.contiguous(memory_format=torch.channels_last)
        maps = [x + self._noise(0, noise, 1)]
        for level, layer in enumerate(self.down, start=1):
            x = layer(F.leaky_relu(maps[-1], 0.2))
            maps.append(unit(x) + self._noise(level, noise, 2**level))
        x = self.middle(F.leaky_relu(maps[-1], 0.2))
        for index, block in enumerate(self.blocks):
            if index > 0:
                x = F.interpolate(x, scale_factor=2.0)
            x = block(x, maps[-1 - index])
        image: Tensor = self.image(F.leaky_relu(unit(x), 0.2)).float().tanh()
        return image

    def _noise(self, level: int, noise: Tensor, stride: int) -> Tensor:
        """The noise's share of a level's features; a field of noise is seen at cells' middles."""
        if noise.ndim == 2:
            shared: Tensor = self.noise[level](noise)[:, :, None, None]
            return shared
        cells = noise[..., stride // 2 :: stride, stride // 2 :: stride]
        placed: Tensor = self.noise[level](cells.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return placed


class ModulatedBlock(nn.Module):
    """Residual block whose normalised features are scaled and shifted by those of the layout.

    Shapes: (B, c_in, h, w) and (B, c_out, h, w) of the layout -> (B, c_out, h, w).
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.modulation = nn.Conv2d(c_out, 2 * c_out, 1)
        self.first = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.second = nn.Conv2d(c_out, c_out, 3, padding=1)

    def forward(self, x: Tensor, layout: Tensor) -> Tensor:
        """Return the sum of both paths."""
        x = self.skip(x)
        scale, shift = self.modulation(F.leaky_relu(layout, 0.2)).chunk(2, 1)
        y = self.first(F.leaky_relu(unit(x) * (1 + scale) + shift, 0.2))
        out: Tensor = x + self.second(F.leaky_relu(unit(y), 0.2))
        return out


class FastSegmenter(nn.Module):
    """Decoder over frozen features and pixels: a class or "fake" for every pixel.

    Args:
        num_classes: N.
    """

    spread: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        width = DECODER_WIDTH
        self.register_buffer("spread", torch.ones(len(TAP_CHANNELS)))
        self.project = nn.ModuleList(nn.Conv2d(c, width, 1) for c in TAP_CHANNELS)
        self.merge = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in TAP_CHANNELS)
        self.pixels = nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(24, 24, 3, padding=1)
        )
        self.lift = nn.Conv2d(width, 24, 1)
        self.logits = nn.Conv2d(24, num_classes + 2, 3, padding=1)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, a=0.2)
                assert part.bias is not None
                nn.init.zeros_(part.bias)
        with torch.no_grad():
            self.logits.weight.mul_(0.1)

    def forward(self, image: Tensor, seen: tuple[Tensor, ...]) -> Tensor:
        """Judge images (B, 3, H, W) with their four frozen maps: logits (B, N + 2, H, W)."""
        x: Tensor | None = None
        for tap in reversed(range(len(seen))):
            y = self.project[tap](seen[tap] / self.spread[tap])
            if x is not None:
                y = y + F.interpolate(x, y.shape[2:])
            x = y + self.merge[tap](F.leaky_relu(unit(y), 0.2))
        assert x is not None
        fine = self.pixels(image) + F.interpolate(self.lift(x), image.shape[2:])
        logits: Tensor = self.logits(F.leaky_relu(fine, 0.2)).float()
        return logits


class FastOASIS(OASIS):
    """The fast painter against the decoder over frozen features.

    Args:
        height: multiple of 16.
        width: multiple of 16.
        num_classes: N.
        pretrain_steps: iterations of plain regression at the start.
        feature_weight: strength of the pull of frozen features and coarse colours afterwards.
        labelmix: strength of LabelMix; 0 turns it off.
        largest_weight: cap of the class weights.
        balance: weigh classes by their inverse frequency.
        noise: False paints every map in one way, to measure what noise is worth.
        pretrained: False takes random frozen features, for tests.
    """

    segment_grid_px = 16

    def __init__(
        self,
        height: int,
        width: int,
        num_classes: int,
        *,
        pretrain_steps: int = 300,
        feature_weight: float = 0.5,
        labelmix: float = 1.0,
        largest_weight: float | None = 20.0,
        balance: bool = True,
        noise: bool = True,
        pretrained: bool = True,
    ) -> None:
        super().__init__(
            FastPainter(height, width, num_classes),
            FastSegmenter(num_classes),
            labelmix=labelmix,
            largest_weight=largest_weight,
            balance=balance,
            noise=noise,
        )
        self.pretrain_steps = pretrain_steps
        self.feature_weight = feature_weight
        self._frozen = FrozenView(pretrained=pretrained)
        self.codes = AppearanceCodes()

    def initialise(self, images: Tensor, masks: Tensor | None) -> None:
        """Keep the training maps and measure how large frozen features are, and how looks vary."""
        super().initialise(images, masks)
        assert masks is not None
        self.codes.measure(images, masks, self.num_classes)
        heads = self.discriminator
        assert isinstance(heads, FastSegmenter)
        heads.spread.copy_(torch.stack([tap.std() for tap in self._frozen(images[:16])]))

    def latent_for(self, real: PairBatch, step: int) -> Tensor:
        """Draw latents; those of pairs to learn by heart begin with the looks of their pictures."""
        z = super().latent_for(real, step)
        assert real.mask is not None
        own = real.batch_size if step < self.pretrain_steps else _by_heart(real.batch_size)
        codes = self.codes(real.images[0], real.mask)
        z[:own, : codes.shape[1]] = codes[:own]
        return z

    def look(self, batch: PairBatch, step: int) -> PairBatch:
        """Add frozen features."""
        return replace(batch, seen=self._frozen(batch.images[0]))

    def pretrain_terms(self, fake: PairBatch) -> dict[str, Tensor]:
        """Regression onto the real pictures: pixels and frozen features."""
        assert fake.layout is not None
        pixels = (fake.images[0] - fake.layout[0]).abs().mean((1, 2, 3))
        return {"pixels": pixels, "features": self._feature_distance(fake)}

    def generator_terms(self, fake: PairBatch, step: int) -> Terms:
        """As OASIS, and a pull of features and coarse colours to those of the real pictures."""
        terms = super().generator_terms(fake, step)
        if fake.layout is not None and self.feature_weight > 0:
            own = _by_heart(fake.batch_size)
            pulled = torch.arange(fake.batch_size, device=fake.images[0].device) < own
            weight = self.feature_weight * fake.batch_size / own * pulled
            pulls = {"features": self._feature_distance(fake), "light": LIGHT * _light(fake)}
            terms = terms.with_beside({name: weight * pull for name, pull in pulls.items()})
        return terms

    def _judge(self, batch: PairBatch) -> Tensor:
        seen = batch.seen or self._frozen(batch.images[0])
        logits: Tensor = self.discriminator(batch.images[0], seen)
        return logits

    def _feature_distance(self, fake: PairBatch) -> Tensor:
        assert fake.layout is not None
        assert isinstance(self.discriminator, FastSegmenter)
        seen = fake.seen or self._frozen(fake.images[0])
        return self._frozen.distance(seen, fake.layout[0], self.discriminator.spread)


def _light(fake: PairBatch) -> Tensor:
    """Distance (B,) of coarse colours: the discriminator does not ask whose light a picture has."""
    assert fake.layout is not None
    coarse = F.avg_pool2d((fake.images[0] - fake.layout[0]).float(), COARSE_PX)
    return coarse.abs().mean((1, 2, 3))


def _by_heart(batch_size: int) -> int:
    """How many of a batch are pulled to their pictures; the others are painted with any noise."""
    return -(-batch_size // 2)


def unit(x: Tensor) -> Tensor:
    """Scale every pixel's channels to mean square 1."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)
