"""How strictly should a bank be filtered? Every SIFID rule, by what a segmenter gains from it.

    synthaug run recipes/davis16-one-shot.yaml --out runs/davis16-one-shot
    python recipes/sifid_ablation.py --runs runs/davis16-one-shot

The shape of table 6.8 of Sushko's thesis: no filter, one depth at 15 %, all four depths together
at 5 to 50 %. Each bank is marked anew in a folder of its own and mixed in as arm
``standard+synthetic``; gains are paired by seed with ``standard``, which is trained once.
Data: the recipe's, and the banks and parents of its run, which must have got that far. Videos: four
that nothing was chosen on; others by ``--videos``.
Hardware and result to expect: 144 trainings of about 40 s on one core. OUT/table.md is written
after each seed. Stop it at any time; the same command goes on.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from recipe_options import Distinct, positive, run_main

from synthaug.bank import Bank
from synthaug.config import CompareConfig, FilterConfig, load_recipe
from synthaug.errors import InputError
from synthaug.files import read_json, write_text
from synthaug.filtering import filter_bank
from synthaug.formats.davis import read_video
from synthaug.formats.splits import Unit
from synthaug.gain import compare
from synthaug.gain.runs import MEASURES
from synthaug.gain.summary import summarise
from synthaug.quality.features import FeatureNet, load_feature_net
from synthaug.running.recipes import training_settings

VIDEOS = ("blackswan", "cows", "horsejump-high", "dance-twirl")
BASELINE, ARM, PLAIN = "standard", "standard+synthetic", "no-filter"
VARIANTS: dict[str, dict[str, Any] | None] = {
    PLAIN: None,
    "mask-rules": {"drop": 0.0},
    **{f"sifid-{depth}-15": {"rule": f"sifid-{depth}", "drop": 0.15} for depth in (1, 2, 3, 4)},
    **{
        f"joint-{drop:02}": {"rule": "sifid-1234", "drop": drop / 100}
        for drop in (5, 10, 15, 25, 50)
    },
}
"""Name -> what differs from the recipe's filter; None keeps every sample. ``mask-rules`` drops
broken masks and near copies alone, as all variants after it do first."""
THESIS = {
    PLAIN: 0.2,
    "sifid-1-15": 0.8,
    "joint-05": 0.8,
    "joint-10": 1.1,
    "joint-15": 1.3,
    "joint-25": 1.2,
    "joint-50": 1.0,
}
"""Gains of OSVOS on DAVIS-16 over 78.5 in table 6.8, points."""


def parent_of(runs: Path, video: str) -> Path:
    """The run's parent network that has not seen a video."""
    for receipt in sorted((runs / "parents").glob("*.json")):
        found = read_json(receipt, "stage's settings")
        weights = receipt.with_suffix(".safetensors")
        if found["done"] and weights.is_file() and video not in found["settings"]["videos"]:
            return weights
    raise InputError(f"{runs / 'parents'} has no parent that has not seen {video}: run the recipe")


def mark(bank: Path, out: Path, rules: dict[str, Any] | None, net: FeatureNet) -> tuple[int, int]:
    """Make a bank of the same files with other samples kept; return (kept, all)."""
    if not (bank / "samples.jsonl").is_file():
        raise InputError(f"no bank at {bank}: run the recipe to its banks first")
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    for name in ("images", "masks", "pairs"):
        (out / name).symlink_to((bank / name).resolve(), target_is_directory=True)
    for name in ("manifest.json", "samples.jsonl"):
        shutil.copy(bank / name, out / name)
    if rules is not None:
        kept = filter_bank(out, net=net, **rules)
        return len(kept), len(kept.all_records)
    whole = Bank(out, include_dropped=True)
    whole.manifest.pop("filter", None)
    whole.rewrite([{**record, "kept": True, "reasons": []} for record in whole.all_records])
    return len(whole), len(whole)


def mark_all(
    options: argparse.Namespace, config: FilterConfig
) -> tuple[dict[str, dict[str, Path]], dict[str, str]]:
    """Make every variant of every bank; return variant -> video -> bank, and the shares kept."""
    net = load_feature_net(config.network, config.weights)
    limits = ("min_area_ratio", "max_area_ratio", "max_stray")
    usual = {name: getattr(config, name) for name in limits}
    banks: dict[str, dict[str, Path]] = {}
    shares = {}
    for name in options.variants:
        rules = VARIANTS[name]
        banks[name] = {video: options.out / "banks" / video / name for video in options.videos}
        counts = [
            mark(
                options.runs / "units" / video / "bank",
                out,
                None if rules is None else {**usual, **rules},
                net,
            )
            for video, out in banks[name].items()
        ]
        shares[name] = f"{100 * sum(k for k, _ in counts) / sum(n for _, n in counts):.0f} %"
    return banks, shares


def run_ablation(
    units: list[Unit],
    config: CompareConfig,
    banks: dict[str, dict[str, Path]],
    parents: Any,
    out: Path,
    seeds: list[int],
) -> None:
    """Train the baseline and every variant (name -> unit -> bank) that has not been yet."""
    for name in (BASELINE, *banks):
        arm = BASELINE if name == BASELINE else ARM
        compare(
            units,
            out / name,
            arms=[arm],
            baseline=arm,
            seeds=seeds,
            sources={unit: {"synthetic": path} for unit, path in banks.get(name, {}).items()},
            parent=parents,
            **training_settings(config, units),
            echo=lambda line, name=name: print(f"{name}: {line}", flush=True),
        )


def read_runs(out: Path, units: list[str], seeds: list[int]) -> dict[tuple[str, int], Any]:
    """The finished runs of one comparison."""
    folder = out / "runs"
    arm = BASELINE if out.name == BASELINE else ARM
    cells = [(unit, seed) for unit in units for seed in seeds]
    return {(u, s): read_json(folder / u / arm / f"{s}.json", "run") for u, s in cells}


def table(out: Path, kept: dict[str, str], units: list[str], seeds: list[int]) -> str:
    """Summarise the runs below ``out`` in Markdown."""
    measures = MEASURES["video"]
    results = {name: read_runs(out / name, units, seeds) for name in (BASELINE, *kept)}

    def over(baseline: str) -> dict[str, Any]:
        return summarise(results, units=units, baseline=baseline, measures=measures, complete=True)

    found, beside = over(BASELINE), over(PLAIN) if PLAIN in results else None
    lines = [
        "| bank | kept | J&F | J | F | gain over `standard` [95 %] | verdict "
        "| gain over no filter [95 %] | thesis: gain |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in found["arms"].items():
        means = [f"{100 * entry['mean'][measure]:.1f}" for measure in measures[:3]]
        own = name == BASELINE
        extra = "" if own or name == PLAIN or beside is None else points(beside["arms"][name])
        gains = ["", "", ""] if own else [points(entry), entry["verdict"], extra]
        thesis = f"{THESIS[name]:+.1f}" if name in THESIS else ""
        cells = [name, kept.get(name, ""), *means, *gains, thesis]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| J&F | " + " | ".join(units) + " |", "|---|" + "---|" * len(units)]
    for name in results:
        values = [found["units"][unit][name]["mean"][measures[0]] for unit in units]
        lines.append(f"| {name} | " + " | ".join(f"{100 * value:.1f}" for value in values) + " |")
    manifest = read_json(out / BASELINE / "manifest.json", "comparison manifest")
    settings = manifest["settings"]
    seconds = [run["seconds"] for cells in results.values() for run in cells.values()]
    lines += [
        "",
        f"{len(units)} videos, seeds {', '.join(map(str, seeds))}; tested on "
        f"{sum(unit['test'] for unit in manifest['units'])} frames. Intervals: over videos. "
        f"{settings['segmenter']}, {settings['steps']} steps of {settings['batch_size']} "
        f"at {settings['side_px']} px. "
        f"{sum(s['train'] + s['test'] for s in seconds) / len(seconds):.0f} s a run on "
        + ", ".join(f"{key} {value}" for key, value in manifest["hardware"].items())
        + ".",
    ]
    return "\n".join(lines) + "\n"


def points(entry: dict[str, Any]) -> str:
    """A gain in points with its interval."""
    gain = entry["gain"][MEASURES["video"][0]]
    if gain["low"] is None:
        return f"{100 * gain['mean']:+.1f}"
    return f"{100 * gain['mean']:+.1f} [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="folder of the recipe's run")
    parser.add_argument("--out", type=Path, default=Path("runs/sifid-ablation"))
    parser.add_argument(
        "--recipe", type=Path, default=Path(__file__).with_name("davis16-one-shot.yaml")
    )
    parser.add_argument("--set", action="append", default=[], help="stage.option=value")
    parser.add_argument("--videos", nargs="+", action=Distinct, default=list(VIDEOS))
    parser.add_argument(
        "--variants", nargs="+", action=Distinct, choices=VARIANTS, default=list(VARIANTS)
    )
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--every", type=positive, help="test on every n-th frame")
    parser.add_argument("--jobs", type=positive, help="trainings side by side")
    options = parser.parse_args(arguments)
    own = {"data": {"every": options.every}, "compare": {"jobs": options.jobs}}
    recipe = load_recipe(options.recipe, options.set, own)
    data, config = recipe.data, recipe.compare
    if data.root is None:
        raise InputError(f"{options.recipe} names no data.root: add it with --set")
    reading = {"every": data.every, "ignore": data.ignore}
    units = [read_video(data.root, video, **reading) for video in options.videos]
    parents: Any = config.parent
    if parents == "others":
        parents = {unit.name: parent_of(options.runs, unit.name) for unit in units}
    banks, kept = mark_all(options, recipe.filter)
    for number in range(options.seeds):
        seeds = list(range(number + 1))
        folder = options.out / "compare"
        run_ablation(units, config, banks, parents, folder, seeds)
        text = table(folder, kept, options.videos, seeds)
        write_text(options.out / "table.md", text)
        print("\n" + text, flush=True)


if __name__ == "__main__":
    run_main(main)
