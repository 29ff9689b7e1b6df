"""The arm ``auto`` of a comparison: chosen once per unit, by its labelled images alone."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthaug import files
from synthaug.config.arms import Arm
from synthaug.gain.jobs import Jobs
from synthaug.gain.keys import add_samples, source_hashes
from synthaug.gain.parents import Parents
from synthaug.gain.runs import Settings, open_sources
from synthaug.mixing.auto import MixChoice, choose_mix
from synthaug.seeding import derive_seed

if TYPE_CHECKING:
    from synthaug.formats.splits import Unit

CHOICE_FORMAT = "synthaug-choice-3"
"""Raised when equal ingredients give another choice than before."""
STEPS, SIDE_PX = 80, 192
"""Choosing takes no more steps and no larger images than this."""


class Choices:
    """What ``auto`` stands for on each unit, kept in ``OUT/runs/UNIT/ARM/choice.json``.

    Args:
        path: folder of the comparison.
        settings: of the comparison; choosing uses the same segmenter.
        parents: parent networks of the units.
        shared: what decides all runs of a unit.
    """

    def __init__(
        self,
        path: Path,
        settings: Settings,
        parents: Parents,
        shared: Callable[[Unit], dict[str, Any]],
    ) -> None:
        self.made: dict[str, dict[str, Any]] = {}
        self._path, self._settings, self._shared = path, settings, shared
        self._parents = parents
        self._locks: dict[str, threading.Lock] = {}

    def stored(self, unit: Unit, arm: Arm, sources: Mapping[str, Any]) -> Arm | None:
        """Return the arm chosen earlier from the same ingredients, None if there is none."""
        path = self._file(unit, arm)
        if not path.is_file():
            return None
        found = files.read_record(path, "choice")
        if found.get("key") != self._key(unit, arm, sources):
            return None
        return self._keep(unit, arm, found)

    def make(
        self,
        unit: Unit,
        arm: Arm,
        sources: Mapping[str, Any],
        jobs: Jobs,
        say: Callable[[str], None],
    ) -> Arm:
        """Choose with `choose_mix` unless that is done; the seed of a run does not matter.

        Threads may call it side by side: units choose at the same time, a unit only once.
        """
        with self._locks.setdefault(unit.name, threading.Lock()):
            known = self.stored(unit, arm, sources)
            if known is not None:
                return known
            settings = self._settings
            say(f"{unit.name}, {arm.name}: choosing what to mix in ...")
            choice = jobs.call(
                choose_mix,
                unit.training,
                open_sources(unit, arm, sources),
                unit.classes,
                segmenter=settings.segmenter,
                steps=min(STEPS, settings.steps),
                batch_size=settings.batch_size,
                side_px=min(SIDE_PX, settings.side_px),
                seed=derive_seed(0, "gain", unit.name, "auto"),
                lr=settings.lr,
                encoder=settings.encoder,
                parent=self._parents.of(unit),
            )
            say(f"{unit.name}, {arm.name}: {choice.why}")
            found = {"key": self._key(unit, arm, sources), "unit": unit.name, **choice.as_dict()}
            files.write_json(self._file(unit, arm), found)
            return self._keep(unit, arm, found)

    def _keep(self, unit: Unit, arm: Arm, found: Mapping[str, Any]) -> Arm:
        choice = MixChoice.from_dict(found)
        self.made.setdefault(arm.name, {})[unit.name] = choice.as_dict()
        return replace(choice.arm, name=arm.name, length=arm.length)

    def _file(self, unit: Unit, arm: Arm) -> Path:
        return self._path / "runs" / unit.name / arm.name / "choice.json"

    def _key(self, unit: Unit, arm: Arm, sources: Mapping[str, Any]) -> str:
        training = hashlib.sha256()
        add_samples(training, unit.training)
        ingredients = {
            "format": CHOICE_FORMAT,
            "unit": [unit.name, list(unit.classes.ids), training.hexdigest()],
            "sources": {kind: source_hashes(sources.get(kind)) for kind in arm.uses},
            "shared": self._shared(unit),
        }
        return files.sha256_bytes(json.dumps(ingredients, sort_keys=True).encode())
