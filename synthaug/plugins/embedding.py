"""Mask embedding of MED-GAN: the discriminator is told of a region, and weighs what lies in it.

After Lee et al., "MED-GAN", equation 2: features are multiplied by 1 + A_mask(m), m a random box of
75 to 100 % of the picture, another for every picture and step. Where pairs are judged, m can be the
object's own mask instead, so that no part of the discriminator judges texture without knowing what
it is meant to be of; that is our variant, not the paper's.

The game of three players with the regularisers that rest on mixed pictures is a GAN of its own,
`synthaug.gans.medgan`.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from synthaug.errors import InputError
from synthaug.gans.boxes import box_masks, looking_boxes
from synthaug.gans.contract import GAN, PairBatch
from synthaug.plugins.hooks import Plugin


class MaskEmbeddingPlugin(Plugin):
    """Weighs the discriminator's features by a mask; its weights are the discriminator's.

    Args:
        objects: the mask is that of a pair's objects, all classes but the first; off: a random box.
    """

    name = "medgan"

    def __init__(self, *, objects: bool = False) -> None:
        super().__init__()
        self.objects = objects

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

    def corrupt(self, batch: PairBatch) -> PairBatch:
        """Say where to look; images and mask stay as they are."""
        return replace(batch, focus=self._objects(batch) if self.objects else _boxes(batch))

    def _objects(self, batch: PairBatch) -> Tensor:
        assert batch.mask is not None
        shares = batch.mask.detach()
        # Hard, as real masks are: soft ones would tell what is generated.
        return (shares[:, 1:].sum(1, keepdim=True) > shares[:, :1]).to(batch.images[0].dtype)


def _boxes(batch: PairBatch) -> Tensor:
    image = batch.images[0]
    B, _, height, width = image.shape
    return box_masks(looking_boxes(B, height, width), height, width).to(image)
