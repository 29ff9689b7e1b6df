"""OASIS: images from label maps, taught by a segmenter alone.

After Sushko, Schönfeld et al., "You Only Need Adversarial Supervision for Semantic Image
Synthesis" (ICLR 2021, arXiv:2012.04781; IJCV 2022) and chapter 4 of Sushko's thesis. Text and
released code differ; we do as follows:

- weights of the classes carry 1 / K and are taken per process, losses are means: the code;
- LabelMix tosses per picture and class: the paper; the code shares one coin in the batch, and a
  relabelling slip ties classes 0 and 1 together;
- the strength of LabelMix is the code's (10; 5 for Cityscapes), the thesis says 5 for ADE20K;
- pictures are flipped; the code means to crop as well, but an option that is overwritten turns
  that off, and so `paper` does not crop either;
- the VGG loss is off, as in the paper's own model; `vgg` has it for those who have the weights;
- batch statistics of the averaged generator are measured anew before it is used: the code;
- the discriminator steps first, as everywhere in our loop; the code steps the generator first;
- statistics are per process: published runs shared them between four GPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synthaug.errors import InputError
from synthaug.gans.contract import GAN, PairBatch, Terms
from synthaug.gans.oasis import losses
from synthaug.gans.oasis.networks import (
    LATENT_DIM,
    NOISE_DIM,
    LabelMapGenerator,
    OasisDiscriminator,
    OasisGenerator,
)
from synthaug.gans.oasis.vgg import VGGLoss
from synthaug.gans.spectral import renew_spectral_norms
from synthaug.seeding import torch_stream

__all__ = ["OASIS", "LabelMapGenerator", "OasisDiscriminator", "OasisGenerator", "build"]

STATISTICS_BATCHES = 16
"""Published: 51 of 20 to 32 pictures; measured at every save here, so fewer."""
STATISTICS_BATCH = 8


class OASIS(GAN):
    """A painter of label maps against a discriminator that segments.

    Args:
        generator: paints label maps.
        discriminator: maps images (B, 3, H, W) to logits (B, N + 2, H, W).
        labelmix: strength of LabelMix; 0 turns it off.
        largest_weight: cap of the class weights; None as published.
        balance: weigh classes by their inverse frequency.
        noise: False paints every map in one way, to measure what noise is worth.
        statistics_batches: batches over which the averaged generator's statistics are measured.

    Attributes:
        vgg: pulls painted pictures to real ones, in training; None as published.
    """

    paints_masks = True
    keeps_discriminator = True
    scores_samples = True
    vgg: VGGLoss | None = None
    segment_grid_px = 64
    """What sides of pictures to segment must be multiples of."""

    def __init__(
        self,
        generator: LabelMapGenerator,
        discriminator: nn.Module,
        *,
        labelmix: float = 10.0,
        largest_weight: float | None = None,
        balance: bool = True,
        noise: bool = True,
        statistics_batches: int = STATISTICS_BATCHES,
    ) -> None:
        super().__init__()
        self.generator: LabelMapGenerator = generator
        generator.silent = not noise
        self.discriminator = discriminator
        self.latent_dim = LATENT_DIM
        self.num_classes = generator.num_classes
        self.labelmix = labelmix
        self.largest_weight = largest_weight
        self.balance = balance
        self.statistics_batches = statistics_batches

    def latent(self, batch_size: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw latents (B, 65): noise ~ N(0, I) and the number of a training map."""
        noise = torch.randn(batch_size, NOISE_DIM, generator=generator)
        maps = len(self.generator.maps)
        number = torch.randint(maps, (batch_size, 1), generator=generator)
        return torch.cat([noise, number.float()], 1)

    def initialise(self, images: Tensor, masks: Tensor | None) -> None:
        """Keep the training maps, (P, H, W) int16."""
        assert masks is not None
        self.generator.maps = masks.to(torch.int16)

    def constants(self) -> Sequence[nn.Module | Tensor]:
        """The training maps."""
        return (self.generator.maps,)

    def prepare(self, images: Tensor, masks: Tensor | None) -> PairBatch:
        """Pair images (B, 3, H, W) with class indices (B, H, W), -1 without a label."""
        assert masks is not None
        return PairBatch((images,), masks.long())

    def discriminator_terms(self, real: PairBatch, fake: PairBatch, step: int) -> dict[str, Tensor]:
        """Segment real pixels, call all generated ones fake, be consistent under LabelMix."""
        assert real.mask is not None
        judged_real, judged_fake = self._judge(real), self._judge(fake.detach())
        terms = {
            "real": self._balanced(judged_real, real.mask),
            "fake": losses.fake_cross_entropy(judged_fake),
        }
        if self.labelmix > 0:
            mask = losses.labelmix_mask(real.mask, self.num_classes)
            image = torch.lerp(fake.images[0].detach(), real.images[0], mask)
            mixed = self._judge(self.look(PairBatch((image,), real.mask), step))
            distance = losses.mixing_loss(mixed, judged_real, judged_fake, mask)
            terms["labelmix"] = self.labelmix * distance
        return Terms(terms, lambda: losses.realness(judged_real))

    def generator_terms(self, fake: PairBatch, step: int) -> Terms:
        """Have every generated pixel taken for a real one of its class, and heed VGG if told so."""
        assert fake.mask is not None
        judged = self._judge(fake)
        terms = {"classes": self._balanced(judged, fake.mask)}
        found = Terms(terms, lambda: losses.realness(judged))
        if self.vgg is not None and fake.layout is not None:
            found = found.with_beside({"vgg": self.vgg(fake.images[0], fake.layout[0])})
        return found

    def segment(self, images: Tensor) -> Tensor:
        """Take the discriminator for a segmenter of real pictures.

        Args:
            images: (B, 3, H, W) in [-1, 1], sides multiples of ``segment_grid_px``.

        Returns:
            Logits (B, N, H, W) of the real classes; "fake" is no answer here.
        """
        return self._judge(PairBatch((images,)))[:, losses.FIRST_CLASS :]

    @torch.no_grad()
    def refresh(self, generator: nn.Module) -> None:
        """Measure batch statistics and spectral norms anew: averaged weights have others."""
        norms = [m for m in generator.modules() if isinstance(m, nn.BatchNorm2d)]
        if not norms:
            return
        renew_spectral_norms(generator)
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over all batches
            norm.train()
        stream = torch_stream(0, "statistics")
        device = next(generator.parameters()).device
        for _ in range(self.statistics_batches):
            generator(self.latent(STATISTICS_BATCH, stream).to(device))
        for norm in norms:
            norm.momentum = 0.1
            norm.eval()

    def _judge(self, batch: PairBatch) -> Tensor:
        logits: Tensor = self.discriminator(batch.images[0])
        return logits

    def _balanced(self, logits: Tensor, labels: Tensor) -> Tensor:
        return losses.balanced_cross_entropy(
            logits, labels, self.largest_weight, balance=self.balance
        )


def build_published(
    height: int,
    width: int,
    num_classes: int,
    *,
    base: int = 64,
    hidden: int = 128,
    discriminator_width: float = 1.0,
    **options: Any,
) -> OASIS:
    """Build the published networks, or narrower ones.

    Args:
        height: multiple of 64.
        width: multiple of 64.
        num_classes: N.
        base: see `OasisGenerator`.
        hidden: see `OasisGenerator`.
        discriminator_width: see `OasisDiscriminator`.
        **options: keywords of `OASIS`.
    """
    generator = OasisGenerator(height, width, num_classes, base=base, hidden=hidden)
    discriminator = OasisDiscriminator(num_classes, width=discriminator_width)
    return OASIS(generator, discriminator, **options)


def build(preset: str, **settings: Any) -> OASIS:
    """Build from the plain settings that a generator's manifest keeps.

    Args:
        preset: ``paper`` or ``small`` (settings as `build_published`), or ``fast`` (as
            `fast.FastOASIS`).
        **settings: the preset's keywords.
    """
    if preset in ("paper", "small"):
        return build_published(**settings)
    if preset == "fast":
        from synthaug.gans.oasis.fast import FastOASIS

        return FastOASIS(**settings)
    raise InputError(f"unknown OASIS preset {preset!r}: fast, small or paper")
