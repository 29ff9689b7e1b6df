"""StyleGAN2: images from scratch or adapted to a few, and masks for them.

After Karras et al. (CVPR 2020, arXiv:1912.04958), and chapter 7 of Sushko's thesis for adaptation.
Text and released code leave things open or differ; we do as follows:

- lazy regularisation adds its term, times the interval, to the step in which it is due; the
  released code takes another optimiser step instead, and corrects Adam's decays for it; of that
  correction the presets have the learning rates alone;
- the gradient penalty is taken at the image that the discriminator sees, after its augmentation;
- generated images are not bounded while training; `StyleGAN2.render` clamps them;
- smoothness is compared at every step, without style mixing, with fresh noise maps that both
  generators share, at an eighth of the picture's side, 8 px at least, on 32 latents or more;
- its directions are N(0, 1) over the root of the number of places (``smoothness_scale`` 1).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synthaug.errors import InputError
from synthaug.gans.contract import GAN, PairBatch, Terms, prefixed
from synthaug.gans.gradient_penalty import gradient_penalty
from synthaug.gans.precision import exact
from synthaug.gans.smoothness import LEAST_LATENTS, smoothness_px, smoothness_similarity
from synthaug.gans.state_dicts import load_beside
from synthaug.gans.stylegan2 import losses, masks
from synthaug.gans.stylegan2.networks import (
    StyleDiscriminator,
    StyleGenerator,
    channel_widths,
)

__all__ = ["StyleDiscriminator", "StyleGAN2", "StyleGenerator", "build", "channel_widths"]

PRESETS: dict[str, dict[str, int]] = {
    "paper": {"base": 32768, "largest": 512, "latent": 512, "n_mlp": 8},
    "small": {"base": 2048, "largest": 128, "latent": 128, "n_mlp": 4},
}
"""Channels, length of latents and styles, layers of the mapping network; at any size."""
SMOOTHNESS_PX = 8
"""Smoothness is compared on features of this side at least: those of 4 px see one convolution."""
PATH = 2.0
"""Published weight of path-length regularisation."""
PATH_DECAY = 0.01
PATH_SHRINK = 2
"""Path lengths are measured on a batch this much smaller (published)."""


class StyleGAN2(GAN):
    """A style-based generator against a residual discriminator.

    With masks there are two phases: images alone, then from step ``mask_from`` on a head that adds
    masks to the averaged generator, which no longer changes. With joint masks (`MaskHead`) images
    train on beside them, for masks alone would teach the generator to spoil its images, and the
    generator learns from what is said of its masks, too.

    Args:
        generator: latents to images.
        discriminator: images to the logits of one or several blocks.
        r1: weight of the gradient penalty; 0 turns it off.
        r1_every: steps between gradient penalties.
        path: weight of path-length regularisation, see `PATH`; 0 turns it off.
        path_every: steps between path-length regularisations.
        smoothness: weight of smoothness similarity to the source generator (published: 5); 0
            turns it off. The source is the generator at the time of `adapt`.
        smoothness_scale: of its random directions.
        mask_from: first step that trains masks, where the networks have classes.
        bernoulli_steps: steps from there on in which classes of pixels are drawn.

    Attributes:
        path_mean: running mean of path lengths.
        presence: (N,) share of the training pairs that each class is in; None without classes.
    """

    path_mean: Tensor
    presence: Tensor | None
    scores_samples = True
    truncates = True
    keeps_discriminator = True
    memory_format = torch.contiguous_format  # weights (1, O, I, 3, 3) know no other

    def __init__(
        self,
        generator: StyleGenerator,
        discriminator: StyleDiscriminator,
        *,
        r1: float = 10.0,
        r1_every: int = 16,
        path: float = 0.0,
        path_every: int = 4,
        smoothness: float = 0.0,
        smoothness_scale: float = 1.0,
        mask_from: int = 0,
        bernoulli_steps: int = 0,
    ) -> None:
        super().__init__()
        self.generator: StyleGenerator = generator
        self.discriminator: StyleDiscriminator = discriminator
        self.latent_dim = generator.z_dim
        self.r1 = r1
        self.r1_every = r1_every
        self.path = path
        self.path_every = path_every
        self.smoothness = smoothness
        self.smoothness_scale = smoothness_scale
        self.smoothness_px = smoothness_px(generator.size, SMOOTHNESS_PX)
        self.register_buffer("path_mean", torch.zeros(()))
        self.source: StyleGenerator | None = None
        if smoothness > 0:
            self.source = copy.deepcopy(generator).requires_grad_(False)
            self.source.mask_head = None
        self.mask_from = mask_from
        self._step = 0
        self.bernoulli_steps = bernoulli_steps
        head = generator.mask_head
        self.joint_masks = head is not None and head.joint
        classes = None if head is None else head.num_classes
        self.register_buffer("presence", None if classes is None else torch.ones(classes))

    def adapt(
        self, generator: Mapping[str, Tensor], discriminator: Mapping[str, Tensor] | None = None
    ) -> None:
        """Start from trained weights, which also become the frozen source.

        Args:
            generator: state dict of a `StyleGenerator` of the same sizes.
            discriminator: of a `StyleDiscriminator`; new heads keep their fresh weights.
        """
        load_beside(self.generator, generator, "mask_head.")
        if self.source is not None:
            self.source.load_state_dict(generator, strict=True)
        if discriminator is not None:
            load_beside(self.discriminator, discriminator, "heads.", "mask_judge.")

    def initialise(self, images: Tensor, masks: Tensor | None) -> None:
        """Count in what share of the pairs each class is there."""
        if masks is not None and self.presence is not None:
            self.presence.copy_((masks.amax((2, 3)) > 0).float().mean(0))

    def before_step(self, step: int, averaged: nn.Module) -> None:
        """When masks alone begin, go on with the averaged generator."""
        self._step = step
        if self.presence is not None and step == self.mask_from and not self.joint_masks:
            self.generator.load_state_dict(averaged.state_dict(), strict=True)

    def knows_masks(self) -> bool:
        """Whether masks have begun."""
        return self._learns_masks(self._step)

    def _learns_masks(self, step: int) -> bool:
        return self.presence is not None and step >= self.mask_from

    def _learns_images(self, step: int) -> bool:
        return self.joint_masks or not self._learns_masks(step)

    def estimates(self) -> Sequence[Tensor]:
        """Return the mean path length, where it is used."""
        return (self.path_mean,) if self.path > 0 else ()

    def prepare(self, images: Tensor, masks: Tensor | None) -> PairBatch:
        """Take images (B, 3, H, W) in [-1, 1], and masks where the networks have classes."""
        return PairBatch((images,), masks)

    def discriminator_terms(self, real: PairBatch, fake: PairBatch, step: int) -> Terms:
        """Tell real from generated images, masks or both; see `StyleGAN2`."""
        if not self._learns_images(step):
            return self._tell_masks(real, fake, step)
        terms = self._tell_images(real, fake, step)
        if self._learns_masks(step):
            terms |= self._tell_masks(real, fake, step)
        return terms

    def _tell_masks(self, real: PairBatch, fake: PairBatch, step: int) -> Terms:
        assert real.mask is not None
        there = (real.mask.amax((2, 3)) > 0).float()
        focus = self._mask_focus(real, step)
        seen = self.discriminator.judge_masks(real.images[0], real.mask, focus)
        made, weights, _ = self._judge_fake(fake.detach(), step)
        known = masks.content_loss(seen, there, real=True)
        found = masks.content_loss(made, weights, real=False)
        return Terms(
            {"real/mask": known, "fake/mask": found},
            lambda: masks.content_score(seen, there).detach(),
        )

    def _tell_images(self, real: PairBatch, fake: PairBatch, step: int) -> Terms:
        """Real and generated images; every ``r1_every`` steps the gradient penalty."""
        sizes = self.discriminator.block_sizes
        judged = self.discriminator(real.images[0], real.focus)
        unreal = self.discriminator(fake.images[0].detach(), fake.focus)
        terms = self._called_real(judged)
        terms |= prefixed("fake", losses.logistic_by_block(unreal, sizes, real=False))
        if self.r1 > 0 and step % self.r1_every == 0:
            image = real.images[0].detach().float().requires_grad_(True)
            with exact(image):
                score = losses.mean_logit(self.discriminator(image, real.focus))
                penalty = gradient_penalty(score, image)
            terms["r1"] = self.r1 / 2 * self.r1_every * penalty
        return Terms(terms, lambda: losses.mean_logit(judged).detach())

    def real_terms(self, batch: PairBatch, step: int) -> dict[str, Tensor]:
        """Call images real, while they train."""
        if not self._learns_images(step):
            return {}
        return self._called_real(self.discriminator(batch.images[0], batch.focus))

    def _called_real(self, judged: Sequence[Tensor]) -> dict[str, Tensor]:
        sizes = self.discriminator.block_sizes
        return prefixed("real", losses.logistic_by_block(judged, sizes, real=True))

    def generator_terms(self, fake: PairBatch, step: int) -> Terms:
        """Have images called real, masks or both; with images the regularisers that are due."""
        if not self._learns_images(step):
            return self._pass_masks(fake, step)
        terms = self._pass_images(fake, step)
        if self._learns_masks(step):
            terms |= self._pass_masks(fake, step)
        return terms

    def _pass_masks(self, fake: PairBatch, step: int) -> Terms:
        made, weights, shown = self._judge_fake(fake, step)
        return Terms(
            {"real/mask": masks.content_loss(made, weights, real=True)},
            lambda: masks.content_score(made, shown).detach(),
        )

    def _pass_images(self, fake: PairBatch, step: int) -> Terms:
        judged = self.discriminator(fake.images[0], fake.focus)
        terms = self._called_real(judged)
        beside = {}
        with exact(fake.images[0]):
            if self.path > 0 and step % self.path_every == 0:
                beside["path"] = self._path_term(fake.batch_size)
            if self.source is not None:
                count = max(LEAST_LATENTS, fake.batch_size)
                distance = self.smoothness * self._similarity(count).mean()
                beside["smoothness"] = distance.expand(fake.batch_size)
        return Terms(terms, lambda: losses.mean_logit(judged).detach()).with_beside(beside)

    def sample(
        self,
        network: nn.Module,
        z: Tensor,
        generator: torch.Generator | None = None,
        truncation: float = 1.0,
    ) -> PairBatch:
        """Draw pairs with noise maps of their own; with the kept ones all had the same grain."""
        assert isinstance(network, StyleGenerator)
        pair: PairBatch = network(z, network.draw_noise(len(z), generator), truncation)
        return pair

    def render(self, fake: PairBatch) -> PairBatch:
        """Clamp the images to [-1, 1]."""
        return fake.with_pair([image.clamp(-1, 1) for image in fake.images], fake.mask)

    def refresh(self, generator: nn.Module) -> None:
        """Measure the mean style, towards which truncation pulls."""
        assert isinstance(generator, StyleGenerator)
        generator.measure_latent_avg()

    def _judge_fake(self, fake: PairBatch, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, N, N + 1) of generated masks, weights (B, N), and 1 for what is there."""
        assert fake.mask is not None
        assert self.presence is not None
        mask = masks.straight_through(fake.mask, draw=self._draws(step))
        there = mask.detach().amax((2, 3)) > 0.5
        weights = torch.where(there, 1.0, self.presence)
        image, focus = fake.images[0].detach(), self._mask_focus(fake, step)
        return self.discriminator.judge_masks(image, mask, focus), weights, there.float()

    def _draws(self, step: int) -> bool:
        return step < self.mask_from + self.bernoulli_steps

    def _mask_focus(self, batch: PairBatch, step: int) -> Tensor | None:
        """Where to look; nowhere while pixels are drawn, whose objects are not those looked at."""
        return None if self._draws(step) else batch.focus

    def _path_term(self, batch_size: int) -> Tensor:
        """Deviation of path lengths from their running mean, its mean for every sample."""
        share = max(1, batch_size // PATH_SHRINK)
        z = self.latent(share).to(self.path_mean.device)
        ws = self.generator.mixed_styles(z)
        image, _ = self.generator.synthesise(ws, self.generator.draw_noise(share))
        lengths = losses.path_lengths(image, ws)
        self.path_mean.lerp_(lengths.detach().mean(), PATH_DECAY)
        deviation = (lengths - self.path_mean).square().mean()
        return (self.path * self.path_every * deviation).expand(batch_size)

    def _similarity(self, batch_size: int) -> Tensor:
        assert self.source is not None
        source, px = self.source, self.smoothness_px
        z = self.latent(batch_size).to(self.path_mean.device)
        noise = self.generator.draw_noise(batch_size)

        def features(generator: StyleGenerator, z: Tensor) -> Tensor:
            return generator.features_at(generator.styles(z), noise, px)

        return smoothness_similarity(
            lambda z: features(source, z),
            lambda z: features(self.generator, z),
            z,
            self.smoothness_scale / px,
        )


def build(
    size: int,
    preset: str = "small",
    *,
    channels: list[int] | None = None,
    z_dim: int | None = None,
    w_dim: int | None = None,
    n_mlp: int | None = None,
    clamp: float | None = None,
    mixing: float = 0.9,
    group: int = 4,
    block_heads: bool = False,
    frozen: int = 0,
    num_classes: int | None = None,
    joint_masks: bool = False,
    **options: Any,
) -> StyleGAN2:
    """Build from the plain settings that a generator's manifest keeps.

    Args:
        size: side of the images, 8, 16, ... pixels.
        preset: ``paper`` or ``small``: sizes of the networks where nothing else is said.
        channels: at 4, 8, ... pixels, both networks alike.
        z_dim: see `StyleGenerator`.
        w_dim: see `StyleGenerator`.
        n_mlp: see `StyleGenerator`.
        clamp: see `StyleGenerator`.
        mixing: see `StyleGenerator`.
        group: see `StyleDiscriminator`.
        block_heads: see `StyleDiscriminator`.
        frozen: see `StyleDiscriminator`.
        num_classes: of the masks; None: images alone.
        joint_masks: see `StyleGenerator`.
        **options: keywords of `StyleGAN2`.
    """
    if preset not in PRESETS:
        raise InputError(f"unknown StyleGAN2 preset {preset!r}: {' or '.join(sorted(PRESETS))}")
    chosen = PRESETS[preset]
    expected = channel_widths(size, chosen["base"], chosen["largest"])
    widths = expected if channels is None else channels
    if len(widths) != len(expected):
        raise InputError(
            f"StyleGAN2 of {size} px needs {len(expected)} numbers of channels, not {len(widths)}"
        )
    generator = StyleGenerator(
        widths,
        z_dim=z_dim or chosen["latent"],
        w_dim=w_dim or chosen["latent"],
        n_mlp=n_mlp or chosen["n_mlp"],
        mixing=mixing,
        clamp=clamp,
        num_classes=num_classes,
        joint_masks=joint_masks,
    )
    discriminator = StyleDiscriminator(
        widths,
        group=group,
        clamp=clamp,
        block_heads=block_heads,
        frozen=frozen,
        num_classes=num_classes,
    )
    return StyleGAN2(generator, discriminator, **options)
