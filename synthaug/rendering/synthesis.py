"""From a coarse picture with its mask to the finest octave, by the patches of training pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from synthaug.rendering.atlas import MIN_SIDE_PX, RADIUS, build_atlas, halve
from synthaug.rendering.matching import random_jumps, refine, search, upsample, vote
from synthaug.sample import ClassMap, Sample
from synthaug.seeding import torch_stream

CLASS_WEIGHT = 255
"""Value of a pixel in the channel of its class; colours go from 0 to 255."""
ROUNDS = 2
FIDELITY = 0.5
"""Share of the coarse picture itself, beside what was voted, in what is looked up again."""


class Synthesis:
    """Holds the training pairs' patches.

    Args:
        pairs: training pairs, of any sizes.
        classes: their classes, N of them; None for pictures without masks.
        size: height and width of the pictures to make, px.
        octaves: number of octaves, the finest included.
        flip: also copy from mirror images.
        seed: seeds the random search.
        device: where to compute.
    """

    def __init__(
        self,
        pairs: Sequence[Sample],
        classes: ClassMap | None,
        size: tuple[int, int],
        octaves: int,
        *,
        flip: bool,
        seed: int,
        device: torch.device,
    ) -> None:
        self.classes = classes
        self.device = device
        pictures = [to_picture([pair], classes)[0] for pair in pairs]
        if flip:
            pictures += [picture.flip(2) for picture in pictures]
        self.atlas = build_atlas(pictures, octaves, device)
        self.sizes = [size]
        for _ in range(octaves - 1):
            height, width = self.sizes[-1]
            self.sizes.append((-(-height // 2), -(-width // 2)))
        stream = torch_stream(seed, "rendering")
        self._jumps = [
            random_jumps(self._field(index), octave, stream)
            for index, octave in enumerate(self.atlas)
        ]

    def finish(self, coarse: Tensor, octave: int) -> Tensor:
        """Make pictures at the finest octave.

        The coarse field is searched, then improved in two rounds in which the picture that the
        patches voted for is looked up in the coarse picture's stead, half and half. Each finer
        octave begins with the field before, votes, looks the voted picture up and votes again.

        Args:
            coarse: (B, 3 + N, h, w) at an octave's size.
            octave: its index.

        Returns:
            (B, 3 + N, H, W) at the finest octave's size.
        """
        sheet, jumps = self.atlas[octave], self._jumps[octave]
        queries = sheet.describe(coarse)
        field = refine(search(queries, sheet), queries, sheet, jumps, ROUNDS)
        for _ in range(ROUNDS):
            mixed = FIDELITY * coarse + (1 - FIDELITY) * vote(field, sheet)
            field = refine(field, sheet.describe(mixed.round()), sheet, jumps, ROUNDS)
        for index in reversed(range(octave)):
            sheet = self.atlas[index]
            field = upsample(field, self.atlas[index + 1], sheet, self._field(index))
            queries = sheet.describe(vote(field, sheet))
            field = refine(field, queries, sheet, self._jumps[index], ROUNDS)
        return vote(field, sheet)

    def resample(self, picture: Tensor, octave: int, rounds: int) -> Tensor:
        """Make pictures of the sheet's patches, again and again, and double their size.

        Args:
            picture: (B, 3 + N, h, w) at an octave's size.
            octave: its index, at least 1.
            rounds: how often.

        Returns:
            (B, 3 + N, h', w') at the next finer octave's size.
        """
        sheet, finer = self.atlas[octave], self.atlas[octave - 1]
        for _ in range(rounds):
            queries = sheet.describe(picture)
            field = refine(search(queries, sheet), queries, sheet, self._jumps[octave], 1)
            picture = vote(field, sheet)
        return vote(upsample(field, sheet, finer, self._field(octave - 1)), finer)

    def to_arrays(self, picture: Tensor) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return images (B, H, W, 3) and channels (B, H, W), -1 where no class was voted for."""
        image = picture[:, :3].byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
        if self.classes is None:
            return image, np.full(image.shape[:3], -1, np.int64)
        most, index = picture[:, 3:].max(1)
        return image, torch.where(most > 0, index, -1).cpu().numpy()

    def _field(self, octave: int) -> tuple[int, int]:
        height, width = self.sizes[octave]
        return height - 2 * RADIUS, width - 2 * RADIUS


def to_picture(samples: Sequence[Sample], classes: ClassMap | None) -> Tensor:
    """Stack samples of one size as (B, 3 + N, H, W): colours 0..255, classes one-hot times 255.

    All classes are zero where a pixel is ignored.
    """
    images = torch.from_numpy(np.stack([sample.image for sample in samples]))
    images = images.permute(0, 3, 1, 2).float()
    if classes is None:
        return images
    index = torch.from_numpy(np.stack([classes.encode(sample.mask) for sample in samples]))
    B, _, H, W = images.shape
    picture = torch.cat([images, torch.zeros(B, len(classes), H, W)], 1)
    labelled = CLASS_WEIGHT * (index >= 0).float()
    picture[:, 3:].scatter_(1, index.clamp_min(0)[:, None], labelled[:, None])
    return picture


def to_size(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample pictures, in whole numbers."""
    if picture.shape[2:] == size:
        return picture
    antialias = picture.shape[2] > size[0] or picture.shape[3] > size[1]
    resized = F.interpolate(
        picture, size, mode="bilinear", align_corners=False, antialias=antialias
    )
    return resized.round()


def to_octave(picture: Tensor, octave: int) -> Tensor:
    """Halve pictures as often as an octave says."""
    for _ in range(octave):
        picture = halve(picture)
    return picture


def octave_of(size: tuple[int, int], side_px: int) -> int:
    """The first octave whose longer side has at most this many pixels, and room for patches."""
    octave = 0
    while max(size) > side_px << octave and min(size) >> (octave + 1) >= MIN_SIDE_PX:
        octave += 1
    return octave
