"""Pictures of a comparison: test images on which the arms differ, samples that were mixed in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from synthaug import files
from synthaug.formats import folder as image_files
from synthaug.report import figures
from synthaug.report.verdict import Comparison
from synthaug.sample import ClassMap, Sample, resized

FRAMES = 6
FRAMES_PER_UNIT = 2
SAMPLES_PER_SOURCE = 4
PICTURE_PX = 420


def _read_sample(image: Path, mask: Path) -> Sample | None:
    if not image.is_file() or not mask.is_file():
        return None
    return image_files.read_pair(image, mask)


def most_different(comparison: Comparison) -> list[dict[str, Any]]:
    """Rows of pictures: of the test images with predictions, where the arms differ most."""
    seed, measure = comparison.manifest["seeds"][0], comparison.measure
    rows = []
    for unit in comparison.manifest["units"]:
        scores: dict[str, dict[str, float]] = {}
        for arm in comparison.arms:
            path = comparison.path / "runs" / unit["name"] / arm / f"{seed}.json"
            if [unit["name"], seed] in comparison.runs.get(arm, ()) and path.is_file():
                run = files.read_record(path, "run")
                if not comparison.shows(unit["name"], arm, seed, run.get("key", "")):
                    continue
                for line in run.get("per_image", ()):
                    if line.get(measure) is not None:
                        scores.setdefault(str(line["id"]), {})[arm] = line[measure]
        predicted = comparison.path / "predictions" / unit["name"]
        ranked = sorted(
            (max(by_arm.values()) - min(by_arm.values()), name, by_arm)
            for name, by_arm in scores.items()
            if len(by_arm) > 1
            and all((predicted / arm / str(seed) / f"{name}.png").is_file() for arm in by_arm)
        )
        rows += [(*row, unit) for row in ranked[::-1][:FRAMES_PER_UNIT]]
    rows.sort(key=lambda row: row[0], reverse=True)
    shown = [_frame_row(comparison, unit, name, by) for _, name, by, unit in rows[:FRAMES]]
    return [row for row in shown if row["tiles"]]


def _frame_row(
    comparison: Comparison, unit: Mapping[str, Any], name: str, scores: Mapping[str, float]
) -> dict[str, Any]:
    classes = ClassMap.from_dict(unit["classes"], f"comparison {comparison.path}")
    predicted = comparison.path / "predictions" / unit["name"]
    truth = _read_sample(predicted / "_test" / f"{name}.jpg", predicted / "_test" / f"{name}.png")
    seed = comparison.manifest["seeds"][0]
    tiles = [] if truth is None else [("truth", "", _picture(truth, classes))]
    for arm, score in scores.items():
        ids = image_files.read_mask(predicted / arm / str(seed) / f"{name}.png")
        image = np.full((*ids.shape, 3), 40, np.uint8)
        if truth is not None and truth.size == ids.shape:
            image = truth.image
        tiles.append((arm, f"{100 * score:.1f}", _picture(Sample(image, ids), classes)))
    return {"unit": unit["name"], "image": name, "seed": seed, "tiles": tiles}


def mixed_samples(comparison: Comparison) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """(source, pictures) of what was mixed in: a few per source, from one unit after another."""
    found: dict[str, list[list[Path]]] = {}
    for unit in comparison.units:
        for kind in sorted((comparison.path / "samples" / unit).glob("*/")):
            images = sorted(kind.glob("*.jpg"))
            found.setdefault(kind.name, []).append(images[:SAMPLES_PER_SOURCE])
    names = {u["name"]: tuple(u["classes"]["ids"]) for u in comparison.manifest["units"]}
    shown = []
    for source, units in sorted(found.items()):
        per_unit = 1 if len(units) >= SAMPLES_PER_SOURCE else SAMPLES_PER_SOURCE
        tiles = []
        for file in (file for images in units for file in images[:per_unit]):
            sample = _read_sample(file, file.with_suffix(".png"))
            if sample is not None:
                unit = file.parent.parent.name
                whole = _picture(sample, ClassMap(names[unit]))
                tiles.append((unit, figures.data_uri(_small(sample).image), whole))
        shown.append((source, tiles[: 2 * SAMPLES_PER_SOURCE]))
    return shown


def _picture(sample: Sample, classes: ClassMap) -> str:
    return figures.data_uri(figures.overlay(_small(sample), classes, opacity=0.3))


def _small(sample: Sample) -> Sample:
    """Shrink a sample to at most `PICTURE_PX` a side, so that pages stay light."""
    scale = PICTURE_PX / max(sample.size)
    if scale >= 1:
        return sample
    height, width = (max(1, round(side * scale)) for side in sample.size)
    return resized(sample, height, width)
