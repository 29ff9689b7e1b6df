"""The demonstration: everything, from one labelled photograph to a held-out test, on one page.

The photograph shows 24 coins. Its right half is the labelled pair; its left half, of which
nothing is trained on and whose background is brighter, is the test.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from itertools import islice
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synthaug import files
from synthaug.bank import Bank
from synthaug.config import FitConfig, versions
from synthaug.evaluation.bank_quality import evaluate
from synthaug.filtering import filter_bank
from synthaug.fitting import fit
from synthaug.formats import folder
from synthaug.gain.hardware import peak_resident_gb
from synthaug.gain.statistics import student_quantile
from synthaug.generation import generate
from synthaug.mixing import SynthMix, standard_augmentation
from synthaug.quality.overlap import confusion_matrix, iou_per_class
from synthaug.report import Arm, HeldOut, Page, figures, score_rows, write_page
from synthaug.sample import ClassMap, Sample
from synthaug.seeding import derive_seed, numpy_stream
from synthaug.segmenters.contract import Item
from synthaug.segmenters.semantic import build_segmenter, optimise, predict

FIRST_TRAINING_COLUMN = 186
FORMAT = "synthaug-demo-1"
CLASSES = ClassMap((0, 1), ("background", "coin"))
SAMPLES = 80
DROP = 0.15
ITERATIONS = 400
SEEDS = 3
STEPS = 60
BATCH_SIZE = 4
CROP_PX = 160
_ABOUT = (
    "The right half of a photograph of ancient coins, labelled by hand. A small GAN (OSMIS) "
    "learned to draw images together with their masks from this pair alone.",
    "The left half is the test. Nothing was fitted to it, and its background is brighter.",
)
_SOURCES = (
    "Photograph: Greek coins from Pompeii, Brooklyn Museum, through scikit-image; no known "
    "copyright restrictions. Mask: synthaug.",
    "OSMIS: Sushko et al. 2023. SIFID: Shaham et al. 2019. Network weights: EfficientNet-Lite0, "
    "ImageNet, Apache-2.0.",
)
_LENIENT: dict[str, Any] = {"min_area_ratio": 0.0, "max_area_ratio": 1e6, "max_stray": 1.0}
_REASONS = {"sifid-1234 rank": "SIFID among the worst", "near copy": "copy of the training pair"}


@dataclass
class _Stages:
    """Prints where the demonstration is and remembers how long each stage took."""

    echo: Callable[[str], object]
    count: int
    timings: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def __call__(self, name: str, doing: str) -> Iterator[Callable[..., None]]:
        """Run a stage; yields progress(done, total, left_s=None), which prints each quarter."""
        start = time.perf_counter()
        head = f"[{len(self.timings) + 1}/{self.count}] {name}"
        self.echo(f"{head}: {doing}")
        last = 0

        def progress(done: int, total: int, left_s: float | None = None) -> None:
            nonlocal last
            quarter = 4 * done // max(total, 1)
            if quarter <= last or done >= total:
                return
            last = quarter
            if left_s is None:
                left_s = (time.perf_counter() - start) / done * (total - done)
            self.echo(f"{head}: {done}/{total}, about {left_s:.0f} s left")

        yield progress
        self.timings.append((name, time.perf_counter() - start))


def demo(
    out: str | Path = "synthaug-demo",
    *,
    seed: int = 0,
    overwrite: bool = False,
    echo: Callable[[str], object] = print,
    iterations: int | None = None,
) -> Path:
    """Fit, generate, filter, evaluate, train with and without the bank, and write the page.

    Args:
        out: folder for everything: ``manifest.json pair/ generator/ bank/ samples.png
            index.html``.
        seed: every random draw follows from it.
        overwrite: replace an earlier demonstration.
        echo: takes each line of progress and the closing line about the gain.
        iterations: training steps of the generator instead of `ITERATIONS`. Below 100 the rest
            is shortened too, to see that everything runs: 12 samples, filtered by SIFID alone,
            and no more than this many steps of the segmenters.

    Returns:
        Path of the HTML page.

    Raises:
        InputError: the folder is not empty, or holds something else, or the disk is full.
    """
    out = Path(out)
    files.check_output_folder(out, overwrite=overwrite, becomes=FORMAT)
    files.clear_directory(out)
    files.write_json(
        out / "manifest.json", {"format": FORMAT, "seed": seed, "versions": versions()}
    )
    quick = iterations is not None and iterations < 100
    steps = STEPS if iterations is None else min(STEPS, iterations)
    rules = _LENIENT if quick else {}
    config = FitConfig(
        preset="fast", iterations=iterations or ITERATIONS, seed=seed, accelerator="cpu"
    )
    stages = _Stages(echo, count=5)
    echo("one labelled photograph, everything on this computer: about 5 minutes on two cores")

    with stages("fit", "a generator learns the right half of the photograph") as progress:
        image, mask = write_training_pair(out / "pair")
        generator = fit(
            image,
            mask,
            out / "generator",
            overwrite=overwrite,
            progress=lambda p: progress(p.step, p.total, p.left_s),
            echo=echo,
            config=config,
        )
    n = 12 if quick else SAMPLES
    with stages("generate", f"{n} new pairs") as progress:
        options: dict[str, Any] = {"overwrite": overwrite, "progress": progress}
        generate(generator, out / "bank", n, seed, accelerator="cpu", **options)
    with stages("filter", "score every pair, drop the worst") as progress:
        bank = filter_bank(out / "bank", drop=DROP, progress=progress, **rules)
    with stages("evaluate", "compare with standard augmentation"):
        quality = evaluate(bank, seed=seed, agreement_steps=0)
    with stages("train and test", f"{SEEDS} seeds without and {SEEDS} with the bank") as progress:
        held_out = compare_arms(bank, steps=steps, seed=seed, progress=progress)

    verdict = describe_gain(held_out)
    training, _ = coins()
    _write_banner(out / "samples.png", training, bank)
    page = Page(
        title=f"One labelled photograph, {len(bank)} new labelled pictures",
        verdict=verdict,
        classes=CLASSES,
        pairs=[training],
        kept=list(islice(bank, 24)),
        dropped=_dropped(bank, 8),
        counts=(len(bank), len(bank.all_records) - len(bank)),
        about=_ABOUT,
        scores=score_rows(quality),
        timings=stages.timings,
        peak_memory_gb=peak_resident_gb(),
        held_out=held_out,
        settings=_settings(bank, seed),
        commands=["pip install .", f"synthaug demo --seed {seed}"],
        sources=_SOURCES,
    )
    path = write_page(out / "index.html", page)
    echo(verdict)
    echo(f"page: {path}")
    return path


def coins() -> tuple[Sample, Sample]:
    """Read the shipped photograph of coins.

    Returns:
        The labelled training pair (right half, 303 x 198 px) and the held-out pair (left half,
        303 x 186 px), both grey, ids 0 = background and 1 = coin.
    """
    data = resources.files("synthaug") / "data"
    with (
        resources.as_file(data / "coins.png") as image,
        resources.as_file(data / "coins_mask.png") as mask,
    ):
        whole = folder.read_pair(image, mask)
    return (
        _columns(whole, slice(FIRST_TRAINING_COLUMN, None), "coins, right half"),
        _columns(whole, slice(None, FIRST_TRAINING_COLUMN), "coins, left half"),
    )


def write_training_pair(path: str | Path) -> tuple[Path, Path]:
    """Write the training half of `coins` as files.

    Args:
        path: folder to write into.

    Returns:
        Paths of the image and of its mask.
    """
    training, _ = coins()
    image, mask = Path(path) / "coins.png", Path(path) / "coins_mask.png"
    files.write_bytes(image, folder.image_png(training))
    files.write_bytes(mask, folder.mask_png(training.mask))
    return image, mask


def compare_arms(
    bank: Bank,
    *,
    steps: int = STEPS,
    seed: int = 0,
    seeds: int = SEEDS,
    progress: Callable[[int, int], None] | None = None,
) -> HeldOut:
    """Train a small U-Net without and with the bank and test both on the held-out half.

    Either arm gets the same first weights, number of steps and pictures per step; the standard
    augmentation is applied to every picture. In the second arm every other picture is synthetic.

    Args:
        bank: a bank made from the training half; its kept samples are used.
        steps: optimiser steps of each training.
        seed: every random draw follows from it.
        seeds: repetitions, at least 2.
        progress: called with (steps done, steps in all).

    Returns:
        IoU of the coins per seed, mean and 95 % Student t interval of both arms and of their
        paired difference, and the predictions of the first seed.
    """
    training, held_out = coins()
    total = 2 * seeds * steps
    values: dict[float, list[float]] = {0.0: [], 0.5: []}
    predictions: dict[float, NDArray[np.uint8]] = {}
    done = 0
    for repetition in range(seeds):
        for ratio in values:
            base = done

            def report(step: int, _: int, base: int = base) -> None:
                if progress is not None:
                    progress(base + step, total)

            drawn = derive_seed(seed, "demo", repetition)
            prediction = _train_and_predict(bank, training, held_out, ratio, steps, drawn, report)
            values[ratio].append(_iou(prediction, held_out.mask))
            predictions.setdefault(ratio, prediction)
            done += steps
    standard, mixed = values[0.0], values[0.5]
    return HeldOut(
        held_out,
        (
            _arm("standard augmentation", standard, predictions[0.0]),
            _arm("standard + synthetic", mixed, predictions[0.5]),
        ),
        _arm("gain, seed by seed", [b - a for a, b in zip(standard, mixed, strict=True)]),
        f"U-Net on ImageNet features, {steps} steps of {BATCH_SIZE} crops of {CROP_PX} px in "
        f"either arm, half of them synthetic in the second; {seeds} seeds. Intervals: 95 %, "
        "Student t over the seeds. They cover the chance in training, not other pictures.",
    )


def describe_gain(held_out: HeldOut) -> str:
    """Say in one line what came out: helps, hurts, or no difference shown."""
    gain, (standard, mixed) = held_out.gain, held_out.arms
    if gain.low > 0:
        word = "The synthetic pairs helped here"
    elif gain.high < 0:
        word = "The synthetic pairs hurt here"
    else:
        word = "No difference shown"
    return (
        f"{word}: IoU {mixed.mean:.3f} with them, {standard.mean:.3f} without, difference "
        f"{gain.mean:+.3f} (95 % interval {gain.low:+.3f} to {gain.high:+.3f}, "
        f"{len(gain.values)} seeds). One picture is an example, not proof."
    )


class _Crops:
    """What one arm trains on: the mix in its own order, augmented, cropped."""

    def __init__(self, training: Sample, bank: Bank, ratio: float, steps: int, seed: int) -> None:
        self.steps = steps
        self._augment = standard_augmentation(*training.size, seed=seed)
        self._stream = numpy_stream(seed, "demo", "crops")
        real = [(training.image, training.mask)]
        length = steps * BATCH_SIZE
        self._mix = SynthMix(real, bank.path, ratio=ratio, seed=seed, length=length)

    def batch(self, step: int) -> list[Item]:
        """Draw the next batch; every step is asked for once, in order."""
        return [self._crop(step * BATCH_SIZE + place) for place in range(BATCH_SIZE)]

    def _crop(self, index: int) -> Item:
        image, mask = self._mix[index]
        pair = self._augment(image=image, mask=mask)
        top, left = (int(self._stream.integers(side - CROP_PX + 1)) for side in mask.shape)
        window = (slice(top, top + CROP_PX), slice(left, left + CROP_PX))
        return Item(pair["image"][window], pair["mask"][window])


def _train_and_predict(
    bank: Bank,
    training: Sample,
    held_out: Sample,
    ratio: float,
    steps: int,
    seed: int,
    progress: Callable[[int, int], None],
) -> NDArray[np.uint8]:
    model = build_segmenter("unet", len(CLASSES), seed=seed)
    crops = _Crops(training, bank, ratio, steps, seed)
    optimise(model, crops, CLASSES, seed=seed, progress=progress)
    return CLASSES.decode(predict(model, [held_out.image])[0])


def _iou(prediction: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """IoU of the coins."""
    confusion = confusion_matrix(CLASSES.encode(truth), CLASSES.encode(prediction), len(CLASSES))
    return float(iou_per_class(confusion)[1])


def _arm(name: str, values: Sequence[float], prediction: NDArray[np.uint8] | None = None) -> Arm:
    mean = fmean(values)
    reach = student_quantile(0.95, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Arm(name, tuple(values), mean, mean - reach, mean + reach, prediction)


def _columns(whole: Sample, columns: slice, name: str) -> Sample:
    image = np.ascontiguousarray(whole.image[:, columns])
    return Sample(image, np.ascontiguousarray(whole.mask[:, columns]), name, whole.grey)


def _dropped(bank: Bank, count: int) -> list[tuple[Sample, list[str]]]:
    """The first dropped samples, with reasons for the eye."""
    whole = Bank(bank, include_dropped=True)
    indices = [i for i, record in enumerate(whole.records) if not record["kept"]]
    return [
        (whole[i], [_REASONS.get(why, why) for why in whole.records[i]["reasons"]])
        for i in indices[:count]
    ]


def _settings(bank: Bank, seed: int) -> dict[str, object]:
    chosen, manifest = bank.manifest["filter"], bank.manifest
    versions = ", ".join(f"{name} {value}" for name, value in manifest["versions"].items())
    return {
        "seed": seed,
        "generator": f"preset fast, snapshot {manifest['generator']['sha256'][:12]}",
        "bank": f"{len(bank.all_records)} samples drawn, {len(bank)} kept",
        "filter": f"{chosen['rule']}, worst {100 * chosen['drop']:.0f} % dropped, stray blobs up "
        f"to {100 * chosen['max_stray']:.0f} %",
        "SIFID network": chosen["network"],
        "versions": versions,
    }


def _write_banner(path: Path, training: Sample, bank: Bank) -> None:
    """Save a picture of the pair and ten kept samples, small enough for a README."""
    pair = figures.grid([training.image, figures.overlay(training, CLASSES)], columns=1)
    kept = [figures.overlay(sample, CLASSES) for sample in islice(bank, 10)]
    right = figures.grid(kept, columns=5) if kept else pair
    space = np.full((len(pair), 18, 3), 255, np.uint8)
    height = min(len(pair), len(right))
    banner = Image.fromarray(np.hstack([part[:height] for part in (pair, space, right)]))
    small = banner.resize((banner.width * 3 // 4, banner.height * 3 // 4), Image.Resampling.LANCZOS)
    files.write_with(path, lambda target: small.quantize(128).save(target, "PNG", optimize=True))
