"""Choose how much to mix in, nothing included, from the labelled images alone."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from synthaug import files
from synthaug.bank import Bank
from synthaug.config.arms import ARMS, Arm
from synthaug.errors import InputError
from synthaug.mixing.arms import ArmStream, PairSource
from synthaug.mixing.candidates import PASTED, STANDARD, default_candidates, usual_mix
from synthaug.mixing.folds import FoldSources
from synthaug.mixing.source import open_source_once, working_size
from synthaug.mixing.views import held_out_views
from synthaug.quality.overlap import confusion_matrix
from synthaug.sample import ClassMap, Sample, resized, usual_size
from synthaug.seeding import derive_seed, numpy_stream
from synthaug.segmenters import build_learner
from synthaug.segmenters.semantic import BUNDLED_ENCODER
from synthaug.stages import duration

FORMAT = "synthaug-mix-2"
MIX_FILE = "mix.json"
VIEWS = 24
FOLDS = 3
TESTS_PER_FOLD = 20
MARGIN = 2.0
LEAST_ADVANTAGE = 0.01
"""An advantage below one point does not count, however certain it is."""
TELL_EVERY_S = 15.0
"""Least time between two lines about the time left."""

_log = logging.getLogger("synthaug")
_chosen: dict[tuple[str, str], MixChoice] = {}


@dataclass(frozen=True)
class MixChoice:
    """What was chosen, and why.

    Attributes:
        arm: the chosen arm.
        scores: candidate -> mean foreground IoU per seed, in [0, 1]; empty where there was
            nothing to choose from.
        why: one plain line.
    """

    arm: Arm
    scores: dict[str, list[float]]
    why: str

    def as_dict(self) -> dict[str, Any]:
        """Return it in plain JSON values."""
        return {"arm": self.arm.as_dict(), "scores": self.scores, "why": self.why}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> MixChoice:
        """Make it again from `as_dict`."""
        return cls(Arm(**value["arm"]), value["scores"], value["why"])


def choose_mix(
    training: Sequence[Sample],
    sources: Mapping[str, PairSource],
    classes: ClassMap,
    *,
    candidates: Sequence[Arm] | None = None,
    segmenter: str = "osvos",
    steps: int = 80,
    batch_size: int = 8,
    seeds: int = 2,
    side_px: int = 192,
    seed: int = 0,
    lr: float = 1e-3,
    encoder: str = BUNDLED_ENCODER,
    parent: str | Path | None = None,
    margin: float = MARGIN,
    progress: Callable[[int, int], None] | None = None,
) -> MixChoice:
    """Choose share, weight and schedule of the items that are not real.

    Every candidate is trained with the same seeds and tested on the same images:

    - several labelled images: cross-validation, in up to `FOLDS` folds of whole images, at most
      `TESTS_PER_FOLD` tested in each; sources are restricted to what comes from the images that
      the fold trains on, see `FoldSources`;
    - one labelled image: `VIEWS` views of it that training does not draw, see `held_out_views`.

    The score is the foreground's mean IoU. A candidate is taken only if its paired advantage over
    standard augmentation alone exceeds ``margin`` standard errors and one point. Of those within
    one standard error of the best, the simplest is taken: the least synthetic share, then the
    least copy-paste share (the one-standard-error rule of Breiman et al. 1984, section 3.4.3).

    Views of one image are not other images. They show whether a learner stands changes of scale,
    angle, light and place, not what else the world holds: on two videos of ``recipes/RESULTS.md``
    they promised 22 and 37 points of copy-paste, and it lost 4 and 11. So with one labelled image
    and no candidates given, they only have a veto. What is mixed in is `usual_mix`, which helped
    where it could be measured, unless it loses on the views by more than half of ``margin``
    standard errors and one point.

    Args:
        training: the labelled images.
        sources: sources by kind, ``copy-paste`` and ``synthetic``; none is needed.
        classes: classes of the masks.
        candidates: arms to choose from, the simplest, ``standard``, is added; None = those of
            `default_candidates`, or with one labelled image `usual_mix`.
        segmenter: name for `synthaug.segmenters.build_learner`.
        steps: training steps per candidate, seed and fold.
        batch_size: items per step.
        seeds: repetitions.
        side_px: longer side in training and testing, px.
        seed: every draw follows from it.
        lr: highest learning rate.
        encoder: encoder of the network.
        parent: file of a parent network.
        margin: least advantage in standard errors; of `usual_mix` half of it is the least loss.
        progress: called with (training steps done, steps of all trainings).

    Returns:
        The choice; the same input gives the same.

    Raises:
        InputError: no labelled image, a value out of range, candidates of equal names, or one
            that misses its source.
    """
    if not training:
        raise InputError("there is no labelled image to choose a mix by: give at least one")
    for name, value in {"seeds": seeds, "steps": steps, "batch_size": batch_size}.items():
        if value < 1:
            raise InputError(f"{name} is {value}: give at least 1")
    if not margin >= 0:
        raise InputError(f"margin is {margin}: give 0 or a positive number of standard errors")
    usual = candidates is None and len(training) == 1
    if candidates is None:
        candidates = usual_mix(sources) if usual else default_candidates(sources)
    arms = _candidates(candidates)
    for arm in arms:
        if missing := [kind for kind in arm.needs if kind not in sources]:
            raise InputError(f"candidate {arm.name!r} needs a source of {missing[0]} items")
    if len(arms) == 1:
        return MixChoice(arms[0], {}, "standard augmentation alone: there is nothing to mix in")
    size = working_size(usual_size(sample.size for sample in training), side_px)
    images = [resized(sample, *size) for sample in training]
    trials = list(_trials(images, sources, classes, seed))
    shared = set.intersection(*(set(trial.sources) for trial in trials))
    arms = [arm for arm in arms if set(arm.needs) <= shared]
    scores = np.zeros((len(arms), seeds, sum(len(trial.tests) for trial in trials)))
    total = len(arms) * seeds * len(trials)
    for count, (repetition, number) in enumerate(np.ndindex(seeds, len(arms))):
        found: list[float] = []
        for fold, trial in enumerate(trials):
            names = ("auto", repetition, fold)
            learner = build_learner(
                segmenter,
                len(classes),
                seed=derive_seed(seed, *names, "weights"),
                size=size,
                lr=lr,
                encoder=encoder,
                parent=parent,
            )
            stream = ArmStream(
                arms[number],
                trial.training,
                trial.sources,
                steps=steps,
                batch_size=batch_size,
                seed=derive_seed(seed, *names, "batches"),
                size=size,
            )
            learner.learn(stream, classes, seed=derive_seed(seed, *names, "training"))
            found += [_score(t, learner.segment([t.image])[0], classes) for t in trial.tests]
            if progress is not None:
                progress((count * len(trials) + fold + 1) * steps, total * steps)
        scores[number, repetition] = found
    known = ~np.isnan(scores).any(axis=(0, 1))
    if not known.any():
        return MixChoice(
            arms[0], {}, "standard augmentation alone: no image to test on has a label"
        )
    scores = scores[:, :, known]
    tested = (
        f"{scores.shape[2]} held-out views of the image"
        if len(images) == 1
        else f"{scores.shape[2]} images, cross-validated"
    )
    tested = f"{tested}, {seeds} seed{'s' * (seeds > 1)}"
    return (_unless_it_loses if usual else _decide)(arms, scores, margin, tested)


def mix_of_bank(
    path: str | os.PathLike[str],
    *,
    choose: Callable[..., MixChoice] = choose_mix,
    progress: Callable[[int, int], None] | None = None,
) -> MixChoice:
    """Return the share of a bank's samples to mix in, chosen by the bank's own training pairs.

    The choice is read from ``mix.json`` in the bank's folder if it was made for the samples that
    the bank holds now. Otherwise it is made and stored: of one pair it is 0.5, or 0 where that
    loses (`usual_mix`), of several pairs 0, 0.25, 0.5 or 0.75, at the full loss weight, which a
    dataset cannot change. Where the folder cannot be written the choice is kept in the process.
    The logger ``synthaug`` gets warnings that it begins, of the time left, and of what was chosen.

    Args:
        path: the bank's folder.
        choose: what chooses, called like `choose_mix`.
        progress: passed on to it, in place of lines about the time left.

    Raises:
        InputError: the folder is no bank or is damaged.
    """
    folder = Path(path).absolute()
    source = open_source_once(str(folder))
    source.require_masks()
    if not source.ids:
        raise InputError(f"{path} is a generator: make a bank of it with generate first")
    bank = Bank(folder)
    key = (str(folder), bank.content_hash)
    if key not in _chosen:
        found = _stored(folder / MIX_FILE, bank.content_hash)
        if found is None:
            _log.warning("%s: choosing how much of it to mix in; this takes a minute or two", path)
            pairs = bank.pairs()
            arms = [
                Arm(f"{STANDARD}+synthetic {s:g}", {"real": 1 - s, "synthetic": s}, augment=True)
                for s in (0.25, 0.5, 0.75)
            ]
            found = choose(
                pairs,
                {"synthetic": source},
                bank.classes,
                candidates=arms if len(pairs) > 1 else None,
                progress=progress or _time_left(path),
            )
            content = {"format": FORMAT, "samples_sha256": bank.content_hash, **found.as_dict()}
            try:
                files.write_json(folder / MIX_FILE, content)
            except (InputError, OSError):
                _log.info("%s cannot be written: the choice is kept in this process", folder)
            share = found.arm.shares.get("synthetic", 0.0)
            _log.warning("%s: ratio %g, %s", path, share, found.why)
        _chosen[key] = found
    return _chosen[key]


def _time_left(path: str | os.PathLike[str]) -> Callable[[int, int], None]:
    """Return a function of (steps done, steps of all) that logs the time left, now and then."""
    start = told = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if 0 < done < total and now - told >= TELL_EVERY_S:
            told, left = now, (now - start) / done * (total - done)
            _log.warning("%s: step %d/%d, about %s left", path, done, total, duration(left))

    return tell


class _Trial(NamedTuple):
    """What to train on and what to test on."""

    training: Sequence[Sample]
    sources: Mapping[str, PairSource]
    tests: Sequence[Sample]


def _trials(
    images: Sequence[Sample], sources: Mapping[str, PairSource], classes: ClassMap, seed: int
) -> Iterator[_Trial]:
    if len(images) == 1:
        views = held_out_views(images[0], classes, VIEWS, seed=derive_seed(seed, "auto", "views"))
        yield _Trial(images, sources, views)
        return
    order = numpy_stream(seed, "auto", "folds").permutation(len(images)).tolist()
    restricted = FoldSources(sources, images, seed=seed)
    count = min(FOLDS, len(images))
    for fold in range(count):
        tests = order[fold::count]
        others = [index for index in range(len(images)) if index not in tests]
        yield _Trial(
            [images[index] for index in others],
            restricted.of(others),
            [images[index] for index in tests[:TESTS_PER_FOLD]],
        )


def _candidates(given: Sequence[Arm]) -> list[Arm]:
    """All candidates, standard augmentation alone at the head."""
    arms = [ARMS[STANDARD], *(arm for arm in given if arm != ARMS[STANDARD])]
    names = [arm.name for arm in arms]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two candidates are named {name!r}: give one another name")
    return arms


def _score(test: Sample, predicted: NDArray[np.int64], classes: ClassMap) -> float:
    """Mean IoU of the foreground, 1 where it is rightly absent, NaN where nothing is labelled.

    A class that is seen where it is not counts 0: the background, whose pixels it takes, does not
    count.
    """
    confusion = confusion_matrix(classes.encode(test.mask), predicted, len(classes))
    if not confusion.any():
        return math.nan
    overlap = np.diag(confusion)[1:]
    union = (confusion.sum(0) + confusion.sum(1))[1:] - overlap
    shown = union > 0
    return float((overlap[shown] / union[shown]).mean()) if shown.any() else 1.0


def _decide(
    arms: Sequence[Arm], scores: NDArray[np.float64], margin: float, tested: str
) -> MixChoice:
    """Choose by scores (candidates, seeds, tests), the first candidate being the standard."""
    advantage = [_difference(row, scores[0]) for row in scores]
    table = _table(arms, scores)
    if len(arms) == 1:
        why = f"standard augmentation alone: no fold has other items to train on ({tested})"
        return MixChoice(arms[0], table, why)
    best = max(range(1, len(arms)), key=lambda index: advantage[index][0])
    clear = [
        index
        for index in range(1, len(arms))
        if advantage[index][0] > max(margin * advantage[index][1], LEAST_ADVANTAGE)
    ]
    near = []
    for index in clear:
        behind, error = _difference(scores[best], scores[index])
        if behind <= error or index == best:
            near.append(index)
    if not near:
        words = _points(*advantage[best])
        why = f"standard augmentation alone: {arms[best].name} is no clear gain, {words}"
        return MixChoice(arms[0], table, f"{why} ({tested})")
    chosen = min(near, key=lambda index: (*_complexity(arms[index]), index))
    words = _points(*advantage[chosen])
    why = f"{arms[chosen].name}: {words} against standard augmentation alone ({tested})"
    return MixChoice(arms[chosen], table, why)


def _unless_it_loses(
    arms: Sequence[Arm], scores: NDArray[np.float64], margin: float, tested: str
) -> MixChoice:
    """Take the second of two arms unless its scores (2, seeds, tests) are the lower."""
    advantage, error = _difference(scores[1], scores[0])
    lost = -advantage > max(margin / 2 * error, LEAST_ADVANTAGE)
    found, words = arms[1].name, _points(advantage, error)
    why = (
        f"standard augmentation alone: {found} loses, {words} ({tested})"
        if lost
        else f"{found}, as usual with one image: {words}, no clear loss ({tested})"
    )
    return MixChoice(arms[0] if lost else arms[1], _table(arms, scores), why)


def _table(arms: Sequence[Arm], scores: NDArray[np.float64]) -> dict[str, list[float]]:
    """Mean score of every arm and seed."""
    return {
        arm.name: [round(float(value), 6) for value in row.mean(1)]
        for arm, row in zip(arms, scores, strict=True)
    }


def _difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float]:
    """Mean of the paired differences (seeds, tests) and its standard error.

    The variances of a mean over tests and of a mean over seeds are added, as if both were drawn
    crosswise: that counts their interaction twice and so errs on the safe side.
    """
    values = one - other
    variance = sum(
        float(np.var(values.mean(axis), ddof=1)) / values.shape[1 - axis]
        for axis in (0, 1)
        if values.shape[1 - axis] > 1
    )
    return float(values.mean()), math.sqrt(variance)


def _complexity(arm: Arm) -> tuple[float, float]:
    return arm.shares.get("synthetic", 0.0), arm.shares.get(PASTED, 0.0)


def _points(mean: float, error: float) -> str:
    return f"{100 * mean:+.1f} points (standard error {100 * error:.1f})"


def _stored(path: Path, samples: str) -> MixChoice | None:
    """A stored choice, if it was made for these samples."""
    if not path.is_file():
        return None
    try:
        value = files.read_json(path, "mix")
        if value["format"] == FORMAT and value["samples_sha256"] == samples:
            return MixChoice.from_dict(value)
    except (InputError, KeyError, TypeError):
        pass  # it is made again
    return None
