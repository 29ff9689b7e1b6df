"""The time that is left of a comparison."""

from __future__ import annotations


class Clock:
    """The time that is left, by the runs that have ended.

    Args:
        jobs: runs side by side.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.spent: list[float] = []

    def close(self, seconds: float) -> None:
        """End a run."""
        self.spent.append(seconds)

    def left(self, runs: int) -> str:
        """Say how long the last run took and, by all of this call, how long the others will."""
        took = f"{self.spent[-1]:.0f} s"
        if not runs:
            return took
        minutes = runs * sum(self.spent) / len(self.spent) / self.jobs / 60
        words = f"{minutes / 60:.1f} h" if minutes >= 90 else f"{max(1, round(minutes))} min"
        return f"{took}; about {words} left"
