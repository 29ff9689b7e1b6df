"""MED-GAN on crops of photographs: does it draw better, and does its classifier err less?

    python recipes/medgan_crops.py --out runs/medgan-crops

Data: tiles of 32 px, none overlapping, of five colour photographs that scikit-image (in the extra
``dev``) carries; the photograph is the class. Every other tile, as on a chess board, is held out;
of the others, some of each class are labelled. ``--photos`` takes a folder of other photographs.

Rows: the classifier alone on the labelled tiles; the game of three players; with the mask embedding
in the discriminator; with the regularisers (consistency, contrast, identification) as well, as in
the paper's table 2 (FID on CIFAR-10: 13.7, 9.1, 6.9). Told of each: the classifier's error on the
held-out tiles; FID of 512 samples against them, through the bundled network's last layer; how
varied samples of one class are, perceptually, beside the held-out tiles of one class (1: as
varied); the share of samples that a classifier trained on all labels takes for the class asked for.
Generator and discriminator learn at rates of their own: at one rate for all, the published way, the
discriminator tells nothing apart in so short a training, and samples of a class become all alike.

Hardware and result to expect: eight to fourteen minutes of one CPU core a run, a run for each row
and seed; RESULTS.md, "Plug-ins and MED-GAN": nothing beats the labelled tiles alone. OUT/table.md
is written after each run, OUT/runs holds each run's numbers and a sheet of samples, a row per
class. Stop it at any time; the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
import torch.nn.functional as F
from photograph_tiles import TILE_PX, Tiles, describe, note_data, photographs, tiles
from PIL import Image
from recipe_options import Distinct, positive, run_main
from torch import Tensor, nn

from synthaug.errors import InputError
from synthaug.files import read_json, write_json, write_text, write_with
from synthaug.gans.medgan.losses import Weights
from synthaug.gans.medgan.networks import (
    ImageGenerator,
    ImageTrunk,
    MedDiscriminator,
    image_classifier,
)
from synthaug.gans.medgan.training import Players, Settings, train
from synthaug.quality.features import Lite0Features
from synthaug.quality.frechet import fid
from synthaug.quality.perceptual import PerceptualSpace, pairwise_diversity
from synthaug.seeding import derive_seed, torch_stream

BATCH, SAMPLES, WIDTH, LATENT = 16, 512, 16, 64
LR, LR_GENERATOR, LR_DISCRIMINATOR = 2e-4, 5e-5, 4e-4
SUPERVISED_STEPS = 100
PLAIN = Weights().without_regularisers()
ROWS = {
    "labelled alone": None,
    "baseline": (False, PLAIN),
    "+mask embedding": (True, PLAIN),
    "+regularisers": (True, Weights()),
}
"""Name -> whether masks are embedded, and the weights; None: the classifier alone."""


def classed_tiles(pictures: Sequence[np.ndarray]) -> tuple[Tiles, Tiles]:
    """Cut pictures into tiles to train on and tiles held out, of every picture some."""
    for number, picture in enumerate(pictures):
        if min(picture.shape[:2]) < 2 * TILE_PX:
            raise InputError(
                f"photograph {number} gives too few tiles: take some from 64 px a side"
            )
    return tiles(pictures)


def hide_labels(training: Tiles, per_class: int, seed: int) -> tuple[Tiles, Tensor]:
    """Keep the labels of some tiles of each class; return these, and the others."""
    images, labels = training
    order = torch.randperm(len(images), generator=torch_stream(seed, "crops", "labels"))
    kept = torch.zeros(len(images), dtype=torch.bool)
    for k in range(int(labels.max()) + 1):
        kept[order[labels[order] == k][:per_class]] = True
    if kept.all():
        raise InputError(f"no tile is left without its label: lower --labelled {per_class}")
    return (images[kept], labels[kept]), images[~kept]


def train_classifier(data: Tiles, classes: int, steps: int, seed: int) -> nn.Module:
    """Train a classifier on labelled tiles alone, with MED-GAN's learning rate and batch."""
    torch.manual_seed(derive_seed(seed, "crops", "classifier"))
    net = image_classifier(classes, WIDTH)
    optimizer = torch.optim.Adam(net.parameters(), lr=LR, betas=(0.0, 0.999), fused=True)
    for _ in range(steps):
        pick = torch.randint(len(data[0]), (BATCH,))
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(net(data[0][pick]), data[1][pick]))
        optimizer.step()
    return net.eval()


@torch.inference_mode()
def error_percent(net: nn.Module, data: Tiles) -> float:
    """Share of tiles (n, 3, 32, 32) that a classifier gets wrong, in percent."""
    guess = torch.cat([net(part).argmax(1) for part in data[0].split(64)])
    return 100 * float((guess != data[1]).float().mean())


class Judge:
    """What generated tiles are held against.

    Args:
        training: with all labels, for the classifier that reads the class of samples.
        held_out: tiles that nothing trains on.
        steps: of that classifier.
    """

    def __init__(self, training: Tiles, held_out: Tiles, steps: int) -> None:
        self.held_out = held_out
        self.classes = int(training[1].max()) + 1
        self.net = Lite0Features()
        self.reference = describe(held_out[0], self.net)
        self.reader = train_classifier(training, self.classes, steps, seed=0)
        self.space = PerceptualSpace(TILE_PX, TILE_PX, self.net)

    def score(self, images: Tensor, asked: Tensor) -> dict[str, float]:
        """Score generated tiles that were asked for as classes (n,)."""
        return {
            "fid": fid(describe(images, self.net), self.reference),
            "variety": self._variety((images, asked)) / self._variety(self.held_out),
            "class_percent": 100 - error_percent(self.reader, (images, asked)),
        }

    def _variety(self, data: Tiles) -> float:
        """Mean perceptual distance between tiles of one class, over the classes."""
        images, labels = data
        classes = [(images[labels == k] + 1) / 2 for k in range(self.classes)]
        return mean(pairwise_diversity(one, self.space) for one in classes)


def run(
    row: str, labelled: Tiles, unlabelled: Tensor, judge: Judge, steps: int, seed: int
) -> tuple[dict[str, float], Tensor | None]:
    """Train one row; return its numbers and, of a GAN, samples in the order of classes."""
    start, K = time.process_time(), judge.classes
    first = min(SUPERVISED_STEPS, steps)
    kind = ROWS[row]
    if kind is None:
        net = train_classifier(labelled, K, first + steps, seed)
        numbers = {"error_percent": error_percent(net, judge.held_out)}
        return {**numbers, "cpu_s": time.process_time() - start}, None
    embed_masks, weights = kind
    torch.manual_seed(derive_seed(seed, "crops", "weights"))
    trunk = ImageTrunk(TILE_PX, WIDTH)
    players = Players(
        ImageGenerator(TILE_PX, K, WIDTH, LATENT),
        MedDiscriminator(trunk, trunk.channels, K, embed_masks=embed_masks),
        image_classifier(K, WIDTH),
        LATENT,
        K,
    )
    settings = Settings(
        steps,
        BATCH,
        LR,
        LR_GENERATOR,
        LR_DISCRIMINATOR,
        weights=weights,
        supervised_steps=first,
        seed=seed,
    )
    train(players, labelled, unlabelled, settings)
    seconds = time.process_time() - start
    z = torch.randn(SAMPLES, LATENT, generator=torch_stream(seed, "crops", "samples"))
    asked = torch.arange(SAMPLES) * K // SAMPLES
    generator = players.generator.eval()
    with torch.inference_mode():
        made = torch.cat(
            [generator(*part) for part in zip(z.split(64), asked.split(64), strict=True)]
        )
    error = error_percent(players.classifier.eval(), judge.held_out)
    return {"error_percent": error, **judge.score(made, asked), "cpu_s": seconds}, made


def sheet(images: Tensor, classes: int, columns: int = 12) -> Image.Image:
    """Lay out the first samples of every class, a row per class."""
    rows = [part[:columns] for part in images.tensor_split(classes)]
    grid = torch.cat([torch.cat(list(row), 2) for row in rows], 1)  # (3, K 32, columns 32)
    return Image.fromarray(((grid + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Write the results so far as a table, mean over the seeds ± their standard deviation."""
    columns = {"error_percent": 1, "fid": 1, "variety": 2, "class_percent": 1, "cpu_s": 0}
    lines = [
        "| row | seeds | classifier error % | FID | variety within a class / held-out tiles' "
        "| samples of the class asked for % | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, runs in results.items():
        cells = []
        for name, digits in columns.items():
            values = [one[name] for one in runs if name in one]
            spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.{digits}f}{spread}" if values else "")
        lines.append(f"| {row} | {len(runs)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train every row with every seed that is not there yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photos", type=Path, help="folder of photographs, each a class")
    parser.add_argument("--rows", nargs="+", action=Distinct, choices=ROWS, default=list(ROWS))
    parser.add_argument("--labelled", type=positive, default=8, help="labelled tiles of each class")
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--steps", type=positive, default=2000)
    options = parser.parse_args(arguments)
    pictures = photographs(options.photos)
    training, held_out = classed_tiles(pictures)
    mark = "" if options.photos is None else f"-{options.photos.name}"
    note_data(options.out / f"data{mark}.json", pictures)
    judge = Judge(training, held_out, options.steps)
    results: dict[str, list[dict[str, float]]] = {}
    for seed in range(options.seeds):
        labelled, unlabelled = hide_labels(training, options.labelled, seed)
        for row in options.rows:
            name = f"{row.replace(' ', '-')}-{options.labelled}-{seed}-{options.steps}{mark}.json"
            path = options.out / "runs" / name
            if not path.is_file():
                numbers, made = run(row, labelled, unlabelled, judge, options.steps, seed)
                if made is not None:
                    write_with(path.with_suffix(".png"), sheet(made, judge.classes).save)
                write_json(path, numbers)
            results.setdefault(row, []).append(read_json(path, "run"))
            write_text(options.out / f"table{mark}.md", table(results))
            error = results[row][-1]["error_percent"]
            print(f"seed {seed}, {row}: classifier error {error:.1f} %", file=sys.stderr)
    print((options.out / f"table{mark}.md").read_text(), end="")


if __name__ == "__main__":
    run_main(main)
