"""Which GAN to fit: a preset becomes a GAN's description, plug-ins and loop settings."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from synthaug.adaptation import read_source
from synthaug.config import FitConfig
from synthaug.errors import InputError
from synthaug.gans.osmis.fast_networks import fast_size
from synthaug.gans.osmis.networks import size_rule
from synthaug.plugins.diffaug import DiffAugment
from synthaug.plugins.diversity import Diversity
from synthaug.plugins.hooks import Plugin
from synthaug.plugins.named import Settings, build_plugins, check_plugins
from synthaug.training import LoopSettings

PAPER_MAX_SIDE_PX = 640
PAPER_MIN_SIDE_PX = 48


@dataclass(frozen=True)
class Plan:
    """A resolved preset.

    Attributes:
        preset: ``fast``, ``small`` or ``paper``.
        why: one line for the user.
        gan: what `synthaug.gans.build` takes.
        size: height and width in training, px.
        loop: settings of the training loop.
        watch_every: steps between two looks at diversity and quality.
        sample_every: steps between two sample grids.
        flip: whether mirror images are plausible.
        keep_best: keep the snapshot that the monitor likes best, not the last one: its figures
            are for pictures that look like one of the first few training pairs.
        extra: names of plug-ins beside the preset's own; ``ada`` takes the place of its
            augmentation.
        adapted: the training starts from a trained generator.
    """

    preset: str
    why: str
    gan: dict[str, Any]
    size: tuple[int, int]
    loop: LoopSettings
    watch_every: int
    sample_every: int
    flip: bool
    keep_best: bool = True
    extra: tuple[str, ...] = ()
    adapted: bool = False

    def plugins(self) -> list[Plugin]:
        """Build the preset's plug-ins and the extra ones."""
        own = self._own_plugins()
        if "ada" in self.extra:
            own = [plugin for plugin in own if not isinstance(plugin, DiffAugment)]
        pictures = self.loop.iterations * self.loop.batch_size
        return own + build_plugins(self.extra, Settings(self.loop.seed, self.flip, pictures))

    def _own_plugins(self) -> list[Plugin]:
        if self.gan["name"] == "stylegan2":
            lens = DiffAugment(0.5, close_up=1.0, flip=self.flip, colour=0.2)
            mirror = DiffAugment(
                0.5, close_up=1.0, zoom=(1, 1), rotation=0.0, flip=self.flip, shift=(0, 0)
            )
            return [mirror if self.adapted else lens]
        if self.gan["name"] == "oasis":
            zoom = 1.0 if self.preset == "paper" else 1.35
            return [
                DiffAugment(
                    p=0.5,
                    close_up=1.0,
                    zoom=(1.0, zoom),
                    rotation=0.0,
                    flip=self.flip,
                    shift=(0.0, 0.0),
                )
            ]
        if self.preset == "paper":
            return [
                DiffAugment(p=0.7, flip=self.flip),
                Diversity(0.15, "code"),
            ]
        lens = DiffAugment(
            p=0.5, close_up=1.0, zoom=(1.0, 1.35), flip=self.flip, shift=(0.02, 0.15)
        )
        return [lens, Diversity(0.3, "thesis")]


def make_plan(
    config: FitConfig, size: tuple[int, int], num_classes: int | None, num_pairs: int
) -> Plan:
    """Resolve a fit's settings for pictures of one size.

    Args:
        config: what the user asked for.
        size: height and width of the pictures in pixels.
        num_classes: N; None without masks.
        num_pairs: number of training pairs.

    Raises:
        InputError: the generator has no such preset, needs masks, or does not go with a plug-in.
    """
    check_plugins(config.generator, config.plugins)
    plan = _make_plan(config, size, num_classes, num_pairs)
    return replace(plan, extra=tuple(config.plugins))


def _make_plan(
    config: FitConfig, size: tuple[int, int], num_classes: int | None, num_pairs: int
) -> Plan:
    if config.generator != "stylegan2" and (config.source or config.adaptation != "both"):
        raise InputError("a source and its adaptation go with --generator stylegan2: add that")
    if config.generator == "oasis":
        return make_oasis_plan(config, size, num_classes)
    if config.ablate is not None:
        raise InputError(f"ablate={config.ablate} goes with --generator oasis: leave it out")
    if config.generator == "stylegan2":
        return make_stylegan2_plan(config, num_classes)
    if config.preset == "small":
        raise InputError("preset small goes with --generator oasis: use fast or paper for osmis")
    preset: str = config.preset
    why = f"preset {config.preset}: as asked"
    if preset == "auto":
        preset, why = _choose(config, size)
    return (_paper if preset == "paper" else _fast)(config, why, size, num_classes, num_pairs)


def _choose(config: FitConfig, size: tuple[int, int]) -> tuple[str, str]:
    if config.accelerator == "cpu" or not torch.cuda.is_available():
        return "fast", "preset fast: no GPU, where the published OSMIS would take weeks"
    if min(size) < PAPER_MIN_SIDE_PX:
        return "fast", f"preset fast: under {PAPER_MIN_SIDE_PX} px a side, too small for paper"
    return "paper", f"preset paper: a GPU is here; it trains {_paper_iterations(1)} steps, hours"


def _paper_iterations(num_pairs: int) -> int:
    """Published: 100,000 steps for an image, 300,000 for a video."""
    return 100_000 if num_pairs == 1 else 300_000


def _paper(
    config: FitConfig,
    why: str,
    size: tuple[int, int],
    num_classes: int | None,
    num_pairs: int,
) -> Plan:
    max_size = config.max_size or PAPER_MAX_SIDE_PX
    rule = size_rule(*size, max_size)
    iterations = config.iterations or _paper_iterations(num_pairs)
    return Plan(
        preset="paper",
        why=why,
        gan={
            "name": "osmis",
            "preset": "paper",
            "height": size[0],
            "width": size[1],
            "num_classes": num_classes,
            "max_size": max_size,
            "bernoulli_steps": min(15_000, max(1, iterations * 15 // 100)),
        },
        size=(rule.height, rule.width),
        loop=LoopSettings(
            iterations=iterations,
            batch_size=config.batch_size or 5,
            lr_generator=2e-4,
            lr_discriminator=2e-4,
            lr_pretrain=2e-4,
            betas=(0.5, 0.999),
            ema=0.9999,
            share_fakes=False,
            seed=config.seed,
        ),
        watch_every=1000,
        sample_every=config.sample_every or 1000,
        flip=config.flip,
    )


def _fast(
    config: FitConfig,
    why: str,
    size: tuple[int, int],
    num_classes: int | None,
    num_pairs: int,
) -> Plan:
    iterations = config.iterations or 480
    height, width = fast_size(*size, config.max_size)
    pretrain = min(150, max(1, iterations // 4))
    return Plan(
        preset="fast",
        why=why,
        gan={
            "name": "osmis",
            "preset": "fast",
            "height": height,
            "width": width,
            "num_classes": num_classes,
            "num_pairs": num_pairs,
            "flip": config.flip,
            "pretrain_steps": pretrain,
            "bernoulli_steps": pretrain + (iterations - pretrain) * 15 // 100,
        },
        size=(height, width),
        loop=LoopSettings(
            iterations=iterations,
            batch_size=config.batch_size or 4,
            lr_generator=5e-4,
            lr_discriminator=1e-3,
            lr_pretrain=1e-3,
            betas=(0.0, 0.99),
            ema=0.99,
            share_fakes=True,
            seed=config.seed,
        ),
        watch_every=50,
        sample_every=config.sample_every or 100,
        flip=config.flip,
    )


OASIS_AREA_PX = {"fast": 192 * 256, "small": 192 * 256, "paper": 256 * 256}
OASIS_GRID_PX = {"fast": 16, "small": 64, "paper": 64}
OASIS_GAN: dict[str, dict[str, Any]] = {
    "fast": {"largest_weight": 20.0},
    "small": {"base": 32, "hidden": 64, "discriminator_width": 0.5, "largest_weight": 50.0},
    "paper": {},
}
OASIS_ABLATIONS: dict[str, dict[str, Any]] = {
    "labelmix": {"labelmix": 0.0},
    "balance": {"balance": False},
    "noise": {"noise": False},
}
OASIS_LOOP: dict[str, dict[str, Any]] = {
    "fast": {
        "iterations": 3000,
        "batch_size": 4,
        "lr_generator": 4e-4,
        "lr_discriminator": 1e-3,
        "lr_pretrain": 1e-3,
        "ema": 0.995,
        "share_fakes": True,
    },
    "small": {"iterations": 20_000, "batch_size": 8, "ema": 0.999, "share_fakes": True},
    "paper": {"iterations": 125_000, "batch_size": 32, "ema": 0.9999, "share_fakes": False},
}
"""Published: 200 epochs of ADE20K's 20,210 pictures are about 126,000 steps of 32."""


def make_oasis_plan(config: FitConfig, size: tuple[int, int], num_classes: int | None) -> Plan:
    """Resolve a fit of OASIS; see `make_plan`.

    Raises:
        InputError: there are no masks.
    """
    if num_classes is None:
        raise InputError("the generator oasis paints masks: give masks, or use osmis")
    preset: str = config.preset
    why = f"preset {preset}: as asked"
    if preset == "auto":
        gpu = config.accelerator != "cpu" and torch.cuda.is_available()
        preset = "small" if gpu else "fast"
        why = f"preset {preset}: {'a GPU is here' if gpu else 'no GPU'}"
    height, width = oasis_size(size, preset, config.max_size)
    settings = {
        "lr_generator": 1e-4,
        "lr_discriminator": 4e-4,
        "lr_pretrain": 1e-4,
        "betas": (0.0, 0.999),
        "seed": config.seed,
        **OASIS_LOOP[preset],
    }
    if config.iterations is not None:
        settings["iterations"] = config.iterations
    if config.batch_size is not None:
        settings["batch_size"] = config.batch_size
    loop = LoopSettings(**settings)
    gan = {"name": "oasis", "preset": preset, "height": height, "width": width}
    gan |= {"num_classes": num_classes, **OASIS_GAN[preset]}
    if config.ablate is not None:
        gan |= OASIS_ABLATIONS[config.ablate]
    if preset == "fast":
        gan["pretrain_steps"] = min(300, max(1, loop.iterations // 4))
    every = 250 if preset == "fast" else 1000
    return Plan(
        preset=preset,
        why=why,
        gan=gan,
        size=(height, width),
        loop=loop,
        watch_every=every,
        sample_every=config.sample_every or every,
        flip=config.flip,
        keep_best=False,
    )


def oasis_size(size: tuple[int, int], preset: str, max_size: int | None) -> tuple[int, int]:
    """Return OASIS' training size: sides on the networks' grid, the aspect about kept.

    Args:
        size: height and width of the pictures in pixels.
        preset: ``fast``, ``small`` or ``paper``, which decides on grid and area.
        max_size: longer side in pixels instead of the area rule.
    """
    grid = OASIS_GRID_PX[preset]
    scale = math.sqrt(OASIS_AREA_PX[preset] / (size[0] * size[1]))
    if max_size is not None:
        scale = max_size / max(size)
    height, width = (max(grid, 32, round(side * scale / grid) * grid) for side in size)
    return height, width


STYLEGAN2_PX = 64
"""Side of the pictures of a StyleGAN2 that starts from nothing, if nobody says another."""
STYLEGAN2_LOOP: dict[tuple[str, bool], tuple[int, int]] = {
    ("small", False): (10_000, 8),
    ("paper", False): (200_000, 32),
    ("small", True): (2000, 4),
    ("paper", True): (5000, 4),
}
"""(preset, adapted) -> steps and batch; published for similar domains: 5000 of 4."""


def make_stylegan2_plan(config: FitConfig, num_classes: int | None) -> Plan:
    """Resolve a fit of StyleGAN2, adapted from a source or from nothing; see `make_plan`.

    Pictures are squeezed to the networks' square, and samples brought back to their size. With
    masks the last third of the steps trains them.

    Raises:
        InputError: the source is none, or of another size than asked for.
    """
    adapted = config.source is not None
    preset: str = config.preset
    if preset == "fast":
        raise InputError("the generator stylegan2 has no preset fast: use small or paper")
    if preset == "auto":
        gpu = config.accelerator != "cpu" and torch.cuda.is_available()
        preset = "paper" if gpu and adapted else "small"
    size = config.max_size or STYLEGAN2_PX
    if config.source is not None:
        source = read_source(config.source)
        gan, size = source.target_spec(config.adaptation), int(source.spec["size"])
        why = f"adapts {config.source}, {config.adaptation}"
        if config.max_size not in (None, size):
            raise InputError(
                f"source {config.source} makes pictures of {size} px, not {config.max_size}: "
                "leave out the size, or take another source"
            )
        if source.discriminator is None:
            why += "; it brings no discriminator: that starts anew"
    else:
        gan, why = {"name": "stylegan2", "size": size, "preset": preset}, f"preset {preset}"
    steps, batch = STYLEGAN2_LOOP[preset, adapted]
    steps = config.iterations or (steps if num_classes is None else steps * 3 // 2)
    if num_classes is not None:
        begin = steps * 2 // 3
        drawn = (steps - begin) * 15 // 100
        gan |= {"num_classes": num_classes, "mask_from": begin, "bernoulli_steps": drawn}
    return Plan(
        preset=preset,
        why=why,
        gan={**gan, "r1": 10.0 if size >= 256 else 1.0},
        size=(size, size),
        loop=LoopSettings(
            iterations=steps,
            batch_size=config.batch_size or batch,
            lr_generator=2e-3 * 4 / 5,
            lr_discriminator=2e-3 * 16 / 17,
            lr_pretrain=2e-3,
            betas=(0.0, 0.99),
            ema=0.99778,
            share_fakes=False,
            seed=config.seed,
        ),
        watch_every=250,
        sample_every=config.sample_every or 250,
        flip=config.flip,
        keep_best=False,
        adapted=adapted,
    )
