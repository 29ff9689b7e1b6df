"""Progress of a comparison and the time that is left."""

from __future__ import annotations

from collections.abc import Callable


class Clock:
    """Progress in training steps, and the time that is left.

    Args:
        total: training steps of all runs.
        progress: called with (training steps done, total).
    """

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self.total, self.progress = total, progress
        self.done = 0
        self.spent: list[float] = []

    def show(self, steps: int) -> None:
        """Report the steps of the run under way."""
        if self.progress is not None:
            self.progress(self.done + steps, self.total)

    def close(self, seconds: float, steps: int) -> None:
        """End a run."""
        self.spent.append(seconds)
        self.done += steps
        self.show(0)

    def left(self, runs: int) -> str:
        """Say how long the last run took and, by all of this call, how long the others will."""
        took = f"{self.spent[-1]:.0f} s"
        if not runs:
            return took
        minutes = runs * sum(self.spent) / len(self.spent) / 60
        words = f"{minutes / 60:.1f} h" if minutes >= 90 else f"{max(1, round(minutes))} min"
        return f"{took}; about {words} left"
