"""Presets of BigGAN."""

from __future__ import annotations

from synthaug.config import FitConfig
from synthaug.errors import InputError
from synthaug.fitting.presets.pictures import choose_preset, open_source, own_plugins
from synthaug.fitting.presets.plan import Plan
from synthaug.gans.biggan import architecture
from synthaug.training import LoopSettings

NAMES = ("small", "paper")
SIDE_PX = 32
"""Side of the pictures of a BigGAN that starts from nothing, if nobody says another."""
LOOP: dict[tuple[str, bool], tuple[int, int, float, float]] = {
    ("small", False): (10_000, 16, 2e-4, 0.999),
    ("paper", False): (200_000, 256, 1e-4, 0.9999),
    ("small", True): (2000, 8, 1e-4, 0.998),
    ("paper", True): (30_000, 32, 5e-5, 0.9999),
}
"""(preset, adapted) -> steps, batch, the generator's learning rate and the decay of its average;
published for adaptation: 30,000 steps of 32, and for training from nothing batches of 2048."""
DISCRIMINATOR_RATE = 4.0
"""The discriminator's learning rate over the generator's."""


def make_plan(
    config: FitConfig, size: tuple[int, int], num_classes: int | None, num_pairs: int
) -> Plan:
    """Resolve a fit of BigGAN, adapted from a source or from nothing.

    Pictures are squeezed to the networks' square, and samples brought back to their size.

    Raises:
        InputError: there are masks, or the source is none, or of another size than asked for.
    """
    if num_classes is not None:
        raise InputError("biggan makes pictures without masks: leave out the masks, or use osmis")
    adapted = config.source is not None
    preset = choose_preset(config)
    if adapted:
        source, why = open_source(config)
        gan, side = source.target_spec(config.adaptation, config.smoothness), source.size
    else:
        side = config.max_size or SIDE_PX
        gan, why = architecture(side, preset), f"preset {preset}"
    steps, batch, rate, decay = LOOP[preset, adapted]
    return Plan(
        preset=preset,
        why=why,
        gan=gan,
        size=(side, side),
        loop=LoopSettings(
            iterations=config.iterations or steps,
            batch_size=config.batch_size or batch,
            lr_generator=rate,
            lr_discriminator=DISCRIMINATOR_RATE * rate,
            lr_pretrain=rate,
            betas=(0.0, 0.999),
            ema=decay,
            share_fakes=False,
            seed=config.seed,
        ),
        watch_every=250,
        sample_every=config.sample_every or 250,
        own_plugins=own_plugins,
    )
