"""Colour and texture of each class: how far generated pictures are from real ones.

Sushko's thesis compares, class by class, histograms of LAB colours by the earth mover's distance
and histograms of local binary patterns by chi-squared. It leaves bins and ground distance open;
here 64 bins for each of L, a and b, whose three distances are summed, and the ten uniform patterns
of 8 neighbours at 1 px (Ojala, Pietikäinen, Mäenpää 2002).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

COLOUR_BINS = 64
COLOUR_RANGES = ((0.0, 100.0), (-128.0, 128.0), (-128.0, 128.0))
"""Of L, a and b in CIELAB (D65)."""
PATTERNS = 10
"""0 to 8 brighter neighbours in one run, and every other pattern."""
PIXEL_FLOOR = 1000
"""A class of fewer pixels in either set is skipped."""
_TOLERANCE = 1e-3  # grey levels; interpolation in a flat patch rounds


class ClassAppearance:
    """Histograms of colour and texture of every class, over a growing set of pictures.

    Args:
        num_classes: N.

    Attributes:
        colours: (N, 3, 64) int64 pixels per bin of L, a and b.
        textures: (N, 10) int64 pixels per pattern; the outermost pixels of a picture have none.
    """

    def __init__(self, num_classes: int) -> None:
        self.colours = np.zeros((num_classes, 3, COLOUR_BINS), np.int64)
        self.textures = np.zeros((num_classes, PATTERNS), np.int64)

    def add(self, image: NDArray[np.uint8], labels: NDArray[np.integer]) -> None:
        """Add a picture.

        Args:
            image: (H, W, 3) uint8 RGB.
            labels: (H, W) class channels; values outside [0, N) do not count.
        """
        lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        for channel, (low, high) in enumerate(COLOUR_RANGES):
            place = (lab[..., channel] - low) / (high - low) * COLOUR_BINS
            bins = place.astype(np.int64).clip(0, COLOUR_BINS - 1)
            self.colours[:, channel] += _counts(labels, bins, self.colours[:, channel].shape)
        inner = labels[1:-1, 1:-1]
        self.textures += _counts(inner, binary_patterns(image), self.textures.shape)


def colour_distances(
    one: ClassAppearance, other: ClassAppearance, *, floor: int = PIXEL_FLOOR
) -> NDArray[np.float64]:
    """Earth mover's distances of the marginal L, a and b histograms, summed.

    Args:
        one: pictures of one kind.
        other: of the other, same classes.
        floor: classes of fewer pixels on either side are skipped.

    Returns:
        (N,) in units of CIELAB, at least 0; NaN for skipped classes.
    """
    shares = [_shares(side.colours) for side in (one, other)]
    apart = np.abs(np.cumsum(shares[0] - shares[1], axis=2)).sum(2)  # (N, 3) bins
    widths = [(high - low) / COLOUR_BINS for low, high in COLOUR_RANGES]
    counts = [side.colours[:, 0].sum(1) for side in (one, other)]
    total: NDArray[np.float64] = apart @ np.array(widths)
    return _skipping(total, np.minimum(*counts), floor)


def texture_distances(
    one: ClassAppearance, other: ClassAppearance, *, floor: int = PIXEL_FLOOR
) -> NDArray[np.float64]:
    """Chi-squared distances sum (p - q)^2 / (2 (p + q)) of the pattern histograms.

    Args:
        one: pictures of one kind.
        other: of the other, same classes.
        floor: classes of fewer pixels on either side are skipped.

    Returns:
        (N,) in [0, 1]; NaN for skipped classes.
    """
    p, q = (_shares(side.textures) for side in (one, other))
    terms = np.divide((p - q) ** 2, p + q, out=np.zeros_like(p), where=p + q > 0)
    counts = [side.textures.sum(1) for side in (one, other)]
    return _skipping(terms.sum(1) / 2, np.minimum(*counts), floor)


def binary_patterns(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Uniform, rotation invariant local binary patterns: 8 neighbours on a circle of 1 px.

    Args:
        image: (H, W, 3) uint8 RGB; its grey values are compared.

    Returns:
        (H - 2, W - 2) in 0..9: how many neighbours are at least as bright as the centre, 9 where
        they stand in more than one run.
    """
    grey: NDArray[np.float64] = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64)
    near, far = 1 - math.sqrt(0.5), math.sqrt(0.5)
    h, w = grey.shape

    def shifted(y: int, x: int) -> NDArray[np.float64]:
        return grey[1 + y : h - 1 + y, 1 + x : w - 1 + x]

    centre = shifted(0, 0)
    neighbours = []
    for y, x in ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1)):
        value = shifted(y, x)
        if y and x:  # on the circle, between four pixels
            across = near * centre + far * shifted(0, x)
            value = near * across + far * (near * shifted(y, 0) + far * value)
        neighbours.append(value - centre >= -_TOLERANCE)
    bits = np.stack(neighbours).astype(np.int64)  # (8, H - 2, W - 2)
    changes = np.abs(bits - np.roll(bits, 1, axis=0)).sum(0)
    codes: NDArray[np.int64] = np.where(changes <= 2, bits.sum(0), PATTERNS - 1)
    return codes


def _counts(
    labels: NDArray[np.integer], bins: NDArray[np.int64], shape: tuple[int, ...]
) -> NDArray[np.int64]:
    """Count pixels by class and bin, (N, bins)."""
    inside = (labels >= 0) & (labels < shape[0])
    cells = labels[inside].astype(np.int64) * shape[1] + bins[inside]
    return np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = counts / np.maximum(counts.sum(-1, keepdims=True), 1)
    return shares


def _skipping(
    values: NDArray[np.float64], pixels: NDArray[np.int64], floor: int
) -> NDArray[np.float64]:
    kept: NDArray[np.float64] = np.where(pixels >= max(floor, 1), values, np.nan)
    return kept
