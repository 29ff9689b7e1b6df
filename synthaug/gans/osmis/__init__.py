"""OSMIS: image+mask pairs from a single labelled image; SIV-GAN is the same without masks.

After Sushko et al., "One-Shot Synthesis of Images and Segmentation Masks" (WACV 2023) and
"Generating Novel Scene Compositions from Single Images and Videos" (SIV-GAN), both chapters of
Sushko's thesis. Where the released implementation and the text differ we follow the former:

- part weights apply to sums over layers divided by the number of discriminator blocks; the text
  takes means over layers, which would give the branches more weight;
- the inverse-area class weights enter the generator's loss too; the text: real loss only;
- the fake object loss is a mean over classes; the text sums;
- the stem is a learned projection of the latent; the text broadcasts it;
- the layout branch starts with a residual block of width one, after feature augmentation;
- the object branch is twice as wide inside; the text does not say so;
- the stem and the mask head have no spectral norm;
- the Bernoulli phase of the mask counts iterations; the text says epochs.

`OsmisOptions` switches the behaviours in which we deliberately leave both; its default is ours. As
for all GANs here, the discriminator's step comes first, and the average of the weights follows
faster at first (`synthaug.training.LoopSettings`).
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.errors import InputError
from synthaug.gans.contract import GAN, PairBatch, Terms
from synthaug.gans.osmis import losses
from synthaug.gans.osmis.losses import Judgement, LossWeights, OsmisOptions, straight_through_mask
from synthaug.gans.osmis.networks import OsmisDiscriminator, OsmisGenerator, size_rule
from synthaug.gans.spectral import renew_spectral_norms

__all__ = [
    "OSMIS",
    "Judgement",
    "LossWeights",
    "OsmisDiscriminator",
    "OsmisGenerator",
    "OsmisOptions",
    "build",
    "build_paper",
    "size_rule",
    "straight_through_mask",
]


class OSMIS(GAN):
    """A generator of pairs against a discriminator of appearance, objects and layout.

    Args:
        generator: maps latents (B, latent_dim) to a `PairBatch`.
        discriminator: maps ``(batch, real, step)`` to a `Judgement`.
        num_classes: N, the mask's channels, background first; None judges images alone (SIV-GAN).
        scales: how many image scales the discriminator consumes.
        latent_dim: length of the latent.
        options: behaviour switches.
        weights: weights of the discriminator's parts.
    """

    scores_samples = True

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        num_classes: int | None,
        *,
        scales: int,
        latent_dim: int = 64,
        options: OsmisOptions | None = None,
        weights: LossWeights | None = None,
    ) -> None:
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator
        self.num_classes = num_classes
        self.scales = scales
        self.latent_dim = latent_dim
        self.options = options or OsmisOptions()
        self.weights = weights or LossWeights()

    def prepare(self, images: Tensor, masks: Tensor | None) -> PairBatch:
        """Build the real image pyramid by repeated bilinear halving.

        Args:
            images: (B, 3, H, W) in [-1, 1].
            masks: (B, N, H, W) one-hot; left out of the batch for an image-only GAN.
        """
        pyramid = [images]
        while len(pyramid) < self.scales:
            pyramid.append(
                F.interpolate(pyramid[-1], scale_factor=0.5, mode="bilinear", align_corners=False)
            )
        return PairBatch(tuple(pyramid), None if self.num_classes is None else masks)

    def refresh(self, generator: nn.Module) -> None:
        """Measure spectral norms anew: averaged weights have others."""
        renew_spectral_norms(generator)

    def discriminator_terms(self, real: PairBatch, fake: PairBatch, step: int) -> dict[str, Tensor]:
        """Judge real and fake pairs in separate passes; see `losses.discriminator_terms`."""
        judged_real: Judgement = self.discriminator(real, real=True, step=step)
        judged_fake: Judgement = self.discriminator(fake.detach(), real=False, step=step)
        terms = losses.discriminator_terms(judged_real, judged_fake, self.weights, self.options)
        return Terms(terms, lambda: losses.realness(judged_real, self.weights))

    def real_terms(self, batch: PairBatch, step: int) -> dict[str, Tensor]:
        """Judge pairs as real; see `losses.real_terms`."""
        judged: Judgement = self.discriminator(batch, real=True, step=step)
        return losses.real_terms(judged, self.weights, self.options)

    def generator_terms(self, fake: PairBatch, step: int) -> dict[str, Tensor]:
        """Judge fake pairs; see `losses.generator_terms`."""
        judged: Judgement = self.discriminator(fake, real=False, step=step)
        terms = losses.generator_terms(judged, self.weights, self.options)
        return Terms(terms, lambda: losses.realness(judged, self.weights))


def build_paper(
    height: int,
    width: int,
    num_classes: int | None,
    max_size: int,
    base: int = 32,
    options: OsmisOptions | None = None,
    bernoulli_steps: int = 15000,
) -> OSMIS:
    """Build the published networks for an image of a given size.

    Args:
        height: height of the training image in pixels.
        width: width of the training image in pixels.
        num_classes: N, channels of the mask, background first; None for SIV-GAN.
        max_size: cap of the longer side in pixels (published: 330 or 640).
        base: width of the finest blocks (published: 32).
        options: behaviour switches; default ours, see `OsmisOptions.paper_code`.
        bernoulli_steps: length of the random phase of the straight-through mask in iterations
            (published: 15000).

    Returns:
        The GAN; ``size_rule(height, width, max_size)`` tells its images' size.
    """
    size = size_rule(height, width, max_size)
    options = options or OsmisOptions()
    generator = OsmisGenerator(size.h0, size.w0, size.depth, num_classes, base)
    discriminator = OsmisDiscriminator(
        size.low_blocks, size.branch_blocks, num_classes, base, options, bernoulli_steps
    )
    return OSMIS(generator, discriminator, num_classes, scales=size.low_blocks, options=options)


def build(preset: str, **settings: Any) -> OSMIS:
    """Build from the plain settings that a generator's manifest keeps.

    Args:
        preset: ``paper`` (settings as `build_paper`) or ``fast`` (as `fast.FastOSMIS`).
        **settings: the preset's keywords.
    """
    if preset == "paper":
        return build_paper(**settings)
    if preset == "fast":
        from synthaug.gans.osmis.fast import FastOSMIS

        return FastOSMIS(**settings)
    raise InputError(f"unknown OSMIS preset {preset!r}: fast or paper")
