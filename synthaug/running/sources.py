"""The stages that make a unit's sources: fit, generate and filter a bank, and compose."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from synthaug import files
from synthaug.bank import Bank
from synthaug.config import FitConfig, GenerateConfig, Recipe
from synthaug.config.fit import OF_COMPOSE
from synthaug.errors import InputError
from synthaug.filtering import filter_bank
from synthaug.fitting import fit
from synthaug.fitting.fit_folder import CHECKPOINT
from synthaug.fitting.presets import UNTRAINED
from synthaug.formats import folder
from synthaug.formats.splits import Unit
from synthaug.gain.jobs import Jobs, default_jobs
from synthaug.generation import generate
from synthaug.generation.drawing import check_labelmix
from synthaug.generation.opening import load_generator
from synthaug.sample import ClassMap
from synthaug.stages import Echo, Progress, counting, run_stage
from synthaug.weights import inception_v3_path

T = TypeVar("T")
_LATER_OPTIONS = (
    *("generator", "ignore", "plugins", "ablate", "resize"),
    *("source", "adaptation", "smoothness", "joint_masks", "vgg"),
)
"""At their defaults they count for nothing, so that stages made before they came stay valid."""
WORTH = 100
"""What `Jobs` count for a generator of a bank, so that theirs are percents."""
_OF_ONE_GENERATOR = {"truncation": "stylegan2's", "labelmix": "oasis'", "keep": "oasis'"}
"""Options of generate, and whose they are."""


def make_sources(
    units: Sequence[Unit],
    path: Path,
    recipe: Recipe,
    kinds: Sequence[str],
    progress: Progress | None,
    echo: Echo,
) -> dict[str, dict[str, Path]]:
    """Make the sources of all units, those that are fitted several side by side.

    Args:
        units: see `UnitSources`.
        path: folder of the units' folders.
        recipe: settings of the stages; ``compare.jobs`` units at a time.
        kinds: of items, ``synthetic`` and ``copy-paste``; none make nothing.
        progress: called within stages, or with the percent of all fits.
        echo: takes a line per stage.

    Returns:
        Unit name -> kind -> the source's folder.
    """
    if not kinds:
        return {unit.name: {} for unit in units}
    number = min(recipe.compare.jobs or default_jobs(), len(units))
    if recipe.fit.devices > 1 or "synthetic" not in kinds:
        number = 1

    def make(numbered: tuple[int, Unit]) -> dict[str, Path]:
        place, unit = numbered
        head = f"[{place}/{len(units)}] {unit.name}"
        stages = UnitSources(path / unit.name, unit, head, progress, echo, jobs)
        return {
            kind: stages.synthetic(recipe) if kind == "synthetic" else stages.composed(recipe.fit)
            for kind in kinds
        }

    shown = -1

    def glance(done: int) -> None:
        nonlocal shown
        percent = done * 100 // (WORTH * len(units))
        if progress is not None and number > 1 and percent > shown:
            shown = percent
            progress("percent of all fits", percent, 100)

    with files.claimed(path), Jobs(number, glance, share=True) as jobs:
        made = {unit.name: found for (_, unit), found in jobs.run(make, [*enumerate(units, 1)])}
    return {unit.name: made[unit.name] for unit in units}


class UnitSources:
    """The stages of one unit that make its sources.

    Args:
        path: the unit's folder.
        unit: its training pairs are all that is used; those of several sizes are stretched to the
            usual one, as segmenters' training does, unless ``fit.resize`` says to crop.
        head: begins every line to ``echo``.
        progress: called within stages, unless there are several ``jobs``.
        echo: takes a line per stage.
        jobs: where stages are run; their count grows by `WORTH` with a generator of a bank.
    """

    def __init__(
        self,
        path: Path,
        unit: Unit,
        head: str,
        progress: Progress | None,
        echo: Echo,
        jobs: Jobs | None = None,
    ) -> None:
        self.path, self.unit, self.head = path, unit, head
        self.progress, self.echo = progress, echo
        self.jobs = jobs if jobs is not None and jobs.number > 1 else None
        self._pairs = [
            files.sha256_bytes(array.tobytes())
            for sample in unit.training
            for array in (sample.image, sample.mask)
        ]
        ids, names = unit.classes.ids, unit.classes.names
        named = unit.classes != ClassMap(ids)
        pairs = zip(ids, names, strict=True) if named else ()
        self._names = tuple(f"{class_id}={name}" for class_id, name in pairs)

    def synthetic(self, recipe: Recipe) -> Path:
        """Fit a generator, draw a bank and filter it; compose with its objects if asked to."""
        if recipe.generate.filter is not None:
            raise InputError(
                "generate.filter is for generate alone: a recipe filters by filter.rule and "
                "filter.drop"
            )
        if recipe.fit.objects is not None:
            raise InputError(
                "fit.objects is for fit alone: a recipe takes the bank's with compare.synthetic: "
                "compose"
            )
        for option, owner in _OF_ONE_GENERATOR.items():
            given = getattr(recipe.generate, option) != getattr(GenerateConfig(), option)
            if given and recipe.fit.generator != owner.partition("'")[0]:
                raise InputError(
                    f"generate.{option} is {owner}, and fit.generator {recipe.fit.generator}: "
                    "leave it out"
                )
        check_labelmix(recipe.generate, recipe.filter.rule)
        find = self.unit.classes.find
        rare = tuple("auto" if name == "auto" else str(find(name)) for name in recipe.generate.rare)
        keep = tuple(str(find(name)) for name in recipe.generate.keep)
        generator, bank = self.path / "generator", self.path / "bank"
        own = recipe.fit
        if own.preset != "compose":  # they are for copy-paste then
            own = replace(own, **{name: getattr(FitConfig(), name) for name in OF_COMPOSE})
        else:  # there is no bank of objects yet
            own = replace(own, background_share=0.0, generated_share=FitConfig().generated_share)
        key = self._fitted("generator", own)
        drawing = replace(recipe.generate, rare=rare, keep=keep)

        def draw(_: bool) -> None:
            try:
                self._call(
                    generate,
                    generator,
                    bank,
                    drawing.n,
                    drawing.seed,
                    counted="sample",
                    overwrite=True,
                    render=drawing.render,
                    accelerator=drawing.accelerator,
                    layouts=drawing.layouts,
                    rare=drawing.rare,
                    coco=drawing.coco,
                    truncation=drawing.truncation,
                    labelmix=drawing.labelmix,
                    keep=drawing.keep,
                )
            except InputError:
                _refuse_damaged(generator)
                raise

        settings = {"n": drawing.n, "seed": drawing.seed, "generator": key}
        if drawing.render is not None:
            settings["render"] = drawing.render
        if drawing.layouts is not None or drawing.rare:
            settings |= {"layouts": drawing.layouts, "rare": list(drawing.rare)}
        if drawing.layouts is not None and Path(drawing.layouts).exists():
            settings["layouts_sha256"] = _content_hash(Path(drawing.layouts))
        if drawing.truncation != 1:
            settings["truncation"] = drawing.truncation
        if drawing.labelmix or drawing.keep:
            settings |= {"labelmix": drawing.labelmix, "keep": list(drawing.keep)}
        if drawing.coco:
            settings["coco"] = True
        if recipe.filter.rule is None:
            settings["whole"] = True  # one that a filter has marked is drawn again
        key = self._stage(
            "bank",
            settings,
            draw,
            there=lambda: self._opens(bank, lambda: Bank(bank, include_dropped=True).check_files()),
        )
        rules = asdict(recipe.filter)

        def sift(_: bool) -> None:
            kept = self._call(filter_bank, bank, counted="sample", **rules)
            self.echo(f"{self.head}: kept {len(kept)} of {len(kept.all_records)} samples")

        if recipe.filter.rule is not None:
            settings = {**rules, "bank": key}
            if rules["network"] == "auto" and rules["weights"] is None and inception_v3_path():
                settings["network"] = "inception_v3"  # its weights may come later
            key = self._stage("filter", settings, sift, there=lambda: _is_filtered(bank))
        if recipe.compare.synthetic == "bank":
            return bank
        return self.composed(recipe.fit, bank, key)

    def composed(self, fitting: FitConfig, bank: Path | None = None, key: str = "") -> Path:
        """Prepare composition: objects of the pairs, and of a bank, over other backgrounds."""
        config = replace(
            FitConfig(preset="compose"),
            seed=fitting.seed,
            resize=fitting.resize,
            flip=fitting.flip,
            shift=fitting.shift,
            enlarge=fitting.enlarge,
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
        target, made = self.path / stage, False
        worth = WORTH if stage == "generator" else 0
        uneven = len(set(self.unit.sizes)) > 1
        resize = (config.resize or "stretch") if uneven else None
        config = replace(config, names=self._names, resize=resize)

        def forget() -> None:
            if target.exists():
                with files.claimed(target):
                    files.clear_directory(target)

        def make(started: bool) -> None:
            nonlocal made
            made = True
            resume = started and (target / CHECKPOINT).is_file()
            if not resume and not (target / "manifest.json").exists():
                forget()  # a fit that was stopped before its first save
            self._call(
                _fit,
                counted="step",
                worth=worth,
                echo=lambda line: self.echo(f"{self.head}: {line}"),
                images=None if resume else self._write_pairs() / "images",
                masks=None if resume else self.path / "pairs" / "masks",
                out=target,
                resume=resume,
                overwrite=not resume,
                config=config,
                white_is_object=self.unit.white_is_object,
            )

        options = asdict(config)
        if config.preset != "compose":
            options["copies"] = 2  # the default when such stages were first made
        for name in _LATER_OPTIONS:
            if options[name] == getattr(FitConfig(), name):
                del options[name]
        del options["names"]  # they change no sample: what was made before they came stays valid
        settings = {**options, "objects": objects_key, "pairs": self._pairs}
        if self.unit.white_is_object:
            settings["white_is_object"] = True
        if config.source is not None and (source := Path(config.source, "manifest.json")).is_file():
            settings["source_sha256"] = files.sha256_file(source)
        if config.vgg is not None and Path(config.vgg).is_file():
            settings["vgg_sha256"] = files.sha256_file(config.vgg)
        there = None
        if config.preset in UNTRAINED:  # others take long: a bank that is drawn needs them no more
            there = partial(self._opens, target, partial(load_generator, target))
        key = self._stage(stage, settings, make, there=there, forget=forget)
        if self.jobs is not None and not made:
            self.jobs.count(worth)
        return key

    def _call(
        self,
        function: Callable[..., T],
        *arguments: Any,
        counted: str,
        worth: int = 0,
        **named: Any,
    ) -> T:
        """Call what takes long: here, showing how much is done, or in another process."""
        if self.jobs is None:
            return function(*arguments, progress=counting(self.progress, counted), **named)
        return self.jobs.call(function, *arguments, worth=worth, **named)

    def _opens(self, path: Path, look: Callable[[], object]) -> bool:
        """Whether a folder is there and sound; say it where it is not sound, it is made again."""
        if not (path / "manifest.json").is_file():
            return False
        try:
            look()
        except InputError as error:
            self.echo(f"{self.head}: {error}; made again")
            return False
        return True

    def _stage(
        self,
        name: str,
        ingredients: Mapping[str, Any],
        make: Callable[[bool], None],
        there: Callable[[], bool] | None = None,
        forget: Callable[[], object] = lambda: None,
    ) -> str:
        """Run a stage unless it is done with these ingredients; return their hash.

        ``make`` is told whether a run with the same ingredients was begun before.
        """
        return run_stage(
            self.path / f"{name}.json",
            ingredients,
            make,
            there=there or (self.path / name / "manifest.json").is_file,
            echo=lambda line: self.echo(f"{self.head}: {line}"),
            forget=forget,
        )

    def _write_pairs(self) -> Path:
        target = self.path / "pairs"
        if target.exists():
            shutil.rmtree(target)
        for sample in self.unit.training:
            folder.write_pair(target, sample.id, sample)
        return target


def _fit(*, progress: Callable[[int, int], None] | None = None, **options: Any) -> None:
    """`fit` with the progress of other stages."""
    fit(progress=None if progress is None else lambda now: progress(now.step, now.total), **options)


def _content_hash(path: Path) -> str:
    """SHA-256 of a file, or of what lies in a folder: names and contents."""
    if path.is_file():
        return files.sha256_file(path)
    held = [file for file in sorted(path.rglob("*")) if file.is_file()]
    lines = [f"{file.relative_to(path)} {files.sha256_file(file)}" for file in held]
    return files.sha256_bytes("\n".join(lines).encode())


def _refuse_damaged(generator: Path) -> None:
    """Refuse a generator that does not open, in words for whom the same command would stop again.

    Raises:
        InputError: it does not.
    """
    try:
        load_generator(generator)
    except InputError as error:
        raise InputError(f"{error}: delete {generator}, the same command fits it again") from error


def _is_filtered(bank: Path) -> bool:
    return (bank / "manifest.json").is_file() and "filter" in Bank(bank).manifest
