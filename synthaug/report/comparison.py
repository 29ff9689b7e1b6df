"""The page of a comparison: which way to train helps, by how much, and how sure that is.

It reads the comparison's folder and draws; every number was computed when the folder was written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from synthaug import files
from synthaug.errors import InputError
from synthaug.report import figures
from synthaug.report.frames import mixed_samples, most_different
from synthaug.report.numbers import NOISE, signed
from synthaug.report.templates import render
from synthaug.report.verdict import (
    GROUPS,
    Comparison,
    class_names,
    contrast_lines,
    count_units,
    group_rows,
    interval_over,
    interval_words,
    mean_of,
    read_comparison,
    single_note,
    tone,
    unlearned_line,
    verdict_line,
    verdict_words,
)


def write_comparison_page(folder: str | Path, out: str | Path | None = None) -> Path:
    """Write a comparison's page as one self-contained HTML file.

    Args:
        folder: the comparison's folder: ``manifest.json``, ``comparison.json``,
            ``runs/UNIT/ARM/SEED.json`` and, for pictures, ``predictions/UNIT/ARM/SEED/ID.png``
            (class ids; the run's key lies in ``predictions/UNIT/ARM/SEED.key``) beside the test
            image ``predictions/UNIT/_test/ID.jpg`` and its truth
            ``predictions/UNIT/_test/ID.png``; samples that were trained on lie as
            ``samples/UNIT/SOURCE/ID.jpg`` and ``ID.png``. Pictures that are missing, or of other
            runs than those that count, are left out.
        out: the file, of a name that ends in .html; default ``FOLDER/index.html``.

    Returns:
        Path of the page.

    Raises:
        InputError: the folder is no comparison or is damaged, or the page cannot be written.
    """
    if out is not None and Path(out).suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{out} would be a web page: name a file that ends in .html")
    comparison = read_comparison(folder)
    path = Path(out) if out is not None else comparison.path / "index.html"
    manifest, result, measure = comparison.manifest, comparison.result, comparison.measure
    arms, baseline = comparison.arms, result["baseline"]
    html = render(
        "comparison.html.j2",
        title=_title(comparison),
        measure=measure,
        measures=manifest["measures"],
        baseline=baseline,
        verdict=verdict_line(comparison),
        contrasts=contrast_lines(comparison),
        progress=None if result["complete"] else _progress(comparison),
        cautions=manifest.get("cautions", ()),
        facts=_facts(comparison),
        longer=list(comparison.longer),
        interval_over=interval_over(comparison),
        single=single_note(comparison),
        chart=Markup(_chart(comparison)),
        arms=[_arm_row(arm, comparison) for arm in manifest["arms"]],
        rivals=[arm for arm in arms if arm != baseline],
        units=[_unit_row(unit, comparison) for unit in comparison.units],
        images=_image_rows(comparison),
        choices=_choices(comparison),
        classes=_class_rows(comparison),
        unlearned=unlearned_line(comparison),
        groups=_group_rows(comparison),
        groups_are=GROUPS,
        comparisons=most_different(comparison),
        samples=mixed_samples(comparison),
        settings={**manifest["settings"], "seeds": _list(manifest["seeds"])},
        hardware=manifest["hardware"],
        versions=manifest["versions"],
        reproduce=manifest["reproduce"],
        show=_show,
    )
    files.write_text(path, html)
    return path


def _title(comparison: Comparison) -> str:
    units = comparison.units
    where = units[0] if len(units) == 1 else count_units(comparison)
    return f"Does it help the segmenter? {len(comparison.arms)} ways to train on {where}"


def _progress(comparison: Comparison) -> str:
    done = sum(map(len, comparison.runs.values()))
    manifest = comparison.manifest
    total = len(manifest["units"]) * len(manifest["arms"]) * len(manifest["seeds"])
    return f"{done} of {total} runs"


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    units = comparison.manifest["units"]
    training = sorted({len(_listed(unit["training"])) for unit in units})
    tested = sum(len(_listed(unit["test"])) for unit in units)
    span = str(training[0]) if len(training) == 1 else f"{training[0]}–{training[-1]}"
    return [
        (str(len(comparison.arms)), "arms: ways to train"),
        (_of(comparison.counted[0], len(units)), count_units(comparison).split(" ", 1)[1]),
        (_of(comparison.counted[1], len(comparison.manifest["seeds"])), "seeds"),
        (span, "labelled training images each"),
        (str(tested), "test images"),
    ]


def _of(counted: int, planned: int) -> str:
    return str(planned) if counted == planned else f"{counted} of {planned}"


def _listed(value: Any) -> Sequence[Any]:
    """A list of images, or their number, as something with a length."""
    return range(value) if isinstance(value, int) else value


def _chart(comparison: Comparison) -> str:
    result, measure = comparison.result, comparison.measure
    rows = []
    for arm in comparison.arms:
        if arm == result["baseline"]:
            continue
        gain = result["arms"].get(arm, {}).get("gain", {}).get(measure, {})
        cells = [result["units"].get(unit, {}).get(arm, {}) for unit in comparison.units]
        dots = [cell.get("gain", {}).get(measure, {}).get("mean") for cell in cells]
        rows.append(
            figures.GainRow(
                arm,
                _points(gain.get("mean")),
                _points(gain.get("low")),
                _points(gain.get("high")),
                tuple(100 * dot for dot in dots if dot is not None) if len(cells) > 1 else (),
                result["arms"].get(arm, {}).get("verdict", ""),
            )
        )
    return figures.gain_chart(rows, baseline=result["baseline"]) if rows else ""


def _arm_row(arm: Mapping[str, Any], comparison: Comparison) -> dict[str, Any]:
    name, result = arm["name"], comparison.result
    chooses = arm.get("schedule") == "auto"
    entry = result["arms"].get(name, {})
    gain = entry.get("gain", {}).get(comparison.measure, {"mean": None})
    seconds, peak = entry.get("seconds"), entry.get("peak_memory_gb")
    return {
        "name": name,
        "means": [_percent(mean_of(entry, m)) for m in comparison.manifest["measures"]],
        "gain": "" if gain["mean"] is None else signed(100 * gain["mean"]),
        "interval": interval_words(gain),
        "verdict": "baseline" if name == result["baseline"] else verdict_words(entry),
        "tone": tone(entry.get("verdict", "")),
        "seconds": "–" if seconds is None else f"{seconds:.1f}",
        "memory": "–" if peak is None else f"{peak:.2f}",
        "diet": _chosen(arm, comparison) if chooses else _diet(arm),
        "chooses": chooses,
    }


def _diet(arm: Mapping[str, Any]) -> str:
    """What an arm trains on, in words."""
    words = [f"{100 * share:.0f} % {kind}" for kind, share in arm["shares"].items() if share > 0]
    scales = "wide" if arm.get("wide") else "standard"
    words.append(f"{scales} augmentation" if arm["augment"] else "no augmentation")
    if arm.get("weight", 1.0) != 1.0:
        words.append(f"loss weight {arm['weight']:g} off the real items")
    if arm.get("border_px"):
        words.append(f"{arm['border_px']} px at the borders of synthetic masks not labelled")
    if arm.get("schedule", "constant") != "constant":
        words.append(arm["schedule"])
    if arm.get("length", 1.0) != 1.0:
        words.append(f"{arm['length']:g} times as many steps")
    return ", ".join(words)


def _chosen(arm: Mapping[str, Any], comparison: Comparison) -> str:
    """What ``auto`` trains on, in words: its shares are not its own."""
    made = comparison.manifest.get("choices", {}).get(arm["name"], {})
    counts = Counter(_diet(choice["arm"]) for choice in made.values())
    if not counts:
        return "chosen for each unit from its labelled images alone; not done yet"
    listed = "; ".join(
        diet if len(made) == 1 else f"{diet} ({count} of {len(made)} units)"
        for diet, count in counts.most_common()
    )
    return f"chosen for each unit from its labelled images alone: {listed}"


def _choices(comparison: Comparison) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """(arm, rows of (unit, what it trained on, why)) of the arms that chose for themselves."""
    found = []
    for name, made in comparison.manifest.get("choices", {}).items():
        rows = [
            (unit, _diet(made[unit]["arm"]), made[unit]["why"])
            for unit in comparison.units
            if unit in made
        ]
        if name in comparison.arms and rows:
            found.append((name, rows))
    return found


def _unit_row(unit: str, comparison: Comparison) -> dict[str, Any]:
    result, measure = comparison.result, comparison.measure
    entries = result["units"].get(unit, {})
    cells = [
        _gain_cell(entries.get(arm, {}).get("gain", {}).get(measure))
        for arm in comparison.arms
        if arm != result["baseline"]
    ]
    base = _percent(mean_of(entries.get(result["baseline"], {}), measure))
    return {"name": unit, "baseline": base, "cells": cells}


def _image_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """A row per arm: how many images gain and lose, and cells of the worst and the best."""
    images = comparison.result.get("images", {})
    return [
        {
            "arm": arm,
            **images[arm],
            **{
                end: [{"id": line["id"], **_gain_cell(line["gain"])} for line in images[arm][end]]
                for end in ("worst", "best")
            },
        }
        for arm in comparison.arms
        if arm in images
    ]


def _class_rows(comparison: Comparison) -> list[tuple[str, list[dict[str, str]]]]:
    """(class, a cell per arm), or nothing where every unit has one class of objects."""
    names = class_names(comparison)
    if not names:
        return []
    arms = comparison.result["arms"]
    per_arm = [arms.get(arm, {}) for arm in comparison.arms]
    ids = sorted({id_ for entry in per_arm for id_ in entry.get("per_class", {})}, key=int)
    baseline = arms.get(comparison.result["baseline"])
    return [
        (
            names.get(i, f"class_{i}"),
            [_class_cell(i, entry, entry is baseline) for entry in per_arm],
        )
        for i in ids
    ]


def _class_cell(class_id: str, entry: Mapping[str, Any], baseline: bool) -> dict[str, str]:
    """An arm's IoU of a class; below it the gain with its interval, where there is one."""
    gain = None if baseline else entry.get("per_class_gain", {}).get(class_id)
    cell = _gain_cell(gain)
    interval = f" ({cell['interval']})" if cell["interval"] else ""
    below = cell["value"] + interval if gain else ""
    return {**cell, "value": _percent(entry.get("per_class", {}).get(class_id)), "interval": below}


def _group_rows(comparison: Comparison) -> list[tuple[str, list[dict[str, Any]]]]:
    """(unit, a row per group of its classes)."""
    result = comparison.result
    rivals = [arm for arm in comparison.arms if arm != result["baseline"]]
    return [
        (
            unit,
            [
                {
                    "name": group["classes"],
                    "share": _percent(group["share"]),
                    "baseline": _percent(group["arms"].get(result["baseline"], {}).get("mean")),
                    "cells": [_gain_cell(group["arms"].get(arm, {}).get("gain")) for arm in rivals],
                }
                for group in groups
            ],
        )
        for unit, groups in group_rows(comparison)
    ]


def _gain_cell(gain: Mapping[str, float | None] | None) -> dict[str, str]:
    """A gain with its interval, tinted where that excludes zero."""
    gain = gain or {"mean": None}
    low, high, mean = gain.get("low"), gain.get("high"), gain["mean"]
    colour = ""
    if low is not None and high is not None:
        colour = "helps" if 100 * low > NOISE else "hurts" if 100 * high < -NOISE else ""
    value = "–" if mean is None else signed(100 * mean)
    return {"value": value, "interval": interval_words(gain), "tone": colour}


def _points(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _list(values: Iterable[Any]) -> str:
    return ", ".join(str(value) for value in values)


def _show(value: Any) -> str:
    """A setting's value for the eye."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_show(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return _list(_show(inner) for inner in value)
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
