"""MEASURE: arms x seeds -> paired gains with confidence intervals.

- `comparing.compare`: trains and tests every arm and keeps the results in a folder
- `runs`: one arm with one seed on one unit
- `summary`: from single results to means, gains and verdicts
"""

from __future__ import annotations

from synthaug.gain.comparing import compare as compare

__all__ = ["compare"]
