"""What a measurement needs from whatever learns to segment: learn from a stream, then segment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from synthaug.sample import ClassMap


class Item(NamedTuple):
    """A labelled picture in a batch.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8 class ids, 255 = ignore.
        weight: weight of its loss, 1 = in full.
        origin: kind of source it came from, such as ``real`` or ``synthetic``.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    weight: float = 1.0
    origin: str = "real"


class Stream(Protocol):
    """Training batches by number; the same number gives the same batch, bit for bit.

    Attributes:
        steps: number of batches.
    """

    steps: int

    def batch(self, step: int) -> list[Item]:
        """Return batch ``step``, 0 <= step < steps; all items of one size (H, W)."""
        ...


class Learner(Protocol):
    """Learns once from a stream, then segments pictures of any size."""

    def learn(
        self,
        stream: Stream,
        classes: ClassMap,
        *,
        seed: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[float]:
        """Learn; returns the loss of every step (empty where nothing is optimised)."""
        ...

    def segment(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.int64]]:
        """Return class channels (H, W) in [0, N) of images (H, W, 3) uint8, at their own size."""
        ...
