"""Presets of TransGAN."""

from __future__ import annotations

from synthaug.config import FitConfig
from synthaug.errors import InputError
from synthaug.fitting.presets.pictures import own_plugins
from synthaug.fitting.presets.plan import Plan
from synthaug.gans.transgan import WIDTHS
from synthaug.training import LoopSettings

NAMES = ("small",)
SIDE_PX = 32
"""Side of the pictures, if nobody says another."""
ITERATIONS = 10_000


def make_plan(
    config: FitConfig, size: tuple[int, int], num_classes: int | None, num_pairs: int
) -> Plan:
    """Resolve a fit of TransGAN, from nothing.

    Raises:
        InputError: it makes no pictures of the size asked for.
    """
    side = config.max_size or SIDE_PX
    if side not in WIDTHS:
        sizes = " or ".join(map(str, WIDTHS))
        raise InputError(f"transgan makes squares of {sizes} px, not {side}: use --max-size 32")
    return Plan(
        preset="small",
        why="preset small",
        gan={"name": "transgan", "size": side},
        size=(side, side),
        loop=LoopSettings(
            iterations=config.iterations or ITERATIONS,
            batch_size=config.batch_size or 8,
            lr_generator=2e-4,
            lr_discriminator=4e-4,
            lr_pretrain=2e-4,
            betas=(0.0, 0.99),
            ema=0.995,
            share_fakes=False,
            seed=config.seed,
        ),
        watch_every=250,
        sample_every=config.sample_every or 250,
        own_plugins=own_plugins,
    )
