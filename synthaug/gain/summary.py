"""From the results of single runs to means, paired gains and verdicts."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from synthaug.gain.groups import group_runs
from synthaug.gain.statistics import ROUNDING, bootstrap_interval, verdict

Cell = tuple[str, int]
"""(unit, seed)."""
Results = Mapping[str, Mapping[Cell, Mapping[str, Any]]]
"""Arm -> cell -> what the run found, as `synthaug.gain.runs.run` returns it."""
CONTRASTS = (
    ("standard+copy-paste+synthetic", "standard+copy-paste"),
    ("standard+copy-paste", "standard"),
    ("standard+synthetic", "standard"),
)
"""(arm, against): what a source adds to an arm that does without it."""
MOST_IMAGES = 3
"""Images shown of the best and of the worst."""


def summarise(
    results: Results,
    *,
    units: Sequence[str],
    baseline: str,
    measures: Sequence[str],
    complete: bool,
    longer: Collection[str] = (),
    groups: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> dict[str, Any]:
    """Average the runs and compare every arm with the baseline.

    Gains are paired: an arm minus the baseline on the same unit with the same seed; runs whose
    partner is missing do not count towards gains. Intervals are those of
    `synthaug.gain.statistics.bootstrap_interval` at 95 %; over several units they say what to
    expect of another unit of the same sort, on a single unit what of another seed. The best of
    several arms is picked, so an arm, and a contrast, has a second verdict, ``among_all``: that of
    its interval at 100 - 5 / k %, k being the number of its rivals (Bonferroni).

    Args:
        results: finished runs.
        units: names, in order.
        baseline: the arm to compare with.
        measures: names of the measures, the primary one first.
        complete: whether all runs are there.
        longer: arms trained longer than the others, which are no rivals.
        groups: unit -> groups of its classes, by `synthaug.gain.groups.class_groups`; each gets
            ``arms``: arm -> mIoU over its classes, gain and verdict, over the unit's seeds.

    Returns:
        The content of ``comparison.json``; a bound that is not finite (one run) is null. An arm's
        ``per_class_gain`` holds the classes that it and the baseline are tested on. Its cost is
        ``seconds``, the mean of its trainings, and ``peak_memory_gb``, the largest of its runs: of
        GPU memory, or of what a run's process held since it began (on the CPU the runs before it
        count, too); null where the system does not tell. ``images``, of a single unit, ranks its
        test images by each arm's gain.
    """
    primary = measures[0]
    # In one order, whichever runs end first: sums of floats depend on it.
    found = {arm: dict(sorted(cells.items())) for arm, cells in results.items() if cells}
    against = found.get(baseline, {})
    strict = 1 - 0.05 / max(1, len(found.keys() - {baseline, *longer}))
    arms: dict[str, Any] = {}
    for arm, cells in found.items():
        gains = {name: paired(cells, against, name) for name in measures}
        peaks = (run["peak_memory_gb"] for run in cells.values())
        told = [peak for peak in peaks if peak is not None]
        arms[arm] = {
            "mean": {name: _mean_over_units(cells, name) for name in measures},
            "gain": {name: _interval(values) for name, values in gains.items()},
            "verdict": _verdict(gains[primary]),
            "among_all": _verdict(gains[primary], strict),
            "per_class": _per_class(cells),
            "per_class_gain": _per_class_gain(cells, against),
            "seconds": round(_mean(run["seconds"]["train"] for run in cells.values()), 3),
            "peak_memory_gb": max(told, default=None),
            "runs": len(cells),
        }
    return {
        "measure": primary,
        "baseline": baseline,
        "complete": complete,
        "arms": arms,
        "units": {unit: _unit(unit, found, against, measures) for unit in units},
        "images": {
            arm: ranked
            for arm, cells in found.items()
            if len(units) == 1 and arm != baseline and (ranked := _images(cells, against, primary))
        },
        "groups": {
            unit: [{**group, "arms": _group(unit, group["ids"], found, against)} for group in given]
            for unit, given in (groups or {}).items()
            if given
        },
        "contrasts": [
            {
                "arm": arm,
                "against": other,
                "gain": _interval(values),
                "verdict": _verdict(values),
                "among_all": _verdict(values, strict),
            }
            for arm, other in CONTRASTS
            if (values := paired(found.get(arm, {}), found.get(other, {}), primary))
        ],
    }


def paired(
    cells: Mapping[Cell, Mapping[str, Any]],
    against: Mapping[Cell, Mapping[str, Any]],
    measure: str,
) -> dict[str, list[float]]:
    """Return the gains of an arm: unit -> one difference per seed that both have run."""
    gains: dict[str, list[float]] = {}
    for (unit, seed), run in sorted(cells.items()):
        if (unit, seed) in against:
            other = against[unit, seed]["measures"][measure]
            gains.setdefault(unit, []).append(run["measures"][measure] - other)
    return gains


def _unit(
    unit: str,
    found: Results,
    against: Mapping[Cell, Mapping[str, Any]],
    measures: Sequence[str],
) -> dict[str, Any]:
    entries = {}
    for arm, all_cells in found.items():
        if cells := _of_unit(all_cells, unit):
            entries[arm] = {
                "mean": {name: _mean_over_units(cells, name) for name in measures},
                "gain": {name: _interval(paired(cells, against, name)) for name in measures},
            }
    return entries


def _group(
    unit: str,
    ids: Sequence[int],
    found: Results,
    against: Mapping[Cell, Mapping[str, Any]],
) -> dict[str, Any]:
    base = group_runs(_of_unit(against, unit), ids)
    entries = {}
    for arm, all_cells in found.items():
        if cells := group_runs(_of_unit(all_cells, unit), ids):
            gains = paired(cells, base, "mIoU")
            entries[arm] = {
                "mean": _mean_over_units(cells, "mIoU"),
                "gain": _interval(gains),
                "verdict": _verdict(gains),
            }
    return entries


def _of_unit(cells: Mapping[Cell, Mapping[str, Any]], unit: str) -> dict[Cell, Mapping[str, Any]]:
    return {cell: run for cell, run in cells.items() if cell[0] == unit}


def _interval(values: Mapping[str, Sequence[float]]) -> dict[str, float | None]:
    if not values:
        return {"mean": None, "low": None, "high": None}
    interval = bootstrap_interval(values)
    return {
        name: value if math.isfinite(value) else None for name, value in interval._asdict().items()
    }


def _verdict(values: Mapping[str, Sequence[float]], level: float = 0.95) -> str:
    return verdict(bootstrap_interval(values, level=level)) if values else "no difference shown"


def _mean_over_units(cells: Mapping[Cell, Mapping[str, Any]], measure: str) -> float:
    """Mean over the units of the mean over seeds."""
    by_unit: dict[str, list[float]] = {}
    for (unit, _), run in cells.items():
        by_unit.setdefault(unit, []).append(run["measures"][measure])
    return _mean(_mean(values) for values in by_unit.values())


def _per_class(cells: Mapping[Cell, Mapping[str, Any]]) -> dict[str, float | None]:
    """Mean IoU of each class id over all runs in which the class is there."""
    found: dict[str, list[float]] = {}
    for run in cells.values():
        for name, value in run["per_class"].items():
            values = found.setdefault(name, [])
            if value is not None:
                values.append(value)
    ordered = sorted(found.items(), key=lambda entry: int(entry[0]))
    return {name: _mean(values) if values else None for name, values in ordered}


def _per_class_gain(
    cells: Mapping[Cell, Mapping[str, Any]], against: Mapping[Cell, Mapping[str, Any]]
) -> dict[str, dict[str, float | None]]:
    """Paired gain in IoU of each class id, with its interval; without those never tested.

    A class that one of several units alone has gets no interval: it would be over seeds, beside
    others over units.
    """
    several = len({unit for unit, _ in cells}) > 1
    gains = {}
    for name in _per_class(cells):
        ids = [int(name)]
        if values := paired(group_runs(cells, ids), group_runs(against, ids), "mIoU"):
            gains[name] = _interval(values)
            if several and len(values) == 1:
                gains[name] |= {"low": None, "high": None}
    return gains


def _images(
    cells: Mapping[Cell, Mapping[str, Any]], against: Mapping[Cell, Mapping[str, Any]], measure: str
) -> dict[str, Any]:
    """How many test images gain and lose, mean over the seeds; the worst and the best of them."""
    gains: dict[str, list[float]] = {}
    for cell, run in sorted(cells.items()):
        others = against[cell]["per_image"] if cell in against else ()
        base = {line["id"]: line[measure] for line in others}
        for line in run["per_image"]:
            value, other = line[measure], base.get(line["id"])
            if value is not None and other is not None:
                gains.setdefault(line["id"], []).append(value - other)
    means = {name: _mean(values) for name, values in gains.items()}
    worst_first = sorted(means, key=lambda name: means[name])
    count = min(MOST_IMAGES, len(means) // 2)
    if not count:
        return {}

    def listed(names: Sequence[str]) -> list[dict[str, Any]]:
        return [{"id": name, "gain": _interval({name: gains[name]})} for name in names]

    return {
        "tested": len(means),
        "better": sum(mean > ROUNDING for mean in means.values()),
        "worse": sum(mean < -ROUNDING for mean in means.values()),
        "worst": listed(worst_first[:count]),
        "best": listed(worst_first[: -count - 1 : -1]),
    }


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
