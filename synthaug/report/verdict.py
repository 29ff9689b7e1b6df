"""What a comparison came to, in words: read its folder, say its verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthaug import files
from synthaug.errors import InputError
from synthaug.report.numbers import signed

FORMAT = "synthaug-comparison-1"

GROUPS = (
    "Classes by their share of the labelled pixels of the training masks, the frequent ones first, "
    "cut into groups of about 83, 12, 3 and 2 % of the pixels; mIoU is the mean over a group's "
    "classes, the interval is over the seeds."
)
"""What the groups of `group_rows` are."""
MOST_NAMES = 8
NO_DIFFERENCE = "no difference shown"
TOO_EARLY = 0.01
"""What longer training gains at most where the usual one does not end too early."""
LEARNED = 0.05
"""IoU from which a class counts as learned at all."""


@dataclass(frozen=True)
class Comparison:
    """What a comparison's folder holds, as written.

    Attributes:
        path: the folder.
        manifest: its ``manifest.json``.
        result: its ``comparison.json``.
    """

    path: Path
    manifest: dict[str, Any]
    result: dict[str, Any]

    @property
    def measure(self) -> str:
        """The primary measure."""
        return str(self.manifest["measure"])

    @property
    def arms(self) -> list[str]:
        """Arms in the order given."""
        return [arm["name"] for arm in self.manifest["arms"]]

    @property
    def longer(self) -> dict[str, float]:
        """Arms trained for other than the usual steps, and for how many times as many."""
        lengths = {arm["name"]: arm.get("length", 1.0) for arm in self.manifest["arms"]}
        return {name: length for name, length in lengths.items() if length != 1}

    @property
    def units(self) -> list[str]:
        """Units in the order given."""
        return [unit["name"] for unit in self.manifest["units"]]

    @property
    def runs(self) -> dict[str, list[list[Any]]]:
        """[unit, seed] of the runs of each arm that count; files of earlier settings do not."""
        if "runs" in self.result:
            return dict(self.result["runs"])
        found: dict[str, list[list[Any]]] = {}  # in folders written before they were listed
        for file in sorted(self.path.glob("runs/*/*/[0-9]*.json")):
            unit, arm = file.parent.parent.name, file.parent.name
            found.setdefault(arm, []).append([unit, int(file.stem)])
        return found

    @property
    def counted(self) -> tuple[int, int]:
        """How many units and seeds the figures are of: before the end, what all arms share."""
        if self.result["complete"]:
            return len(self.units), len(self.manifest["seeds"])
        begun = [set(map(tuple, cells)) for cells in self.runs.values() if cells]
        shared = set.intersection(*begun) if begun else set()
        return len({unit for unit, _ in shared}), len({seed for _, seed in shared})

    def shows(self, unit: str, arm: str, seed: int, key: str) -> bool:
        """Whether a run, and what it has predicted, is the one that the figures are of.

        After a kill there may be others: of settings that the comparison was to change to.
        """
        told = self.result.get("keys", {}).get(arm, {}).get(unit, key)  # not by earlier versions
        beside = self.path / "predictions" / unit / arm / f"{seed}.key"
        pictured = beside.read_text(encoding="utf-8") if beside.is_file() else key
        return bool(told == pictured == key)


def read_comparison(path: str | Path) -> Comparison:
    """Open a comparison's folder.

    Raises:
        InputError: it is none, or a file of it is missing or damaged.
    """
    path = Path(path)
    if not (path / "manifest.json").is_file() and (path / "comparison" / "manifest.json").is_file():
        raise InputError(f"{path} is the folder of a run: its comparison is {path / 'comparison'}")
    manifest = files.read_json(path / "manifest.json", "comparison manifest")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{path} is not a comparison: its manifest.json is of another kind")
    result = files.read_json(path / "comparison.json", "comparison result")
    return Comparison(path, manifest, result)


def verdict_line(comparison: Comparison) -> str:
    """Say in one line what came out: the best arm against the baseline, and which arms hurt.

    The best of several arms is picked, so it leads with "Helps" only if its ``among_all`` says so,
    too, see `synthaug.gain.summary.summarise`; an arm that does so goes before one of a higher
    mean that shows no difference. Arms trained longer are no rivals, see `length_lines`. Folders
    written before there was one are taken at their word.
    """
    result, measure = comparison.result, comparison.measure
    baseline = result["baseline"]
    rivals = {
        arm: entry
        for arm, entry in result["arms"].items()
        if arm == baseline or arm not in comparison.longer
    }
    measured = {a: v for a, v in rivals.items() if mean_of(v, measure) is not None}
    if result["complete"] and set(measured) == {baseline}:
        return f"{baseline} has no rival here. {_repetitions(comparison)}"
    if baseline not in measured or len(measured) < 2:
        return f"Nothing to say yet: {measure} is not measured for {baseline} and another arm."
    means = {arm: entry["mean"][measure] for arm, entry in measured.items()}
    words = {arm: verdict_words(entry) for arm, entry in measured.items()}
    helped = [arm for arm, word in words.items() if word == "helps"]
    best, top = max(helped or means, key=means.__getitem__), max(means.values())
    base = f"{100 * means[baseline]:.1f}"
    if best == baseline:
        parts = [f"No arm scores higher than {baseline}, {measure} {base}"]
    else:
        entry = measured[best]
        begin = "Helps" if helped else "No difference shown"
        if not helped and entry["verdict"] == "helps":
            begin += f" (one of {len(measured) - 1} arms; its own interval lies above zero)"
        subject = f"the best arm, {best}," if means[best] == top else best
        parts = [
            f"{begin}: {subject} reaches {measure} {100 * means[best]:.1f} "
            f"against {base} with {baseline}, {gain_words(entry['gain'][measure])}"
        ]
    for word in ("helps", "helps, taken alone", "hurts", "hurts, taken alone", NO_DIFFERENCE):
        named = [
            f"{arm} ({signed(100 * entry['gain'][measure]['mean'])})"
            for arm, entry in measured.items()
            if arm not in (best, baseline)
            and words[arm] == word
            and (word != NO_DIFFERENCE or best == baseline or means[arm] > means[best])
        ]
        if named:
            parts.append(f"{'also helps' if word == 'helps' else word}: {', '.join(named)}")
    so_far = "" if result["complete"] else "So far: "
    return so_far + "; ".join(parts) + f". {_repetitions(comparison)}"


def contrast_lines(comparison: Comparison) -> list[tuple[str, str]]:
    """Say every contrast in plain words: (``helps``, ``hurts`` or ``unclear``; the sentence).

    The last are what longer trainings tell of the others.
    """
    lines = []
    for contrast in comparison.result["contrasts"]:
        extra = contrast["arm"].removeprefix(contrast["against"] + "+")
        subject = (
            f"Adding {extra} to {contrast['against']}"
            if extra != contrast["arm"]
            else f"{contrast['arm']} instead of {contrast['against']}"
        )
        words = verdict_words(contrast)
        said = "shows no difference" if words == NO_DIFFERENCE else words
        gain = gain_words(contrast["gain"])
        lines.append((tone(contrast["verdict"]), f"{subject} {said}: {gain}."))
    return lines + [("unclear", line) for line in length_lines(comparison)]


def length_lines(comparison: Comparison) -> list[str]:
    """Say of every arm trained longer whether the others' trainings end too early.

    Only the baseline itself, trained longer, can tell.
    """
    result, lines = comparison.result, []
    diets = {
        arm["name"]: {key: arm[key] for key in arm.keys() - {"name", "length"}}
        for arm in comparison.manifest["arms"]
    }
    for arm, length in comparison.longer.items():
        entry = result["arms"].get(arm)
        if arm == result["baseline"] or entry is None or mean_of(entry, comparison.measure) is None:
            continue
        gain = entry["gain"][comparison.measure]
        said = f"{arm}, {length:g} times as many steps, against {result['baseline']}: "
        said += gain_words(gain)
        tells = length > 1 and diets[arm] == diets.get(result["baseline"])
        if tells and entry["verdict"] == "helps":
            said += (
                ". Trainings end too early, so that the other gains are of starts, which may not "
                "last: raise the steps"
            )
        elif tells and interval_words(gain) and gain["high"] < TOO_EARLY:
            said += ", so no sign that trainings end too early"
        elif tells:
            said += ", which leaves open whether trainings end too early"
        lines.append(f"{said}.")
    return lines


def single_note(comparison: Comparison) -> str:
    """Say that the intervals are not corrected for the number of arms; empty with a single one."""
    baseline = comparison.result["baseline"]
    rivals = len(set(comparison.arms) - {baseline, *comparison.longer})
    if rivals < 2:
        return ""
    return f"Intervals are single 95 % ones, not corrected for the {rivals} arms."


def class_names(comparison: Comparison) -> dict[str, str]:
    """Return the names of all units' classes by id; {} where every unit has one of objects."""
    units = comparison.manifest["units"]
    return {} if all(len(unit["classes"]["ids"]) <= 2 for unit in units) else _all_names(comparison)


def _all_names(comparison: Comparison) -> dict[str, str]:
    names: dict[str, str] = {}
    for unit in comparison.manifest["units"]:
        pairs = zip(unit["classes"]["ids"], unit["classes"]["names"], strict=True)
        names |= {str(id_): name for id_, name in pairs if str(id_) not in names}
    return names


def unlearned_line(comparison: Comparison) -> str:
    """Name the classes that no arm has learned, where no gain can show; empty without any."""
    arms = [entry.get("per_class", {}) for entry in comparison.result["arms"].values()]
    missed = []
    for class_id, name in _all_names(comparison).items():
        values = [v for arm in arms if (v := arm.get(class_id)) is not None]
        if values and max(values) < LEARNED:
            missed.append(name)
    if not missed:
        return ""
    return (
        f"Hardly learned by any arm (IoU under {100 * LEARNED:.0f} %): {_some(missed)}. What an "
        "arm is worth for them cannot show: train for more steps, or with more labels."
    )


def group_rows(comparison: Comparison) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the groups of classes by frequency, of every unit that has several.

    Returns:
        Unit and its groups, the frequent classes first: ``classes`` (their names), ``share`` (of
        the training pixels) and ``arms`` (arm -> ``mean``, ``gain`` and ``verdict``), as in
        ``comparison.json``; nothing for folders written before there were groups.
    """
    found = []
    for unit in comparison.manifest["units"]:
        groups = comparison.result.get("groups", {}).get(unit["name"], [])
        names = dict(zip(unit["classes"]["ids"], unit["classes"]["names"], strict=True))
        rows = [
            {**group, "classes": _some([str(names[class_id]) for class_id in group["ids"]])}
            for group in groups
        ]
        if len(rows) > 1:
            found.append((unit["name"], rows))
    return found


def _some(names: list[str]) -> str:
    """The first names of a list."""
    left = len(names) - MOST_NAMES
    listed = ", ".join(names[:MOST_NAMES])
    return f"{listed} and {left} more" if left > 0 else listed


def gain_words(gain: Mapping[str, float | None]) -> str:
    """Write a gain in points with its interval, as in ``+2.1 points (95 % ... +0.8 to +3.4)``."""
    mean = gain["mean"]
    if mean is None:
        return "not measured"
    interval = interval_words(gain)
    words = f" (95 % interval {interval})" if interval else " (too few runs for an interval)"
    return f"{signed(100 * mean)} points{words}"


def count_units(comparison: Comparison) -> str:
    """Count the units, as in ``10 videos``."""
    return _count(len(comparison.units), _noun(comparison))


def interval_over(comparison: Comparison) -> tuple[str, str]:
    """Say what the intervals are over, as in ``10 videos``, and what they tell and do not tell."""
    units, seeds = comparison.counted
    if units > 1:
        noun = _noun(comparison)
        over = _count(units, noun)
        return over, (
            f"The intervals are over the {over}, each the mean of its seeds: they say what to "
            f"expect of another {noun} like these, not of other kinds of pictures."
        )
    return _count(seeds, "seed"), (
        "The intervals are over the seeds of the training alone: they say what another seed would "
        "give on these test images with this bank, not what other test images, other labelled "
        "images or another fit of the generator would."
    )


def _noun(comparison: Comparison) -> str:
    """What a unit is."""
    videos = all(unit["kind"] == "video" for unit in comparison.manifest["units"])
    return "video" if videos else "data set"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _repetitions(comparison: Comparison) -> str:
    planned = count_units(comparison), _count(len(comparison.manifest["seeds"]), "seed")
    if comparison.result["complete"]:
        return f"{', '.join(planned)}."
    counted = ", ".join(
        f"{n} of {all_}" for n, all_ in zip(comparison.counted, planned, strict=True)
    )
    left = [f"{arm} {runs}" for arm, runs in comparison.result.get("missing", {}).items()]
    missing = f": counted are those that all arms share, missing {_some(left)}" if left else ""
    return f"{counted} counted so far. Not all runs are done{missing}."


def mean_of(entry: Mapping[str, Any], measure: str) -> float | None:
    """Return an arm's mean of a measure; None where it is missing or not finite."""
    value: float | None = entry.get("mean", {}).get(measure)
    return None if value is None or not math.isfinite(value) else value


def interval_words(gain: Mapping[str, float | None]) -> str:
    """Write the ends of a gain's interval in points; empty where there is none."""
    low, high = gain.get("low"), gain.get("high")
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{signed(100 * low)} to {signed(100 * high)}"


def verdict_words(entry: Mapping[str, Any]) -> str:
    """Return an entry's verdict, and whether it holds for this entry alone, not among all arms."""
    verdict = str(entry.get("verdict", ""))
    return verdict if entry.get("among_all", verdict) == verdict else f"{verdict}, taken alone"


def tone(verdict: str) -> str:
    """Name the style of a verdict: ``helps``, ``hurts`` or ``unclear``."""
    return verdict if verdict in ("helps", "hurts") else "unclear"
