"""Parent networks: the file that each unit starts from, and training it on other videos."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synthaug import files
from synthaug.errors import InputError
from synthaug.gain.runs import Settings
from synthaug.mixing.source import working_size
from synthaug.sample import IGNORE_ID, Sample
from synthaug.segmenters.vos import PARENT_FORMAT, train_parent
from synthaug.stages import run_stage

if TYPE_CHECKING:
    from synthaug.formats.splits import Unit

ParentFile = str | os.PathLike[str]
GivenParents = ParentFile | Mapping[str, ParentFile] | Callable[["Unit"], ParentFile] | None
"""One file for all units, unit name -> file, or a function that makes a unit's file."""
HALVES = ("even", "odd")
BATCH_SIZE, SEED = 8, 0
EVERY = 3


class Parents:
    """The parent networks of a comparison's units.

    Args:
        given: see `GivenParents`; None = no unit has any.
    """

    def __init__(self, given: GivenParents) -> None:
        self._given = given
        self._files: dict[str, str] = {}
        self._hashes: dict[str, str] = {}

    @property
    def on_demand(self) -> bool:
        """Whether a unit's file is only known, perhaps made, when it is asked for."""
        return callable(self._given)

    def check(self, units: Sequence[Unit]) -> None:
        """See that every unit has its file, unless they are made on demand.

        Raises:
            InputError: a mapping lacks a unit, or a file is not there.
        """
        if not self.on_demand:
            for unit in units:
                self.hashes(unit)

    def of(self, unit: Unit) -> str | None:
        """Return the file of a unit, None where no parent is used.

        Raises:
            InputError: a mapping lacks the unit, or there is no such file.
        """
        given = self._given
        if given is None:
            return None
        if unit.name not in self._files:
            if isinstance(given, Mapping):
                if unit.name not in given:
                    raise InputError(f"no parent network is given for {unit.name}: add its file")
                found = given[unit.name]
            else:
                found = given(unit) if callable(given) else given
            if not Path(found).is_file():
                raise InputError(f"no parent network at {os.fspath(found)}: check the path")
            self._files[unit.name] = os.fspath(found)
        return self._files[unit.name]

    def hashes(self, unit: Unit) -> dict[str, str]:
        """Return the part of a run's key that stands for the unit's parent, {} without one."""
        path = self.of(unit)
        if path is None:
            return {}
        if path not in self._hashes:
            self._hashes[path] = files.sha256_file(path)
        return {"parent_sha256": self._hashes[path]}

    def into(self, settings: Settings, unit: Unit) -> Settings:
        """Return the settings with the unit's own parent."""
        return replace(settings, parent=self.of(unit))

    def listed(self, units: Sequence[Unit]) -> str | dict[str, str] | None:
        """Return the files as the manifest lists them: none, one for all, or those of units."""
        if self._given is None or isinstance(self._given, str | os.PathLike):
            return None if self._given is None else os.fspath(self._given)
        return {unit.name: self._files[unit.name] for unit in units if unit.name in self._files}


class ParentsOfOthers:
    """Parents trained on other videos than those that start from them, in two halves.

    The videos at even places start from a parent of the videos at odd places, and the other way
    round. It learns from the first frame and every third later one. A parent is kept in
    ``PATH/HALF.safetensors``, HALF being the one that starts from it, with what decided it in
    ``HALF.json``; it is only trained again when that has changed.

    Args:
        units: all videos, in order.
        path: folder of the parents.
        steps: training steps of each.
        side_px: longer side in training, px.
        encoder: encoder of the network.
        progress: called with (steps done, steps).
        echo: takes a line per parent.

    Raises:
        InputError: these are no videos, or there are fewer than two.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        path: str | os.PathLike[str],
        *,
        steps: int,
        side_px: int,
        encoder: str,
        progress: Callable[[int, int], None] | None = None,
        echo: Callable[[str], None] | None = None,
    ) -> None:
        if len(units) < 2 or any(unit.kind != "video" for unit in units):
            raise InputError(
                "compare.parent others trains on the other videos: name at least two videos of "
                "data.kind davis, or a file of parent weights"
            )
        self._half = {unit.name: HALVES[place % 2] for place, unit in enumerate(units)}
        self._units, self._path = list(units), Path(path)
        self._steps, self._side_px, self._encoder = steps, side_px, encoder
        self._progress, self._echo = progress, echo or (lambda line: None)
        self._files: dict[str, Path] = {}

    def of(self, unit: Unit) -> Path:
        """Return the parent's file of a unit; train it unless it is there."""
        half = self._half[unit.name]
        if half not in self._files:
            self._files[half] = self._train(half)
        return self._files[half]

    def _train(self, half: str) -> Path:
        out = self._path / f"{half}.safetensors"
        others = [unit for unit in self._units if self._half[unit.name] != half]
        frames = [
            replace(sample, id=f"{unit.name}/{sample.id}")
            for unit in others
            for sample in _frames(unit)
        ]
        options: dict[str, Any] = {
            "steps": self._steps,
            "batch_size": BATCH_SIZE,
            "size": working_size(frames[0].size, self._side_px),
            "seed": SEED,
            "encoder": self._encoder,
        }
        pixels = [array.tobytes() for frame in frames for array in (frame.image, frame.mask)]
        ingredients = {
            "format": PARENT_FORMAT,
            **options,
            "videos": [unit.name for unit in others],
            "frames": [frame.id for frame in frames],
            "pixels": files.sha256_bytes(b"".join(pixels)),
        }
        names = ", ".join(unit.name for unit in others)
        run_stage(
            self._path / f"{half}.json",
            ingredients,
            lambda _: train_parent(frames, out, **options, progress=self._progress),
            there=out.is_file,
            echo=lambda line: self._echo(f"parent of {names}: {line}"),
            product=out,
        )
        return out


def _frames(unit: Unit) -> list[Sample]:
    """The labelled first frame and every third later one; 0 is background, 1 any object."""
    frames = []
    for sample in (*unit.training, *unit.test[EVERY - 1 :: EVERY]):
        channels = unit.classes.encode(sample.mask)
        mask = np.where(channels < 0, IGNORE_ID, channels > 0).astype(np.uint8)
        frames.append(replace(sample, mask=mask))
    return frames
