"""Numbers as the eye reads them."""

from __future__ import annotations

import math

NOISE = 1e-9
"""Points below which a difference is of rounding in the sums alone."""


def signed(points: float) -> str:
    """Write points with their sign and one decimal; small ones with two digits, zero unsigned."""
    if abs(points) < NOISE:
        return "0.0"
    if round(abs(points), 1) > 0:
        return f"{points:+.1f}"
    return f"{points:+.{1 - math.floor(math.log10(abs(points)))}f}"
