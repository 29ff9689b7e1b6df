"""What patch rendering costs and gains on banks that are already there.

    python recipes/ten_videos.py --out runs/ten-videos          # writes the banks
    python recipes/benchmark_rendering.py --banks runs/ten-videos

For every video: the bank as it is (off), its samples at a quarter of the size enlarged again
(bicubic), and rendered (on); SIFID at four depths through the bundled network beside that of
standard augmentation, and the IoU of a segmenter trained on the samples and tested on the pair
(`synthaug.evaluation.bank_quality.mask_agreement`). Seconds are the median over samples, one at a
time, at the bank's size and at twice that size (pair and samples enlarged), and for building the
renderer.

Expected on two idle cores: 0.2 to 0.45 s for a sample of 427x240, and SIFID-1 and -2 below those of
standard augmentation on most videos. ``--steps 0`` leaves the segmenter out, which takes a minute a
row.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import cv2
from recipe_options import Distinct, positive, run_main

from synthaug.bank import Bank
from synthaug.errors import InputError
from synthaug.evaluation.bank_quality import mask_agreement
from synthaug.filtering import to_tensor
from synthaug.gain.hardware import hardware
from synthaug.mixing import standard_augmentation
from synthaug.quality.features import FeatureNet, load_feature_net
from synthaug.quality.frechet import sifid
from synthaug.rendering import PatchRenderer
from synthaug.sample import Sample

COARSE = 4


def resized(sample: Sample, size: tuple[int, int], interpolation: int) -> Sample:
    image = cv2.resize(sample.image, size[::-1], interpolation=interpolation)
    mask = cv2.resize(sample.mask, size[::-1], interpolation=cv2.INTER_NEAREST)
    return replace(sample, image=image, mask=mask)


def bicubic(sample: Sample) -> Sample:
    """Lose what is finer than a quarter of the size; the mask stays."""
    height, width = sample.size
    small = (-(-height // COARSE), -(-width // COARSE))
    coarse = resized(sample, small, cv2.INTER_AREA)
    return replace(resized(coarse, sample.size, cv2.INTER_CUBIC), mask=sample.mask)


def augmented(pairs: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    augment = standard_augmentation(*pairs[0].size, seed)
    views = [augment(image=pair.image, mask=pair.mask) for pair in islice(cycle(pairs), count)]
    return [Sample(view["image"], view["mask"]) for view in views]


def distances(samples: Sequence[Sample], pairs: Sequence[Sample], net: FeatureNet) -> list[float]:
    reals = [to_tensor([pair])[0] for pair in pairs]
    means: list[float] = sifid(to_tensor(samples), reals, net).mean(0).tolist()
    return means


def timed(renderer: PatchRenderer, samples: Sequence[Sample]) -> tuple[list[Sample], float]:
    """Render one by one; returns the samples and the median seconds of one."""
    rendered, seconds = [], []
    for sample in samples:
        start = time.perf_counter()
        rendered += renderer.render([sample])
        seconds.append(time.perf_counter() - start)
    return rendered, statistics.median(seconds)


def run_video(bank: Bank, count: int, steps: int, seed: int, net: FeatureNet) -> list[list[str]]:
    """Return the table's rows of one bank."""
    pairs, samples = bank.pairs(), list(islice(bank, count))
    start = time.perf_counter()
    renderer = PatchRenderer(pairs, bank.classes)
    build = time.perf_counter() - start
    on, one = timed(renderer, samples)
    height, width = pairs[0].size
    twice = (2 * height, 2 * width)
    large = PatchRenderer([resized(pair, twice, cv2.INTER_CUBIC) for pair in pairs], bank.classes)
    _, one_large = timed(large, [resized(s, twice, cv2.INTER_CUBIC) for s in samples[:5]])
    rows = []
    sets = {
        "off": (samples, ""),
        "bicubic": ([bicubic(sample) for sample in samples], ""),
        "on": (on, f"{build:.2f} + {one:.2f} / {one_large:.2f}"),
        "standard augmentation": (augmented(pairs, count, seed), ""),
    }
    for name, (shown, seconds) in sets.items():
        agreement = "-"
        if steps and name != "standard augmentation":
            found = mask_agreement(shown, pairs, bank.classes, steps=steps, seed=seed)
            agreement = f"{found['foreground_iou']:.3f}"
        values = " / ".join(f"{value:.0f}" for value in distances(shown, pairs, net))
        rows.append([name, values, agreement, seconds])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--banks", type=Path, default=Path("runs/ten-videos"))
    parser.add_argument(
        "--videos", nargs="*", action=Distinct, help="those with a folder BANKS/VIDEO-bank"
    )
    parser.add_argument("--samples", type=positive, default=100)
    parser.add_argument("--steps", type=int, default=300, help="of the segmenter; 0: leave it out")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = sorted(path.name.removesuffix("-bank") for path in options.banks.glob("*-bank"))
    videos = options.videos or found
    if not videos:
        raise InputError(f"no banks at {options.banks}: make them with recipes/ten_videos.py")
    cv2.setNumThreads(1)
    net = load_feature_net("efficientnet_lite0")
    print("| video | rendering | SIFID-1..4 | mask agreement IoU | s: build + one / at twice |")
    print("|---|---|---|---|---|")
    for video in videos:
        bank = Bank(options.banks / f"{video}-bank")
        for row in run_video(bank, options.samples, options.steps, options.seed, net):
            print("| " + " | ".join([video, *row]) + " |", flush=True)
    machine = ", ".join(f"{name} {value}" for name, value in hardware().items())
    print(f"\n{options.samples} samples a video, seed {options.seed}; {machine}; {net.name}.")


if __name__ == "__main__":
    run_main(main)
