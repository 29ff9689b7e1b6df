"""BigGAN-deep: class-conditional images, and the adaptation of a trained one to a few images.

After Brock et al. (ICLR 2019, arXiv:1809.11096), and section 7.3.6 of Sushko's thesis for
adaptation. The public weights hold a generator alone: adapted from them, it meets a discriminator
with fresh weights. Text and released code leave things open or differ; we do as follows:

- one step of power iteration per training step, instead of one per pass: all passes of a step see
  the same weights;
- one discriminator step goes with each generator step;
- new weights are drawn as Glorot has them, where the paper's are orthogonal;
- trained from nothing, the averaged generator's statistics are measured on batches of their own;
- adapted, a generator keeps the source's statistics, in training, too: the same for both
  generators whose smoothness is compared, and no batch of ten images decides on them;
- the joint latents of adaptation are N(0, 1) in the noise, and in the class embedding normal with
  the mean and the variance of the known classes' embeddings, each number for itself;
- samples are not truncated: the statistics of what a fit makes are those of whole latents;
- smoothness is compared at every step, at an eighth of the picture's side, on 32 latents or more;
  its directions are N(0, 0.1^2) over the root of the number of places (`SMOOTHNESS_SCALE`):
  these features are not normalised, and at a scale of 1 the term's gradient would be ten times the
  adversarial one.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.errors import InputError
from synthaug.gans.biggan.checkpoints import build_generator, from_pretrained
from synthaug.gans.biggan.discriminator import BigDiscriminator
from synthaug.gans.biggan.layers import iterate_norms
from synthaug.gans.biggan.networks import START_PX, BigGenerator
from synthaug.gans.blocks import loss_by_block, mean_logit
from synthaug.gans.contract import GAN, PairBatch, Terms, prefixed
from synthaug.gans.precision import exact
from synthaug.gans.smoothness import LEAST_LATENTS, smoothness_px, smoothness_similarity
from synthaug.gans.state_dicts import load_beside
from synthaug.seeding import torch_stream

__all__ = [
    "BigDiscriminator",
    "BigGAN",
    "BigGenerator",
    "architecture",
    "build",
    "build_generator",
    "from_pretrained",
]

PRESETS: dict[str, dict[str, int]] = {
    "paper": {"width": 128, "z_dim": 128, "embedding_dim": 128},
    "small": {"width": 32, "z_dim": 64, "embedding_dim": 64},
}
"""Channels of the last block, lengths of noise and class embeddings; at any size."""
UNITS: dict[int, list[int]] = {
    32: [16, 8, 4, 1],
    64: [16, 8, 4, 2, 1],
    128: [16, 16, 8, 4, 2, 1],
    256: [16, 16, 8, 8, 4, 2, 1],
    512: [16, 16, 8, 8, 4, 2, 1, 1],
}
"""Size -> channels at 4, 8, ... pixels over the width; published from 128 px on."""
ATTENTION_PX = 64
SMOOTHNESS_PX = 4
"""Smoothness is compared on features of this side at least."""
SMOOTHNESS_SCALE = 0.1
"""Length of its directions in an adaptation; what was fitted before it was stored had 1."""
STATISTICS_BATCHES, STATISTICS_BATCH = 8, 32


class BigGAN(GAN):
    """A residual class-conditional generator against its mirror image, with hinge losses.

    Args:
        generator: latents to images; with joint latents where it is adapted.
        discriminator: images, and classes where there are several, to the logits of one or several
            blocks.
        smoothness: weight of smoothness similarity to the source generator (published: 5); 0
            turns it off. The source is the generator at the time of `adapt`.
        smoothness_scale: of its random directions.
    """

    scores_samples = True
    keeps_discriminator = True

    def __init__(
        self,
        generator: BigGenerator,
        discriminator: BigDiscriminator,
        *,
        smoothness: float = 0.0,
        smoothness_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.generator: BigGenerator = generator
        self.discriminator: BigDiscriminator = discriminator
        self.latent_dim = generator.latent_dim
        self.smoothness = smoothness
        self.smoothness_scale = smoothness_scale
        self.smoothness_px = smoothness_px(generator.size, SMOOTHNESS_PX)
        self.source: BigGenerator | None = None
        if smoothness > 0:
            self.source = copy.deepcopy(generator).requires_grad_(False)

    def adapt(
        self, generator: Mapping[str, Tensor], discriminator: Mapping[str, Tensor] | None = None
    ) -> None:
        """Start from trained weights, which also become the frozen source.

        Args:
            generator: state dict of a `BigGenerator` of the same sizes.
            discriminator: of a `BigDiscriminator`; its class projection is dropped, new heads keep
                their fresh weights.
        """
        self.generator.load_state_dict(generator, strict=True)
        if self.source is not None:
            self.source.load_state_dict(generator, strict=True)
        if discriminator is not None:
            kept = {k: v for k, v in discriminator.items() if not k.startswith("projection.")}
            load_beside(self.discriminator, kept, "heads.")

    def before_step(self, step: int, averaged: nn.Module) -> None:
        """Improve the estimates of spectral normalisation."""
        iterate_norms(self)

    def latent(self, batch_size: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw latents on the CPU: noise and one-hot classes, or joint ones when adapted."""
        network = self.generator
        z = torch.randn(batch_size, network.z_dim, generator=generator)
        if not network.joint:
            drawn = torch.randint(network.num_classes, (batch_size,), generator=generator)
            return torch.cat([z, F.one_hot(drawn, network.num_classes).float()], 1)
        table = network.embeddings.weight.detach().float().cpu()  # (embedding_dim, num_classes)
        spread = table.std(1, correction=0)
        normal = torch.randn(batch_size, len(table), generator=generator)
        return torch.cat([z, table.mean(1) + spread * normal], 1)

    def prepare(self, images: Tensor, masks: Tensor | None) -> PairBatch:
        """Take images (B, 3, H, W) in [-1, 1], and their classes (B,) int64 where there are any."""
        return PairBatch((images,), classes=masks)

    def discriminator_terms(self, real: PairBatch, fake: PairBatch, step: int) -> Terms:
        """Tell real from generated images, up to a margin of 1."""
        sizes = self.discriminator.block_sizes
        judged = self.discriminator(real.images[0], real.classes, real.focus)
        unreal = self.discriminator(fake.images[0].detach(), fake.classes, fake.focus)
        terms = {
            **self._called_real(judged),
            **prefixed("fake", loss_by_block(lambda logit: F.relu(1 + logit), unreal, sizes)),
        }
        return Terms(terms, lambda: mean_logit(judged).detach())

    def real_terms(self, batch: PairBatch, step: int) -> dict[str, Tensor]:
        """Call images real, up to a margin of 1."""
        return self._called_real(self.discriminator(batch.images[0], batch.classes, batch.focus))

    def _called_real(self, judged: Sequence[Tensor]) -> dict[str, Tensor]:
        sizes = self.discriminator.block_sizes
        return prefixed("real", loss_by_block(lambda logit: F.relu(1 - logit), judged, sizes))

    def generator_terms(self, fake: PairBatch, step: int) -> Terms:
        """Have images called real, and keep the source's smoothness."""
        judged = self.discriminator(fake.images[0], fake.classes, fake.focus)
        by_block = loss_by_block(torch.neg, judged, self.discriminator.block_sizes)
        beside = {}
        if self.source is not None:
            with exact(fake.images[0]):
                count = max(LEAST_LATENTS, fake.batch_size)
                distance = self.smoothness * self._similarity(count).mean()
                beside["smoothness"] = distance.expand(fake.batch_size)
        terms = Terms(prefixed("real", by_block), lambda: mean_logit(judged).detach())
        return terms.with_beside(beside)

    def refresh(self, generator: nn.Module) -> None:
        """Measure the statistics of a generator that trained with those of its batches."""
        assert isinstance(generator, BigGenerator)
        if generator.joint:
            return
        stream = torch_stream(0, "statistics")
        device = generator.embeddings.weight.device
        generator.measure_statistics(
            self.latent(STATISTICS_BATCH, stream).to(device) for _ in range(STATISTICS_BATCHES)
        )

    def _similarity(self, batch_size: int) -> Tensor:
        assert self.source is not None
        source, px = self.source, self.smoothness_px
        z = self.latent(batch_size).to(source.embeddings.weight.device)

        def features(generator: BigGenerator, z: Tensor) -> Tensor:
            return generator.features(z, largest_px=px)[-1]

        return smoothness_similarity(
            lambda z: features(source, z),
            lambda z: features(self.generator, z),
            z,
            self.smoothness_scale / px,
        )


def architecture(size: int, preset: str = "small", *, num_classes: int = 1) -> dict[str, Any]:
    """Return the settings of a BigGAN to train from nothing, as `build` takes them.

    Args:
        size: side of the images in pixels, 32, 64, 128, 256 or 512.
        preset: ``paper`` or ``small``.
        num_classes: K; 1: images without classes.

    Raises:
        InputError: no such size or preset.
    """
    if preset not in PRESETS:
        raise InputError(f"unknown BigGAN preset {preset!r}: {' or '.join(sorted(PRESETS))}")
    if size not in UNITS:
        known = ", ".join(map(str, UNITS))
        raise InputError(f"BigGAN makes squares of {known} pixels a side, not {size}")
    layers: list[list[bool | int]] = []
    for before, after in pairwise(UNITS[size]):
        layers += [[False, before, before], [True, before, after]]
    attention_px = min(ATTENTION_PX, size // 2)
    return {
        "name": "biggan",
        "layers": layers,
        "attention_at": 2 * (attention_px // START_PX).bit_length() - 2,
        **PRESETS[preset],
        "num_classes": num_classes,
        "statistics": 1,
        "eps": 1e-4,
    }


def build(
    layers: list[Any],
    attention_at: int,
    *,
    width: int,
    num_classes: int = 1,
    eps: float = 1e-4,
    adapted: bool = False,
    block_heads: bool = False,
    frozen: int = 0,
    smoothness: float = 0.0,
    smoothness_scale: float = 1.0,
    **settings: Any,
) -> BigGAN:
    """Build from the plain settings that a generator's manifest keeps.

    Args:
        layers: see `BigGenerator`; the discriminator mirrors them.
        attention_at: see `BigGenerator`.
        width: see `BigGenerator`.
        num_classes: see `BigGenerator`; images of one class are judged without it.
        eps: see `BigGenerator`.
        adapted: latents are joint, and images are judged without a class.
        block_heads: see `BigDiscriminator`.
        frozen: see `BigDiscriminator`.
        smoothness: see `BigGAN`.
        smoothness_scale: see `BigGAN`.
        **settings: further keywords of `BigGenerator`.
    """
    generator = build_generator(
        layers,
        attention_at,
        width=width,
        num_classes=num_classes,
        eps=eps,
        joint=adapted,
        **settings,
    )
    discriminator = BigDiscriminator(
        [(bool(up), int(before), int(after)) for up, before, after in layers],
        attention_at,
        width=width,
        num_classes=None if adapted or num_classes == 1 else num_classes,
        block_heads=block_heads,
        frozen=frozen,
        eps=eps,
    )
    return BigGAN(
        generator, discriminator, smoothness=smoothness, smoothness_scale=smoothness_scale
    )
