"""Which GAN to fit: a preset becomes a GAN's description, plug-ins and loop settings.

A GAN has one module here and one line in `GANS`.
"""

from __future__ import annotations

from dataclasses import replace

from synthaug.config.fit import ADAPTED, OF_COMPOSE, SMOOTH, FitConfig
from synthaug.errors import InputError
from synthaug.fitting.presets import biggan, oasis, osmis, stylegan2, transgan
from synthaug.fitting.presets.plan import Plan, Presets
from synthaug.plugins.named import check_plugins

__all__ = ["GANS", "UNTRAINED", "Plan", "check", "check_fit", "make_plan"]

GANS: dict[str, Presets] = {
    "osmis": Presets(osmis.NAMES, osmis.make_plan),
    "oasis": Presets(oasis.NAMES, oasis.make_plan),
    "stylegan2": Presets(stylegan2.NAMES, stylegan2.make_plan, stylegan2.SIDE_PX),
    "biggan": Presets(biggan.NAMES, biggan.make_plan, biggan.SIDE_PX),
    "transgan": Presets(transgan.NAMES, transgan.make_plan, transgan.SIDE_PX),
}
UNTRAINED = ("compose", "patch")
"""Presets that train nothing."""
_OF_TRAINING = ("iterations", "batch_size", "max_size", "sample_every", "devices", "precision")
"""Options without effect there."""


def check(config: FitConfig, *, labelled: bool = True) -> None:
    """Refuse settings that do not go together, before anything is read.

    Args:
        config: what the user asked for.
        labelled: whether there are masks, where that is known.

    Raises:
        InputError: there is no such generator, it has no such preset, or an option or a plug-in
            does not go with generator or preset.
    """
    gan, preset = config.generator, config.preset
    if gan not in GANS:
        raise InputError(f"unknown generator {gan}: known are {', '.join(GANS)}")
    if gan not in ADAPTED and (config.source or config.adaptation != "both"):
        raise InputError(
            f"a source and its adaptation go with --generator {' or '.join(ADAPTED)}: add that"
        )
    if config.adaptation != "both" and config.source is None:
        raise InputError(f"adaptation {config.adaptation} starts from a source: add --source")
    if config.adaptation == "path" and gan == "biggan":
        raise InputError(
            "adaptation path is about StyleGAN2's styles, and BigGAN has none: choose another"
        )
    if config.smoothness is not None and (config.source is None or config.adaptation not in SMOOTH):
        raise InputError(
            f"a weight of smoothness goes with a source and adaptation {' or '.join(SMOOTH)}: "
            "leave it out"
        )
    if config.joint_masks and (gan != "stylegan2" or config.source is None or not labelled):
        raise InputError(
            "joint masks go with --generator stylegan2, a source and masks: add these, or leave "
            "it out"
        )
    if gan != "oasis" and config.ablate is not None:
        raise InputError(f"ablate={config.ablate} goes with --generator oasis: leave it out")
    if gan != "oasis" and config.vgg is not None:
        raise InputError("the VGG loss goes with --generator oasis: add that, or leave vgg out")
    *others, last = GANS[gan].names
    if preset not in ("auto", *others, last):
        known = f"{', '.join(others)} or {last}" if others else last
        raise InputError(f"the generator {gan} has no preset {preset}: use {known}")
    if config.objects is not None and preset != "compose":
        raise InputError("a bank of objects goes with --preset compose: add it or leave it out")
    if preset in UNTRAINED:
        idle = [f"the plug-in {name}" for name in config.plugins]
        usual = FitConfig()
        idle += [name for name in _OF_TRAINING if getattr(config, name) != getattr(usual, name)]
        if idle:
            raise InputError(f"the preset {preset} trains nothing: leave out {', '.join(idle)}")
    check_plugins(gan, config.plugins, labelled=labelled)


def check_fit(config: FitConfig) -> None:
    """Refuse what `check` does, and options of ``compose`` that this fit would not heed.

    In a recipe they are not idle: its copy-paste heeds them, whatever the generator.

    Raises:
        InputError: see `check`; or such an option is set.
    """
    check(config)
    idle = [name for name in OF_COMPOSE if getattr(config, name) != getattr(FitConfig(), name)]
    if idle and config.preset != "compose":
        raise InputError(f"{', '.join(idle)} is for the preset compose: use it or leave it out")
    if config.resize is not None and GANS[config.generator].square_px and config.source is None:
        raise InputError(
            f"{config.generator} without a source takes images of any sizes: leave --resize out"
        )
    composes = config.generator == "osmis" and config.preset in ("auto", "fast", "compose")
    if config.enlarge != FitConfig().enlarge and not composes:
        raise InputError(
            "only the presets fast and compose enlarge objects: leave --no-enlarge out"
        )


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
        InputError: see `check`; or the generator needs masks, or its source does not fit.
    """
    check(config, labelled=num_classes is not None)
    plan = GANS[config.generator].make_plan(config, size, num_classes, num_pairs)
    return replace(
        plan,
        extra=tuple(config.plugins),
        flip=config.flip,
        adapted=config.source is not None,
    )
