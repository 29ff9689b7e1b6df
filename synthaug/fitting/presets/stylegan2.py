"""Presets of StyleGAN2."""

from __future__ import annotations

from synthaug.config import FitConfig
from synthaug.fitting.presets.pictures import choose_preset, open_source, own_plugins
from synthaug.fitting.presets.plan import Plan
from synthaug.gans.stylegan2 import PATH, PRESETS
from synthaug.gans.stylegan2.networks import channel_widths
from synthaug.training import LoopSettings

NAMES = ("small", "paper")
SIDE_PX = 64
"""Side of the pictures of a StyleGAN2 that starts from nothing, if nobody says another."""
LOOP: dict[tuple[str, bool], tuple[int, int]] = {
    ("small", False): (10_000, 8),
    ("paper", False): (200_000, 32),
    ("small", True): (2000, 4),
    ("paper", True): (5000, 4),
}
"""(preset, adapted) -> steps and batch; published for similar domains: 5000 of 4."""


def make_plan(
    config: FitConfig, size: tuple[int, int], num_classes: int | None, num_pairs: int
) -> Plan:
    """Resolve a fit of StyleGAN2, adapted from a source or from nothing.

    Pictures are squeezed to the networks' square, and samples brought back to their size. With
    masks the last third of the steps trains them.

    Raises:
        InputError: the source is none, or of another size than asked for, or there is no such size.
    """
    adapted = config.source is not None
    preset = choose_preset(config)
    if adapted:
        source, why = open_source(config)
        gan, side = source.target_spec(config.adaptation, config.smoothness), source.size
    else:
        side = config.max_size or SIDE_PX
        channels = channel_widths(side, PRESETS[preset]["base"], PRESETS[preset]["largest"])
        gan = {"name": "stylegan2", "size": side, "preset": preset, "channels": channels}
        if preset == "paper":
            gan["path"] = PATH
        why = f"preset {preset}"
    steps, batch = LOOP[preset, adapted]
    steps = config.iterations or (steps if num_classes is None else steps * 3 // 2)
    if num_classes is not None:
        begin = steps * 2 // 3
        drawn = (steps - begin) * 15 // 100
        gan |= {"num_classes": num_classes, "mask_from": begin, "bernoulli_steps": drawn}
        if config.joint_masks:
            gan["joint_masks"] = True
            why += ", joint masks"
    return Plan(
        preset=preset,
        why=why,
        gan={**gan, "r1": 10.0 if side >= 256 else 1.0},
        size=(side, side),
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
        own_plugins=own_plugins,
    )
