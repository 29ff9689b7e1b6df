"""3D noise: one vector of 64 numbers for a picture, a class, a region or a pixel.

After Sushko et al., OASIS (ICLR 2021, section 3.2): trained with one vector per picture, the
generator takes any field of vectors, so that a place can be given another look. Places outside may
change a little too, as far as the network sees.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthaug.errors import InputError
from synthaug.gans.oasis.networks import NOISE_DIM
from synthaug.seeding import torch_stream

Per = Literal["image", "class", "region", "pixel"]
"""What gets a vector of its own."""
Array = Tensor | NDArray[Any]


def noise_per(per: Per, labels: Tensor, seed: int) -> Tensor:
    """Draw the noise of a seed for a label map.

    Args:
        per: what gets a vector of its own; a region is an 8-connected part of a class.
        labels: (h, w) integers.
        seed: of the vectors.

    Returns:
        (64,) per image, else (64, h, w).

    Raises:
        InputError: ``per`` is none of the four.
    """
    if per == "image":
        return image_noise(seed)
    if per == "class":
        return class_noise(labels, seed)
    if per == "region":
        return region_noise(number_regions(labels), seed)
    if per == "pixel":
        return pixel_noise((labels.shape[0], labels.shape[1]), seed)
    raise InputError(f"no noise per {per}: take {', '.join(get_args(Per))}")


def number_regions(labels: Tensor) -> Tensor:
    """Number the 8-connected parts of every class of (h, w) integers, (h, w) int64 from 0 up."""
    array, found = labels.numpy(), 0
    regions = np.zeros(array.shape, np.int64)
    for value in np.unique(array):
        count, parts = cv2.connectedComponents((array == value).astype(np.uint8), connectivity=8)
        inside = parts > 0
        regions[inside] = parts[inside] - 1 + found
        found += count - 1
    return torch.from_numpy(regions)


def image_noise(seed: int) -> Tensor:
    """Return one vector (64,) for a whole picture."""
    return _vector(seed, "image")


def class_noise(labels: Tensor, seed: int) -> Tensor:
    """Return a vector per class, spread over its pixels.

    Args:
        labels: (h, w) integers; -1 counts as a class.
        seed: a class gets the same vector wherever it stands.

    Returns:
        (64, h, w).
    """
    return _spread(labels, seed, "class")


def region_noise(regions: Tensor, seed: int) -> Tensor:
    """Return a vector per region, spread over its pixels.

    Args:
        regions: (h, w) integers, such as the numbers of instances.
        seed: of the vectors.

    Returns:
        (64, h, w).
    """
    return _spread(regions, seed, "region")


def pixel_noise(size: tuple[int, int], seed: int) -> Tensor:
    """Return independent vectors (64, h, w) for all pixels."""
    return torch.randn(NOISE_DIM, *size, generator=torch_stream(seed, "noise", "pixel"))


def as_tensor(array: Array) -> Tensor:
    """Return a NumPy array of any strides as a tensor; a tensor stays as it is."""
    return torch.from_numpy(np.ascontiguousarray(array)) if isinstance(array, np.ndarray) else array


def combine(noise: Array, other: Array, where: Array) -> Tensor:
    """Take ``other`` where told, ``noise`` elsewhere.

    Args:
        noise: (64,) or (64, h, w), NumPy or torch.
        other: likewise.
        where: (h, w) bool, likewise.

    Returns:
        (64, h, w).
    """
    noise, other, where = (as_tensor(array) for array in (noise, other, where))
    return torch.where(where.bool(), field(other, where.shape), field(noise, where.shape))


def interpolate(noise: Array, other: Array, share: float, *, where: Array | None = None) -> Tensor:
    """Go a share of the way from one noise to another.

    It goes along the great circle, vector by vector, so that lengths stay those of training.

    Args:
        noise: (64,) or (64, h, w), NumPy or torch.
        other: likewise.
        share: 0 is ``noise``, 1 is ``other``.
        where: (h, w) bool, likewise: only there, ``noise`` elsewhere.

    Returns:
        (64,) if both are and ``where`` is None, else (64, h, w).
    """
    noise, other = as_tensor(noise), as_tensor(other)
    if noise.ndim != other.ndim:
        size = (noise if noise.ndim == 3 else other).shape[1:]
        noise, other = field(noise, size), field(other, size)
    lengths = noise.norm(dim=0) * other.norm(dim=0)
    cosine = ((noise * other).sum(0) / lengths.clamp_min(1e-12)).clamp(-1, 1)
    angle = cosine.acos()
    sine = angle.sin().clamp_min(1e-6)
    start, end = ((1 - share) * angle).sin() / sine, (share * angle).sin() / sine
    near = angle.sin() < 1e-4  # parallel or opposite: no arc to follow
    between = torch.where(near, torch.lerp(noise, other, share), start * noise + end * other)
    return between if where is None else combine(noise, between, where)


def field(noise: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    """Spread a vector (64,) over (h, w); a field (64, h, w) stays as it is."""
    return noise if noise.ndim == 3 else noise[:, None, None].expand(-1, *size)


def _spread(numbers: Tensor, seed: int, kind: str) -> Tensor:
    values, place = torch.unique(numbers, return_inverse=True)
    vectors = torch.stack([_vector(seed, kind, int(value)) for value in values])
    return vectors[place].permute(2, 0, 1)


def _vector(seed: int, *names: str | int) -> Tensor:
    return torch.randn(NOISE_DIM, generator=torch_stream(seed, "noise", *names))
