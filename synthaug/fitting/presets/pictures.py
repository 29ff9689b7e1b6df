"""What the presets of the GANs that learn from unlabelled pictures share."""

from __future__ import annotations

from synthaug import devices
from synthaug.config import FitConfig
from synthaug.errors import InputError
from synthaug.fitting.adaptation import Source, read_source
from synthaug.fitting.presets.plan import Plan
from synthaug.plugins.diffaug import DiffAugment
from synthaug.plugins.hooks import Plugin


def choose_preset(config: FitConfig) -> str:
    """Resolve ``auto``: the published settings where a GPU adapts a source, else ``small``."""
    if config.preset != "auto":
        return config.preset
    gpu = config.accelerator != "cpu" and devices.cuda_works()
    return "paper" if gpu and config.source is not None else "small"


def open_source(config: FitConfig) -> tuple[Source, str]:
    """Open a fit's source; returns it and words for the user.

    Raises:
        InputError: the source is none, or of another size than asked for.
    """
    assert config.source is not None
    source = read_source(config.source, config.generator)
    if config.max_size not in (None, source.size):
        raise InputError(
            f"source {config.source} makes pictures of {source.size} px, not {config.max_size}: "
            "leave out the size, or take another source"
        )
    why = f"adapts {config.source}, {config.adaptation}"
    if config.smoothness is not None:
        why += f", smoothness {config.smoothness:g}"
    if source.discriminator is None:
        why += "; it brings no discriminator: that starts anew"
    return source, why


def own_plugins(plan: Plan) -> list[Plugin]:
    """Build the preset's own plug-ins: mirroring alone where a few pictures are adapted to."""
    if plan.adapted:
        mirror = DiffAugment(
            0.5, close_up=1.0, zoom=(1, 1), rotation=0.0, flip=plan.flip, shift=(0, 0)
        )
        return [mirror]
    return [DiffAugment(0.5, close_up=1.0, flip=plan.flip, colour=0.2)]
