"""MED-GAN's part in the discriminator: it is told of a region, and weighs what lies in it.

After Liu et al., MED-GAN (CVPR 2021):

- mask embedding (eq. 2): features are multiplied by 1 + A_mask(m), m a random box of 75 to 100 % of
  the picture, another for every picture and step. Where pairs are judged, m can be the object's own
  mask instead, so that no part of the discriminator judges texture without knowing what it is meant
  to be of; that is our variant, not the paper's;
- regional replacement (eq. 1): a real picture inside a box over a generated one is called real
  where the box is looked at (eq. 11), its features are near those under a similar box (eq. 4), and
  nearer to the real picture's than the generated one's are (eq. 5).

The whole game of three players, with a classifier, is `synthaug.gans.medgan`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from synthaug.errors import InputError
from synthaug.gans.contract import GAN, PairBatch
from synthaug.gans.regions import (
    IDENTIFICATION,
    MARGIN,
    contrastive,
    feature_distance,
    looking_masks,
    mix,
    mixing_masks,
)
from synthaug.plugins.hooks import Plugin


class MaskEmbeddingPlugin(Plugin):
    """Weighs the discriminator's features by a mask; its weights are the discriminator's.

    Args:
        objects: the mask is that of a pair's objects, all classes but the first; off: a random box.
            Where masks are learnt after pictures, nothing is looked at before.
        regions: train the discriminator on regional replacement, too.
    """

    name = "medgan"

    def __init__(self, *, objects: bool = False, regions: bool = False) -> None:
        super().__init__()
        self.objects = objects
        self.regions = regions
        self._knows_masks: Callable[[], bool] = lambda: True

    def attach(self, gan: GAN) -> None:
        """Begin the embeddings at the discriminator's places.

        Raises:
            InputError: it has none.
        """
        focus = gan.focus
        if focus is None:
            raise InputError(
                f"the plug-in {self.name} weighs feature maps, of which {type(gan).__name__}'s "
                "discriminator has none to weigh: leave it out"
            )
        focus.begin(next(gan.discriminator.parameters()))
        self._knows_masks = gan.knows_masks

    def corrupt(self, batch: PairBatch) -> PairBatch:
        """Say where to look; images and mask stay as they are."""
        if not self.objects:
            return replace(batch, focus=looking_masks(batch.images[0]))
        return replace(batch, focus=_objects(batch)) if self._knows_masks() else batch

    def discriminator_terms(
        self, gan: GAN, real: PairBatch, fake: PairBatch, step: int
    ) -> dict[str, Tensor]:
        """Identification, consistency and contrast of mixed pictures, each (B,)."""
        focus = gan.focus
        if not self.regions or focus is None:
            return {}
        m, m_near = mixing_masks(real.images[0])
        batches = (
            _replaced(real, fake, m),
            _replaced(real, fake, m_near),
            replace(real, focus=m),
            replace(fake, focus=m),
        )
        called_real, features = [], []
        for batch in batches:
            with focus.recorded() as maps:
                called_real.append(gan.real_terms(batch, step))
            features.append(maps)
        if not called_real[0]:
            return {}
        identified = torch.stack(list(called_real[0].values())).sum(0)
        places = list(zip(*features, strict=True))  # mixed, mixed alike, real, fake at each
        consistency = [feature_distance(mixed, alike) for mixed, alike, _, _ in places]
        contrast = [contrastive(own, mixed, made, MARGIN) for mixed, _, own, made in places]
        return {
            "regions/identification": IDENTIFICATION * identified,
            "regions/consistency": torch.stack(consistency).mean(0),
            "regions/contrast": torch.stack(contrast).mean(0),
        }


def _objects(batch: PairBatch) -> Tensor:
    """Where a pair's mask shows an object, (B, 1, H, W) in {0, 1}."""
    assert batch.mask is not None
    shares = batch.mask.detach()
    # Hard, as real masks are: soft ones would tell what is generated.
    return (shares[:, 1:].sum(1, keepdim=True) > shares[:, :1]).to(batch.images[0].dtype)


def _replaced(real: PairBatch, fake: PairBatch, m: Tensor) -> PairBatch:
    """Real pairs inside of boxes (B, 1, H, W) over generated ones, to be looked at there."""
    images = tuple(
        mix(own, made, F.adaptive_avg_pool2d(m, (own.shape[2], own.shape[3])))
        for own, made in zip(real.images, fake.images, strict=True)
    )
    mask = None
    if real.mask is not None and fake.mask is not None:
        N = fake.mask.shape[1]
        hard = F.one_hot(fake.mask.argmax(1), N).permute(0, 3, 1, 2).to(real.mask)
        mask = mix(real.mask, hard, m)
    return PairBatch(images, mask, classes=real.classes, focus=m)
