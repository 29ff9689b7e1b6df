"""What is looked at before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from synthaug.config.arms import Arm
from synthaug.errors import InputError
from synthaug.fitting.training_pairs import lost_classes
from synthaug.gain.leaks import named, trained_on
from synthaug.gain.parents import Parents
from synthaug.gain.runs import Settings
from synthaug.mixing.source import working_size
from synthaug.segmenters import UNTRAINED

if TYPE_CHECKING:
    from synthaug.formats.splits import Unit


def check(
    units: Sequence[Unit], seeds: Sequence[int], settings: Settings, parents: Parents
) -> None:
    """Refuse what cannot be compared.

    Raises:
        InputError: nothing to compare, units of two kinds or of one name, a setting out of range,
            or a segmenter or parent that cannot be built.
    """
    names = [unit.name for unit in units]
    if not units:
        raise InputError("there is nothing to compare on: give at least one video or data set")
    for name in names:
        if not name or set(name) & set("/\\") or name.startswith(".") or names.count(name) > 1:
            raise InputError(f"unit name {name!r} is no folder name or not unique: rename it")
    for unit in units:
        if not len(unit.test) or not unit.training:
            raise InputError(f"{unit.name} needs at least one labelled image to learn and to test")
    if len({unit.kind for unit in units}) > 1:
        raise InputError("videos and sets of images have different measures: compare them apart")
    if not seeds or min(seeds) < 0:
        raise InputError("there is no seed to compare with: give at least one, 0 or larger")
    least = {"steps": 1, "batch_size": 1, "side_px": 32}
    for name, value in least.items():
        if getattr(settings, name) < value:
            raise InputError(f"{name} is {getattr(settings, name)}: give at least {value}")
    if not 0 < settings.lr < math.inf:
        raise InputError(f"lr is {settings.lr}: give a positive learning rate")
    refuse_idle(settings)
    parents.check(units)
    first = units[0]  # a segmenter that cannot be built is found before anything else is done
    if not parents.on_demand:
        settings = parents.into(settings, first)
    settings.build(len(first.classes), working_size(first.size, settings.side_px), 0)


def refuse_idle(settings: Settings) -> None:
    """Refuse settings that the segmenter does not heed.

    Raises:
        InputError: there is one.
    """
    name, usual = settings.segmenter, Settings()
    idle = ("encoder", "lr") if name in UNTRAINED else ("encoder",) if ":" in name else ()
    if changed := [key for key in idle if getattr(settings, key) != getattr(usual, key)]:
        raise InputError(f"{name} has no use for {' and '.join(changed)}: leave it out")


def refuse_lengths(arms: Iterable[Arm], settings: Settings) -> None:
    """Refuse arms of a length of their own where no network is trained.

    Raises:
        InputError: there is one.
    """
    longer = [arm.name for arm in arms if arm.length != 1]
    if longer and settings.segmenter in UNTRAINED:
        raise InputError(
            f"arm {longer[0]!r} has a length of its own, but {settings.segmenter} trains no "
            "network: leave the arm out"
        )


def warn_of_repeats(unit: Unit, say: Callable[[str], None]) -> None:
    """Say in one line which test images a unit learns from itself."""
    repeated = trained_on(unit)
    if repeated:
        say(
            f"warning: {len(repeated)} of the {len(unit.test)} test images of {unit.name} are "
            f"training images, too ({named(repeated)}): the scores flatter every arm"
        )


def warn_of_lost(unit: Unit, side_px: int, say: Callable[[str], None]) -> None:
    """Say in one line which classes of a unit's training images are lost at the working size."""
    size = working_size(unit.size, side_px)
    if lost := lost_classes(unit.training, unit.classes, size):
        say(
            f"warning: at {size[1]}x{size[0]} px, at which networks learn, no pixel of "
            f"{', '.join(lost)} is left in {unit.name}: raise --side, or crop the images"
        )
