"""One labelled frame of each of ten DAVIS-2016 videos: fit, generate 100, filter, evaluate.

    python recipes/ten_videos.py --out runs/ten-videos
    python recipes/ten_videos.py --out runs/ten-videos --plugins medgan-object

Data: ``--data`` names a folder with ``JPEGImages/VIDEO/00000.jpg`` and
``Annotations/VIDEO/00000.png`` (DAVIS-2016 at 427x240; default ``../shared/data/davis16-240p``).
Only frame 0 and its mask are read.
Hardware and result to expect: two CPU cores, 5 to 8 minutes a video; the table in the README.
Finished videos are kept in ``OUT/VIDEO.json`` and not run again; fits with plug-ins or another
seed in folders ``OUT/PLUGINS`` and ``seed-SEED`` of their own. Seeds: ``--seed`` of fit, bank and
evaluation alike. Intervals of means are those of `synthaug.gain.statistics` over videos.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

from recipe_options import Distinct, run_main

import synthaug
from synthaug.cli.progress import fit_progress
from synthaug.config import FitConfig
from synthaug.errors import InputError
from synthaug.evaluation.bank_quality import evaluate
from synthaug.files import write_json, write_text
from synthaug.gain.statistics import bootstrap_interval
from synthaug.report.scores import near_copies

SAMPLES = 100
COLUMNS = (
    "video",
    "fit s",
    "100 samples s",
    "kept",
    "SIFID-1..3 bank",
    "SIFID-1..3 standard aug.",
    "diversity / standard",
    "bank+standard / standard",
    "nearest training bank (standard)",
    "near copies",
    "mask agreement IoU",
    "mIoU",
)


def run_video(
    data: Path, video: str, out: Path, seed: int, plugins: tuple[str, ...] = ()
) -> dict[str, Any]:
    image = data / "JPEGImages" / video / "00000.jpg"
    mask = data / "Annotations" / video / "00000.png"
    start = time.perf_counter()
    generator = synthaug.fit(
        image,
        mask,
        out / video,
        overwrite=True,
        progress=fit_progress(),
        config=FitConfig(preset="fast", seed=seed, accelerator="cpu", plugins=plugins),
    )
    fitted = time.perf_counter()
    bank = synthaug.generate(
        generator, out / f"{video}-bank", SAMPLES, seed, filter="sifid", overwrite=True
    )
    drawn = time.perf_counter()
    return {
        "video": video,
        "fit_s": fitted - start,
        "bank_s": drawn - fitted,
        "kept": len(bank),
        "quality": evaluate(bank, seed=seed),
    }


def row(result: dict[str, Any]) -> list[str]:
    quality = result["quality"]
    near = quality["nearest_training_distance"]

    def three(values: list[float]) -> str:
        return " / ".join(f"{value:.0f}" for value in values[:3])

    return [
        result["video"],
        f"{result['fit_s']:.0f}",
        f"{result['bank_s']:.0f}",
        str(result["kept"]),
        three(quality["sifid"]["bank"]),
        three(quality["sifid"]["standard"]),
        f"{quality['diversity']['ratio']:.2f}",
        f"{quality['diversity']['combined_ratio']:.2f}",
        f"{near['bank']['mean']:.2f} ({near['standard']['mean']:.2f})",
        str(near_copies(quality["memorised"])),
        f"{quality['mask_agreement']['foreground_iou']:.2f}",
        f"{quality['mask_agreement']['miou']:.2f}",
    ]


def interval(values: list[float]) -> str:
    """Mean and 95 % interval over videos."""
    mean, low, high = bootstrap_interval(values)
    return (
        f"{mean:.2f} [{low:.2f}, {high:.2f}]"
        if math.isfinite(low) and low < high
        else f"{mean:.2f}"
    )


def table(results: list[dict[str, Any]], seed: int) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(row(result)) + " |" for result in results]

    def mean(get: Any) -> str:
        return interval([float(get(result)) for result in results])

    lines.append(
        "| **mean [95 %]** | "
        + " | ".join(
            [
                mean(lambda r: r["fit_s"]),
                mean(lambda r: r["bank_s"]),
                mean(lambda r: r["kept"]),
                "",
                "",
                mean(lambda r: r["quality"]["diversity"]["ratio"]),
                mean(lambda r: r["quality"]["diversity"]["combined_ratio"]),
                mean(lambda r: r["quality"]["nearest_training_distance"]["bank"]["mean"]),
                mean(lambda r: near_copies(r["quality"]["memorised"])),
                mean(lambda r: r["quality"]["mask_agreement"]["foreground_iou"]),
                mean(lambda r: r["quality"]["mask_agreement"]["miou"]),
            ]
        )
        + " |"
    )
    hardware = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"
    return "\n".join(lines) + f"\n\nSeed {seed}. {hardware}, {results[0]['quality']['network']}.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/davis16-240p"))
    parser.add_argument("--out", type=Path, default=Path("runs/ten-videos"))
    parser.add_argument("--videos", nargs="*", action=Distinct)
    parser.add_argument("--plugins", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    plugins = tuple(options.plugins)
    out = options.out / "+".join(plugins) / (f"seed-{options.seed}" if options.seed else "")
    if not (options.data / "JPEGImages").is_dir():
        raise InputError(f"no DAVIS frames at {options.data}: name them with --data")
    videos = options.videos or sorted(p.name for p in (options.data / "JPEGImages").iterdir())
    results = []
    for video in videos:
        kept = out / f"{video}.json"
        if not kept.is_file():
            write_json(kept, run_video(options.data, video, out, options.seed, plugins))
        results.append(json.loads(kept.read_text()))
        print(" | ".join(row(results[-1])), flush=True)
    text = table(results, options.seed)
    write_text(out / "table.md", text)
    print("\n" + text)


if __name__ == "__main__":
    run_main(main)
