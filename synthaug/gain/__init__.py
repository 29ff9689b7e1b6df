"""MEASURE: arms x seeds -> paired gains with confidence intervals.

- `comparing.compare`: trains and tests every arm and keeps the results
- `comparison_folder`: the folder that holds them; what of it still counts
- `checks`, `leaks`: refuses what cannot be compared, and sources that saw a test picture
- `keys`: what a kept result depends on, so that the same command goes on
- `runs`, `parents`, `choosing`: one arm with one seed on one unit; what `osvos` starts from; `auto`
- `jobs`, `clock`, `hardware`: trainings side by side; the time left; what it ran on
- `summary`, `statistics`, `groups`: from single results to means, gains, intervals and verdicts
"""

from __future__ import annotations

from synthaug.gain.comparing import compare as compare

__all__ = ["compare"]
