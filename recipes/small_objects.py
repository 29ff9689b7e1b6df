"""What does composition gain where the labelled object is small? Later frames are labelled instead.

    python recipes/small_objects.py --out runs/small-objects

Settings of enlargement were chosen on videos whose frame 0 shows a small object. Here the
labelled frame is one in which the object of another video is small (horsejump-high, frame 49:
2.3 % of the picture), or one of a video's own later frames (libby, frame 40: 1.5 %); all other
frames are tested.
Rows: standard augmentation; the same, scaled by 0.5 to 2 (`wide`); copy-paste beside it, with
objects at their own size (0.6 to 1.6) and with small ones enlarged, too.
Data, segmenter and parents: those of davis16-one-shot.yaml; ``--set data.root=FOLDER`` elsewhere.
Hardware and result to expect: two parents and 24 trainings, 40 to 60 s each on one core;
RESULTS.md, "One-shot video". OUT/table.md; stop it at any time, the same command goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recipe_options import Distinct, positive, run_main

from synthaug.config import FitConfig, load_recipe
from synthaug.errors import InputError
from synthaug.files import read_json, write_text
from synthaug.formats.davis import read_video
from synthaug.formats.splits import Unit
from synthaug.gain import compare
from synthaug.gain.hardware import hardware
from synthaug.gain.parents import ParentsOfOthers
from synthaug.gain.runs import MEASURES
from synthaug.gain.summary import summarise
from synthaug.running.recipes import training_settings
from synthaug.running.sources import UnitSources

CASES = ("horsejump-high:49", "libby:40")
BASELINE, PASTED, USUAL = "standard", "standard+copy-paste", "own size"
ROWS = {BASELINE: BASELINE, "wide": "wide", USUAL: PASTED, "enlarged": PASTED}
"""Row -> its arm."""


def relabelled(video: Unit, frame: int) -> Unit:
    """The same video with another frame labelled and all others tested."""
    frames = [*video.training, *video.test]
    if not 0 <= frame < len(frames):
        raise InputError(f"{video.name} has no frame {frame}: it has {len(frames)}")
    others = [sample for index, sample in enumerate(frames) if index != frame]
    return Unit(f"{video.name}-{frame}", [frames[frame]], others, video.classes, "video")


def table(found: dict[str, Any], units: list[Unit]) -> str:
    """Write a row per way: mean of each case over the seeds, and the gains."""
    names = [unit.name for unit in units]
    lines = ["| J&F | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for row in ROWS:
        cells = []
        for name in names:
            entry = found["units"][name][row]
            value, gain = (entry[kind]["J&F"] for kind in ("mean", "gain"))
            beside = "" if row == BASELINE else f" ({100 * gain['mean']:+.1f})"
            cells.append(f"{100 * value:.1f}{beside}")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/small-objects"))
    parser.add_argument(
        "--recipe", type=Path, default=Path(__file__).with_name("davis16-one-shot.yaml")
    )
    parser.add_argument("--set", action="append", default=[], help="stage.option=value")
    parser.add_argument(
        "--cases", nargs="+", action=Distinct, default=list(CASES), metavar="VIDEO:FRAME"
    )
    parser.add_argument("--seeds", type=positive, default=3)
    options = parser.parse_args(arguments)
    recipe = load_recipe(options.recipe, options.set, {})
    data, config = recipe.data, recipe.compare
    if data.root is None:
        raise InputError(f"{options.recipe} names no data.root: add it with --set")
    videos = {name: read_video(data.root, name, ignore=data.ignore) for name in data.videos}
    parent_of: Any = None
    if config.parent == "others":
        size = {"steps": config.parent_steps, "side_px": config.side_px}
        parent_of = ParentsOfOthers(
            list(videos.values()), options.out / "parents", encoder=config.encoder, **size
        ).of
    units, parents = [], {}
    for case in options.cases:
        name, _, frame = case.partition(":")
        if name not in videos or not frame.isdigit():
            raise InputError(f"no case {case}: write VIDEO:FRAME, a video of {options.recipe}")
        units.append(relabelled(videos[name], int(frame)))
        if parent_of is not None:
            parents[units[-1].name] = parent_of(videos[name])
    results: dict[str, dict[tuple[str, int], Any]] = {}
    for row, arm in ROWS.items():
        sources = {}
        for unit in units if arm == PASTED else ():
            path = options.out / "sources" / row / unit.name
            stages = UnitSources(path, unit, unit.name, None, print)
            sources[unit.name] = {"copy-paste": stages.composed(FitConfig(enlarge=row != USUAL))}
        folder = options.out / "compare" / row.replace(" ", "-")
        compare(
            units,
            folder,
            arms=[arm],
            baseline=arm,
            seeds=options.seeds,
            sources=sources,
            parent=parents or config.parent,
            **training_settings(config, units),
            echo=lambda line, row=row: print(f"{row}: {line}", flush=True),
        )
        cells = [(unit.name, seed) for unit in units for seed in range(options.seeds)]
        runs = folder / "runs"
        results[row] = {(u, s): read_json(runs / u / arm / f"{s}.json", "run") for u, s in cells}
    names = [unit.name for unit in units]
    found = summarise(
        results, units=names, baseline=BASELINE, measures=MEASURES["video"], complete=True
    )
    machine = ", ".join(f"{key} {value}" for key, value in hardware().items())
    text = table(found, units) + f"\nMeans of {options.seeds} seeds. {machine}.\n"
    write_text(options.out / "table.md", text)
    print("\n" + text, end="")


if __name__ == "__main__":
    run_main(main)
