"""One line of progress on stderr with the time left; about ten lines when nobody watches.

A stderr that is closed, or lies on a full disk, loses lines and never ends the work.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from synthaug.stages import duration

if TYPE_CHECKING:
    from synthaug.fitting import Progress


class ProgressLine:
    """Prints how far a stage is.

    On a terminal one line is rewritten a few times per second; elsewhere (files, CI) a new line
    appears about every tenth of the way. It uses no colour.

    Args:
        label: what is counted.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self._live = _watched() and os.environ.get("TERM") != "dumb"
        self._start = self._printed_at = 0.0
        self._first = self._last = self._total = 0
        self._tenth = -1

    def __call__(self, done: int, total: int, note: str = "", left_s: float | None = None) -> None:
        """Show ``done`` of ``total``.

        Args:
            done: steps done; a smaller number than before starts a new count, and so does what
                follows the end of one.
            total: steps in all.
            note: words behind the count.
            left_s: seconds left; None estimates them from the pace so far.
        """
        now = time.monotonic()
        ended = self._last >= self._total
        if self._start == 0 or done < self._last or (ended and total != self._total):
            self._start, self._first, self._tenth, self._printed_at = now, done, -1, 0.0
        self._last, self._total = done, total
        tenth = 10 * done // max(total, 1)
        due = now - self._printed_at > 0.2 if self._live else tenth > self._tenth
        if not due and done < total:
            return
        self._tenth, self._printed_at = tenth, now
        if left_s is None and done > self._first:
            left_s = (now - self._start) / (done - self._first) * (total - done)
        left = "" if left_s is None or done >= total else f", {duration(left_s)} left"
        line = f"{self.label} {done}/{total}{left}" + (f"  {note}" if note else "")
        if self._live:
            _write(f"\r\x1b[K{line}", end="\n" if done >= total else "")
        else:
            _write(line)


def fit_progress() -> Callable[[Progress], None]:
    """Return a callback for `synthaug.fit` that shows its steps and the time left."""
    line = ProgressLine("step")
    return lambda now: line(now.step, now.total, left_s=now.left_s)


def stage_progress() -> Callable[[str, int, int], None]:
    """Return a callback that shows how far the stage under way is."""
    lines: dict[str, ProgressLine] = {}

    def show(what: str, done: int, total: int) -> None:
        lines.setdefault(what, ProgressLine(what))(done, total)

    return show


def tell(line: str) -> None:
    """Print a line to stderr, over an unfinished line of progress."""
    clear = "\r\x1b[K" if _watched() else ""
    _write(f"{clear}{line}")


def _watched() -> bool:
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # it is closed
        return False


def _write(text: str, end: str = "\n") -> None:
    if sys.stderr is not None:  # print would take stdout
        with suppress(OSError, ValueError):
            print(text, end=end, file=sys.stderr, flush=True)
