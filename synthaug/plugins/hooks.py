"""The hooks of the training loop that a plug-in may fill."""

from __future__ import annotations

from torch import Tensor, nn

from synthaug.gans.contract import PairBatch


class Plugin(nn.Module):
    """Base of all plug-ins: every hook does nothing until overridden.

    State lives in buffers, so that ``state_dict()`` is what a checkpoint needs.
    """

    name: str = "plugin"

    def transform(self, batch: PairBatch) -> PairBatch:
        """Transform image and mask together; called on real and fake, in both steps."""
        return batch

    def generator_terms(self, fake: PairBatch) -> dict[str, Tensor]:
        """Return extra loss terms of the generator, each (B,); ``fake`` is un-transformed."""
        return {}
