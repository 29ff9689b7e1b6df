"""Presets of OASIS."""

from __future__ import annotations

import math
from typing import Any

from synthaug import devices
from synthaug.config import FitConfig
from synthaug.errors import InputError
from synthaug.fitting.presets.plan import Plan
from synthaug.plugins.diffaug import DiffAugment
from synthaug.plugins.hooks import Plugin
from synthaug.training import LoopSettings

NAMES = ("fast", "small", "paper")
AREA_PX = {"fast": 192 * 256, "small": 192 * 256, "paper": 256 * 256}
AREA_COUNTS = 0.25
"""Of a training size's distance from the one wanted, beside that of the aspect (logarithms)."""
GRID_PX = {"fast": 16, "small": 64, "paper": 64}
NETWORKS: dict[str, dict[str, Any]] = {
    "fast": {"largest_weight": 20.0},
    "small": {"base": 32, "hidden": 64, "discriminator_width": 0.5, "largest_weight": 50.0},
    "paper": {},
}
ABLATIONS: dict[str, dict[str, Any]] = {
    "labelmix": {"labelmix": 0.0},
    "balance": {"balance": False},
    "noise": {"noise": False},
}
LOOP: dict[str, dict[str, Any]] = {
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


def make_plan(
    config: FitConfig, size: tuple[int, int], num_classes: int | None, num_pairs: int
) -> Plan:
    """Resolve a fit of OASIS; see `synthaug.fitting.presets.make_plan`.

    Raises:
        InputError: there are no masks.
    """
    if num_classes is None:
        raise InputError("the generator oasis paints masks: give masks, or use osmis")
    preset: str = config.preset
    why = f"preset {preset}: as asked"
    if preset == "auto":
        gpu = config.accelerator != "cpu" and devices.cuda_works()
        preset = "small" if gpu else "fast"
        why = f"preset {preset}: {'a GPU is here' if gpu else 'no GPU'}"
    height, width = training_size(size, preset, config.max_size)
    settings = {
        "lr_generator": 1e-4,
        "lr_discriminator": 4e-4,
        "lr_pretrain": 1e-4,
        "betas": (0.0, 0.999),
        "seed": config.seed,
        **LOOP[preset],
    }
    if config.iterations is not None:
        settings["iterations"] = config.iterations
    if config.batch_size is not None:
        settings["batch_size"] = config.batch_size
    loop = LoopSettings(**settings)
    gan = {"name": "oasis", "preset": preset, "height": height, "width": width}
    gan |= {"num_classes": num_classes, **NETWORKS[preset]}
    if config.ablate is not None:
        gan |= ABLATIONS[config.ablate]
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
        own_plugins=own_plugins,
    )


def own_plugins(plan: Plan) -> list[Plugin]:
    """Build the preset's own plug-ins."""
    zoom = 1.0 if plan.preset == "paper" else 1.35
    return [
        DiffAugment(
            p=0.5,
            close_up=1.0,
            zoom=(1.0, zoom),
            rotation=0.0,
            flip=plan.flip,
            shift=(0.0, 0.0),
        )
    ]


def training_size(size: tuple[int, int], preset: str, max_size: int | None) -> tuple[int, int]:
    """Return OASIS' training size: sides on the networks' grid, the aspect kept as well as it can.

    Args:
        size: height and width of the pictures in pixels.
        preset: ``fast``, ``small`` or ``paper``, which decides on grid and area.
        max_size: largest longer side in pixels instead of the area rule.
    """
    grid = GRID_PX[preset]
    least = max(grid, 32)
    scale = math.sqrt(AREA_PX[preset] / (size[0] * size[1]))
    if max_size is not None:
        scale = max_size / max(size)
    wanted = [side * scale for side in size]
    near = [
        {max(least, math.floor(side / grid) * grid), max(least, math.ceil(side / grid) * grid)}
        for side in wanted
    ]
    sizes = [(height, width) for height in sorted(near[0]) for width in sorted(near[1])]
    if max_size is not None:
        sizes = [found for found in sizes if max(found) <= max(max_size, least)]

    def distance(found: tuple[int, int]) -> float:
        tall, wide = (math.log(side / want) for side, want in zip(found, wanted, strict=True))
        return abs(tall - wide) + AREA_COUNTS * abs(tall + wide)

    return min(sizes, key=distance)
