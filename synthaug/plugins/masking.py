"""MaskedGAN: the discriminator sees pictures with parts hidden, in space and in frequency.

After Huang et al., "Masked Generative Adversarial Networks are Data-Efficient Generation
Learners" (NeurIPS 2022). The paper states neither the grid, the share of hidden patches nor the
bands, and two of its formulas cannot be taken literally; we read them so:

- shifts are uniform over a whole patch: over half a patch, as printed, not every pixel could be a
  border, which "any location" asks for;
- the content of a band is the sum of its magnitudes: signed sums vanish in all bands but the
  lowest;
- bands are rings of equal width in frequency up to Nyquist, corners with the last, the mean with
  the first.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from synthaug.errors import InputError
from synthaug.gans.contract import PairBatch
from synthaug.plugins.hooks import Plugin


class MaskedGAN(Plugin):
    """Shifted spatial masking, then balanced spectral masking; every sample has its own draws.

    Channels and image scales share a sample's draws. Hidden pixels are 0, mid-grey; gradients pass
    through what is left. The mask of a pair stays as it is.

    Args:
        spatial: hide patches.
        spectral: drop bands.
        shift: move the grid of patches by a random part of a patch; off: table 2's ablation.
        adaptive: drop a band with its share of the picture's content; off: every band with
            1 / bands, table 2's ablation. Either way one band is dropped in expectation.
        patches: patches along the shorter side; None: 4 below 64 px, else 8.
        ratio: probability that a patch is hidden.
        bands: number of bands; None: 8 up to 64 px, else 16.

    Raises:
        InputError: neither kind of masking is on, or a number is out of range.
    """

    name = "maskedgan"

    def __init__(
        self,
        *,
        spatial: bool = True,
        spectral: bool = True,
        shift: bool = True,
        adaptive: bool = True,
        patches: int | None = None,
        ratio: float = 0.5,
        bands: int | None = None,
    ) -> None:
        super().__init__()
        if not (spatial or spectral):
            raise InputError("MaskedGAN with neither spatial nor spectral masking does nothing")
        if not 0 <= ratio <= 1 or min(patches or 1, bands or 2) < 1:
            raise InputError("MaskedGAN: ratio lies in [0, 1], patches and bands from 1 up")
        self.spatial = spatial
        self.spectral = spectral
        self.shift = shift
        self.adaptive = adaptive
        self.patches = patches
        self.ratio = ratio
        self.bands = bands

    def corrupt(self, batch: PairBatch) -> PairBatch:
        """Hide parts of images (B, 3, H, W) of all scales."""
        images = list(batch.images)
        side = min(images[0].shape[2:])
        if self.spatial:
            patches = self.patches or (4 if side < 64 else 8)
            visible = spatial_mask(images[0], patches, self.ratio, shift=self.shift)
            images = [
                image * F.adaptive_avg_pool2d(visible, (image.shape[2], image.shape[3]))
                for image in images
            ]
        if self.spectral:
            bands = self.bands or (8 if side <= 64 else 16)
            keep = self._kept_bands(images[0], bands)
            size = images[0].shape[2:]
            images = [keep_bands(image, keep, (size[0], size[1])) for image in images]
        return batch.with_pair(images, batch.mask)

    def _kept_bands(self, image: Tensor, bands: int) -> Tensor:
        """Draw which bands (B, C) stay; at least one does."""
        B = len(image)
        if self.adaptive:
            p = band_content(image, bands)
        else:
            p = torch.full((B, bands), 1 / bands, device=image.device)
        keep = torch.rand(B, bands, device=image.device) >= p
        last = F.one_hot(torch.randint(bands, (B,), device=image.device), bands).bool()
        return keep | (last & ~keep.any(1, keepdim=True))


def spatial_mask(image: Tensor, patches: int, ratio: float, *, shift: bool) -> Tensor:
    """Draw which pixels stay visible, (B, 1, H, W) in {0, 1}.

    Args:
        image: (B, 3, H, W).
        patches: patches along the shorter side; they are square.
        ratio: probability that a patch is hidden.
        shift: move each sample's grid by 0 to S - 1 pixels either way, S the side of a patch. The
            grid is larger than the picture by a patch, so that nothing wraps around.
    """
    B, _, H, W = image.shape
    device = image.device
    S = max(1, round(min(H, W) / patches))
    rows, columns = -(-H // S) + 1, -(-W // S) + 1
    visible = (torch.rand(B, rows, columns, device=device) >= ratio).to(image.dtype)
    offset = torch.randint(S if shift else 1, (2, B, 1), device=device)
    y = (torch.arange(H, device=device) + offset[0]) // S  # (B, H)
    x = (torch.arange(W, device=device) + offset[1]) // S  # (B, W)
    sample = torch.arange(B, device=device)[:, None, None]
    return visible[sample, y[:, :, None], x[:, None, :]][:, None]


def band_images(image: Tensor, bands: int) -> Tensor:
    """Split images (B, 3, H, W) into frequency bands (C, B, 3, H, W) that sum to them."""
    H, W = image.shape[2:]
    spectrum = torch.fft.rfft2(image.float())
    index = _band_index(image, bands, (H, W))
    return torch.stack(
        [torch.fft.irfft2(spectrum * (index == band), s=(H, W)) for band in range(bands)]
    )


@torch.no_grad()
def band_content(image: Tensor, bands: int) -> Tensor:
    """Return the share of each band in an image's content, (B, C), which sums to 1.

    Content is the sum of magnitudes over pixels and channels. An image of nothing has uniform
    shares.
    """
    content = band_images(image, bands).abs().sum((2, 3, 4)).T  # (B, C)
    total = content.sum(1, keepdim=True)
    return torch.where(total > 0, content / total.clamp_min(1e-20), 1 / bands)


def keep_bands(image: Tensor, keep: Tensor, size: tuple[int, int]) -> Tensor:
    """Sum the bands that stay.

    Args:
        image: (B, 3, h, w), the finest scale or a coarser one.
        keep: (B, C) bool.
        size: height and width of the finest scale, whose Nyquist frequency bounds the bands.
    """
    h, w = image.shape[2:]
    stay = keep[:, _band_index(image, keep.shape[1], size)]  # (B, h, w // 2 + 1)
    spectrum = torch.fft.rfft2(image.float()) * stay[:, None]
    kept: Tensor = torch.fft.irfft2(spectrum, s=(h, w))
    return kept.to(image.dtype)


def _band_index(image: Tensor, bands: int, size: tuple[int, int]) -> Tensor:
    """Number of the band that each entry of the half spectrum belongs to, (h, w // 2 + 1)."""
    h, w = image.shape[2:]
    # In units of the Nyquist frequency of the finest scale.
    y = torch.fft.fftfreq(h, device=image.device) * 2 * h / size[0]
    x = torch.fft.rfftfreq(w, device=image.device) * 2 * w / size[1]
    radius = torch.hypot(y[:, None], x[None, :])
    return (radius * bands).long().clamp_max(bands - 1)
