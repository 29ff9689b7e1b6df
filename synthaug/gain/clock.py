"""The time that is left of a comparison."""

from __future__ import annotations

from collections.abc import Sequence


def time_left(spent: Sequence[float], runs: int, jobs: int) -> str:
    """Say how long the last run took and, by all that have ended, how long the others will.

    Args:
        spent: seconds of each run that has ended.
        runs: how many are left.
        jobs: how many run side by side.
    """
    took = f"{spent[-1]:.0f} s"
    if not runs:
        return took
    minutes = runs * sum(spent) / len(spent) / jobs / 60
    words = f"{minutes / 60:.1f} h" if minutes >= 90 else f"{max(1, round(minutes))} min"
    return f"{took}; about {words} left"
