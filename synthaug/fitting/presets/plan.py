"""A resolved preset, and what each GAN tells of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from synthaug.config import FitConfig
from synthaug.plugins.diffaug import DiffAugment
from synthaug.plugins.hooks import Plugin
from synthaug.plugins.named import Settings, build_plugins
from synthaug.training import LoopSettings


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
        own_plugins: builds the plug-ins that belong to the preset; a module's function.
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
    own_plugins: Callable[[Plan], list[Plugin]]
    flip: bool = True
    keep_best: bool = False
    extra: tuple[str, ...] = ()
    adapted: bool = False

    def plugins(self) -> list[Plugin]:
        """Build the preset's plug-ins and the extra ones."""
        own, flip = self.own_plugins(self), self.flip
        if "ada" in self.extra:
            if self.adapted:
                flip = False  # pictures are mirrored from the start, apart from its probability
            else:
                own = [plugin for plugin in own if not isinstance(plugin, DiffAugment)]
        pictures = self.loop.iterations * self.loop.batch_size
        return own + build_plugins(self.extra, Settings(self.loop.seed, flip, pictures))


@dataclass(frozen=True)
class Presets:
    """The presets of one GAN.

    Attributes:
        names: what a user may ask for, beside ``auto``.
        make_plan: resolves a fit; see `synthaug.fitting.presets.make_plan` for what it is given.
        square_px: the GAN learns, without a source, from squares cut out of many unlabelled
            pictures, brought to this side if nobody says another; None: it learns otherwise.
    """

    names: tuple[str, ...]
    make_plan: Callable[[FitConfig, tuple[int, int], int | None, int], Plan]
    square_px: int | None = None
