"""TransGAN: images from scratch by transformers alone, without a convolution.

After Jiang, Chang and Wang, "TransGAN: Two Pure Transformers Can Make One Strong GAN, and That Can
Scale Up" (NeurIPS 2021, arXiv:2102.07074): a generator whose tokens grow fourfold by pixel
shuffles, attention within grids at high resolution, a discriminator that reads patches of several
sizes, and tokens normalised by their root mean square. Small enough for a CPU, and different here:

- the loss is StyleGAN2's, non-saturating logistic with the lazy R1 gradient penalty of real
  images, instead of WGAN-GP, so that results on both GANs differ by the networks alone;
- a linear layer before the pixel shuffle decides on the next stage's channels, which the paper
  divides by four;
- all tokens begin alike but for their positions, so that images begin smooth;
- positions are learned and absolute; the paper adds relative ones;
- images are bounded by tanh;
- the discriminator decides by all its last tokens, each in its place, and by how much they differ
  between samples (minibatch deviation, Karras et al. 2018), not by a class token: that one saw an
  average, so that all samples could share one layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from synthaug.errors import InputError
from synthaug.gans.contract import GAN, PairBatch, Terms
from synthaug.gans.gradient_penalty import gradient_penalty
from synthaug.gans.precision import exact
from synthaug.gans.transgan.networks import SMALLEST_PX, TokenDiscriminator, TokenGenerator

__all__ = ["TokenDiscriminator", "TokenGenerator", "TransGAN", "build"]

WIDTHS: dict[int, list[int]] = {32: [128, 64, 32], 64: [128, 64, 32, 32]}
"""Side of the images in pixels -> channels of the generator at 8, 16, ... tokens a side."""


class TransGAN(GAN):
    """A generator and a discriminator of transformer blocks.

    Args:
        generator: latents to images.
        discriminator: images to logits.
        r1: weight of the gradient penalty; 0 turns it off.
        r1_every: steps between gradient penalties; each is weighted by them.
    """

    scores_samples = True

    def __init__(
        self,
        generator: TokenGenerator,
        discriminator: TokenDiscriminator,
        *,
        r1: float = 1.0,
        r1_every: int = 4,
    ) -> None:
        super().__init__()
        self.generator: TokenGenerator = generator
        self.discriminator: TokenDiscriminator = discriminator
        self.latent_dim = generator.z_dim
        self.r1 = r1
        self.r1_every = r1_every

    def prepare(self, images: Tensor, masks: Tensor | None) -> PairBatch:
        """Take images (B, 3, H, W) in [-1, 1]; masks are left out."""
        return PairBatch((images,))

    def discriminator_terms(self, real: PairBatch, fake: PairBatch, step: int) -> Terms:
        """Tell real from generated images; every ``r1_every`` steps the gradient penalty."""
        judged = self.discriminator(real.images[0])
        unreal = self.discriminator(fake.images[0].detach())
        terms = {"real": F.softplus(-judged), "fake": F.softplus(unreal)}
        if self.r1 > 0 and step % self.r1_every == 0:
            image = real.images[0].detach().float().requires_grad_(True)
            # The fused kernels have no second derivative.
            with exact(image), sdpa_kernel(SDPBackend.MATH):
                penalty = gradient_penalty(self.discriminator(image), image)
            terms["r1"] = self.r1 / 2 * self.r1_every * penalty
        return Terms(terms, judged.detach)

    def generator_terms(self, fake: PairBatch, step: int) -> Terms:
        """Have images called real."""
        judged = self.discriminator(fake.images[0])
        return Terms({"real": F.softplus(-judged)}, judged.detach)


def build(
    size: int,
    *,
    widths: Sequence[int] | None = None,
    blocks: Sequence[int] | None = None,
    discriminator_widths: Sequence[int] = (64, 128),
    discriminator_blocks: Sequence[int] = (1, 2),
    z_dim: int = 64,
    head_dim: int = 32,
    **options: Any,
) -> TransGAN:
    """Build from the plain settings that a generator's manifest keeps.

    Args:
        size: side of the images, 32 or 64 pixels.
        widths: see `TokenGenerator`; default: `WIDTHS`.
        blocks: see `TokenGenerator`; default: two at 8 tokens a side, one at each other.
        discriminator_widths: see `TokenDiscriminator`.
        discriminator_blocks: see `TokenDiscriminator`.
        z_dim: see `TokenGenerator`.
        head_dim: channels of one attention head, in both networks.
        **options: keywords of `TransGAN`.

    Raises:
        InputError: no such size.
    """
    if size not in WIDTHS:
        raise InputError(f"TransGAN makes squares of 32 or 64 pixels a side, not {size}")
    levels = len(WIDTHS[size])
    widths = WIDTHS[size] if widths is None else widths
    blocks = [2] + [1] * (levels - 1) if blocks is None else blocks
    if not len(widths) == len(blocks) == levels:
        raise InputError(
            f"TransGAN of {size} px needs {levels} widths and {levels} numbers of blocks, "
            f"at {SMALLEST_PX} to {size} tokens a side, not {len(widths)} and {len(blocks)}"
        )
    for width in (*widths, *discriminator_widths):
        if width % head_dim:
            raise InputError(
                f"TransGAN's widths are multiples of head_dim, {head_dim}, not {width}"
            )
    return TransGAN(
        TokenGenerator(widths, blocks, z_dim=z_dim, head_dim=head_dim),
        TokenDiscriminator(size, discriminator_widths, discriminator_blocks, head_dim=head_dim),
        **options,
    )
