"""The options of the stages after fit, and of all stages together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from synthaug.config.arms import Arm
from synthaug.config.fit import Accelerator, FitConfig


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
            folder, bank or generator; see `synthaug.generation.Layouts`.
        rare: classes, by id or name, that these masks shall show more often; ``auto``: all alike.
        truncation: stylegan2: pulls samples towards one mean picture, from 1, not at all, to 0.
        labelmix: oasis: probability with which a class keeps the photograph's own pixels, each
            class of each sample for itself; 0 paints everything but ``keep``.
        keep: oasis: classes, by id or name, that keep the photograph's own pixels in every sample.
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
    truncation: Annotated[float, Ge(0), Le(1)] = 1.0
    labelmix: Annotated[float, Ge(0), Lt(1)] = 0.0
    keep: tuple[int | str, ...] = ()


@dataclass(frozen=True)
class FilterConfig:
    """How a bank is filtered; `synthaug.filtering.filter_bank` explains the rules.

    Attributes:
        rule: depths at which SIFID ranks the samples; ``sifid-1234`` averages four ranks (OSMIS'
            rule). None in a recipe keeps every sample, unscored.
        drop: share of the ranked samples to drop, the worst first, in [0, 1).
        network: feature network; ``auto`` takes InceptionV3 when its weights are there.
        weights: file of InceptionV3 weights; None searches torch's cache.
        min_area_ratio: smallest object area, relative to the smallest of the training pairs.
        max_area_ratio: largest object area, relative to the largest of the training pairs, or to
            half of what the generator enlarges that to.
        max_stray: largest share of object pixels in stray blobs: parts beyond the number that the
            training mask has of that class.
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
            one data set of images and masks, also where ``images`` is given and no ``root``.
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
        ignore: ids in the masks that stand for "not labelled".
        name: of the data set, for tables; with another name a training draws other numbers.
        names: of the masks' ids, for tables and for what is made from them; as `FitConfig` takes
            them. In a recipe's run those of ``fit`` count where there are none here.
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
    name: str = "data"
    names: str | tuple[str, ...] = ()


@dataclass(frozen=True)
class CompareConfig:
    """How ways to train a segmenter are compared.

    Attributes:
        arms: names of the ways, the built-in ones of `synthaug.config.arms`, and ways of your own,
            in a recipe as ``{name: light, shares: {real: 0.5, synthetic: 0.5}, augment: true,
            weight: 0.3}``, see `Arm`; ``auto`` chooses for each unit from its labelled images
            alone.
        seeds: repetitions of every arm on every unit.
        baseline: name of the arm that gains are measured against.
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
            where a GPU is. One alone takes all threads. A run fits as many generators side by
            side, and shares out the threads among them.
    """

    arms: tuple[str | Arm, ...] = (
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
    lr: Annotated[float, Gt(0), Lt(math.inf)] = 1e-3
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
