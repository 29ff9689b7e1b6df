"""``synthaug compare``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthaug.cli import options
from synthaug.cli.progress import stage_progress, tell
from synthaug.errors import InputError

if TYPE_CHECKING:
    from synthaug.report.verdict import Comparison


def compare_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the comparison.")],
    images: Annotated[Path | None, typer.Option(help="Folder of photographs.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of masks, same file names.")] = None,
    test_images: Annotated[
        Path | None, typer.Option(help="Folder of test photographs; else --images is split.")
    ] = None,
    test_masks: Annotated[Path | None, typer.Option(help="Folder of their masks.")] = None,
    train: Annotated[
        float | None,
        typer.Option(help="Images to train on: number, or share below 1.", metavar="N"),
    ] = None,
    davis: Annotated[
        Path | None, typer.Option(help="Instead: folder of videos, laid out as DAVIS.")
    ] = None,
    video: Annotated[
        list[str] | None, typer.Option(help="Video below --davis; repeatable.", metavar="NAME")
    ] = None,
    every: Annotated[
        int | None, typer.Option(help="Test on every n-th later frame. [1]", metavar="N")
    ] = None,
    bank: Annotated[
        Path | None,
        typer.Option(help="Synthetic pairs: a bank or generator; with several videos BANK/NAME."),
    ] = None,
    compose: Annotated[
        str, typer.Option(help="Copy-paste pairs: auto makes them from the training pairs; or DIR.")
    ] = "auto",
    arms: Annotated[
        str | None,
        typer.Option(
            help="Ways to train, with commas; ways of your own stand in a recipe's compare.arms. "
            "[all but wide, standard-2x and synthetic-first that have their sources]"
        ),
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Arm to compare with. [standard]")] = None,
    seeds: Annotated[int | None, typer.Option(help="Repetitions. [3]", metavar="N")] = None,
    segmenter: Annotated[
        str | None,
        typer.Option(
            help="osvos, matching, repri, unet, fpn, deeplabv3, deeplabv3plus, or your own as "
            "package.module:function. [osvos for videos, else unet]"
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps. [150]", metavar="N")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Pictures per step. [8]", metavar="N")
    ] = None,
    side: Annotated[
        int | None, typer.Option(help="Longer side in training. [256]", metavar="PX")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Trainings side by side. [one per core, at most 8; 1 on a GPU]", metavar="N"
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of the split of --images. [0]")
    ] = None,
    ignore: Annotated[
        list[int] | None,
        typer.Option(help="Id in the masks that means unlabelled; repeatable.", metavar="ID"),
    ] = None,
    names: options.Names = None,
    recipe: options.Recipe = None,
    overrides: options.Overrides = None,
    dry_run: options.DryRun = False,
) -> None:
    """Measure what each way to train does to a segmenter, on your own data."""
    from synthaug.config import dump_stage, load_recipe

    _check_inputs(images, masks, davis, video)
    whole = train is not None and train >= 1 and float(train).is_integer()
    loaded = load_recipe(
        recipe,
        overrides or (),
        {
            "data": {
                "kind": "folders" if images else "davis" if davis else None,
                "root": _text(davis),
                "videos": _names(video),
                "every": every,
                "images": _text(images),
                "masks": _text(masks),
                "test_images": _text(test_images),
                "test_masks": _text(test_masks),
                "train": int(train) if whole and train is not None else train,
                "seed": seed,
                "ignore": ignore or None,
                "names": names,
            },
            "compare": {
                "arms": None if arms is None else _names([arms]) or (),
                "baseline": baseline,
                "seeds": seeds,
                "segmenter": segmenter,
                "steps": steps,
                "batch_size": batch_size,
                "side_px": side,
                "jobs": jobs,
            },
        },
    )
    from synthaug.running.recipes import check_training, compare_units, read_units

    if dry_run:
        check_training(loaded)
        print(dump_stage("data", loaded.data) + dump_stage("compare", loaded.compare), end="")
        return
    try:
        page = compare_units(
            read_units(loaded.data),
            out,
            loaded.compare,
            bank=bank,
            compose=None if compose == "auto" else compose,
            reproduce=command_line(),
            progress=stage_progress(),
            echo=tell,
        )
    except KeyboardInterrupt:
        tell(f"stopped; finished trainings are kept. Go on with: {command_line()}")
        raise
    print_result(out)
    print(page)


def print_result(folder: Path) -> None:
    """Print a comparison's table and its verdict."""
    from synthaug.report.verdict import (
        length_lines,
        mean_of,
        read_comparison,
        single_note,
        unlearned_line,
        verdict_line,
        verdict_words,
    )

    comparison = read_comparison(folder)
    measures, primary = comparison.manifest["measures"], comparison.measure
    result = comparison.result
    wide = max(len(arm) for arm in comparison.arms) + 2
    heads = "".join(f"{name:>8}" for name in measures)
    print(f"{'':{wide}}{heads}{'gain':>8}{'95 % interval':>18}  {'verdict':20}{'s':>7}{'GB':>7}")
    for arm in comparison.arms:
        entry = result["arms"].get(arm)
        if entry is None:
            print(f"{arm:{wide}}  not run yet")
            continue
        means = [mean_of(entry, name) for name in measures]
        cells = "".join(f"{'–' if v is None else format(100 * v, '.1f'):>8}" for v in means)
        gain = _gain_columns(comparison, arm, entry["gain"][primary], verdict_words(entry))
        peak = entry.get("peak_memory_gb")
        gb = "–" if peak is None else f"{peak:.2f}"
        print(f"{arm:{wide}}{cells}{gain:48}{entry['seconds']:7.1f}{gb:>7}")
    if note := single_note(comparison):
        print(note)
    _print_groups(comparison, wide)
    if unlearned := unlearned_line(comparison):
        print(unlearned)
    print(verdict_line(comparison))
    for line in length_lines(comparison):
        print(line)


def _print_groups(comparison: Comparison, wide: int) -> None:
    """Print the gain of each group of classes by frequency, where there are several."""
    from synthaug.report.verdict import GROUPS, group_rows

    for unit, groups in group_rows(comparison):
        print(f"\n{unit}: {GROUPS}")
        for group in groups:
            untested = "" if group["arms"] else " (no test mask holds them)"
            print(f"  {100 * group['share']:.1f} % of the pixels: {group['classes']}{untested}")
            for arm in comparison.arms:
                entry = group["arms"].get(arm)
                if entry is None:
                    continue
                gain = _gain_columns(comparison, arm, entry["gain"], entry["verdict"])
                print(f"    {arm:{wide}}{100 * entry['mean']:>8.1f}{gain}")
        print()


def _gain_columns(
    comparison: Comparison, arm: str, gain: Mapping[str, float | None], verdict: str
) -> str:
    """Write gain, interval and verdict, or that the arm is what the others are held against."""
    from synthaug.report.numbers import signed
    from synthaug.report.verdict import interval_words

    if arm == comparison.result["baseline"]:
        return f"{'':>26}  baseline"
    mean = "" if gain["mean"] is None else signed(100 * gain["mean"])
    return f"{mean:>8} {interval_words(gain):>17}  {verdict}"


def command_line() -> str:
    """Return the command as typed, for the page and for going on."""
    return shlex.join(["synthaug", *sys.argv[1:]])


def _check_inputs(
    images: Path | None, masks: Path | None, davis: Path | None, video: list[str] | None
) -> None:
    if (images is None) != (masks is None):
        raise InputError("--images and --masks go together: give both")
    if images is not None and davis is not None:
        raise InputError("give --images and --masks, or --davis and --video, not both")
    if video and davis is None:
        raise InputError("--video names a video below --davis: give that folder too")


def _names(values: list[str] | None) -> list[str] | None:
    names = [name.strip() for value in values or () for name in value.split(",")]
    return [name for name in names if name] or None


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
