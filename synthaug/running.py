"""RUN: a recipe from end to end: read, fit, generate, filter, compose, compare, report.

OUT/units/UNIT/pairs       the labelled pairs of a unit, as files
OUT/units/UNIT/generator   FIT, for arms with synthetic items
OUT/units/UNIT/bank        GENERATE and FILTER
OUT/units/UNIT/compose     composition, for arms with copy-paste items
OUT/units/UNIT/compose-generated   composition with objects of the bank, where compare.synthetic
                           says that synthetic items are such
OUT/comparison             MEASURE, and the page

Beside every stage's folder lies ``STAGE.json``: what decided it. A stage is skipped when that has
not changed, so that the same command goes on where it stopped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from synthaug import files
from synthaug.bank import Bank
from synthaug.config import CompareConfig, DataConfig, FitConfig, Recipe
from synthaug.errors import InputError
from synthaug.filtering import filter_bank
from synthaug.fit_folder import CHECKPOINT
from synthaug.fitting import fit
from synthaug.formats import folder
from synthaug.formats.davis import read_video
from synthaug.formats.splits import Unit, read_split
from synthaug.gain import compare
from synthaug.generation import generate
from synthaug.mixing.arms import ARMS
from synthaug.mixing.source import open_source_once
from synthaug.report.comparison import write_comparison_page

Echo = Callable[[str], None]
Progress = Callable[[str, int, int], None]
"""Called with what is counted, how much is done, and how much there is."""
SMOKE_UNITS = 2
_COMPOSE_OPTIONS = ("generated_share", "background_share", "shift", "copies")


def read_units(data: DataConfig) -> list[Unit]:
    """Read what to train and test on.

    Raises:
        InputError: nothing is named, or a reader refuses it.
    """
    if data.kind == "folders":
        if data.images is None or data.masks is None:
            raise InputError("name what to train on: folders of images and of their masks")
        unit = read_split(
            data.images,
            data.masks,
            test_images=data.test_images,
            test_masks=data.test_masks,
            train=data.train,
            seed=data.seed,
        )
        return [unit]
    if data.root is None or not data.videos:
        raise InputError("name what to train on: a DAVIS folder and at least one of its videos")
    return [read_video(data.root, video, every=data.every) for video in data.videos]


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
        InputError: bad settings or data, or an output folder that holds something else.
        KeyboardInterrupt: Ctrl-C; the same call goes on where it stopped.
    """
    if smoke:
        recipe = shortened(recipe)
    out, config = Path(out), recipe.compare
    kinds = needed_kinds(config)
    if out.is_dir() and any(path.name not in ("units", "comparison") for path in out.iterdir()):
        raise InputError(f"{out} holds files that synthaug did not write: choose another folder")
    units = read_units(recipe.data)
    sources = {}
    for number, unit in enumerate(units, start=1):
        head = f"[{number}/{len(units)}] {unit.name}"
        stages = _Stages(out / "units" / unit.name, unit, head, progress, echo)
        sources[unit.name] = {
            kind: stages.synthetic(recipe) if kind == "synthetic" else stages.composed(recipe.fit)
            for kind in kinds
        }
    return _compare_and_report(
        units, out / "comparison", config, sources, reproduce, progress, echo
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
    if bank is None and config.arms == CompareConfig().arms:
        kept = tuple(arm for arm in config.arms if "synthetic" not in ARMS[arm].needs)
        echo(f"no bank given: arms without synthetic items alone ({', '.join(kept)})")
        config = replace(config, arms=kept)
    kinds = needed_kinds(config)
    given = {"synthetic": bank, "copy-paste": compose}
    if "synthetic" in kinds and bank is None:
        raise InputError("an arm needs synthetic items: name their bank, or leave the arm out")
    found = {
        unit.name: {
            kind: _of_unit(path, unit, len(units))
            for kind, path in given.items()
            if kind in kinds and path is not None
        }
        for unit in units
    }

    def sources(unit: Unit) -> dict[str, Path]:
        stages = _Stages(out / "sources" / unit.name, unit, unit.name, progress, echo)
        return {**found[unit.name], "copy-paste": stages.composed(FitConfig())}

    composing = "copy-paste" in kinds and compose is None
    return _compare_and_report(
        units, out, config, sources if composing else found, reproduce, progress, echo
    )


def needed_kinds(config: CompareConfig) -> list[str]:
    """Kinds of items that the arms need a source of.

    Raises:
        InputError: an arm is unknown or none is named.
    """
    names = (*config.arms, config.baseline)
    for name in names:
        if name not in ARMS:
            raise InputError(f"unknown arm {name!r}: choose from {', '.join(ARMS)}")
    return sorted({kind for name in names for kind in ARMS[name].needs})


def shortened(recipe: Recipe) -> Recipe:
    """Shorten a recipe to a smoke test: its numbers mean nothing."""
    data, config = recipe.data, recipe.compare
    return replace(
        recipe,
        fit=replace(recipe.fit, preset="fast", iterations=2, accelerator="cpu", devices=1),
        generate=replace(recipe.generate, n=6, accelerator="cpu"),
        filter=replace(recipe.filter, min_area_ratio=0.0, max_area_ratio=1e6, max_stray=1.0),
        data=replace(data, videos=data.videos[:SMOKE_UNITS], every=max(data.every, 20)),
        compare=replace(config, seeds=2, steps=2, batch_size=2, side_px=64),
    )


def _compare_and_report(
    units: Sequence[Unit],
    out: Path,
    config: CompareConfig,
    sources: Callable[[Unit], Mapping[str, Any]] | Mapping[str, Mapping[str, Any]],
    reproduce: str,
    progress: Progress | None,
    echo: Echo,
) -> Path:
    segmenter = config.segmenter
    if segmenter == "auto":
        segmenter = "osvos" if units[0].kind == "video" else "unet"
    try:
        compare(
            units,
            out,
            arms=config.arms,
            seeds=config.seeds,
            sources=sources,
            segmenter=segmenter,
            baseline=config.baseline,
            steps=config.steps,
            batch_size=config.batch_size,
            side_px=config.side_px,
            lr=config.lr,
            encoder=config.encoder,
            parent=config.parent,
            reproduce=reproduce,
            progress=_counting(progress, "training step"),
            echo=echo,
        )
    except KeyboardInterrupt:
        if (out / "comparison.json").is_file():
            echo(f"page of the runs so far: {write_comparison_page(out)}")
        raise
    return write_comparison_page(out)


class _Stages:
    """The stages of one unit that make its sources.

    Args:
        path: the unit's folder.
        unit: its training pairs are all that is used.
        head: begins every line to ``echo``.
        progress: called within stages.
        echo: takes a line per stage.
    """

    def __init__(
        self, path: Path, unit: Unit, head: str, progress: Progress | None, echo: Echo
    ) -> None:
        self.path, self.unit, self.head = path, unit, head
        self.progress, self.echo = progress, echo
        self._pairs = [
            files.sha256_bytes(array.tobytes())
            for sample in unit.training
            for array in (sample.image, sample.mask)
        ]

    def synthetic(self, recipe: Recipe) -> Path:
        """Fit a generator, draw a bank and filter it; compose with its objects if asked to."""
        generator, bank = self.path / "generator", self.path / "bank"
        usual = {name: getattr(FitConfig(), name) for name in _COMPOSE_OPTIONS}
        key = self._fitted("generator", replace(recipe.fit, objects=None, **usual))
        drawing = replace(recipe.generate, filter=None)

        def draw(_: bool) -> None:
            generate(
                generator,
                bank,
                drawing.n,
                drawing.seed,
                overwrite=True,
                progress=_counting(self.progress, "sample"),
                accelerator=drawing.accelerator,
            )

        settings = {"n": drawing.n, "seed": drawing.seed, "generator": key}
        key = self._stage("bank", settings, draw)
        rules = asdict(recipe.filter)

        def sift(_: bool) -> None:
            kept = filter_bank(bank, **rules, progress=_counting(self.progress, "sample"))
            self.echo(f"{self.head}: kept {len(kept)} of {len(kept.all_records)} samples")

        key = self._stage("filter", {**rules, "bank": key}, sift, there=lambda: _is_filtered(bank))
        if recipe.compare.synthetic == "bank":
            return bank
        return self.composed(recipe.fit, bank, key)

    def composed(self, fitting: FitConfig, bank: Path | None = None, key: str = "") -> Path:
        """Prepare composition: objects of the pairs, and of a bank, over other backgrounds."""
        config = replace(
            FitConfig(preset="compose"),
            seed=fitting.seed,
            flip=fitting.flip,
            shift=fitting.shift,
            copies=fitting.copies,
        )
        stage = "compose"
        if bank is not None:
            stage = "compose-generated"
            config = replace(
                config,
                objects=str(bank),
                generated_share=fitting.generated_share,
                background_share=fitting.background_share,
            )
        self._fitted(stage, config, key)
        return self.path / stage

    def _fitted(self, stage: str, config: FitConfig, objects_key: str = "") -> str:
        target = self.path / stage

        def make(started: bool) -> None:
            resume = started and (target / CHECKPOINT).is_file()
            if not resume and target.exists() and not (target / "manifest.json").exists():
                shutil.rmtree(target)  # a fit that was stopped before its first save
            fit(
                images=None if resume else self._write_pairs() / "images",
                masks=None if resume else self.path / "pairs" / "masks",
                out=target,
                resume=resume,
                overwrite=not resume,
                progress=lambda p: _counting(self.progress, "step")(p.step, p.total),
                echo=lambda line: self.echo(f"{self.head}: {line}"),
                config=config,
            )

        settings = {**asdict(config), "objects": objects_key, "pairs": self._pairs}
        return self._stage(stage, settings, make)

    def _stage(
        self,
        name: str,
        ingredients: Mapping[str, Any],
        make: Callable[[bool], None],
        there: Callable[[], bool] | None = None,
    ) -> str:
        """Run a stage unless it is done with these ingredients; return their hash.

        ``make`` is told whether a run with the same ingredients was begun before.
        """
        receipt = self.path / f"{name}.json"
        key = files.sha256_bytes(json.dumps(ingredients, sort_keys=True).encode())
        known = files.read_json(receipt, "stage's settings") if receipt.is_file() else {}
        same = known.get("key") == key
        done = there() if there is not None else (self.path / name / "manifest.json").is_file()
        if same and known["done"] and done:
            self.echo(f"{self.head}: {name} is there")
            return key
        self.echo(f"{self.head}: {name} ...")
        content = {"key": key, "done": False, "settings": ingredients}
        files.write_json(receipt, content)
        make(same and not known.get("done", False))
        files.write_json(receipt, {**content, "done": True})
        return key

    def _write_pairs(self) -> Path:
        target = self.path / "pairs"
        if target.exists():
            shutil.rmtree(target)
        for sample in self.unit.training:
            folder.write_pair(target, sample.id, sample)
        return target


def _of_unit(path: str | Path, unit: Unit, units: int) -> Path:
    """The source of one unit: the folder itself, or with several units the one named like it."""
    path = Path(path)
    found = path if units == 1 else path / unit.name
    if units > 1 and (path / "manifest.json").is_file():
        raise InputError(
            f"{path} is one source for {units} videos: name a folder that holds one for each, "
            f"as {found}"
        )
    open_source_once(str(found))
    return found


def _is_filtered(bank: Path) -> bool:
    return (bank / "manifest.json").is_file() and "filter" in Bank(bank).manifest


def _counting(progress: Progress | None, what: str) -> Callable[[int, int], None]:
    def count(done: int, total: int) -> None:
        if progress is not None:
            progress(what, done, total)

    return count
