"""Does a comparison say what is so? Noise must hurt, and equal arms must show no difference.

    python recipes/false_alarms.py --out runs/false-alarms

Noise: half of the items have blobs of noise for a mask. Under the real picture they teach what is
wrong, and `compare` must say "hurts". Under a picture of noise, which a network soon tells from a
photograph, they do little; of those it must not say "helps".
Equal arms: `compare` gives equal seeds equal trainings, so that an arm beside its double would
differ by nothing at all. Both sides therefore get seeds of their own: in each repetition the
verdict of `compare` over seeds s1, s2, s3 of the arm against other seeds of the same arm must be
"no difference shown", false alarms being 2 of 20 at most.
Data: the photograph of coins that comes with the package, its right half to learn from, its left
half as the test. Hardware: two cores of an AMD EPYC, `--jobs 2`: 335 s for 144 trainings of about
4 s. Result: masks of noise -1.6 points [-2.4, -0.8], "hurts"; pictures of noise -0.4 [-1.2, +0.4],
no difference shown; no false alarm in 20. The exit status says whether both checks are passed.
Stop it at any time; the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from recipe_options import positive, run_main

from synthaug.bank import write_bank
from synthaug.config.arms import Arm
from synthaug.demo import CLASSES, coins
from synthaug.files import read_json
from synthaug.formats.splits import Unit
from synthaug.gain import compare
from synthaug.gain.runs import MEASURES
from synthaug.gain.summary import summarise
from synthaug.report.verdict import gain_words
from synthaug.sample import Sample
from synthaug.seeding import numpy_stream

NOISE, NOISE_SEEDS = 24, 8
MEASURE = MEASURES["images"][0]
ARM, DOUBLE = "standard", "standard again"
MOST_ALARMS = 0.1


def coins_unit() -> Unit:
    """The halves of the photograph of coins."""
    training, held_out = coins()
    return Unit("coins", [training], [held_out], CLASSES, "images")


def noise_bank(out: Path, pair: Sample, *, picture: bool) -> Path:
    """Write a bank of masks of noise, blobs of half the area; ``picture``: of images of it, too."""
    samples = []
    for number in range(NOISE):
        stream = numpy_stream(0, "noise", number)
        field = cv2.GaussianBlur(stream.normal(size=pair.size), (0, 0), min(pair.size) / 16)
        noise = stream.integers(0, 256, (*pair.size, 3)).astype(np.uint8)
        image = noise if picture else pair.image
        samples.append((Sample(image, (field > 0).astype(np.uint8)), {"latent_seed": number}))
    return write_bank(out, samples, [pair], CLASSES, {"noise": NOISE}, overwrite=True).path


def check_noise(out: Path, unit: Unit, seeds: int, **settings: Any) -> dict[str, dict[str, Any]]:
    """Compare what is learned with noise and without; return the arms' entries."""
    pair = unit.training[0]
    sources = {
        "synthetic": noise_bank(out / "banks" / "noise", pair, picture=True),
        "copy-paste": noise_bank(out / "banks" / "masks", pair, picture=False),
    }
    arms = [
        Arm(f"{ARM}+noise", {"real": 0.5, "synthetic": 0.5}, augment=True),
        Arm(f"{ARM}+masks of noise", {"real": 0.5, "copy-paste": 0.5}, augment=True),
    ]
    given = {unit.name: sources}
    result = compare([unit], out / "noise", arms=arms, seeds=seeds, sources=given, **settings)
    return {arm.name: result["arms"][arm.name] for arm in arms}


def check_equal(
    out: Path, unit: Unit, repetitions: int, seeds: int, **settings: Any
) -> list[dict[str, Any]]:
    """Train one arm with many seeds; return an entry per repetition of it against itself."""
    total = 2 * repetitions * seeds
    compare([unit], out / "equal", arms=[ARM], seeds=total, **settings)
    folder = out / "equal" / "runs" / unit.name / ARM
    return repeat([read_json(folder / f"{s}.json", "run") for s in range(total)], seeds)


def repeat(runs: Sequence[Mapping[str, Any]], seeds: int) -> list[dict[str, Any]]:
    """Summarise runs of one arm as if every other ``seeds`` of them were another arm's."""
    entries = []
    for first in range(0, len(runs) - 2 * seeds + 1, 2 * seeds):
        places = range(first, first + seeds)
        results = {
            ARM: {("unit", seed): runs[seed] for seed in places},
            DOUBLE: {("unit", seed): runs[seed + seeds] for seed in places},
        }
        found = summarise(results, units=["unit"], baseline=ARM, measures=[MEASURE], complete=True)
        entries.append(found["arms"][DOUBLE])
    return entries


def line(entry: Mapping[str, Any]) -> str:
    """A gain and its verdict."""
    return f"{gain_words(entry['gain'][MEASURE])}: {entry['verdict']}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/false-alarms"))
    parser.add_argument("--repetitions", type=positive, default=20)
    parser.add_argument("--seeds", type=positive, default=3, help="of each arm in a repetition")
    parser.add_argument("--segmenter", default="unet")
    parser.add_argument("--steps", type=positive, default=40)
    parser.add_argument("--batch-size", type=positive, default=4)
    parser.add_argument("--side", type=positive, default=96, help="longer side in training, px")
    parser.add_argument("--jobs", type=positive, default=1)
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    unit = coins_unit()
    settings = {
        "segmenter": options.segmenter,
        "steps": options.steps,
        "batch_size": options.batch_size,
        "side_px": options.side,
        "jobs": options.jobs,
        "echo": lambda text: print(text, file=sys.stderr, flush=True),
    }
    noise = check_noise(options.out, unit, NOISE_SEEDS, **settings)
    print(f"| {NOISE_SEEDS} seeds | against {ARM} |\n|---|---|")
    for name, entry in noise.items():
        print(f"| {name} | {line(entry)} |", flush=True)
    entries = check_equal(options.out, unit, options.repetitions, options.seeds, **settings)
    print(f"\n| repetition | {ARM} against itself, {options.seeds} other seeds |\n|---|---|")
    for number, entry in enumerate(entries, start=1):
        print(f"| {number} | {line(entry)} |")
    alarms = sum(entry["verdict"] != "no difference shown" for entry in entries)
    print(f"\nfalse alarms: {alarms} of {len(entries)}, {time.perf_counter() - start:.0f} s")
    pictures, masks = (entry["verdict"] for entry in noise.values())
    if masks != "hurts" or pictures == "helps":
        sys.exit("failed: noise does not hurt")
    if alarms > MOST_ALARMS * len(entries):
        sys.exit("failed: too many false alarms")


if __name__ == "__main__":
    run_main(main)
