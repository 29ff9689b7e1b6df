"""Levels the seams of a patchwork: a screened Poisson equation removes steps in brightness.

After Perez et al., "Poisson Image Editing" (SIGGRAPH 2003); the screening keeps a misfit at one
seam from colouring everything around it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_STEP = 30.0
ROUNDS = 60

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


class Slopes:
    """Differences to the next pixel, right and below, that the completed picture should have.

    A difference across a seam is the mean of what its two sides have there. At the border of the
    hole only the inner side counts.

    Args:
        inside: (H, W), True in the hole.
    """

    def __init__(self, inside: Flags) -> None:
        self._hole = inside[..., None].astype(np.float32)
        shape = (*inside.shape, 1)
        self._sums = [np.zeros((*inside.shape, 3), np.float32) for _ in range(2)]
        self._weights = [np.zeros(shape, np.float32) for _ in range(2)]

    def add(self, moved: Floats, own: Floats, usable: Floats) -> None:
        """Take one piece of the patchwork.

        Args:
            moved: (H, W, 3) levels of the picture it is cut from.
            own: (H, W), 1 where this piece lies.
            usable: (H, W), 1 where ``moved`` is known.
        """
        for axis in range(2):
            share = (own + np.roll(own, -1, axis)) * usable * np.roll(usable, -1, axis)
            self._sums[axis] += share[..., None] * _forward(moved, axis)
            self._weights[axis] += share[..., None]

    def levelling(self, composed: Floats, scale: float) -> Floats:
        """Solve for the correction.

        Args:
            composed: (H, W, 3) levels of the patchwork.
            scale: size of the picture relative to 427 px; the reach grows with it.

        Returns:
            (H, W, 3), zero outside the hole, at most `MAX_STEP` levels.
        """
        pull = 0.004 / scale**2
        hole = self._hole
        residual = np.zeros_like(composed)
        for axis in range(2):
            weight = self._weights[axis]
            wanted = (self._sums[axis] / np.maximum(weight, 1e-6)).astype(np.float32)
            missing = np.where(weight > 0, wanted - _forward(composed, axis), 0)
            residual += hole * _backward(missing.astype(np.float32), axis)
        correction = np.zeros_like(residual)
        direction = residual.copy()
        size = (residual**2).sum((0, 1))
        for _ in range(ROUNDS):  # conjugate gradients, each channel on its own
            bent = _backward(_forward(direction, 0), 0) + _backward(_forward(direction, 1), 1)
            image = hole * (bent + pull * direction)
            step = size / np.maximum((direction * image).sum((0, 1)), 1e-12)
            correction += step * direction
            residual -= step * image
            new = (residual**2).sum((0, 1))
            direction = residual + new / np.maximum(size, 1e-12) * direction
            size = new
        limited: Floats = MAX_STEP * np.tanh(correction / MAX_STEP)
        return limited


def _forward(values: Floats, axis: int) -> Floats:
    """Difference to the next value along an axis; zero at the end."""
    difference = np.roll(values, -1, axis) - values
    difference[(slice(None),) * axis + (-1,)] = 0
    return difference


def _backward(values: Floats, axis: int) -> Floats:
    """Transpose of `_forward`."""
    shifted = np.roll(values, 1, axis)
    shifted[(slice(None),) * axis + (0,)] = 0
    return shifted - values
