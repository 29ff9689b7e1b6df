"""The hooks of the training loop that a plug-in may fill."""

from __future__ import annotations

from torch import Tensor, nn

from synthaug.gans.contract import GAN, PairBatch


class Plugin(nn.Module):
    """Base of all plug-ins: every hook does nothing until overridden.

    State lives in buffers, so that ``state_dict()`` is what a checkpoint needs.

    Attributes:
        name: under which the state is saved.
        needs_scores: it works on GANs alone that tell one score per sample; only then the loop
            calls `observe` and `select`.
    """

    name: str = "plugin"
    needs_scores: bool = False

    def attach(self, gan: GAN) -> None:
        """Add weights of the plug-in's own to a GAN; called once, before there are optimisers."""

    def transform(self, batch: PairBatch) -> PairBatch:
        """Transform image and mask together; called on real and fake, in both steps."""
        return batch

    def corrupt(self, batch: PairBatch) -> PairBatch:
        """Hide a part of the images, which have the samples' size, or say where to look.

        Last before the discriminator.

        Called on real and fake with draws of its own each time. Fakes that serve both steps are
        corrupted once, as they are transformed once.
        """
        return batch

    def generator_terms(self, fake: PairBatch) -> dict[str, Tensor]:
        """Return extra loss terms of the generator, each (B,); ``fake`` is un-transformed."""
        return {}

    def discriminator_terms(
        self, gan: GAN, real: PairBatch, fake: PairBatch, step: int
    ) -> dict[str, Tensor]:
        """Return extra loss terms of the discriminator, each (B,), of pairs as it sees them."""
        return {}

    def observe(self, real_scores: Tensor) -> None:
        """Note how real the discriminator found the real samples it just learned from.

        Args:
            real_scores: (B,), the pairs of all processes, before the discriminator's step.
        """

    def select(self, fake_scores: Tensor) -> Tensor | None:
        """Return weights (B,) of the samples in the generator's adversarial terms; None: all 1.

        Args:
            fake_scores: (B,), how real the discriminator finds this process's samples.
        """
        return None

    def adapt(self) -> None:
        """Move what steers itself; called at the end of every step that trained both networks."""
