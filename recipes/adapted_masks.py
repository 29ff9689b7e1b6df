"""Are ten labelled tiles worth more with an adapted generator beside them? A comparison says.

    python recipes/adapted_masks.py --data CAMVID/train --out runs/adapted-masks

A small StyleGAN2 of 32 px learns from squares cut out of ``--data``, CamVid's training frames or
any folder of photographs, as in adaptation.py, whose ``OUT/source-STEPS`` can be copied. It is
adapted (``--adaptation``) to ten tiles of 64 px around coins of the right half of the photograph
that comes with the package, and learns their masks in the last third of its steps. 100 pairs are
drawn and filtered. Then `compare` trains a U-Net at 32 px on the ten pairs, with each arm of
`ARMS`; the test are tiles of the left half, none over another. ``--draws`` repeats all of it with
other ten tiles, of the twelve there are, and other seeds; each draw is a unit of the comparison.
``--plugins medgan-object`` fits with plug-ins; all but the source then lies in OUT/PLUGINS.

OUT/samples.png: the ten pairs of the first draw over what was generated and kept, masks outlined.
OUT/comparison/index.html is the report, OUT/table.md its table.
Hardware and result to expect: one CPU core, half an hour of source, ten minutes of fit, three of
comparison; RESULTS.md, "Few-shot adaptation". Stop it at any time; the same command goes on.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
from adaptation import SIDE_PX as GENERATOR_PX
from adaptation import fitted
from PIL import Image
from recipe_options import positive, run_main

from synthaug.bank import Bank
from synthaug.cli.progress import stage_progress
from synthaug.config import FilterConfig, FitConfig, GenerateConfig, Recipe
from synthaug.config.fit import Adaptation
from synthaug.demo import CLASSES, coins
from synthaug.errors import InputError
from synthaug.files import write_text, write_with
from synthaug.fitting.presets import check
from synthaug.formats.splits import Unit
from synthaug.gain import compare
from synthaug.gain.hardware import hardware
from synthaug.report.comparison import write_comparison_page
from synthaug.report.figures import grid, overlay
from synthaug.report.verdict import Comparison, interval_words, read_comparison, verdict_line
from synthaug.running.sources import UnitSources
from synthaug.sample import Sample
from synthaug.seeding import numpy_stream

SIDE_PX, SHOTS, SAMPLES, SHOWN_ROWS = 64, 10, 100, 4
ARMS = ("none", "standard", "synthetic", "standard+synthetic", "standard+copy-paste")
FILTER = FilterConfig()
Tiles = dict[tuple[int, int], Sample]
"""Row and column of the upper left corner in its half -> tile."""


def tiles(half: Sample) -> Tiles:
    """Cut a tile around every whole coin of a half of the photograph; neighbours may overlap."""
    _, _, statistics, centres = cv2.connectedComponentsWithStats(half.mask)
    areas = statistics[1:, cv2.CC_STAT_AREA]
    found = {}
    for area, (x, y) in zip(areas, centres[1:], strict=True):
        if area < np.median(areas) / 2:
            continue  # most of it lies in the other half
        place = zip((y, x), half.size, strict=True)
        top, left = (int(np.clip(round(c) - SIDE_PX // 2, 0, s - SIDE_PX)) for c, s in place)
        window = (slice(top, top + SIDE_PX), slice(left, left + SIDE_PX))
        image, mask = (np.ascontiguousarray(array[window]) for array in (half.image, half.mask))
        found[top, left] = replace(half, image=image, mask=mask, id=f"{top}-{left}")
    return found


def apart(found: Tiles) -> list[Sample]:
    """From left to right, take tiles that overlap none taken before."""
    taken: Tiles = {}
    for top, left in sorted(found, key=lambda corner: corner[1]):
        if all(max(abs(top - y), abs(left - x)) >= SIDE_PX for y, x in taken):
            taken[top, left] = found[top, left]
    return list(taken.values())


def coins_unit(seed: int) -> Unit:
    """Ten tiles of the right half to learn from, those of the left half as the test."""
    training, held_out = (tiles(half) for half in coins())
    order = numpy_stream(seed, "adapted masks").permutation(len(training))
    whole = list(training.values())
    few = [whole[i] for i in sorted(order[:SHOTS])]
    return Unit(f"coins-{seed}", few, apart(held_out), CLASSES, "images")


def write_sheet(path: Path, pairs: Sequence[Sample], bank: Bank) -> None:
    """A row of real pairs over rows of kept ones, masks outlined."""
    shown = [*pairs, *islice(bank, SHOWN_ROWS * len(pairs))]
    sheet = grid([overlay(sample, CLASSES) for sample in shown], len(pairs))
    big = sheet.repeat(2, 0).repeat(2, 1)
    write_with(path, Image.fromarray(big).save)


def table(comparison: Comparison, banks: dict[str, Bank]) -> str:
    """Write a row per arm, the verdict, and what the filter kept."""
    measure, result = comparison.measure, comparison.result
    lines = [f"| arm | {measure} | gain [95 %] | verdict |", "|---|---|---|---|"]
    for arm in comparison.arms:
        entry = result["arms"][arm]
        gain, verdict = entry["gain"][measure], entry["verdict"]
        difference = f"{100 * gain['mean']:+.1f} [{interval_words(gain)}]"
        if arm == result["baseline"]:
            difference, verdict = "", "baseline"
        lines.append(f"| {arm} | {100 * entry['mean'][measure]:.1f} | {difference} | {verdict} |")
    kept = ", ".join(f"{name} {len(b)} of {len(b.all_records)}" for name, b in banks.items())
    machine = ", ".join(f"{key} {value}" for key, value in hardware().items())
    said = f"{verdict_line(comparison)} Kept: {kept}. {machine}."
    return "\n".join(lines) + f"\n\n{said}\n"


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="photographs of the source")
    parser.add_argument("--out", type=Path, default=Path("runs/adapted-masks"))
    parser.add_argument("--draws", type=positive, default=1, help="of the ten tiles, a fit each")
    parser.add_argument("--source-steps", type=positive, default=5000)
    parser.add_argument("--steps", type=positive, default=2000, help="of the fits, masks included")
    parser.add_argument("--adaptation", choices=get_args(Adaptation), default="both")
    parser.add_argument("--plugins", nargs="+", default=[], metavar="NAME", help="of the fits")
    parser.add_argument("--seeds", type=positive, default=5, help="of the trainings")
    parser.add_argument("--train-steps", type=positive, default=60, help="of the U-Net")
    parser.add_argument("--batch-size", type=positive, default=8, help="of the U-Net")
    parser.add_argument("--jobs", type=positive, default=1, help="trainings side by side")
    parser.add_argument("--accelerator", default="cpu", help="of the generators: auto, cpu or cuda")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the source, make every draw's bank, compare; what is there is not made again."""
    options = parse(arguments)
    common: dict[str, Any] = {"generator": "stylegan2", "accelerator": options.accelerator}
    common["precision"] = "32-true"
    source = options.out / f"source-{options.source_steps}"
    adapting = FitConfig(
        **common,
        source=str(source),
        adaptation=options.adaptation,
        plugins=tuple(options.plugins),
        iterations=options.steps,
    )
    check(adapting)  # before the source takes its time
    fitted(
        source,
        options.data,
        FitConfig(**common, max_size=GENERATOR_PX, iterations=options.source_steps),
    )
    out = options.out / "+".join(options.plugins)
    units = [coins_unit(seed) for seed in range(options.draws)]
    sources: dict[str, dict[str, Path]] = {}
    for seed, unit in enumerate(units):
        config = replace(adapting, seed=seed)
        drawing = GenerateConfig(n=SAMPLES, seed=seed, accelerator=options.accelerator)
        stages = UnitSources(out / "units" / unit.name, unit, unit.name, stage_progress(), say)
        bank = stages.synthetic(Recipe(config, drawing, FILTER))
        if not len(Bank(bank)):
            raise InputError(f"the filter kept no sample of {bank}: fit with more steps")
        sources[unit.name] = {"synthetic": bank, "copy-paste": stages.composed(config)}
    banks = {name: Bank(found["synthetic"]) for name, found in sources.items()}
    write_sheet(out / "samples.png", units[0].training, banks[units[0].name])
    folder = out / "comparison"
    compare(
        units,
        folder,
        arms=ARMS,
        seeds=options.seeds,
        sources=sources,
        segmenter="unet",
        steps=options.train_steps,
        batch_size=options.batch_size,
        side_px=GENERATOR_PX,
        jobs=options.jobs,
        reproduce=shlex.join(["python", "recipes/adapted_masks.py", *(arguments or sys.argv[1:])]),
        echo=say,
    )
    say(f"report: {write_comparison_page(folder)}")
    write_text(out / "table.md", table(read_comparison(folder), banks))
    print((out / "table.md").read_text(), end="")


if __name__ == "__main__":
    run_main(main)
