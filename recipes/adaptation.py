"""What keeps a generator varied that is adapted to ten pictures? A row per way, in FID and variety.

    python recipes/adaptation.py --data CAMVID/train --out runs/adaptation

A small StyleGAN2 of 32 px, or with ``--gan biggan`` a BigGAN, learns from squares cut out of
``--data``, CamVid's training frames or any folder of photographs. Then every row adapts it to ten
tiles of a photograph that scikit-image (in the extra ``dev``) carries: ``motorcycle`` (a photograph
of things, as the source's) and ``ihc`` (stained tissue, nothing like them); ``coins`` on request.
FID of 512 samples of the last step against the photograph's other tiles, through the bundled
network's last layer; intra: mean perceptual distance among samples that are nearest to the same of
the ten tiles; tiles reached: those of the ten that 2 % of the samples are nearest to; jump: largest
step over mean step of perceptual distance along a line between two latents, 1 if even, mean of 32
lines. The first rows: FID of the ten tiles themselves, and of one half of the others against the
other half. The rows are those of the thesis' table 7.3 (face to anime, FID / intra-LPIPS: plain
178.0 / .21, L_all 116.4 / .36, SS 180.7 / .61, both 97.3 / .57; FreezeD 112.4 / .22), which needed
256 px and a GPU. ``--rows path`` is plain fine-tuning with path-length regularisation, of StyleGAN2
alone; the thesis has it beside L_all, 107.8 / .46.

Hardware and result to expect: one CPU core, half an hour for 5000 steps of either source, one to
three minutes for 800 of a row, seven to twelve for 2000, 11 to 16 for 5000; RESULTS.md, "Few-shot
adaptation". OUT/table.md is written after each run, OUT/strips holds rows of pictures between
latents. Stop it at any time; the same command goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from PIL import Image
from recipe_options import Distinct, positive, run_main

from synthaug.bank import pictures_behind
from synthaug.cli.progress import fit_progress
from synthaug.config import FitConfig
from synthaug.errors import InputError
from synthaug.evaluation.picture_quality import (
    SAMPLES,
    Drawn,
    check_held_out,
    distances,
    draw_pictures,
    evaluate_pictures,
)
from synthaug.files import read_json, sha256_bytes, write_json, write_text, write_with
from synthaug.fitting import fit
from synthaug.fitting.adaptation import NAMES
from synthaug.fitting.fit_folder import CHECKPOINT, FitFolder
from synthaug.fitting.presets import check
from synthaug.fitting.training_pairs import class_folders
from synthaug.formats.folder import list_images, read_image
from synthaug.generation import Generator
from synthaug.quality.features import Lite0Features
from synthaug.sample import IGNORE_ID, Sample
from synthaug.seeding import numpy_stream

SIDE_PX, TILE_PX, SHOTS, SHOWN = 32, 48, 10, 4
TARGETS = {"motorcycle": "stereo_motorcycle", "ihc": "immunohistochemistry", "coins": "coins"}
ROWS = ("plain", "freezed", "blocks", "smoothness", "both")


def tiles(target: str, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Cut a photograph into ten tiles to adapt to and the others, each (32, 32, 3) uint8."""
    try:
        from skimage import data
    except ImportError as error:
        raise InputError("the photographs come with scikit-image: install synthaug[dev]") from error
    found = getattr(data, TARGETS[target])()
    picture = Image.fromarray(found[0] if isinstance(found, tuple) else found).convert("RGB")
    cut = [
        picture.resize((SIDE_PX, SIDE_PX), box=(x, y, x + TILE_PX, y + TILE_PX), reducing_gap=3)
        for y in range(0, picture.height - TILE_PX + 1, TILE_PX)
        for x in range(0, picture.width - TILE_PX + 1, TILE_PX)
    ]
    order = numpy_stream(seed, "adaptation", target).permutation(len(cut))
    shuffled = [np.asarray(cut[i]) for i in order]
    return shuffled[:SHOTS], shuffled[SHOTS:]


def fitted(out: Path, images: Path, config: FitConfig) -> Generator:
    """Fit a generator, or go on with it; one of other pictures or settings is refused."""
    resume = (out / CHECKPOINT).is_file()
    if resume and not same_fit(out, images, config):
        raise InputError(f"{out} was fitted to other pictures, or otherwise: choose another --out")
    fit(
        images=None if resume else images,
        out=out,
        resume=resume,
        overwrite=True,
        progress=fit_progress(),
        config=config,
    )
    return Generator(out)


def same_fit(out: Path, images: Path, config: FitConfig) -> bool:
    """Whether a folder is of these pictures and settings, wherever it was fitted."""
    manifest, kept = FitFolder(out).read_manifest(), FitFolder(out).read_config()
    here = {name: getattr(kept, name) for name in ("preset", "accelerator", "source")}
    if kept != replace(config, **here) or (kept.source is None) != (config.source is None):
        return False
    classes = class_folders(images) if config.generator == "biggan" else []
    paths = [path for folder in classes or [images] for path in list_images(folder)]
    given = {sha256_bytes(read_image(path)[0].tobytes()) for path in paths}
    if config.source is not None:
        return pictures_behind(out) == given | pictures_behind(Path(config.source))
    learned = set(manifest.get("learned_from", given))  # of a large class some are left out
    return learned <= given if classes else learned == given


def measure(
    generator: Generator, drawn: Drawn, rest: Sequence[np.ndarray], net: Lite0Features
) -> dict[str, Any]:
    """Score a generator: FID to the rest, diversity around the few, jumps between latents."""
    held_out = check_held_out(generator, samples(rest))
    found = evaluate_pictures(generator, drawn, held_out, net=net)
    return {
        "fid": found["fid"]["generated"],
        "reached": found["reached"],
        "intra": found["intra_diversity"],
        "jump": found["jump"],
    }


def anchors(
    few: Sequence[np.ndarray], rest: Sequence[np.ndarray], net: Lite0Features
) -> dict[str, dict[str, Any]]:
    """Score the ten tiles themselves, and half of the other tiles against the other half."""

    def distance(one: Sequence[np.ndarray], two: Sequence[np.ndarray]) -> dict[str, Any]:
        return {"fid": distances({"one": samples(one)}, samples(two), net)["fid"]["one"]}

    halves = distance(rest[::2], rest[1::2])
    return {"the ten tiles": distance(few, rest), "half of the others": halves}


def samples(found: Sequence[np.ndarray]) -> list[Sample]:
    """Make samples without masks of tiles."""
    return [Sample(tile, np.full(tile.shape[:2], IGNORE_ID, np.uint8)) for tile in found]


def table(results: dict[tuple[str, str], list[dict[str, Any]]]) -> str:
    """Write the results so far as a table, mean over the seeds ± their standard deviation."""

    def cell(runs: list[dict[str, Any]], name: str, digits: int) -> str:
        values = [run[name] for run in runs if name in run]
        if not values:
            return ""
        spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
        return f"{mean(values):.{digits}f}{spread}"

    lines = ["| target | row | seeds | FID ↓ | intra ↑ | tiles reached ↑ | jump ↓ |"]
    lines.append("|---" * 7 + "|")
    columns = (("fid", 2), ("intra", 3), ("reached", 1), ("jump", 2))
    for (target, row), runs in results.items():
        figures = " | ".join(cell(runs, name, digits) for name, digits in columns)
        lines.append(f"| {target} | {row} | {len(runs)} | {figures} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the source, then every target, row and seed that is not there yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="photographs of the source")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--gan", choices=NAMES, default="stylegan2")
    parser.add_argument(
        "--targets", nargs="+", action=Distinct, choices=TARGETS, default=["motorcycle", "ihc"]
    )
    parser.add_argument(
        "--rows", nargs="+", action=Distinct, choices=(*ROWS, "path"), default=list(ROWS)
    )
    parser.add_argument("--seeds", type=positive, default=2)
    parser.add_argument("--source-steps", type=positive, default=10_000)
    parser.add_argument("--steps", type=positive, default=2000)
    options = parser.parse_args(arguments)
    common: dict[str, Any] = {"generator": options.gan, "accelerator": "cpu"}
    common["precision"] = "32-true"
    kind = "" if options.gan == "stylegan2" else f"{options.gan}-"
    source = options.out / f"{kind}source-{options.source_steps}"
    adapting = FitConfig(**common, source=str(source), iterations=options.steps)
    configs = {row: replace(adapting, adaptation=row) for row in options.rows}
    for config in configs.values():
        check(config)  # before the source takes its time
    config = FitConfig(**common, max_size=SIDE_PX, iterations=options.source_steps)
    fitted(source, options.data, config)
    net = Lite0Features()
    results: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for seed in range(options.seeds):
        for target in options.targets:
            few, rest = tiles(target, seed)
            images = options.out / "targets" / f"{target}-{seed}"
            for i, tile in enumerate(few):
                write_with(images / f"{i}.png", Image.fromarray(tile).save)
            for row, scores in anchors(few, rest, net).items():
                results.setdefault((target, row), []).append(scores)
            for row, config in configs.items():
                name = f"{kind}{target}-{row}-{seed}-{options.source_steps}-{options.steps}"
                path = options.out / "runs" / f"{name}.json"
                if not path.is_file():
                    own = replace(config, seed=seed)
                    generator = fitted(options.out / "runs" / name, images, own)
                    drawn = draw_pictures(generator, samples=SAMPLES)
                    shown = drawn.strips[:SHOWN]
                    lines = [np.concatenate([s.image for s in row], 1) for row in shown]
                    sheet = np.concatenate(lines)
                    big = sheet.repeat(2, 0).repeat(2, 1)
                    write_with(options.out / "strips" / f"{name}.png", Image.fromarray(big).save)
                    write_json(path, measure(generator, drawn, rest, net))
                results.setdefault((target, row), []).append(read_json(path, "run"))
                write_text(options.out / f"{kind}table.md", table(results))
    print((options.out / f"{kind}table.md").read_text(), end="")


if __name__ == "__main__":
    run_main(main)
