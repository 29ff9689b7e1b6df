"""MED-GAN on a ring of 8 Gaussians: are all modes found, how well, and how wide are they?

    python recipes/medgan_ring.py --out runs/medgan-ring

Data (section 5.2 of the paper): 8 Gaussians of standard deviation 0.1 around the unit circle, one a
class, 16 labelled and 256 unlabelled points of each. The paper writes "variance 0.1", with which
points spread at random over the square would pass for good ones. Points have no places and hence no
masks: the rows are those of the paper's table 1, the plain game of three players, with the
classifier's say in the generator's loss (recognition), and with the contrastive regulariser, whose
pairs come from (guessed) classes.

Measured on 2,500 points, the classes asked for in turn: modes with a point of quality nearest to
them; the share of points within 3 standard deviations of the nearest mean (HQ); KL of the shares of
the modes from uniform, every point counted to its nearest mode; the standard deviation of the
points of quality within a mode, the mean of the modes and the narrowest one (true points: 98.9 %
and 0.097); points whose nearest mode is the class asked for. The paper has, for the three rows,
5.3 / 7.8 / 8.0 modes, 58.9 / 87.2 / 96.7 % HQ and a KL of .184 / .123 / .081.

Hardware and result: under a minute of one CPU core for each row and seed; numbers in RESULTS.md.
OUT/table.md is written after each run; OUT/runs holds each run's numbers, and a picture of its
points. Stop it at any time; the same command goes on.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from PIL import Image
from recipe_options import Distinct, positive, run_main
from torch import Tensor

from synthaug.files import read_json, write_json, write_text, write_with
from synthaug.gans.medgan.losses import Weights
from synthaug.gans.medgan.networks import MedDiscriminator, PointGenerator, mlp
from synthaug.gans.medgan.training import Players, Settings, train
from synthaug.seeding import derive_seed, torch_stream

MODES, STD, LABELLED, UNLABELLED, SAMPLES = 8, 0.1, 16, 256, 2500
WIDTH, LATENT, BATCH, SUPERVISED_STEPS = 128, 16, 128, 200
PLAIN = Weights(recognition=0.0).without_regularisers()
ROWS = {
    "baseline": PLAIN,
    "+recognition": Weights().without_regularisers(),
    "+contrast": Weights(consistency=0.0, identification=0.0),
}
ANGLES = torch.arange(MODES) * (2 * math.pi / MODES)
MEANS = torch.stack([ANGLES.cos(), ANGLES.sin()], 1)


def ring(per_mode: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw points (8 n, 2) of the ring and their modes (8 n,)."""
    modes = torch.arange(MODES).repeat_interleave(per_mode)
    return MEANS[modes] + STD * torch.randn(len(modes), 2, generator=generator), modes


def judge(points: Tensor, asked: Tensor) -> dict[str, float]:
    """Compare points (n, 2), asked for as the classes (n,), with the ring."""
    distance, nearest = torch.cdist(points, MEANS).min(1)
    good = distance < 3 * STD
    shares = torch.bincount(nearest, minlength=MODES).double() / len(points)
    widths = [
        float((points[(nearest == k) & good] - MEANS[k]).var(0).mean().sqrt())
        for k in range(MODES)
        if int(((nearest == k) & good).sum()) > 1
    ]
    return {
        "modes": float(len(nearest[good].unique())),
        "hq_percent": 100 * float(good.float().mean()),
        "reverse_kl": float(torch.special.xlogy(shares, MODES * shares).sum()),
        "std": mean(widths) if widths else 0.0,
        "least_std": min(widths) if widths else 0.0,
        "class_percent": 100 * float((nearest == asked).float().mean()),
    }


def run(row: str, steps: int, seed: int) -> tuple[dict[str, float], Tensor]:
    """Train one row; return its numbers and its points."""
    labelled = ring(LABELLED, torch_stream(seed, "ring", "labelled"))
    unlabelled, _ = ring(UNLABELLED, torch_stream(seed, "ring", "unlabelled"))
    torch.manual_seed(derive_seed(seed, "ring", "weights"))
    generator = PointGenerator(MODES, WIDTH, LATENT)
    trunk = mlp(2, WIDTH, WIDTH)
    discriminator = MedDiscriminator(trunk, WIDTH, MODES, embed_masks=False)
    players = Players(generator, discriminator, mlp(2, WIDTH, MODES), LATENT, MODES)
    first = min(SUPERVISED_STEPS, steps)
    settings = Settings(steps, BATCH, weights=ROWS[row], supervised_steps=first, seed=seed)
    start = time.process_time()
    train(players, labelled, unlabelled, settings)
    seconds = time.process_time() - start
    asked = torch.arange(SAMPLES) % MODES
    z = torch.randn(SAMPLES, LATENT, generator=torch_stream(seed, "ring", "samples"))
    with torch.inference_mode():
        points = generator(z, asked)
    return {**judge(points, asked), "cpu_s": seconds}, points


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Write the results so far as a table, mean over the seeds ± their standard deviation."""
    lines = [
        "| row | seeds | modes | HQ % | reverse KL | std | narrowest | class % | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    digits = [1, 1, 4, 3, 3, 1, 0]
    for row, runs in results.items():
        cells = []
        for name, places in zip(runs[0], digits, strict=True):
            values = [one[name] for one in runs]
            spread = f" ± {stdev(values):.{places}f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.{places}f}{spread}")
        lines.append(f"| {row} | {len(runs)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def picture(points: Tensor, side: int = 256) -> np.ndarray:
    """Draw points of [-1.6, 1.6]² as an image (side, side, 3) uint8, y upwards."""
    canvas = np.full((side, side, 3), 255, np.uint8)
    place = ((points / 1.6 + 1) / 2 * side).long().clamp(0, side - 1).numpy()
    canvas[side - 1 - place[:, 1], place[:, 0]] = (20, 60, 160)
    return canvas


def main(arguments: Sequence[str] | None = None) -> None:
    """Train every row with every seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", action=Distinct, choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--steps", type=positive, default=2000)
    options = parser.parse_args(arguments)
    results: dict[str, list[dict[str, float]]] = {}
    for seed in range(options.seeds):
        for row in options.rows:
            path = options.out / "runs" / f"{row}-{seed}-{options.steps}.json"
            if not path.is_file():
                numbers, points = run(row, options.steps, seed)
                write_with(path.with_suffix(".png"), Image.fromarray(picture(points)).save)
                write_json(path, numbers)
            results.setdefault(row, []).append(read_json(path, "run"))
            write_text(options.out / "table.md", table(results))
            print(f"seed {seed}, {row}: {results[row][-1]}", file=sys.stderr)
    print((options.out / "table.md").read_text(), end="")


if __name__ == "__main__":
    run_main(main)
