"""Comparing the sizes that a file claims with the bytes that it has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from synthaug.unpickling.refusals import LONGEST_AXIS, RefusedError

_MOST_AXES = 8


def is_count(value: Any) -> bool:
    """Whether a value of a file is an integer from 0 up."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


class Shown:
    """How many numbers the tensors of a file show; storages may be shared, but not to no end."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, numel: int, offset: Any, size: Any, stride: Any) -> None:
        """Refuse a tensor that reaches beyond its storage, or repeats it to look larger."""
        numbers: Sequence[Any] = (offset, *size, *stride)
        if (
            len(size) != len(stride)
            or len(size) > _MOST_AXES
            or not all(is_count(n) and n < LONGEST_AXIS for n in numbers)
        ):
            raise RefusedError("it claims a tensor of no possible shape")
        shown = math.prod(size)
        reach = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
        if shown > numel or (shown > 0 and reach > numel):
            shape = f"{tuple(size)!s:.60}"
            raise RefusedError(f"it claims a tensor of shape {shape} from {numel} numbers")
        self.total += shown

    def refuse_beyond(self, most: int) -> None:
        """Refuse more numbers than the file has bytes."""
        if self.total > most:
            raise RefusedError("its tensors show the same numbers again and again")
