"""Compare arms: train and test each of them on every unit with every seed, and keep the results."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthaug import files
from synthaug.config.arms import ARMS, Arm, name_of
from synthaug.errors import InputError
from synthaug.gain.checks import check, refuse_lengths, warn_of_lost, warn_of_repeats
from synthaug.gain.clock import time_left
from synthaug.gain.comparison_folder import ComparisonFolder, Sources
from synthaug.gain.jobs import Jobs
from synthaug.gain.parents import GivenParents, Parents
from synthaug.gain.runs import Settings
from synthaug.segmenters.semantic import BUNDLED_ENCODER

if TYPE_CHECKING:
    from synthaug.formats.splits import Unit


def compare(
    units: Sequence[Unit],
    out: str | os.PathLike[str],
    *,
    arms: Sequence[str | Arm],
    seeds: int | Sequence[int] = 5,
    sources: Callable[[Unit], Sources] | Mapping[str, Sources] | None = None,
    segmenter: str = "osvos",
    baseline: str = "standard",
    steps: int = 150,
    batch_size: int = 8,
    side_px: int = 256,
    lr: float = 1e-3,
    encoder: str = BUNDLED_ENCODER,
    parent: GivenParents = None,
    jobs: int = 1,
    reproduce: str = "",
    progress: Callable[[int, int], None] | None = None,
    echo: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure what each arm does to a segmenter, paired over units and seeds.

    All arms get the same steps (but for those of a length of their own), batch size, first weights
    and real items. Every finished run is kept in ``OUT/runs``, all that count also as a table,
    ``OUT/runs.csv``; a run is only made again when something that decides it has changed (data,
    arm, source, setting, seed, your own network's code or weights). The order is seed by seed over
    all units and arms, so that an interrupted comparison is balanced; its ``comparison.json``
    leaves out pairs of unit and seed of which arms are missing. A later call with other arms or
    more seeds adds to the folder; until all its arms have the same seeds, ``complete`` is false;
    ``missing``: runs an arm lacks. A later call of two arms or more leaves out earlier ones that
    have not run with all its units and seeds.

    Args:
        units: what to learn and test on, all of one kind; names are unique.
        out: folder of the comparison.
        arms: names of `synthaug.config.arms.ARMS` or arms of your own; the baseline is added
            when it is not among them. What ``auto`` stands for is chosen once per unit from its
            training images and the sources that there are, see `choose_mix`.
        seeds: repetitions: their number, or the seeds.
        sources: per unit the folders that the arms need: unit name -> kind -> folder, or a
            function that is called when the unit first needs one. Folders of an earlier call
            count as long as no other is given.
        segmenter: name for `synthaug.segmenters.build_learner`, or ``package.module:function``.
        baseline: the arm that gains are measured against.
        steps: training steps.
        batch_size: items per step.
        side_px: longer side in training and testing, px.
        lr: highest learning rate.
        encoder: encoder of the network.
        parent: file of a parent network, for the segmenters that take one. So that no unit is
            tested with a parent that has seen it, one file per unit: unit name -> file, or a
            function that is called when the unit first needs its own.
        jobs: runs side by side, see `Jobs`; `synthaug.gain.jobs.default_jobs` fits the machine. A
            script that asks for several starts under ``if __name__ == "__main__":``, as Python's
            multiprocessing wants.
        reproduce: command line to show in the report, below those of earlier calls whose runs
            count.
        progress: called with (training steps done, steps of all runs).
        echo: called with one line per finished run, time left included.

    Returns:
        The content of ``comparison.json``.

    Raises:
        InputError: nothing to compare, units of two kinds, an unknown arm, a missing or unfit
            source, a value out of range, or a folder that holds something else.
    """
    say = echo or (lambda line: None)
    settings = Settings(segmenter, steps, batch_size, side_px, lr, encoder)
    chosen = list(range(seeds)) if isinstance(seeds, int) else list(dict.fromkeys(seeds))
    parents = Parents(parent)
    check(units, chosen, settings, parents)
    path = Path(out)
    if path.is_file():
        raise InputError(f"{path} is a file: name a folder with --out")
    with files.claimed(path):
        folder = ComparisonFolder(path, units, settings, sources, parents)
        for unit in units:
            warn_of_repeats(unit, say)
            warn_of_lost(unit, settings.side_px, say)
        wanted = _arms(arms, baseline, folder.old_arms)
        refuse_lengths(wanted.values(), settings)
        plan = folder.join(wanted, chosen, baseline, reproduce, say)
        todo = [(seed, unit, arm) for seed, unit, arm in plan if not folder.has(unit, arm, seed)]
        if len(todo) < len(plan):
            say(f"{len(plan) - len(todo)} of {len(plan)} runs are there already")
        spent: list[float] = []
        total = sum(arm.steps(settings.steps) for _, _, arm in todo)
        glance = (lambda done: None) if progress is None else lambda done: progress(done, total)

        def make(cell: tuple[int, Unit, Arm]) -> tuple[dict[str, Any], float]:
            seed, unit, arm = cell
            started = time.perf_counter()
            found = folder.make(unit, arm, seed, workers, say)
            return found, time.perf_counter() - started

        try:
            with Jobs(jobs, glance) as workers:
                for (seed, unit, arm), (found, seconds) in workers.run(make, todo):
                    folder.keep(unit, arm, seed, found)
                    spent.append(seconds)
                    say(
                        f"[{len(spent)}/{len(todo)}] {unit.name}, {arm.name}, seed {seed}: "
                        f"{folder.measures[0]} {100 * found['measures'][folder.measures[0]]:.1f}, "
                        f"{time_left(spent, len(todo) - len(spent), min(jobs, len(todo)))}"
                    )
                    if all(folder.has(unit, arm, seed) for each, unit, arm in plan if each == seed):
                        folder.write_summary()
        finally:
            summary = folder.write_summary()
    return summary


def _arms(given: Sequence[str | Arm], baseline: str, earlier: Mapping[str, Arm]) -> dict[str, Arm]:
    """The arms of a call by name, the baseline included."""
    if isinstance(given, str):
        raise InputError(f"arms is the text {given!r}: give a list of names")
    wanted: list[str | Arm] = [*given] if baseline in map(name_of, given) else [baseline, *given]
    known = {**earlier, **ARMS}
    found: dict[str, Arm] = {}
    for item in wanted:
        if isinstance(item, str) and item not in known:
            raise InputError(f"unknown arm {item!r}: choose from {', '.join(known)}")
        arm = known[item] if isinstance(item, str) else item
        if arm.name in found:
            raise InputError(f"arm {arm.name!r} is given twice: give one of them another name")
        for other in (*found, *earlier):
            if other != arm.name and other.casefold() == arm.name.casefold():
                raise InputError(
                    f"arms {other!r} and {arm.name!r} differ in case alone, which folders do not "
                    "tell apart on every system: give one of them another name"
                )
        found[arm.name] = arm
    return found
