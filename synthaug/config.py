"""One frozen dataclass per stage, and the reading of recipes (YAML) that fill them.

Classes are plain keywords inside the package; values are validated once, where they come in: in
`load_recipe` (files, ``--set`` and command line flags) and in `make` (keywords of an API call).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Gt, Le, Lt

from synthaug.errors import InputError

Accelerator = Literal["auto", "cpu", "cuda", "gpu", "mps"]
T = TypeVar("T")


@dataclass(frozen=True)
class FitConfig:
    """How a generator is fitted.

    Attributes:
        generator: ``osmis`` makes pairs of one labelled image or a few; ``oasis`` paints label
            maps, learned from tens of pairs up; ``stylegan2`` adapts a trained generator of
            pictures to a few, or, without a source, learns from many.
        preset: ``fast`` (frozen pre-trained features, minutes on a CPU), ``paper`` (the published
            OSMIS), ``compose`` (no training: the pair's own objects, moved over its background),
            ``patch`` (no training: noise and the pair's patches) or ``auto`` (fast or paper, by
            device and image size). Of ``oasis``: ``fast``, ``paper``, ``small`` (narrower than
            published, for a GPU and a few hundred pictures) or ``auto`` (fast or small). Of
            ``stylegan2``: ``small``, ``paper`` or ``auto``, which is small without a GPU or
            without a source.
        iterations: training steps; None = the preset's.
        batch_size: pairs per step; None = the preset's.
        max_size: longer side in training, px; None = the preset's.
        seed: every random draw follows from it.
        accelerator: where to train.
        devices: number of processes, one per device.
        precision: arithmetic, as Lightning Fabric names it; ``auto`` takes bf16-mixed where the
            processor computes it natively, and 32-true elsewhere.
        flip: mirror images of the pair are plausible and may be learned from.
        ignore: ids in the masks that stand for "not labelled".
        plugins: names of data-efficient training's plug-ins, `synthaug.plugins.named`.
        ablate: oasis: what to leave out, to measure its worth: ``labelmix``, ``balance`` (of the
            classes) or ``noise``.
        source: stylegan2: folder of ``pretrain`` or ``convert`` to adapt.
        adaptation: stylegan2: ``both`` (a loss over all blocks of the discriminator, and
            smoothness similarity), ``blocks`` or ``smoothness`` alone, ``plain`` (neither) or
            ``freezed`` (neither, and the discriminator's first blocks stay as they are).
        sample_every: steps between sample grids; None = the preset's.
        checkpoint_s: seconds between checkpoints.
        objects: compose: bank whose clean objects are pasted too.
        generated_share: compose: share of pasted objects that come from that bank.
        background_share: compose: share of backgrounds that come from that bank.
        shift: compose: objects go ``anywhere`` or stay ``near`` their place; ``auto`` is near in
            scenes, where classes other than the background cover most of a picture.
        copies: compose: at most this many objects are pasted once more.
    """

    generator: Literal["osmis", "oasis", "stylegan2"] = "osmis"
    preset: Literal["auto", "fast", "small", "paper", "compose", "patch"] = "auto"
    iterations: Annotated[int, Ge(1)] | None = None
    batch_size: Annotated[int, Ge(1), Le(256)] | None = None
    max_size: Annotated[int, Ge(32), Le(4096)] | None = None
    seed: int = 0
    accelerator: Accelerator = "auto"
    devices: Annotated[int, Ge(1)] = 1
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    flip: bool = True
    ignore: tuple[Annotated[int, Ge(0), Le(255)], ...] = ()
    plugins: tuple[str, ...] = ()
    ablate: Literal["labelmix", "balance", "noise"] | None = None
    source: str | None = None
    adaptation: Literal["both", "plain", "blocks", "smoothness", "freezed"] = "both"
    sample_every: Annotated[int, Ge(1)] | None = None
    checkpoint_s: Annotated[float, Gt(0)] = 60.0
    objects: str | None = None
    generated_share: Annotated[float, Ge(0), Le(1)] = 0.5
    background_share: Annotated[float, Ge(0), Le(1)] = 0.0
    shift: Literal["auto", "anywhere", "near"] = "auto"
    copies: Annotated[int, Ge(0), Le(10)] = 2


@dataclass(frozen=True)
class GenerateConfig:
    """How a bank is drawn from a generator.

    Attributes:
        n: number of samples, before the filter.
        seed: latent of sample i is the stream (seed, "latent", i).
        filter: ``sifid`` scores the bank and drops the worst samples; None keeps all.
        drop: share of samples that the filter drops, in [0, 1).
        coco: also write ``instances.json`` (COCO).
        render: ``patches`` makes every sample anew of the training pairs' patches.
        accelerator: where to generate.
        layouts: what a generator that paints masks is given instead of its training masks:
            ``edited`` or ``moved`` ones, the objects of a COCO file (``moved``), or masks of a
            folder, bank or generator; see `synthaug.layouts.Layouts`.
        rare: classes, by id or name, that these masks shall show more often; ``auto``: all alike.
    """

    n: Annotated[int, Ge(1)] = 100
    seed: int = 0
    filter: Literal["sifid"] | None = None
    drop: Annotated[float, Ge(0), Lt(1)] = 0.15
    coco: bool = False
    render: Literal["patches"] | None = None
    accelerator: Accelerator = "auto"
    layouts: str | None = None
    rare: tuple[int | str, ...] = ()


@dataclass(frozen=True)
class FilterConfig:
    """How a bank is filtered; `synthaug.filtering.filter_bank` explains the rules.

    Attributes:
        rule: depths at which SIFID ranks the samples; ``sifid-1234`` averages four ranks. None in
            a recipe keeps every sample, unscored.
        drop: share of the ranked samples to drop, the worst first, in [0, 1).
        network: feature network; ``auto`` takes InceptionV3 when its weights are there.
        weights: file of InceptionV3 weights; None searches torch's cache.
        min_area_ratio: smallest object area, relative to the smallest of the training pairs.
        max_area_ratio: largest object area, relative to the largest of the training pairs.
        max_stray: largest share of object pixels in stray blobs.
    """

    rule: Literal["sifid-1234", "sifid-1", "sifid-2", "sifid-3", "sifid-4"] | None = "sifid-1234"
    drop: Annotated[float, Ge(0), Lt(1)] = 0.15
    network: Literal["auto", "inception_v3", "efficientnet_lite0"] = "auto"
    weights: str | None = None
    min_area_ratio: Annotated[float, Ge(0), Le(1)] = 0.25
    max_area_ratio: Annotated[float, Ge(1)] = 4.0
    max_stray: Annotated[float, Ge(0), Le(1)] = 0.1


@dataclass(frozen=True)
class DataConfig:
    """What a comparison trains and tests on.

    Attributes:
        kind: ``davis``: videos, the first frame labelled and the later ones tested; ``folders``:
            one data set of images and masks.
        root: DAVIS' folder, with ``JPEGImages`` and ``Annotations``.
        videos: names of videos below it.
        every: test on every n-th of the later frames.
        images: folder of training images.
        masks: folder of their masks, same file stems.
        test_images: folder of test images; without it the images are split.
        test_masks: folder of their masks.
        train: images to train on: their number, or their share when below 1; None = all where
            there is a test folder, else half.
        seed: of the split.
        ignore: ids in the masks of ``folders`` that stand for "not labelled".
    """

    kind: Literal["davis", "folders"] = "davis"
    root: str | None = None
    videos: tuple[str, ...] = ()
    every: Annotated[int, Ge(1)] = 1
    images: str | None = None
    masks: str | None = None
    test_images: str | None = None
    test_masks: str | None = None
    train: Annotated[int | float, Gt(0)] | None = None
    seed: int = 0
    ignore: tuple[Annotated[int, Ge(0), Le(255)], ...] = ()


@dataclass(frozen=True)
class CompareConfig:
    """How ways to train a segmenter are compared.

    Attributes:
        arms: names of the ways, the built-in ones of `synthaug.mixing.arms`; ``auto`` chooses for
            each unit from its labelled images alone.
        seeds: repetitions of every arm on every unit.
        baseline: the arm that gains are measured against.
        synthetic: what synthetic items are in a recipe's run: ``bank``, the filtered samples;
            ``compose``, compositions that paste the bank's objects too.
        segmenter: ``osvos``, ``matching``, ``repri``, ``unet``, ``fpn``, ``deeplabv3``,
            ``deeplabv3plus``, or ``package.module:function``, called with ``num_classes``;
            ``auto`` takes osvos for videos and unet for images.
        steps: optimiser steps of each training.
        batch_size: pictures per step.
        side_px: longer side in training.
        lr: learning rate.
        encoder: network under the segmenter, as segmentation-models-pytorch names it.
        parent: what ``osvos`` starts from, beside the encoder's ImageNet weights: a file of
            parent weights, or ``others``: for each half of the videos (those at even places, at
            odd places) a parent trained on the other half.
        parent_steps: optimiser steps of each such training.
        jobs: trainings side by side, each on one thread; None = one per core, at most 8, and one
            where a GPU is. One alone takes all threads.
    """

    arms: tuple[str, ...] = (
        "none",
        "standard",
        "copy-paste",
        "synthetic",
        "standard+synthetic",
        "standard+copy-paste",
        "standard+copy-paste+synthetic",
        "auto",
    )
    seeds: Annotated[int, Ge(1), Le(1000)] = 3
    baseline: str = "standard"
    synthetic: Literal["bank", "compose"] = "bank"
    segmenter: str = "auto"
    steps: Annotated[int, Ge(1)] = 150
    batch_size: Annotated[int, Ge(1), Le(256)] = 8
    side_px: Annotated[int, Ge(32), Le(4096)] = 256
    lr: Annotated[float, Gt(0)] = 1e-3
    encoder: str = "tu-tf_efficientnet_lite0"
    parent: str | None = None
    parent_steps: Annotated[int, Ge(1)] = 350
    jobs: Annotated[int, Ge(1), Le(1024)] | None = None


@dataclass(frozen=True)
class DemoConfig:
    """How the demonstration runs.

    Attributes:
        seed: every random draw follows from it.
        iterations: training steps of the generator; None = 400.
    """

    seed: int = 0
    iterations: Annotated[int, Ge(1)] | None = None


@dataclass(frozen=True)
class Recipe:
    """The settings of all stages."""

    fit: FitConfig = field(default_factory=FitConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    data: DataConfig = field(default_factory=DataConfig)
    compare: CompareConfig = field(default_factory=CompareConfig)
    demo: DemoConfig = field(default_factory=DemoConfig)


_STAGES: dict[str, type[Any]] = {
    "fit": FitConfig,
    "generate": GenerateConfig,
    "filter": FilterConfig,
    "data": DataConfig,
    "compare": CompareConfig,
    "demo": DemoConfig,
}


def load_recipe(
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Mapping[str, Any]] | None = None,
) -> Recipe:
    """Read a recipe; later sources win: defaults, the file, command line flags, ``--set``.

    Args:
        path: YAML file of stages and their options; None = all defaults.
        overrides: items ``stage.option=value``, the value in YAML.
        flags: per stage, options from the command line; None values are not given.

    Returns:
        The validated recipe.

    Raises:
        InputError: the file is missing or no YAML mapping, or a stage, option or value is wrong;
            the line names the option, where it stands, and the nearest valid name.
    """
    values: dict[str, dict[str, Any]] = {stage: {} for stage in _STAGES}
    origins: dict[tuple[str, str], str] = {}

    def put(stage: str, option: str, value: Any, origin: str) -> None:
        _check_name(stage, _STAGES, "stage", origin)
        names = [f.name for f in fields(_STAGES[stage])]
        _check_name(option, names, f"option {stage}.", origin)
        values[stage][option] = value
        origins[stage, option] = origin

    for stage, options in _read_yaml(path).items() if path is not None else ():
        _check_name(str(stage), _STAGES, "stage", str(path))
        if options is not None and not isinstance(options, dict):
            raise InputError(f"{path}: stage {stage} must hold options, one 'name: value' a line")
        for option, value in (options or {}).items():
            put(str(stage), str(option), value, str(path))
    for stage, given in (flags or {}).items():
        for option, value in given.items():
            if value is not None:
                put(stage, option, value, "command line")
    for item in overrides:
        name, equals, text = item.partition("=")
        stage, dot, option = name.strip().partition(".")
        if not equals or not dot:
            raise InputError(
                f"--set {item}: write it as stage.option=value, as in --set fit.seed=1"
            )
        put(stage, option, _parse_value(text, item), f"--set {item}")
    return Recipe(
        **{
            stage: make(
                cls,
                values[stage],
                lambda option, stage=stage: f"{origins[stage, option]}: option {stage}.{option}",
            )
            for stage, cls in _STAGES.items()
        }
    )


def make(cls: type[T], values: Mapping[str, Any], where: Any = None) -> T:
    """Build one stage's config from known option names, with types and ranges checked.

    Args:
        cls: the config's class.
        values: its options; missing ones take their defaults.
        where: callable that turns an option's name into the error line's beginning.

    Raises:
        InputError: a value has the wrong type or lies outside its range.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]) if first["loc"] else ""
        begin = where(option) if where is not None else f"option {option}"
        raise InputError(f"{begin}: {first['msg']}, got {first['input']!r}") from error


def dump_stage(stage: str, config: Any) -> str:
    """Write one stage's config as a recipe, YAML text with the options in their class's order."""
    import yaml

    text: str = yaml.safe_dump({stage: asdict(config)}, sort_keys=False)
    return text


def versions() -> dict[str, str]:
    """Versions of this package and of those that decide its results, for manifests."""
    import importlib
    import platform
    from importlib.metadata import version

    packages = ("torch", "numpy", "timm")
    return {
        "synthaug": importlib.import_module("synthaug").__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def _read_yaml(path: str | Path) -> dict[Any, Any]:
    import yaml

    try:
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"no recipe at {path}: check the path") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"cannot read recipe {path}: {' '.join(str(error).split())}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"recipe {path} must hold stages ({', '.join(_STAGES)}) with options")
    return value


def _parse_value(text: str, item: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {item}: the value is not YAML; put it in quotes") from error


def _check_name(name: str, known: Iterable[str], what: str, origin: str) -> None:
    known = list(known)
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    label = f"{what}{name}" if what.endswith(".") else f"{what} {name}"
    raise InputError(f"{origin}: unknown {label}: {hint}")
