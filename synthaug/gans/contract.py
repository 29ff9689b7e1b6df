"""What the training loop needs from a GAN."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from synthaug.gans.focus import Focus


@dataclass(frozen=True, eq=False)
class PairBatch:
    """A batch of image+mask pairs as a discriminator sees it.

    Attributes:
        images: scales from fine to coarse, each (B, 3, H/2^i, W/2^i) float in [-1, 1]; GANs with
            one scale hold one tensor.
        mask: (B, N, H, W) float: one-hot for real pairs (all zero where ignored), class
            probabilities for generated ones; None for image-only GANs. GANs that paint masks hold
            class indices instead, (B, H, W) int64, -1 where ignored.
        features: intermediate maps of the generator for feature-space regularisers.
        layout: what the generator was asked to draw, image (B, 3, h, w) and mask (B, N, h, w) or
            None at a size of the GAN's own, for GANs that start from a layout.
        seen: features of the pairs in a frozen network, for GANs that look through one.
        classes: (B,) int64, classes of whole pictures, for class-conditional GANs.
        focus: (B, 1, H, W), 1 where the discriminator is to look, for its `Focus`.
    """

    images: tuple[Tensor, ...]
    mask: Tensor | None = None
    features: tuple[Tensor, ...] = ()
    layout: tuple[Tensor, Tensor | None] | None = None
    seen: tuple[Tensor, ...] = ()
    classes: Tensor | None = None
    focus: Tensor | None = None

    @property
    def batch_size(self) -> int:
        """Number of pairs."""
        return self.images[0].shape[0]

    def detach(self) -> PairBatch:
        """Return the same pairs without gradient history and without features."""
        return PairBatch(
            tuple(image.detach() for image in self.images),
            None if self.mask is None else self.mask.detach(),
            seen=tuple(feature.detach() for feature in self.seen),
            classes=self.classes,
            focus=self.focus,
        )

    def with_pair(self, images: Iterable[Tensor], mask: Tensor | None) -> PairBatch:
        """Return a copy with other images and mask and the same features."""
        return replace(self, images=tuple(images), mask=mask)


class Terms(dict[str, Tensor]):
    """Named loss terms, each (B,), and how real the discriminator found the B samples.

    Args:
        terms: the loss terms.
        realness: returns one score per sample (B,) from the pass that gave the terms, above 0
            where real is the likelier. Of discriminator terms: the real samples'. It is called
            only where a plug-in asks.

    Attributes:
        beside: names of the terms that no selection of samples weighs.
    """

    def __init__(self, terms: Mapping[str, Tensor], realness: Callable[[], Tensor]) -> None:
        super().__init__(terms)
        self.realness = realness
        self.beside: frozenset[str] = frozenset()

    def with_beside(self, terms: Mapping[str, Tensor]) -> Terms:
        """Return also terms that the discriminator has no part in, such as regularisers."""
        both = Terms({**self, **terms}, self.realness)
        both.beside = self.beside | terms.keys()
        return both


def prefixed(prefix: str, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return terms under the names ``PREFIX/NAME``."""
    return {f"{prefix}/{name}": term for name, term in terms.items()}


class GAN(nn.Module, ABC):
    """A generator, a discriminator and their losses.

    Sub-classes set ``generator`` and ``discriminator``. Losses are named terms of shape (B,), one
    value per sample: the loop (or a plug-in that selects samples) reduces them last. Networks are
    called through their forward only. Randomness comes from torch's global generator, which the
    loop seeds anew for every iteration from (seed, rank, iteration).

    Attributes:
        latent_dim: length of z.
        pretrain_steps: iterations at the start in which the generator alone learns, from
            `pretrain_terms`.
        real_scale: real images are handed to `prepare` at this multiple of the generator's size,
            so that a close-up of them is sharp.
        paints_masks: the generator is called with the masks of the real pairs as well, and masks
            are class indices; what it returns has them as its mask, and the real images as the
            image of its layout.
        scores_samples: both kinds of adversarial terms are `Terms`: they tell one score per sample.
        truncates: `sample` heeds its truncation.
        keeps_discriminator: a fit saves the discriminator beside the generator, for later use.
        memory_format: of the weights on a CPU.
    """

    generator: nn.Module
    discriminator: nn.Module
    latent_dim: int
    pretrain_steps: int = 0
    real_scale: int = 1
    paints_masks: bool = False
    scores_samples: bool = False
    truncates: bool = False
    keeps_discriminator: bool = False
    memory_format: torch.memory_format = torch.channels_last

    @property
    def focus(self) -> Focus | None:
        """Where the discriminator's features may be weighed by a mask; None: nowhere."""
        found = getattr(self.discriminator, "focus", None)
        return found if isinstance(found, Focus) else None

    def initialise(self, images: Tensor, masks: Tensor | None) -> None:
        """Look at all training pairs once, before the first step; see `prepare` for the shapes."""

    def before_step(self, step: int, averaged: nn.Module) -> None:
        """Begin a step; ``averaged`` is the generator's twin. Repeated where a fit is resumed."""

    def knows_masks(self) -> bool:
        """Whether generated masks mean something at this step; a GAN may learn them last."""
        return True

    def estimates(self) -> Sequence[Tensor]:
        """Return buffers () that every process estimates on its own samples; they are averaged."""
        return ()

    def constants(self) -> Sequence[nn.Module | Tensor]:
        """Return parts and buffers of the generator that never change, such as training pictures.

        The averaged generator shares them.
        """
        return ()

    def to_sample_size(self, batch: PairBatch) -> PairBatch:
        """Bring real pairs that `real_scale` made larger to the size of the samples."""
        return batch

    def look(self, batch: PairBatch, step: int) -> PairBatch:
        """Add what both steps see alike and no trained weight changes, such as frozen features."""
        return batch

    def refresh(self, generator: nn.Module) -> None:
        """Bring the averaged generator's statistics in line with its weights, before its use."""

    def pretrain_terms(self, fake: PairBatch) -> dict[str, Tensor]:
        """Loss terms of the generator in the first `pretrain_steps` iterations, each (B,)."""
        return {}

    def render(self, fake: PairBatch) -> PairBatch:
        """Finish generated pairs for use, outside training; sizes may grow."""
        return fake

    def layout_terms(self, fake: PairBatch) -> dict[str, Tensor]:
        """Loss terms that compare un-transformed fakes with their layout, each (B,)."""
        return {}

    def latent(self, batch_size: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw latents (B, latent_dim) ~ N(0, I) on the CPU, as reproducible as ``generator``."""
        return torch.randn(batch_size, self.latent_dim, generator=generator)

    def sample(
        self,
        network: nn.Module,
        z: Tensor,
        generator: torch.Generator | None = None,
        truncation: float = 1.0,
    ) -> PairBatch:
        """Have the generator or its averaged twin, in evaluation mode, draw pairs.

        Args:
            network: on the device of z.
            z: (B, latent_dim).
            generator: on the CPU, of what else is random; default: torch's own.
            truncation: pulls towards one mean picture, from 1, not at all, to 0, all the way.
        """
        pair: PairBatch = network(z)
        return pair

    def latent_for(self, real: PairBatch, step: int) -> Tensor:
        """Draw latents (B, latent_dim) to paint the masks of real pairs with, in training."""
        return self.latent(real.batch_size).to(real.images[0].device)

    @abstractmethod
    def prepare(self, images: Tensor, masks: Tensor | None) -> PairBatch:
        """Turn real images (B, 3, H, W) in [-1, 1] and one-hot masks into a `PairBatch`.

        Class-conditional GANs are given the classes (B,) int64 of the images as ``masks``.
        """

    @abstractmethod
    def discriminator_terms(self, real: PairBatch, fake: PairBatch, step: int) -> dict[str, Tensor]:
        """Loss terms of the discriminator, each (B,), weights already applied."""

    def real_terms(self, batch: PairBatch, step: int) -> dict[str, Tensor]:
        """The discriminator's loss terms of calling a batch real, each (B,); {}: it has no say."""
        return {}

    @abstractmethod
    def generator_terms(self, fake: PairBatch, step: int) -> dict[str, Tensor]:
        """Adversarial loss terms of the generator, each (B,), weights already applied."""
