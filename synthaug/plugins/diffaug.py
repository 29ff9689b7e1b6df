"""Differentiable augmentation: the discriminator sees real and generated pairs through one lens."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from synthaug.gans.contract import PairBatch
from synthaug.gans.precision import exact
from synthaug.gans.warping import affine_places, sample_at
from synthaug.plugins.hooks import Plugin


class DiffAugment(Plugin):
    """One random geometric map per sample, shared by all image scales and the mask.

    Whether an operation fires is drawn for every sample. The operations, in the order of SIV-GAN
    (thesis section 5.2.3): a close-up; a crop or, half the time, a rotation; a horizontal flip; a
    vertical and a horizontal shift. They are composed into a single affine map and sampled once,
    bilinearly; what lies outside mirrors the picture. Masks become soft at borders and are not
    hardened; class indices are taken from the nearest pixel. Gradients flow through.

    Args:
        p: probability of each operation; 0 is the identity.
        close_up: magnification of the close-up, which fires with ``p / 2``; 1 turns it off.
        zoom: range of the crop's magnification.
        rotation: largest angle in degrees; rotated pictures are magnified by 1.25. 0 turns
            rotation off, so that every firing of this operation is a crop.
        flip: whether to flip.
        shift: range of the shifts as fractions of the side, either direction.
        colour: strength of brightness, contrast and saturation jitter of the image (0: none).
    """

    name = "diffaug"

    def __init__(
        self,
        p: float = 0.3,
        *,
        close_up: float = 2.0,
        zoom: tuple[float, float] = (1.0, 4 / 3),
        rotation: float = 8.0,
        flip: bool = True,
        shift: tuple[float, float] = (0.05, 0.3),
        colour: float = 0.0,
    ) -> None:
        super().__init__()
        self.p = p
        self.close_up = close_up
        self.zoom = zoom
        self.rotation = rotation
        self.flip = flip
        self.shift = shift
        self.colour = colour

    def transform(self, batch: PairBatch) -> PairBatch:
        """Transform images (B, 3, H, W) of all scales and the mask together."""
        if self.p <= 0:
            return batch
        first = batch.images[0]
        with exact(first):
            theta = self._draw(first)
        places: dict[tuple[int, int], Tensor] = {}
        images = [_sample(image, theta, places) for image in batch.images]
        mask = batch.mask
        if mask is not None:
            indices = not mask.is_floating_point()
            mask = _sample_indices(mask, theta) if indices else _sample(mask, theta, places)
        if self.colour > 0:
            images = self._jitter(images)
        return batch.with_pair(images, mask)

    def _draw(self, image: Tensor) -> Tensor:
        """Draw maps (B, 2, 3) from output to input positions in [-1, 1]."""
        B, _, H, W = image.shape
        device = image.device
        one, zero = torch.ones(B, device=device), torch.zeros(B, device=device)

        def uniform(low: float, high: float) -> Tensor:
            return torch.rand(B, device=device) * (high - low) + low

        def fires(p: float) -> Tensor:
            return torch.rand(B, device=device) < p

        def crop(size: Tensor) -> Tensor:
            free = 1 - size
            return _affine(size, size, free * uniform(-1, 1), free * uniform(-1, 1))

        identity = _affine(one, one, zero, zero)
        maps = [_where(fires(self.p / 2), crop(one / self.close_up), identity)]
        window = crop(uniform(1 / self.zoom[1], 1 / self.zoom[0]))
        if self.rotation > 0:
            angle = uniform(-math.radians(self.rotation), math.radians(self.rotation))
            rotated = _affine(0.8 * angle.cos(), 0.8 * angle.cos(), zero, zero)
            rotated[:, 0, 1] = -0.8 * angle.sin() * H / W
            rotated[:, 1, 0] = 0.8 * angle.sin() * W / H
            window = _where(fires(0.5), rotated, window)
        maps.append(_where(fires(self.p), window, identity))
        if self.flip:
            maps.append(_where(fires(self.p), _affine(-one, one, zero, zero), identity))
        for vertical in (True, False):
            move = 2 * uniform(*self.shift) * torch.where(fires(0.5), 1.0, -1.0)
            shifted = _affine(one, one, *((zero, move) if vertical else (move, zero)))
            maps.append(_where(fires(self.p), shifted, identity))
        whole = maps[0]
        for following in maps[1:]:
            whole = whole @ following
        return whole[:, :2]

    def _jitter(self, images: list[Tensor]) -> list[Tensor]:
        """Shift brightness, scale contrast and saturation, alike at all scales."""
        first = images[0]
        draws = torch.rand(3, first.shape[0], 1, 1, 1, device=first.device) * 2 - 1
        fires = torch.rand(first.shape[0], 1, 1, 1, device=first.device) < self.p
        brightness, contrast, saturation = (draws * self.colour * fires).unbind(0)
        jittered = []
        for image in images:
            grey = image.mean(1, keepdim=True)
            image = grey + (image - grey) * (1 + saturation)
            mean = image.mean((1, 2, 3), keepdim=True)
            jittered.append(mean + (image - mean) * (1 + contrast) + brightness)
        return jittered


def _affine(x_scale: Tensor, y_scale: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Stack (B,) entries into homogeneous maps (B, 3, 3)."""
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return torch.stack([x_scale, zero, x, zero, y_scale, y, zero, zero, one], 1).view(-1, 3, 3)


def _where(fires: Tensor, map_: Tensor, otherwise: Tensor) -> Tensor:
    return torch.where(fires[:, None, None], map_, otherwise)


def _sample(image: Tensor, theta: Tensor, places: dict[tuple[int, int], Tensor]) -> Tensor:
    size = image.shape[2], image.shape[3]
    if size not in places:
        places[size] = affine_places(theta, size)
    return sample_at(image, places[size])


def _sample_indices(mask: Tensor, theta: Tensor) -> Tensor:
    places = affine_places(theta, (mask.shape[1], mask.shape[2]))
    return sample_at(mask[:, None], places, mode="nearest")[:, 0]
