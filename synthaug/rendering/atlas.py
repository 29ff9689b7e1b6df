"""All training pixels to copy from, on one sheet, at every octave.

A place on the sheet is one flat index, so that a field of places needs one number per pixel and
the same steps lead through all pairs and their mirror images. Pixels and descriptors are whole
numbers small enough for float32 sums to be exact: which patch is the nearest depends on the order
of no sum, thus not on the batch, the threads or the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH_PX = 5
RADIUS = PATCH_PX // 2
MIN_SIDE_PX = PATCH_PX + 1
DESCRIPTOR_DIM = 16
BASIS_SCALE = 127
BASIS_PATCHES = 8192
NOWHERE = 1024.0
"""Descriptor entries where no whole patch lies: farther off than any two patches can be."""


@dataclass(frozen=True, eq=False)
class Octave:
    """The sheet at one octave, h x w pixels, C channels.

    Attributes:
        shape: (h, w).
        pixels: (h * w, C) whole numbers.
        descriptors: (h * w, 16) whole numbers, `NOWHERE` where no whole patch lies.
        places: (n,) flat indices of the whole patches' centres.
        basis: (16, C, 5, 5) whole numbers: the principal directions of the patches, after
            "Coherency Sensitive Hashing" (Korman and Avidan 2011), which shortens them likewise.
        centre: (16,) whole numbers, subtracted from what is projected.
    """

    shape: tuple[int, int]
    pixels: Tensor
    descriptors: Tensor
    places: Tensor
    basis: Tensor
    centre: Tensor

    @classmethod
    def of(cls, sheet: Tensor, inside: Tensor) -> Octave:
        """Describe a sheet.

        Args:
            sheet: (1, C, h, w) whole numbers, at most 255.
            inside: (1, 1, h, w) share of each pixel that lies in a picture.
        """
        h, w = sheet.shape[2:]
        whole = F.avg_pool2d(inside, PATCH_PX, 1) > 1 - 1e-4
        whole = F.pad(whole, (RADIUS,) * 4)[0, 0].flatten()
        places = whole.nonzero()[:, 0]
        basis = _principal_directions(sheet, places)
        projected = F.pad(_project(sheet, basis), (0, 0) + (RADIUS,) * 4).flatten(0, 2)
        centre = projected[places].mean(0).round()
        descriptors = torch.where(whole[:, None], projected - centre, NOWHERE)
        pixels = sheet[0].flatten(1).T.contiguous()
        return cls((h, w), pixels, descriptors, places, basis, centre)

    def describe(self, picture: Tensor) -> Tensor:
        """Describe every whole patch of pictures (B, C, H, W), as (B, H - 4, W - 4, 16)."""
        return _project(picture, self.basis) - self.centre

    def to(self, device: torch.device) -> Octave:
        """Return the octave on a device."""
        names = ("pixels", "descriptors", "places", "basis", "centre")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def build_atlas(
    pictures: Sequence[Tensor], octaves: int, device: torch.device
) -> tuple[Octave, ...]:
    """Lay pictures out below each other and halve the sheet again and again.

    Args:
        pictures: (C, h, w) each, whole numbers from 0 to 255; sizes may differ.
        octaves: how many octaves, the finest included.
        device: where the atlas is used; it is built on the CPU, so that it is the same anywhere.

    Returns:
        The octaves, the finest first.
    """
    heights = [_with_gap(picture.shape[1], octaves) for picture in pictures]
    width = max(_with_gap(picture.shape[2], octaves) for picture in pictures)
    sheet = torch.zeros(1, pictures[0].shape[0], sum(heights), width)
    inside = torch.zeros(1, 1, sum(heights), width)
    top = 0
    for picture, height in zip(pictures, heights, strict=True):
        _, h, w = picture.shape
        sheet[0, :, top : top + h, :w] = picture
        inside[0, :, top : top + h, :w] = 1
        top += height
    found = []
    for _ in range(octaves):
        found.append(Octave.of(sheet, inside).to(device))
        sheet, inside = halve(sheet), F.avg_pool2d(inside, 2, ceil_mode=True)
    return tuple(found)


def _with_gap(side: int, octaves: int) -> int:
    """The next multiple of the coarsest pixel: a picture begins at a whole pixel of each octave."""
    multiple = 1 << (octaves - 1)
    return (side // multiple + 1) * multiple


def halve(picture: Tensor) -> Tensor:
    """Average 2 x 2 pixels: (B, C, h, w) -> (B, C, ceil(h / 2), ceil(w / 2)), whole numbers."""
    return F.avg_pool2d(picture, 2, ceil_mode=True).round()


def _principal_directions(sheet: Tensor, places: Tensor) -> Tensor:
    C, _, w = sheet.shape[1:]
    if len(places) > BASIS_PATCHES:
        even = torch.linspace(0, len(places) - 1, BASIS_PATCHES, dtype=torch.float64)
        places = places[even.long()]  # float32 would round past the end of 2^24 places
    reach = torch.arange(-RADIUS, RADIUS + 1)
    offsets = (reach[:, None] * w + reach).flatten()
    around = (places[:, None] + offsets).flatten()
    rows = sheet[0].flatten(1)[:, around].view(C, len(places), -1)  # (C, n, 25)
    rows = rows.permute(1, 0, 2).flatten(1).double()
    rows = rows - rows.mean(0)
    values, vectors = torch.linalg.eigh(rows.T @ rows)
    vectors[:, values <= 1e-9 * values[-1]] = 0  # without content, and so without an order
    whole: Tensor = (vectors[:, -DESCRIPTOR_DIM:].T * BASIS_SCALE).round()
    return whole.float().view(-1, C, PATCH_PX, PATCH_PX)


def _project(picture: Tensor, basis: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H - 4, W - 4, 16) whole numbers, half as long as the patches."""
    with torch.backends.cudnn.flags(enabled=False):  # its transforms are not exact
        found = F.conv2d(picture, basis)
    return (found / (2 * BASIS_SCALE + 2)).round().permute(0, 2, 3, 1).contiguous()
