"""Intervals of paired gains: bootstrap over units, corrected for few of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from synthaug.seeding import numpy_stream

Verdict = Literal["helps", "no difference shown", "hurts"]

FEWEST_TO_RESAMPLE = 4
FEWEST_FOR_TAILS = 10
"""Of fewer values than this, levels above 95 % are Student's."""
MOST_PICKS = 4_000_000
"""Of more than forty values fewer samples are drawn, so that memory suffices."""
ROUNDING = 1e-12
"""What sums of equal measures, which lie in [0, 1], may differ by."""


class Interval(NamedTuple):
    """A mean with its confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def bootstrap_interval(
    values: Sequence[float] | Sequence[Sequence[float]] | Mapping[str, Sequence[float]],
    *,
    level: float = 0.95,
    draws: int = 100_000,
    seed: int = 0,
) -> Interval:
    """Bootstrap the mean of paired gains over repetitions, or over units and seeds.

    The mean gains of the units (videos, data sets) are resampled; what seeds add is in them already
    and would count twice if it were drawn once more (Davison and Hinkley 1997, section 3.8). A
    percentile interval is far too short for a handful of values, so its distance from the mean is
    stretched by sqrt(n / (n - 1)) t / z, with t and z the quantiles of Student's distribution with
    n - 1 degrees of freedom and of the normal one: normal values come out about as in Student's
    interval, and the factor goes to 1 as n grows. Two or three values have too few resamples for
    that, and fewer than ten for a level above 95 %; there it is Student's interval.

    How sure that is. Normal gains are covered as often as the level says (to a point). Of skewed
    ones, where one or two of ten gain far more than the others, an interval at 95 % covers the
    mean in about 70 to 90 % of all studies; what it misses lies above it. So that a gain is shown
    can be relied on, and how large it can be, or that there is a loss, less.

    Args:
        values: one gain per repetition; or per unit the gains of its seeds (their number may
            differ). n is the number of units, or of seeds when there is a single unit. All units
            count alike.
        level: confidence, in (0, 1).
        draws: bootstrap samples, or fewer of more than forty values.
        seed: of the resampling.

    Returns:
        Mean of the unit means, and the interval, whatever the order of the values. A single value
        tells nothing about its spread: its interval is infinite.

    Raises:
        ValueError: no values, a unit without values, or a value that is not finite.
    """
    rows = _rows(values)
    count = len(rows)
    means = np.sort([math.fsum(row) / len(row) for row in rows])
    mean = math.fsum(means) / count
    if count == 1:
        return Interval(mean, -math.inf, math.inf)
    t = student_quantile(level, count - 1)
    if count < FEWEST_TO_RESAMPLE or (level > 0.95 and count < FEWEST_FOR_TAILS):
        reach = t * float(means.std(ddof=1)) / math.sqrt(count)
        return Interval(mean, mean - reach, mean + reach)
    resampled = means[_picks(seed, min(draws, max(1, MOST_PICKS // count)), count)].mean(1)
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2]).tolist()
    stretch = math.sqrt(count / (count - 1)) * t / NormalDist().inv_cdf((1 + level) / 2)
    return Interval(mean, mean - stretch * (mean - low), mean + stretch * (high - mean))


@lru_cache(maxsize=2)
def _picks(seed: int, draws: int, count: int) -> NDArray[np.intp]:
    """Draw (draws, count) places of ``count`` values: a summary has many intervals of as many."""
    return numpy_stream(seed, "bootstrap").integers(0, count, (draws, count))


def verdict(interval: Interval) -> Verdict:
    """Say what an interval of gains shows: it lies above zero, holds zero, or lies below.

    What is no further from zero than `ROUNDING` is zero.
    """
    if interval.low > ROUNDING:
        return "helps"
    return "hurts" if interval.high < -ROUNDING else "no difference shown"


def student_quantile(level: float, degrees: int) -> float:
    """Two-sided quantile of Student's t distribution: P(-t < T < t) = level.

    Bisection of the finite series for whole degrees of freedom (Abramowitz and Stegun 1964,
    26.7.3 and 26.7.4).

    Args:
        level: in (0, 1), for example 0.95.
        degrees: degrees of freedom, at least 1.

    Returns:
        t, for example 12.7062 for 0.95 and 1.
    """
    # Coefficients of cos^k in the series: k = 0, 2, ... (even degrees) or 1, 3, ... (odd).
    powers = np.arange(degrees % 2, degrees - 1, 2)
    terms = np.cumprod(np.where(powers > degrees % 2, (powers - 1) / np.maximum(powers, 1), 1.0))

    def probability(angle: float) -> float:
        series = math.sin(angle) * float((terms * math.cos(angle) ** powers).sum())
        return (angle + series) * 2 / math.pi if degrees % 2 else series

    low, high = 0.0, math.pi / 2
    for _ in range(64):
        middle = (low + high) / 2
        low, high = (middle, high) if probability(middle) < level else (low, middle)
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def _rows(values: Any) -> list[NDArray[np.float64]]:
    """One array per unit; a single unit is split into its seeds."""
    units = list(values.values()) if isinstance(values, Mapping) else list(values)
    rows = [np.asarray(unit, np.float64).reshape(-1) for unit in units]
    if not rows or not all(len(row) for row in rows):
        raise ValueError("an interval needs at least one value in every unit")
    if not all(np.isfinite(row).all() for row in rows):
        raise ValueError("an interval needs finite values")
    return list(rows[0].reshape(-1, 1)) if len(rows) == 1 else rows
