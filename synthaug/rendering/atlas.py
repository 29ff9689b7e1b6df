"""All training pixels to copy from, side by side on one sheet, at every octave.

A place on the sheet is one flat index, so that a field of places needs one number per pixel, and
the same steps move through all pairs, mirror images and zooms. All descriptors are integers small
enough for float32 sums to be exact: the nearest patch does not depend on the order of a sum, thus
not on the batch, the threads or the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH_PX = 5
RADIUS = PATCH_PX // 2
DESCRIPTOR_DIM = 16
BASIS_SCALE = 127.0
BASIS_PATCHES = 8192
NOWHERE = 1024.0
"""Descriptor value of places without a whole patch; no difference to it is ever the smallest."""


@dataclass(frozen=True, eq=False)
class Octave:
    """One octave of the sheet, h x w pixels.

    Attributes:
        shape: (h, w).
        pixels: (h * w, 3 + N) colours in 0..255 and one-hot classes, zero where ignored.
        descriptors: (h * w, D) integers; `NOWHERE` where no whole patch lies.
        places: (n,) flat indices of the whole patches' centres.
        basis: (D, (3 + N) * 25) integers, what a patch is projected on.
        centre: (D,) integers, subtracted after projection.
    """

    shape: tuple[int, int]
    pixels: Tensor
    descriptors: Tensor
    places: Tensor
    basis: Tensor
    centre: Tensor

    def describe(self, picture: Tensor) -> Tensor:
        """Describe every whole patch.

        Args:
            picture: (B, 3 + N, H, W), colours 0..255 and classes 0..1.

        Returns:
            (B, H - 4, W - 4, D) integers as float32.
        """
        return _project(picture, self.basis) - self.centre


class Atlas:
    """The sheet: octave 0 is the finest.

    Args:
        pictures: (C, h, w) each, 3 colours 0..255 and N one-hot classes times ``class_weight``.
        octaves: number of octaves.
    """

    def __init__(self, pictures: Sequence[Tensor], octaves: int) -> None:
        sheet, inside = _lay_out(pictures, 1 << (octaves - 1))
        self.octaves: list[Octave] = []
        for _ in range(octaves):
            self.octaves.append(_octave(sheet, inside))
            sheet, inside = halve(sheet), F.avg_pool2d(inside, 2, ceil_mode=True)

    def to(self, device: torch.device) -> Atlas:
        """Move all tensors."""
        self.octaves = [
            Octave(
                octave.shape,
                *(
                    getattr(octave, name).to(device)
                    for name in ("pixels", "descriptors", "places", "basis", "centre")
                ),
            )
            for octave in self.octaves
        ]
        return self


def halve(picture: Tensor) -> Tensor:
    """Average 2 x 2 pixels, (..., h, w) -> (..., ceil(h / 2), ceil(w / 2)); integers stay so."""
    return F.avg_pool2d(picture, 2, ceil_mode=True).round()


def _lay_out(pictures: Sequence[Tensor], multiple: int) -> tuple[Tensor, Tensor]:
    """Stack pictures on a sheet, each beginning at a multiple of the coarsest pixel."""
    width = max(picture.shape[2] for picture in pictures)
    rows = [-(-picture.shape[1] // multiple) * multiple for picture in pictures]
    sheet = torch.zeros(1, pictures[0].shape[0], sum(rows), width)
    inside = torch.zeros(1, 1, sum(rows), width)
    top = 0
    for picture, row in zip(pictures, rows, strict=True):
        _, h, w = picture.shape
        sheet[0, :, top : top + h, :w] = picture
        inside[0, :, top : top + h, :w] = 1
        top += row
    return sheet, inside


def _octave(sheet: Tensor, inside: Tensor) -> Octave:
    h, w = sheet.shape[2:]
    whole = F.avg_pool2d(inside, PATCH_PX, 1) > 1 - 1e-3  # (1, 1, h - 4, w - 4)
    whole = F.pad(whole, (RADIUS,) * 4)[0, 0]
    places = whole.flatten().nonzero()[:, 0]
    basis = _principal(sheet, places)
    projected = _project(sheet, basis)
    D = len(basis)
    descriptors = torch.full((h, w, D), NOWHERE)
    descriptors[RADIUS : h - RADIUS, RADIUS : w - RADIUS] = projected[0]
    descriptors = descriptors.flatten(0, 1)
    centre = descriptors[places].mean(0).round()
    descriptors = torch.where(whole.flatten()[:, None], descriptors - centre, NOWHERE)
    return Octave((h, w), sheet[0].flatten(1).T.contiguous(), descriptors, places, basis, centre)


def _principal(sheet: Tensor, places: Tensor) -> Tensor:
    """Return the principal directions of the patches, (D, C * 25), in whole numbers."""
    if len(places) > BASIS_PATCHES:
        places = places[torch.linspace(0, len(places) - 1, BASIS_PATCHES).long()]
    rows = F.unfold(sheet, PATCH_PX)[0].T
    h, w = sheet.shape[2:]
    y, x = places // w - RADIUS, places % w - RADIUS
    rows = rows[y * (w - 2 * RADIUS) + x].double()
    rows = rows - rows.mean(0)
    _, vectors = torch.linalg.eigh(rows.T @ rows)
    D = min(DESCRIPTOR_DIM, vectors.shape[1])
    vectors = vectors[:, -D:].T
    sign = vectors.gather(1, vectors.abs().argmax(1, keepdim=True)).sign()
    return (vectors * sign * BASIS_SCALE).round().float()


def _project(picture: Tensor, basis: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H - 4, W - 4, D) whole numbers, half the length of the true vectors."""
    C = picture.shape[1]
    kernels = basis.view(-1, C, PATCH_PX, PATCH_PX)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        found = F.conv2d(picture, kernels)
    return (found / (2 * (BASIS_SCALE + 1))).round().permute(0, 2, 3, 1).contiguous()
