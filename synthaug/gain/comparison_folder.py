"""The folder of a comparison: its runs, their table and summary, and what decided them."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthaug import files
from synthaug.config import versions
from synthaug.config.arms import Arm
from synthaug.errors import InputError
from synthaug.gain.choosing import Choices
from synthaug.gain.groups import class_groups
from synthaug.gain.hardware import hardware
from synthaug.gain.jobs import Jobs
from synthaug.gain.keys import code_hashes, fingerprint, run_key, weight_hashes
from synthaug.gain.leaks import more_labels
from synthaug.gain.parents import Parents
from synthaug.gain.runs import MEASURES, Settings, keep_pictures, open_sources, run
from synthaug.gain.summary import Cell, summarise

if TYPE_CHECKING:
    from synthaug.formats.splits import Unit

FORMAT = "synthaug-comparison-1"
Sources = Mapping[str, Any]
"""Kind of items (``synthetic``, ``copy-paste``) -> folder of a bank or generator."""


class ComparisonFolder:
    """The folder of a comparison: what it holds already, what is still to do."""

    def __init__(
        self,
        path: Path,
        units: Sequence[Unit],
        settings: Settings,
        sources: Callable[[Unit], Sources] | Mapping[str, Sources] | None,
        parents: Parents,
    ) -> None:
        self.path, self.units, self.settings = path, list(units), settings
        self.parents = parents
        self.old = _old_manifest(path)
        own = {**settings.as_dict(), "parent": None}  # a parent counts in the keys of its units
        self.same_settings = {**self.old.get("settings", {}), "parent": None} == own
        self.measures = MEASURES[units[0].kind]
        self.results: dict[str, dict[Cell, dict[str, Any]]] = {}
        self.manifest: dict[str, Any] = {}
        self._shared = {**settings.as_dict(), **code_hashes(settings)}
        self._weights = {n: weight_hashes(settings, n) for n in {len(u.classes) for u in units}}
        self._groups = {unit.name: class_groups(unit) for unit in units}
        self._hashes = {unit.name: fingerprint(unit).whole for unit in units}
        self._choices = Choices(path, settings, parents, self._shared_by)
        self._given = sources
        self._sources: dict[str, Sources] = {}
        self._cautions: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()

    @property
    def old_arms(self) -> dict[str, Arm]:
        """Arms that the folder has from earlier calls."""
        return {value["name"]: Arm(**value) for value in self.old.get("arms", [])}

    def join(
        self,
        arms: dict[str, Arm],
        seeds: list[int],
        baseline: str,
        reproduce: str,
        say: Callable[[str], None],
    ) -> list[tuple[int, Unit, Arm]]:
        """Add this call to what the folder holds; return the runs to have, in order."""
        if not callable(self._given):  # otherwise making them may take long: on first need
            for unit in self.units:
                for arm in arms.values():
                    open_sources(unit, arm, self._sources_of(unit))
        past = self.old if self.same_settings else {}
        known = {**(self.old_arms if past else {}), **arms}
        all_seeds = list(dict.fromkeys([*past.get("seeds", []), *seeds]))
        asked = {(unit.name, seed) for unit in self.units for seed in seeds}
        for name, arm in known.items():
            cells = ((unit, seed) for unit in self.units for seed in all_seeds)
            found = {(unit.name, seed): self._read(unit, arm, seed) for unit, seed in cells}
            self.results[name] = {cell: run for cell, run in found.items() if run is not None}
            have = self.results[name].keys()
            if name in arms or (have and (len(arms) == 1 or asked <= have)):
                continue
            if have:
                say(f"{name}: not run on all that is asked for now, left out; give it, too")
            elif any((self.path / "runs" / u.name / name).is_dir() for u in self.units):
                say(f"{name}: earlier runs are of other data, sources or parents, left out")
            del self.results[name]
        self._tell_other_units(past, say)
        if self.old and not self.same_settings:
            self._tell_change(say)
        shown = [arm for name, arm in known.items() if name in self.results]
        run = {seed for cells in self.results.values() for _, seed in cells}
        all_seeds = [seed for seed in all_seeds if seed in run or seed in seeds]
        if not callable(self._given):
            for unit in self.units:
                for arm in shown:
                    self._tell_more_labels(unit, arm, say)
        before = past.get("reproduce", "") if any(self.results.values()) else ""
        last = reproduce.splitlines()
        commands = "\n".join([*(c for c in before.splitlines() if c not in last), *last])
        self.manifest = self._describe(shown, all_seeds, baseline, commands)
        if not self.old:  # else it says what the results are of that lie there
            files.write_json(self.path / "manifest.json", self.manifest)
        return [(seed, unit, arm) for seed in seeds for unit in self.units for arm in arms.values()]

    def _tell_other_units(self, past: Mapping[str, Any], say: Callable[[str], None]) -> None:
        """Name units of the last call that this one is without, or that have changed since."""
        now = {unit.name: self._hashes[unit.name] for unit in self.units}
        before = {unit["name"]: unit.get("hash") for unit in past.get("units", [])}
        for name, content in now.items():
            if before.get(name) not in (None, content):
                say(f"{name}: pictures or masks are others than before, all is trained again")
        for name, content in before.items():
            if name in now:
                continue
            if content in now.values():
                say(f"this data was named {name}: its trainings count with data.name={name} alone")
            else:
                say(f"{name}: not in this call, left out of the result; its runs are kept")

    def _tell_change(self, say: Callable[[str], None]) -> None:
        """Say which settings have changed, and whether it is a way back."""
        old = self.old["settings"]
        changed = ", ".join(
            f"{name} {old.get(name)} -> {value}"
            for name, value in self.settings.as_dict().items()
            if name != "parent" and old.get(name) != value
        )
        if any(self.results.values()):
            say(f"back to settings of earlier runs ({changed}): those alone count")
        else:
            say(f"settings have changed ({changed}): runs with others do not count")

    def _tell_more_labels(self, unit: Unit, arm: Arm, say: Callable[[str], None]) -> None:
        """Warn, once, of sources that have learned from labels beside the training images."""
        for kind in arm.uses:
            path = self._sources_of(unit).get(kind)
            if path is not None and (unit.name, path) not in self._cautions:
                self._cautions[unit.name, path] = more_labels(unit, path)
                if line := self._cautions[unit.name, path]:
                    say(f"warning: {line}")

    def has(self, unit: Unit, arm: Arm, seed: int) -> bool:
        """Whether a run is there, made from the same ingredients."""
        return (unit.name, seed) in self.results[arm.name]

    def make(
        self, unit: Unit, arm: Arm, seed: int, jobs: Jobs, say: Callable[[str], None]
    ) -> dict[str, Any]:
        """Train and test; for the first seed keep pictures. Threads may call it side by side.

        Returns:
            The result, to be given to `keep`.
        """
        with self._lock:
            paths = self._sources_of(unit)
            settings = self.parents.into(self.settings, unit)
        actual = arm
        if arm.schedule == "auto":
            actual = self._choices.make(unit, arm, paths, jobs, say)
        with self._lock:
            key = self._key(unit, actual, seed)
            sources = open_sources(unit, actual, paths)
            self._tell_more_labels(unit, actual, say)
            found = self._same(unit, seed, key) if actual is not arm else None
            if pictured := seed == self.manifest["seeds"][0]:
                keep_pictures(unit, sources, self.path)
                found = None  # its pictures are needed, too
        if found is None:
            found = jobs.call(
                run,
                unit,
                actual,
                seed,
                sources,
                settings,
                predictions=pictured,
                worth=arm.steps(settings.steps),
            )
        else:
            jobs.count(arm.steps(settings.steps))
        return {**found, "unit": unit.name, "arm": arm.name, "seed": seed, "key": key}

    def keep(self, unit: Unit, arm: Arm, seed: int, result: dict[str, Any]) -> None:
        """Write a result of `make`; its key lies beside its pictures, too, and is there first."""
        where = self.path / "predictions" / unit.name / arm.name
        if pictures := result.pop("predictions", None):
            files.write_text(where / f"{seed}.key", result["key"])
            for name, content in pictures.items():
                files.write_bytes(where / str(seed) / f"{name}.png", content)
        files.write_json(self._run_path(unit, arm, seed), result)
        self.results[arm.name][unit.name, seed] = result

    def write_summary(self) -> dict[str, Any]:
        """Write and return ``comparison.json`` of the pairs of unit and seed that all arms have."""
        count, first = len(self.units) * len(self.manifest["seeds"]), self.manifest["seeds"][0]
        begun = {arm: cells for arm, cells in self.results.items() if cells}
        shared = set.intersection(*map(set, begun.values())) if begun else set()
        missing = {arm: left for arm, c in self.results.items() if (left := count - len(c))}
        balanced = {
            arm: {cell: found for cell, found in cells.items() if cell in shared}
            for arm, cells in begun.items()
        }
        summary = summarise(
            balanced,
            units=[unit.name for unit in self.units],
            baseline=self.manifest["baseline"],
            measures=self.measures,
            longer=[arm["name"] for arm in self.manifest["arms"] if arm.get("length", 1) != 1],
            complete=not missing,
            groups=self._groups,
        )
        summary["missing"] = missing
        summary["runs"] = {
            arm: sorted([unit, seed] for unit, seed in cells) for arm, cells in self.results.items()
        }
        summary["keys"] = {
            arm: {unit: found["key"] for (unit, seed), found in cells.items() if seed == first}
            for arm, cells in self.results.items()
        }
        self.manifest["settings"]["parent"] = self.parents.listed(self.units)
        self.manifest["sources"] = {**self.old.get("sources", {}), **self._sources}
        if self._choices.made:
            self.manifest["choices"] = self._choices.made
        for value in self.manifest["arms"]:
            for unit in self.units:  # also of runs that an earlier call made
                if any(name == unit.name for name, _ in self.results[value["name"]]):
                    self._tell_more_labels(unit, Arm(**value), lambda line: None)
        self.manifest["cautions"] = [line for line in self._cautions.values() if line]
        files.write_json(self.path / "manifest.json", self.manifest)
        files.write_json(self.path / "comparison.json", summary)
        files.write_text(self.path / "runs.csv", self._table())
        return summary

    def _table(self) -> str:
        """All runs that count, one a line: measures in [0, 1] and seconds of training."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["unit", "arm", "seed", *self.measures, "seconds"])
        order = [unit.name for unit in self.units]
        for arm, cells in self.results.items():
            for unit, seed in sorted(cells, key=lambda cell: (order.index(cell[0]), cell[1])):
                found = cells[unit, seed]
                scores = [round(found["measures"][name], 6) for name in self.measures]
                table.writerow([unit, arm, seed, *scores, found["seconds"]["train"]])
        return text.getvalue()

    def _read(self, unit: Unit, arm: Arm, seed: int) -> dict[str, Any] | None:
        path = self._run_path(unit, arm, seed)
        if not path.is_file():
            return None
        actual: Arm | None = arm
        if arm.schedule == "auto":
            actual = self._choices.stored(unit, arm, self._sources_of(unit))
        found = files.read_record(path, "run")
        same = actual is not None and found.get("key") == self._key(unit, actual, seed)
        return found if same else None

    def _same(self, unit: Unit, seed: int, key: str) -> dict[str, Any] | None:
        """The run of another arm that was made from the same ingredients."""
        runs = (cells.get((unit.name, seed), {}) for cells in self.results.values())
        return next((found for found in runs if found.get("key") == key), None)

    def _run_path(self, unit: Unit, arm: Arm, seed: int) -> Path:
        return self.path / "runs" / unit.name / arm.name / f"{seed}.json"

    def _sources_of(self, unit: Unit) -> Sources:
        if unit.name not in self._sources:
            given = self._given
            found = given(unit) if callable(given) else (given or {}).get(unit.name, {})
            earlier = self.old.get("sources", {}).get(unit.name, {})
            paths = {kind: str(Path(path).absolute()) for kind, path in found.items()}
            self._sources[unit.name] = {**earlier, **paths}
        return self._sources[unit.name]

    def _key(self, unit: Unit, arm: Arm, seed: int) -> str:
        paths = self._sources_of(unit) if arm.needs else {}
        named = [unit.name, self._hashes[unit.name]]
        return run_key(named, arm, seed, paths, self._shared_by(unit))

    def _shared_by(self, unit: Unit) -> dict[str, Any]:
        """What decides all runs of a unit: settings, the user's code and weights, the parent."""
        weights = self._weights[len(unit.classes)]
        return {**self._shared, **weights, **self.parents.hashes(unit)}

    def _describe(
        self, arms: Sequence[Arm], seeds: list[int], baseline: str, reproduce: str
    ) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "measure": self.measures[0],
            "measures": list(self.measures),
            "baseline": baseline,
            "arms": [arm.as_dict() for arm in arms],
            "units": [
                {
                    "name": unit.name,
                    "training": [sample.id for sample in unit.training],
                    "test": len(unit.test),
                    "classes": unit.classes.as_dict(),
                    "kind": unit.kind,
                    "hash": self._hashes[unit.name],
                }
                for unit in self.units
            ],
            "seeds": seeds,
            "settings": {**self.settings.as_dict(), "parent": self.parents.listed(self.units)},
            "versions": versions(),
            "hardware": hardware(),
            "reproduce": reproduce,
        }


def _old_manifest(path: Path) -> dict[str, Any]:
    """The manifest of an earlier call, {} for a new folder."""
    if not path.exists() or all(files.is_litter(held.name) for held in path.iterdir()):
        return {}
    if (path / "manifest.json").is_file():
        found = files.read_json(path / "manifest.json", "comparison manifest")
        if isinstance(found, dict) and found.get("format") == FORMAT:
            return found
    raise InputError(f"{path} holds something else than a comparison: choose another folder")
