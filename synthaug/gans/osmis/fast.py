"""The fast preset: OSMIS over frozen pre-trained features, minutes on a laptop CPU.

What stays of OSMIS: low-level, object (masked content attention with N + 1 classes) and layout
logits, feature augmentation of real pairs, diversity regularisation, differentiable augmentation,
straight-through masks with a Bernoulli warm-up, EMA. What is new, each for speed:

- the discriminator is a set of small heads over a frozen ImageNet EfficientNet-Lite0 (the idea of
  Projected GAN, Sauer et al. 2021, arXiv:2111.01007), plus one small head over pixels;
- the generator starts from a coarse composition of the pair's own parts, as SinGAN (Shaham et al.
  2019, arXiv:1905.01164) starts from a coarse picture, and paints it anew under a texture latent;
- it first learns to paint compositions by plain regression, then against the discriminator, which
  takes compositions for real half of the time; a weak loss holds each sample to its layout, so
  that the diversity of layouts cannot collapse;
- every class has its own colours, mixed by the mask: image and mask cannot disagree. The picture
  does not pull at the mask, or dark parts of an object would be painted as background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.gans.contract import PairBatch
from synthaug.gans.frozen import FrozenView
from synthaug.gans.osmis import OSMIS
from synthaug.gans.osmis.fast_networks import (
    LATENT_DIM,
    LAYOUT_PX,
    FastDiscriminator,
    FastGenerator,
)
from synthaug.gans.osmis.losses import LossWeights, OsmisOptions, straight_through_mask

WEIGHTS = LossWeights(low=1.8, content=2.25, layout=2.25)
"""Per part these are a mean over layers times 1, 1 and 0.5 (five low and four object layers)."""


class FastOSMIS(OSMIS):
    """The fast generator against heads over frozen features.

    Args:
        height: height of the samples in pixels, a multiple of 8.
        width: width of the samples in pixels, a multiple of 8.
        num_classes: N, background first; None for pictures without masks.
        num_pairs: number of training pairs.
        flip: whether mirror images are plausible.
        enlarge: whether small objects are shown larger, too.
        smooth_texture: see `FastGenerator`.
        pretrain_steps: iterations of plain regression at the start.
        bernoulli_steps: iterations (from the start) with random instead of argmax masks.
        layout_weight: strength of the loss that holds a sample to its layout.
        feature_weight: strength of the loss that holds its frozen features to the layout's.
        composed_share: share of compositions among the pairs shown as real.
        pretrained: False takes random frozen features, for tests.
    """

    real_scale = 2

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
        pretrain_steps: int = 150,
        bernoulli_steps: int = 250,
        layout_weight: float = 3.0,
        feature_weight: float = 2.0,
        composed_share: float = 0.5,
        pretrained: bool = True,
    ) -> None:
        super().__init__(
            FastGenerator(
                height,
                width,
                num_classes,
                num_pairs,
                flip=flip,
                enlarge=enlarge,
                smooth_texture=smooth_texture,
            ),
            FastDiscriminator(num_classes),
            num_classes,
            scales=1,
            latent_dim=LATENT_DIM,
            options=OsmisOptions(),
            weights=WEIGHTS,
        )
        self.size = (height, width)
        self.pretrain_steps = pretrain_steps
        self.bernoulli_steps = bernoulli_steps
        self.layout_weight = layout_weight
        self.feature_weight = feature_weight
        self.composed_share = composed_share
        self._frozen = FrozenView(pretrained=pretrained)

    def initialise(self, images: Tensor, masks: Tensor | None) -> None:
        """Take the pairs apart and measure what features and areas to expect."""
        generator, heads = self._parts()
        generator.composition.learn(images, masks)
        seen = self._frozen(F.interpolate(images, self.size, mode="area"))
        heads.spread.copy_(torch.stack([features.std() for features in seen]))
        if masks is not None:
            heads.area.copy_(masks.mean((0, 2, 3)).clamp_min(1e-3))

    def constants(self) -> Sequence[nn.Module | Tensor]:
        """The composition, which holds the training pairs."""
        return (self._parts()[0].composition,)

    def prepare(self, images: Tensor, masks: Tensor | None) -> PairBatch:
        """Replace a random share of the real pairs by compositions of them."""
        generator, _ = self._parts()
        B, size = len(images), images.shape[2:]
        z = self.latent(B).to(images.device)
        with torch.no_grad():
            composed, composed_masks = generator.compose(z)
            composed = F.interpolate(composed, size, mode="bilinear", align_corners=False)
        choose = (torch.rand(B, device=images.device) < self.composed_share)[:, None, None, None]
        images = torch.where(choose, composed, images)
        if masks is None or self.num_classes is None:
            return PairBatch((images,), None)
        composed_masks = F.interpolate(composed_masks, size, mode="bilinear", align_corners=False)
        return PairBatch((images,), torch.where(choose, composed_masks, masks))

    def to_sample_size(self, batch: PairBatch) -> PairBatch:
        """Average real pairs over areas down to the samples' size."""
        image, mask = batch.images[0], batch.mask
        if tuple(image.shape[2:]) == self.size:
            return batch
        image = F.interpolate(image, self.size, mode="area")
        mask = None if mask is None else F.interpolate(mask, self.size, mode="area")
        return batch.with_pair((image,), mask)

    def look(self, batch: PairBatch, step: int) -> PairBatch:
        """Bring real pairs to the samples' size, harden generated masks, add frozen features."""
        batch = self.to_sample_size(batch)
        image, mask = batch.images[0], batch.mask
        generated = bool(batch.features)
        if generated and mask is not None:
            mask = straight_through_mask(mask, step, self.bernoulli_steps)
        seen = self._frozen(image)
        return replace(batch, images=(image,), mask=mask, seen=seen)

    def discriminator_terms(self, real: PairBatch, fake: PairBatch, step: int) -> dict[str, Tensor]:
        """As OSMIS, on batches that have been looked at."""
        return super().discriminator_terms(self._looked(real, step), self._looked(fake, step), step)

    def real_terms(self, batch: PairBatch, step: int) -> dict[str, Tensor]:
        """As OSMIS, on a batch that has been looked at."""
        return super().real_terms(self._looked(batch, step), step)

    def generator_terms(self, fake: PairBatch, step: int) -> dict[str, Tensor]:
        """As OSMIS, on a batch that has been looked at."""
        return super().generator_terms(self._looked(fake, step), step)

    def pretrain_terms(self, fake: PairBatch) -> dict[str, Tensor]:
        """Regression onto the compositions: pixels, classes, and frozen features."""
        _, heads = self._parts()
        image, mask = _layout(fake)
        weight = 1.0 if mask is None else 1 + 3 * mask[:, 1:].sum(1, keepdim=True)
        pixels = ((fake.images[0] - image).abs() * weight).mean((1, 2, 3))
        terms = {"pixels": pixels, "features": 0.3 * self._feature_distance(fake.images[0], image)}
        if mask is not None and fake.mask is not None:
            terms["classes"] = 0.5 * _cross_entropy(fake.mask, mask, heads.area)
        return terms

    def render(self, fake: PairBatch) -> PairBatch:
        """Double the size: what a composition shows finer than a sample is added to it.

        Detail is added where sample and composition agree, colour by colour and class by class;
        where the painter went its own way the sample stays as it is.
        """
        assert fake.layout is not None
        full, full_mask = fake.layout
        image, mask = _layout(fake)
        agree = torch.exp(-((fake.images[0] - image).abs().mean(1, keepdim=True) / 0.25).square())
        sharp = _double(fake.images[0]) + _double(agree) * (full - _double(image))
        if mask is None or full_mask is None or fake.mask is None:
            return PairBatch((sharp.clamp(-1, 1),), None)
        agree = 1 - (fake.mask - mask).abs().amax(1, keepdim=True)
        soft = _double(fake.mask) + _double(agree) * (full_mask - _double(mask))
        return PairBatch((sharp.clamp(-1, 1),), soft.clamp_min(0))

    def layout_terms(self, fake: PairBatch) -> dict[str, Tensor]:
        """Hold classes, coarse colours (4 x 4 px cells) and features to the composition's."""
        _, heads = self._parts()
        image, mask = _layout(fake)
        coarse = F.avg_pool2d(fake.images[0], LAYOUT_PX) - F.avg_pool2d(image, LAYOUT_PX)
        loss = coarse.abs().mean((1, 2, 3))
        if mask is not None and fake.mask is not None:
            loss = loss + 2 * _cross_entropy(fake.mask, mask, heads.area)
        terms = {"layout_kept": self.layout_weight * loss}
        if self.feature_weight > 0:
            distance = self._feature_distance(fake.images[0], image)
            terms["features_kept"] = self.feature_weight * distance
        return terms

    def _feature_distance(self, image: Tensor, target: Tensor) -> Tensor:
        _, heads = self._parts()
        return self._frozen.distance(self._frozen(image), target, heads.spread)

    def _looked(self, batch: PairBatch, step: int) -> PairBatch:
        return batch if batch.seen else self.look(batch, step)

    def _parts(self) -> tuple[FastGenerator, FastDiscriminator]:
        assert isinstance(self.generator, FastGenerator)
        assert isinstance(self.discriminator, FastDiscriminator)
        return self.generator, self.discriminator


def _layout(fake: PairBatch) -> tuple[Tensor, Tensor | None]:
    """Return the layout at the samples' size."""
    assert fake.layout is not None
    image, mask = fake.layout
    return F.avg_pool2d(image, 2), None if mask is None else F.avg_pool2d(mask, 2)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _cross_entropy(soft: Tensor, target: Tensor, area: Tensor) -> Tensor:
    """Cross-entropy (B,) of probabilities (B, N, h, w) over the area of all but the largest class.

    So small objects count as much as large ones, and borders are not pushed outwards.
    """
    labelled = torch.where(area.sum() > 0.999, 1.0, area.sum())
    small = (labelled - area.max()).clamp_min(0.02)
    return -(target * (soft + 1e-4).log()).sum(1).mean((1, 2)) / (10 * small)
