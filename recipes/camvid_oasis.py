"""What OASIS paints on CamVid, whole and with parts left out: one table and a sheet of samples.

    python recipes/camvid_oasis.py --out runs/camvid-oasis
    python recipes/camvid_oasis.py --out runs/camvid-oasis-small --preset small --accelerator cuda

Data: ``--data`` names a folder with ``train`` and ``val`` (photographs) and ``trainannot`` and
``valannot`` (index masks), CamVid in SegNet's split at 256x192; id 11 is void (default
``../shared/data/camvid-256x192``). Each row is fitted on train and paints the masks of val, which
`synthaug.evaluation.painting_quality.evaluate_painter` measures; one U-Net, trained on train's real
pictures alone, judges all rows.

Rows: ``full``; ``no-labelmix``, ``no-balance``, ``no-noise``: one thing left out; with
``--ablation-steps`` other than ``--steps`` also ``full-short``, the whole in the ablations' steps,
which is what they compare with. The last row shows the same figures of real pictures: FID, KID,
colour and texture of training pictures, mIoU on the held-out pictures themselves.

Finished rows are kept in ``OUT/ROW.json`` and not run again; a stopped fit goes on, and the U-Net
is kept in ``OUT/judge.safetensors``, with what decided it in ``OUT/judge.json``. OUT/table.md
and OUT/samples.png (mask, photograph, two painted pictures, of the first row) are written after
each row.
Hardware to expect: two CPU cores, about an hour for the 3000 steps of ``fast``, then minutes to
measure; ``small`` needs a GPU.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from recipe_options import Distinct, positive, run_main
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

import synthaug
from synthaug.cli.progress import fit_progress, stage_progress
from synthaug.config import FitConfig
from synthaug.errors import InputError
from synthaug.evaluation.painting_quality import build_judge, evaluate_painter, train_judge
from synthaug.files import read_json, sha256_bytes, write_bytes, write_json, write_text, write_with
from synthaug.fitting.presets import oasis
from synthaug.fitting.training_pairs import read_training_pairs
from synthaug.formats.folder import palette
from synthaug.gain.hardware import hardware
from synthaug.generation import MapGenerator
from synthaug.report.figures import grid
from synthaug.sample import ClassMap, Sample
from synthaug.segmenters.contract import Learner

VOID = 11
ROWS = {
    "full": None,
    "full-short": None,
    "no-labelmix": "labelmix",
    "no-balance": "balance",
    "no-noise": "noise",
}
"""Row -> what is left out; all but the first take ``--ablation-steps``."""
SHEET_MAPS = 6


class Judge:
    """The segmenter of all rows, trained when the first of them needs it, and kept in a folder."""

    def __init__(self, pairs: list[Sample], steps: int, folder: Path) -> None:
        self.pairs, self.steps = pairs, steps
        self.weights, self.about = folder / "judge.safetensors", folder / "judge.json"
        self._learner: Learner | None = None

    def learner(self, classes: ClassMap) -> Learner:
        """Return it, for painters of these classes."""
        if self._learner is None:
            digest = hashlib.sha256()
            for pair in self.pairs:
                digest.update(pair.image.tobytes() + pair.mask.tobytes())
            decided = {"steps": self.steps, "classes": list(classes.ids)}
            decided["pixels_sha256"] = digest.hexdigest()
            self._learner = self._kept(classes, decided) or self._train(classes, decided)
        return self._learner

    def _kept(self, classes: ClassMap, decided: dict[str, Any]) -> Learner | None:
        """The one that was trained before, if it was trained alike and its file is whole."""
        if not (self.about.is_file() and self.weights.is_file()):
            return None
        data = self.weights.read_bytes()
        if read_json(self.about, "judge") != {**decided, "weights_sha256": sha256_bytes(data)}:
            print("judge: the one that is there is another, or damaged", flush=True)
            return None
        learner = build_judge(self.pairs, classes)
        learner.network.load_state_dict(load_safetensors(data))
        return learner

    def _train(self, classes: ClassMap, decided: dict[str, Any]) -> Learner:
        print(f"judge: {self.steps} steps on real pictures", flush=True)
        learner = train_judge(self.pairs, classes, steps=self.steps)
        state = learner.network.state_dict()
        data = save_safetensors({name: t.cpu().contiguous() for name, t in state.items()})
        write_bytes(self.weights, data)
        write_json(self.about, {**decided, "weights_sha256": sha256_bytes(data)})
        return learner


def steps_of(options: argparse.Namespace, row: str) -> int:
    whole = options.steps or oasis.LOOP[options.preset]["iterations"]
    return whole if row == "full" else options.ablation_steps or whole


def chosen_rows(options: argparse.Namespace) -> list[str]:
    if options.rows:
        return [row for row in ROWS if row in options.rows]
    short = steps_of(options, "full-short") != steps_of(options, "full")
    return [row for row in ROWS if short or row != "full-short"]


def run_row(
    options: argparse.Namespace, row: str, held_out: list[Sample], judge: Judge
) -> dict[str, Any]:
    """Fit and measure one row, or go on where it was left."""
    config = FitConfig(
        generator="oasis",
        preset=options.preset,
        iterations=steps_of(options, row),
        seed=options.seed,
        accelerator=options.accelerator,
        ignore=(VOID,),
        ablate=ROWS[row],
    )
    settings = {"fit": json.loads(json.dumps(asdict(config))), "judge_steps": options.judge_steps}
    kept, folder = options.out / f"{row}.json", options.out / row
    if kept.is_file():
        result = read_json(kept, "row")
        if settled(result["settings"]) != settled(settings):
            raise InputError(f"{kept} has other settings: choose another --out, or remove it")
        return result
    print(f"{row}: {config.iterations} steps", flush=True)
    begun = (folder / "manifest.json").is_file()
    if begun:
        fitted = {**settings, "fit": read_json(folder / "manifest.json", "manifest")["config"]}
        if settled(fitted) != settled(settings):
            raise InputError(f"{folder} was fitted otherwise: choose another --out, or remove it")
    train = {"images": options.data / "train", "masks": options.data / "trainannot"}
    source: dict[str, Any] = {"resume": True} if begun else train
    synthaug.fit(out=folder, progress=fit_progress(), config=config, **source)
    painter = MapGenerator(folder, accelerator=options.accelerator)
    quality = evaluate_painter(
        painter,
        held_out,
        seed=options.seed,
        segmenter=judge.learner(painter.classes),
        noises=options.noises,
        progress=stage_progress(),
    )
    result = {"settings": settings, "fit_s": fit_seconds(folder), "quality": quality}
    write_json(kept, result)
    return result


def settled(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out options at their defaults: rows made before an option came stay valid."""
    usual = json.loads(json.dumps(asdict(FitConfig())))
    fit = {name: value for name, value in settings["fit"].items() if value != usual.get(name)}
    return {**settings, "fit": fit}


def fit_seconds(folder: Path) -> float:
    """Seconds that a fit took; after a pause its clock starts at 0 again."""
    total = last = 0.0
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        seconds = json.loads(line).get("seconds", last)
        total += seconds - last if seconds >= last else seconds
        last = seconds
    return total


def table(results: dict[str, dict[str, Any]], seed: int) -> str:
    first = next(iter(results.values()))["quality"]
    shares = " / ".join(f"{100 * g['share']:.1f} %" for g in first["miou"]["groups"])
    columns = (
        *("row", "steps", "fit s", "FID", "KID x 1000", "mIoU", f"mIoU of classes of {shares}"),
        *("MS-SSIM", "perceptual diversity", "colour", "texture"),
    )
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row, result in results.items():
        quality = result["quality"]
        diversity = quality["diversity"]
        start = [row, str(result["settings"]["fit"]["iterations"]), f"{result['fit_s']:.0f}"]
        varied = [f"{diversity['ms_ssim']:.2f}", f"{diversity['perceptual']:.2f}"]
        lines.append(line(start, quality, varied, "painted", "painted"))
    lines.append(line(["real pictures", "", ""], first, ["", ""], "training", "real"))
    return "\n".join(lines) + (
        f"\n\n{first['samples']} held-out masks, seed {seed}. FID and KID by {first['network']}, "
        f"+- one standard error. MS-SSIM over {first['diversity']['scales']} scales and perceptual "
        f"diversity: {first['diversity']['noises']} pictures each of {first['diversity']['maps']} "
        "masks. " + ", ".join(f"{key} {value}" for key, value in hardware().items()) + ".\n"
    )


def line(
    start: list[str], quality: dict[str, Any], varied: list[str], name: str, segmented: str
) -> str:
    kid, miou = quality["kid"][name], quality["miou"]
    cells = [
        *start,
        f"{quality['fid'][name]:.3f}",
        f"{1000 * kid['value']:.2f} +- {1000 * kid['error']:.2f}",
        f"{100 * miou[segmented]:.1f}",
        " / ".join(percent(group[segmented]) for group in miou["groups"]),
        *varied,
        f"{quality['colour'][name]:.2f}",
        f"{quality['texture'][name]:.4f}",
    ]
    return "| " + " | ".join(cells) + " |"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def write_sheet(path: Path, painter: MapGenerator, held_out: list[Sample]) -> None:
    """A row per held-out mask: its classes in colour, its photograph, two painted pictures."""
    tiles = []
    for index in np.linspace(0, len(held_out) - 1, SHEET_MAPS).round().astype(int).tolist():
        sample = held_out[index]
        tiles += [palette()[sample.mask], sample.image]
        tiles += [painter.render(sample.mask, seed) for seed in (0, 1)]
    sheet = Image.fromarray(grid(tiles, 4))
    write_with(path, lambda temporary: sheet.save(temporary))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/camvid-256x192"))
    parser.add_argument("--out", type=Path, default=Path("runs/camvid-oasis"))
    parser.add_argument(
        "--rows", nargs="+", action=Distinct, choices=ROWS, help="some of the rows only"
    )
    parser.add_argument("--preset", choices=("fast", "small", "paper"), default="fast")
    parser.add_argument("--steps", type=positive, help="of the row full [the preset's]")
    parser.add_argument("--ablation-steps", type=positive, help="of the other rows [as --steps]")
    parser.add_argument("--judge-steps", type=positive, default=400, help="of the U-Net")
    parser.add_argument(
        "--noises", type=positive, default=20, help="pictures per mask, for diversity"
    )
    parser.add_argument("--accelerator", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    held_out, training = (
        read_training_pairs(
            None, None, options.data / part, options.data / f"{part}annot", (VOID,)
        )[0]
        for part in ("val", "train")
    )
    judge = Judge(training, options.judge_steps, options.out)
    results: dict[str, dict[str, Any]] = {}
    for row in chosen_rows(options):
        results[row] = run_row(options, row, held_out, judge)
        text = table(results, options.seed)
        write_text(options.out / "table.md", text)
        print("\n" + text, flush=True)
        if len(results) == 1:
            painter = MapGenerator(options.out / row, accelerator=options.accelerator)
            write_sheet(options.out / "samples.png", painter, held_out)


if __name__ == "__main__":
    run_main(main)
