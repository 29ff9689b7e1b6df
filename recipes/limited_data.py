"""What do the plug-ins do where training pictures are few? A row per plug-in, in FID.

    python recipes/limited_data.py --out runs/limited-data
    python recipes/limited_data.py --out runs/limited-data --shares 1 0.2 0.1
    python recipes/limited_data.py --out runs/limited-data --gan transgan
    python recipes/limited_data.py --out runs/limited-data --source runs/source

Data: tiles of 32 px, none overlapping, of five colour photographs that scikit-image (in the extra
``dev``) carries: every other tile, as on a chess board, is held out, and a share of the others is
trained on. ``--photos`` takes a folder of other photographs. GAN: a small StyleGAN2, or a small
TransGAN with the same losses, without augmentations of its own, batch 8, so that a row shows one
plug-in alone. FID of 512 samples against the held-out tiles, through the bundled network's last
layer; the best and the last of eight looks, as papers take the best. The masking rows are those of
MaskedGAN's table 2 (FID on 10 % of CIFAR-10: none 48.1, spatial 28.4, with the shift 22.6, spectral
35.2, adaptive 28.8, both 15.9, with BigGAN and far longer training).

Hardware and result to expect: one CPU core, about two minutes a run, a run for each row, share and
seed; with TransGAN twice as long. RESULTS.md, "Plug-ins and MED-GAN": nothing overfits in 1200
steps, and no row is better than the baseline beyond its spread. OUT/table.md, of TransGAN
OUT/table-transgan.md, with a source OUT/table-adapted-SOURCE.md (and the name of a folder of
--photos behind it), is written after each run; OUT/runs holds each run's numbers with the curve of
D(x) - D(G(z)) and of k. Stop it at any time; the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from photograph_tiles import TILE_PX, describe, note_data, photographs, tiles
from recipe_options import Distinct, positive, run_main
from torch import Tensor

from synthaug import gans
from synthaug.engine import Engine
from synthaug.errors import InputError
from synthaug.files import read_json, write_json, write_text
from synthaug.fitting.adaptation import read_source
from synthaug.gans import stylegan2, transgan
from synthaug.gans.contract import GAN
from synthaug.plugins.ada import ADA
from synthaug.plugins.atopk import ATopK
from synthaug.plugins.diffaug import DiffAugment
from synthaug.plugins.embedding import MaskEmbeddingPlugin
from synthaug.plugins.hooks import Plugin
from synthaug.plugins.masking import MaskedGAN
from synthaug.quality.features import Lite0Features
from synthaug.quality.frechet import fid
from synthaug.seeding import derive_seed, torch_stream
from synthaug.training import LoopSettings, TrainingState, train

BATCH, SAMPLES, LOOKS, CURVE_EVERY, CURVE_POINTS = 8, 512, 8, 25, 6
CHANNELS, R1 = [64, 64, 32, 16], 1.0
GANS: dict[str, tuple[Callable[[], GAN], float, float]] = {
    "stylegan2": (
        lambda: stylegan2.build(TILE_PX, channels=CHANNELS, z_dim=64, w_dim=64, n_mlp=2, r1=R1),
        2e-3,
        2e-3,
    ),
    "transgan": (lambda: transgan.build(TILE_PX, r1=R1), 2e-4, 4e-4),
}
"""Name -> the GAN, learning rates of generator and discriminator."""
ROWS: dict[str, Callable[[int], list[Plugin]]] = {
    "baseline": lambda steps: [],
    "spatial": lambda steps: [MaskedGAN(spectral=False, shift=False)],
    "spatial+shift": lambda steps: [MaskedGAN(spectral=False)],
    "spectral": lambda steps: [MaskedGAN(spatial=False, adaptive=False)],
    "spectral+adaptive": lambda steps: [MaskedGAN(spatial=False)],
    "both": lambda steps: [MaskedGAN()],
    "atopk": lambda steps: [ATopK(swing=steps * BATCH // 4)],
    "linear top-k": lambda steps: [ATopK("linear", steps=steps, least=0.5)],
    "fixed top-k": lambda steps: [ATopK("fixed", k=BATCH // 2)],
    "both+atopk": lambda steps: [MaskedGAN(), ATopK(swing=steps * BATCH // 4)],
    "mask embedding": lambda steps: [MaskEmbeddingPlugin()],
    "regions": lambda steps: [MaskEmbeddingPlugin(regions=True)],
    "diffaug": lambda steps: [DiffAugment(0.5, close_up=1.0, colour=0.2)],
    "ada": lambda steps: [ADA(swing=steps * BATCH // 4)],
}
"""Name -> plug-ins of a run of some steps."""
OF_MAPS = ("mask embedding", "regions")
"""Rows that weigh feature maps, of which TransGAN has none."""


class ScoreCurve(Plugin):
    """Notes how far apart the scores of real and generated pictures lie; changes nothing."""

    name = "score curve"
    needs_scores = True

    def __init__(self) -> None:
        super().__init__()
        self.gaps: list[float] = []
        self._real = 0.0

    def observe(self, real_scores: Tensor) -> None:
        """Keep the real scores' mean."""
        self._real = float(real_scores.mean())

    def select(self, fake_scores: Tensor) -> None:
        """Note its distance to the fake scores' mean."""
        self.gaps.append(self._real - float(fake_scores.mean()))


def start(name: str, source: Path | None) -> GAN:
    """Build a GAN, with the weights of a trained one of 32 px where a source is given."""
    if source is None:
        return GANS[name][0]()
    found = read_source(source, "stylegan2")
    if found.size != TILE_PX:
        raise InputError(f"{source} makes pictures of {found.size} px: take a source of {TILE_PX}")
    gan = gans.build({**found.target_spec("plain"), "r1": R1})
    found.give(gan)
    return gan


def measure(
    name: str,
    source: Path | None,
    row: str,
    training: Tensor,
    reference: Tensor,
    net: Lite0Features,
    steps: int,
    seed: int,
) -> dict[str, Any]:
    """Train one run; return its FIDs at each look and its curves."""
    torch.manual_seed(derive_seed(seed, "limited data", "weights"))
    _, lr_generator, lr_discriminator = GANS[name]
    gan = start(name, source)
    curve, plugins = ScoreCurve(), ROWS[row](steps)
    settings = LoopSettings(
        iterations=steps,
        batch_size=BATCH,
        lr_generator=lr_generator,
        lr_discriminator=lr_discriminator,
        lr_pretrain=lr_generator,
        betas=(0.0, 0.99),
        ema=0.995,
        share_fakes=False,
        seed=derive_seed(seed, "limited data"),
    )
    state = TrainingState(gan, [*plugins, curve], settings)
    latents = gan.latent(SAMPLES, torch_stream(seed, "limited data", "samples"))
    fids: dict[str, float] = {}
    ks: list[int] = []
    began = time.process_time()

    def after_step(_: dict[str, Tensor]) -> bool:
        if state.step % CURVE_EVERY == 0:
            ks.extend(int(plugin.k) for plugin in plugins if isinstance(plugin, ATopK))
        if state.step % max(1, steps // LOOKS) == 0:
            with torch.inference_mode():
                noise = torch_stream(seed, "limited data", "noise")
                pairs = [gan.sample(state.ema, z, noise) for z in latents.split(64)]
                made = [pair.images[0].clamp(-1, 1) for pair in pairs]
            fids[str(state.step)] = fid(describe(torch.cat(made), net), reference)
        return False

    train(state, training, None, Engine("cpu", 1, "32-true"), after_step)
    gaps = [mean(curve.gaps[i : i + CURVE_EVERY]) for i in range(0, steps, CURVE_EVERY)]
    return {
        "fids": fids,
        "best": min(fids.values()),
        "last": list(fids.values())[-1],
        "score_gaps": gaps,
        "k": ks,
        "cpu_s": time.process_time() - began,
    }


def table(results: dict[tuple[str, float], list[dict[str, Any]]]) -> str:
    """Write the results so far as a table, mean over the seeds ± their standard deviation."""

    def cell(values: list[float]) -> str:
        spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
        return f"{mean(values):.1f}{spread}"

    lines = [
        "| share | row | seeds | best FID | last FID | D(x) - D(G(z)) at the end | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    for (row, share), runs in results.items():
        values = [[run[name] for run in runs] for name in ("best", "last", "cpu_s")]
        gap = cell([run["score_gaps"][-1] for run in runs])
        best, last, cpu = map(cell, values)
        lines.append(f"| {share:.0%} | {row} | {len(runs)} | {best} | {last} | {gap} | {cpu} |")
    return "\n".join(lines) + "\n\n" + curves(results)


def curves(results: dict[tuple[str, float], list[dict[str, Any]]]) -> str:
    """Write D(x) - D(G(z)) along the trainings as a table, means over the seeds."""
    points = min(
        CURVE_POINTS, *(len(run["score_gaps"]) for runs in results.values() for run in runs)
    )
    parts = [f"{100 * part / points:.0f} %" for part in range(1, points + 1)]
    lines = [
        f"| share | row | D(x) - D(G(z)) after {' | '.join(parts)} of the steps |",
        "|---|---|" + "---|" * points,
    ]
    for (row, share), runs in results.items():
        curve = np.mean([run["score_gaps"] for run in runs], 0)
        values = [f"{part[-1]:.1f}" for part in np.array_split(curve, points)]
        lines.append(f"| {share:.0%} | {row} | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train every row, share and seed that is not there yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photos", type=Path, help="folder of photographs")
    parser.add_argument("--gan", choices=GANS, default="stylegan2")
    parser.add_argument("--source", type=Path, help="a trained StyleGAN2 of 32 px to go on from")
    parser.add_argument(
        "--rows", nargs="+", action=Distinct, choices=ROWS, help="[all that the GAN takes]"
    )
    parser.add_argument("--shares", nargs="+", action=Distinct, type=float, default=[0.1])
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--steps", type=positive, default=1200)
    options = parser.parse_args(arguments)
    if not all(0 < share <= 1 for share in options.shares):
        raise InputError("--shares lie in (0, 1]: 0.1 trains on every tenth tile")
    pictures = photographs(options.photos)
    (training, _), (held_out, _) = tiles(pictures)
    if options.source is not None and options.gan != "stylegan2":
        raise InputError(f"a source goes with stylegan2, not with {options.gan}: leave it out")
    apart = OF_MAPS if options.gan == "transgan" else ()
    rows = options.rows or [row for row in ROWS if row not in apart]
    if refused := [row for row in rows if row in apart]:
        raise InputError(f"{options.gan} has no feature maps to weigh: leave out {refused[0]}")
    mark = "" if options.gan == "stylegan2" else f"-{options.gan}"
    if options.source is not None:
        read_source(options.source, "stylegan2")
        mark = f"-adapted-{options.source.name}"
    if options.photos is not None:
        mark += f"-{options.photos.name}"
    note_data(options.out / f"data{mark}.json", pictures, options.source)
    net = Lite0Features()
    reference = describe(held_out, net)
    results: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for seed in range(options.seeds):
        order = torch.randperm(len(training), generator=torch_stream(seed, "limited data", "tiles"))
        for share in options.shares:
            chosen = training[order[: max(1, round(share * len(training)))]]
            for row in rows:
                name = f"{row.replace(' ', '-')}-{share:g}-{seed}-{options.steps}{mark}.json"
                path = options.out / "runs" / name
                if not path.is_file():
                    how = options.gan, options.source
                    run = measure(*how, row, chosen, reference, net, options.steps, seed)
                    write_json(path, run)
                results.setdefault((row, share), []).append(read_json(path, "run"))
                write_text(options.out / f"table{mark}.md", table(results))
                best = results[row, share][-1]["best"]
                print(f"seed {seed}, {len(chosen)} tiles, {row}: FID {best:.1f}", file=sys.stderr)
    print((options.out / f"table{mark}.md").read_text(), end="")


if __name__ == "__main__":
    run_main(main)
