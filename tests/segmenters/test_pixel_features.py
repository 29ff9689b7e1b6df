from __future__ import annotations

import numpy as np
import pytest

from synthaug.segmenters.contract import Item
from synthaug.segmenters.pixel_features import distinct_items


class Batches:
    """As an arm gives them: real items first, then those that are mixed in, all different."""

    steps = 9

    def __init__(self, size: int) -> None:
        self.size = size

    def batch(self, step: int) -> list[Item]:
        numbers = [step * self.size + place for place in range(self.size)]
        origins = ["real" if place < self.size // 2 else "synthetic" for place in range(self.size)]
        return [
            Item(np.full((2, 2, 3), n % 256, np.uint8), np.full((2, 2), n // 256, np.uint8), 1.0, o)
            for n, o in zip(numbers, origins, strict=True)
        ]


@pytest.mark.parametrize("size", [8, 16, 32, 64, 128])
@pytest.mark.parametrize(("batches", "limit"), [(4, 32), (1, 64)])
def test_what_is_mixed_in_keeps_its_share_of_large_batches(
    size: int, batches: int, limit: int
) -> None:
    items = distinct_items(Batches(size), batches, limit)
    assert len(items) == min(limit, batches * size)
    assert sum(item.origin == "real" for item in items) == len(items) // 2
    if batches * size <= limit:
        every = [item for step in range(batches) for item in Batches(size).batch(step)]
        assert [i.image[0, 0, 0] for i in items] == [i.image[0, 0, 0] for i in every]
