"""RUN: a recipe from end to end: read, fit, generate, filter, compose, compare, report.

OUT/units/UNIT/pairs       the labelled pairs of a unit, as files
OUT/units/UNIT/generator   FIT, for arms with synthetic items
OUT/units/UNIT/bank        GENERATE and FILTER
OUT/units/UNIT/compose     composition, for arms with copy-paste items
OUT/units/UNIT/compose-generated   composition with objects of the bank, where compare.synthetic
                           says that synthetic items are such
OUT/parents                parent networks trained on other videos, where compare.parent is others
OUT/comparison             MEASURE, and the page

Beside every stage's folder lies ``STAGE.json``: what decided it. A stage is skipped when that has
not changed, so that the same command goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from synthaug import files
from synthaug.config import CompareConfig, DataConfig, FitConfig, Recipe
from synthaug.config.arms import ARMS, Arm, name_of
from synthaug.errors import InputError
from synthaug.fitting.presets import GANS, UNTRAINED
from synthaug.formats.davis import read_video
from synthaug.formats.names import read_names
from synthaug.formats.splits import Unit, read_split
from synthaug.gain import compare
from synthaug.gain.checks import check, refuse_idle, refuse_lengths
from synthaug.gain.jobs import default_jobs
from synthaug.gain.keys import fingerprint
from synthaug.gain.leaks import refuse_leak
from synthaug.gain.parents import GivenParents, Parents, ParentsOfOthers
from synthaug.gain.runs import Settings
from synthaug.mixing.source import open_source_once
from synthaug.report.comparison import write_comparison_page
from synthaug.running.sources import UnitSources, make_sources
from synthaug.segmenters.factory import find_factory
from synthaug.stages import Echo, Progress, counting

SMOKE_UNITS = 2
SMOKE_MARK = ".smoke"
"""Lies in the folder of a smoke test, which would make a whole run's generators again."""
OTHERS = "others"
TRIED_PX = 256
"""Largest side at which a dry run tries a segmenter."""


def read_units(data: DataConfig) -> list[Unit]:
    """Read what to train and test on, and name its classes.

    Raises:
        InputError: nothing is named, a reader refuses it, or a class has no name where others have.
    """
    units = _read_units(data)
    if not data.names:
        return units
    names = read_names(data.names)
    return [replace(unit, classes=unit.classes.named(names)) for unit in units]


_OF_VIDEOS = ("root", "videos", "every")
_OF_FOLDERS = ("images", "masks", "test_images", "test_masks", "train", "seed", "name")


def _read_units(data: DataConfig) -> list[Unit]:
    folders = _of_folders(data)
    others, kind = (_OF_VIDEOS, "folders of images") if folders else (_OF_FOLDERS, "videos")
    usual = DataConfig()
    if idle := [name for name in others if getattr(data, name) != getattr(usual, name)]:
        raise InputError(f"data of {kind} has no use for {', '.join(idle)}: leave it out")
    if folders:
        if data.images is None or data.masks is None:
            raise InputError("name what to train on: folders of images and of their masks")
        unit = read_split(
            data.images,
            data.masks,
            test_images=data.test_images,
            test_masks=data.test_masks,
            train=data.train,
            seed=data.seed,
            ignore=data.ignore,
            name=data.name,
        )
        return [unit]
    if data.root is None or not data.videos:
        raise InputError(
            "name what to train on: a DAVIS folder and at least one of its videos, or folders of "
            "images and of their masks"
        )
    return [
        read_video(data.root, video, every=data.every, ignore=data.ignore) for video in data.videos
    ]


def _of_folders(data: DataConfig) -> bool:
    return data.kind == "folders" or (data.root is None and data.images is not None)


def check_training(recipe: Recipe) -> None:
    """Refuse arms, segmenter or parent as the comparison would; no data is read.

    Raises:
        InputError: an arm is unknown, or the segmenter cannot be built of its settings.
    """
    config = recipe.compare
    settings = _settings(config, "images" if _of_folders(recipe.data) else "video")
    refuse_lengths(_arms(config), settings)
    refuse_idle(settings)
    if ":" in settings.segmenter:
        find_factory(settings.segmenter)  # it may build for the data's classes and sizes alone
        return
    parent = None if config.parent == OTHERS else config.parent
    side = min(config.side_px, TRIED_PX)
    replace(settings, parent=parent).build(2, (side, side), 0)


def run_recipe(
    recipe: Recipe,
    out: str | Path,
    *,
    smoke: bool = False,
    reproduce: str = "",
    progress: Progress | None = None,
    echo: Echo = print,
) -> Path:
    """Run a recipe: make every unit's sources, compare the arms, write the page.

    Args:
        recipe: settings of all stages.
        out: folder for everything; see the module.
        smoke: shorten everything, to see that it runs: two units, two seeds, few steps.
        reproduce: command line to show on the page.
        progress: called within stages.
        echo: takes a line per stage.

    Returns:
        Path of the page.

    Raises:
        InputError: bad settings or data, or an output folder that holds something else, or a run
            where ``smoke`` differs.
        KeyboardInterrupt: Ctrl-C; the same call goes on where it stopped.
    """
    if smoke:
        recipe = shortened(recipe)
    out, config = Path(out), recipe.compare
    own = ("units", "parents", "comparison")
    held = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if strangers := [
        name
        for name in held
        if name not in own and not (name.startswith(".") or files.is_litter(name))
    ]:
        raise InputError(
            f"{out} holds {strangers[0]}, which synthaug did not write: move it away, or choose "
            "another folder"
        )
    if any(name in own for name in held) and smoke != (SMOKE_MARK in held):
        raise InputError(
            f"{out} holds a {'whole run' if smoke else 'smoke test'}, which a "
            f"{'smoke test' if smoke else 'whole run'} would make again: choose another folder"
        )
    units = read_units(replace(recipe.data, names=recipe.data.names or recipe.fit.names))
    parents = _parents(units, out / "parents", config, progress, echo)
    settings = _settings(config, units[0].kind)
    refuse_lengths(_arms(config), settings)
    check(units, range(config.seeds), settings, Parents(parents))
    for unit in units:
        fingerprint(unit)  # reads all pictures: a damaged one is found before anything is fitted
    if smoke:
        files.write_text(out / SMOKE_MARK, "")
    sources = make_sources(units, out / "units", recipe, needed_kinds(config), progress, echo)
    if callable(parents):
        parents = {unit.name: parents(unit) for unit in units}
    return _compare_and_report(
        units, out / "comparison", config, sources, parents, reproduce, progress, echo
    )


def compare_units(
    units: Sequence[Unit],
    out: str | Path,
    config: CompareConfig,
    *,
    bank: str | Path | None = None,
    compose: str | Path | None = None,
    reproduce: str = "",
    progress: Progress | None = None,
    echo: Echo = print,
) -> Path:
    """Compare arms on units and write the page.

    Args:
        units: what to train and test on.
        out: folder of the comparison.
        config: arms and settings. The default arms are reduced to those that have their sources.
        bank: bank or generator of synthetic items; with several units, a folder that holds one
            of each unit's name.
        compose: likewise for copy-paste items; None composes them from the training pairs, into
            ``OUT/sources``.
        reproduce: command line to show on the page.
        progress: called within trainings.
        echo: takes a line per training.

    Returns:
        Path of the page.

    Raises:
        InputError: bad settings, a missing or unfit source, or a folder that holds something else.
        KeyboardInterrupt: Ctrl-C, after a page of the runs so far is written.
    """
    out = Path(out)
    notes: list[str] = []
    if bank is None and config.arms == CompareConfig().arms:
        arms = _arms(config)[:-1]
        kept = tuple(arm.name for arm in arms if "synthetic" not in arm.needs)
        notes = [f"no bank given: arms without synthetic items alone ({', '.join(kept)})"]
        config = replace(config, arms=kept)
    kinds = needed_kinds(config)
    given = {"synthetic": bank, "copy-paste": compose}
    for option, path, kind in (("bank", bank, "synthetic"), ("compose", compose, "copy-paste")):
        if path is not None and kind not in kinds:
            raise InputError(
                f"--{option} is given, but no arm shows {kind} items: name one that does, as "
                f"standard+{kind}, or leave the option out"
            )
    needed = {kind for arm in _arms(config) for kind in arm.needs}
    if bank is None and "synthetic" in needed:
        raise InputError("an arm needs synthetic items: name their bank, or leave the arm out")
    found = {
        unit.name: {
            kind: _of_unit(path, unit, len(units))
            for kind, path in given.items()
            if kind in kinds and path is not None
        }
        for unit in units
    }

    def say(line: str) -> None:
        for note in notes:  # before the first line of the comparison, once all is found well
            echo(note)
        notes.clear()
        echo(line)

    def sources(unit: Unit) -> dict[str, Path]:
        stages = UnitSources(out / "sources" / unit.name, unit, unit.name, progress, say)
        return {**found[unit.name], "copy-paste": stages.composed(FitConfig())}

    composing = "copy-paste" in kinds and compose is None
    parents = _parents(units, out / "parents", config, progress, say)
    return _compare_and_report(
        units, out, config, sources if composing else found, parents, reproduce, progress, say
    )


def needed_kinds(config: CompareConfig) -> list[str]:
    """Kinds of items that the arms take from a source.

    Raises:
        InputError: an arm is unknown or none is named.
    """
    return sorted({kind for arm in _arms(config) for kind in arm.uses})


def _arms(config: CompareConfig) -> list[Arm]:
    """The arms of a comparison in their order, and last its baseline."""
    if not config.arms:
        raise InputError(f"no arm is named: choose from {', '.join(ARMS)}")
    known = {**ARMS, **{arm.name: arm for arm in config.arms if isinstance(arm, Arm)}}
    names = [*map(name_of, config.arms), config.baseline]
    for name in names:
        if name not in known:
            raise InputError(f"unknown arm {name!r}: choose from {', '.join(known)}")
    return [known[name] for name in names]


def shortened(recipe: Recipe) -> Recipe:
    """Shorten a recipe to a smoke test: its numbers mean nothing."""
    data, config = recipe.data, recipe.compare
    videos = data.videos[:SMOKE_UNITS]
    fit = recipe.fit
    if fit.preset not in UNTRAINED:
        fit = replace(fit, iterations=2, accelerator="cpu", devices=1)
    if fit.preset not in UNTRAINED and "fast" in GANS[fit.generator].names:
        fit = replace(fit, preset="fast")
    return replace(
        recipe,
        fit=fit,
        generate=replace(recipe.generate, n=6, accelerator="cpu"),
        filter=replace(recipe.filter, min_area_ratio=0.0, max_area_ratio=1e6, max_stray=1.0),
        data=replace(data, videos=videos, every=max(data.every, 20) if videos else data.every),
        compare=replace(config, seeds=2, steps=2, batch_size=2, side_px=64, parent_steps=2),
    )


def _compare_and_report(
    units: Sequence[Unit],
    out: Path,
    config: CompareConfig,
    sources: Callable[[Unit], Mapping[str, Any]] | Mapping[str, Mapping[str, Any]],
    parents: GivenParents,
    reproduce: str,
    progress: Progress | None,
    echo: Echo,
) -> Path:
    try:
        compare(
            units,
            out,
            arms=config.arms,
            seeds=config.seeds,
            sources=sources,
            baseline=config.baseline,
            parent=parents,
            **training_settings(config, units),
            reproduce=reproduce,
            progress=counting(progress, "training step"),
            echo=echo,
        )
    except KeyboardInterrupt:
        if _has_news(out):
            echo(f"page of the runs so far: {write_comparison_page(out)}")
        raise
    return write_comparison_page(out)


def _has_news(out: Path) -> bool:
    """Whether a page would say more than one of earlier settings that is there."""
    path = out / "comparison.json"
    if not path.is_file():
        return False
    empty = not files.read_json(path, "comparison result")["arms"]
    return not (empty and (out / "index.html").is_file())


def _parents(
    units: Sequence[Unit],
    path: Path,
    config: CompareConfig,
    progress: Progress | None,
    echo: Echo,
) -> GivenParents:
    """What networks start from; those of other videos are trained on first need."""
    if config.parent != OTHERS:
        return config.parent
    counted = counting(progress, "parent's training step")
    parents = ParentsOfOthers(
        units,
        path,
        steps=config.parent_steps,
        side_px=config.side_px,
        encoder=config.encoder,
        progress=counted,
        echo=echo,
    )
    segmenter = _settings(config, units[0].kind).segmenter
    if segmenter != "osvos":
        raise InputError(f"parent networks are for osvos, not {segmenter}: leave the option out")
    return parents.of


def training_settings(config: CompareConfig, units: Sequence[Unit]) -> dict[str, Any]:
    """Return the keywords of `compare` that say how every arm is trained."""
    found = _settings(config, units[0].kind).as_dict()
    del found["parent"]
    return {**found, "jobs": config.jobs or default_jobs()}


def _settings(config: CompareConfig, kind: str) -> Settings:
    """The settings of all runs but their parents; ``kind``: of the units."""
    segmenter = config.segmenter
    if segmenter == "auto":
        segmenter = "osvos" if kind == "video" else "unet"
    return Settings(
        segmenter, config.steps, config.batch_size, config.side_px, config.lr, config.encoder
    )


def _of_unit(path: str | Path, unit: Unit, units: int) -> Path:
    """The source of one unit: the folder itself, or with several units the one named like it."""
    path = Path(path)
    found = path if units == 1 else path / unit.name
    if units > 1 and (path / "manifest.json").is_file():
        raise InputError(
            f"{path} is one source for {units} videos: name a folder that holds one for each, "
            f"as {found}"
        )
    refuse_leak(unit, open_source_once(str(found)))
    return found
