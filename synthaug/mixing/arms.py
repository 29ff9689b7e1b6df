"""Arms of a comparison: which kinds of items fill the training batches, and in what shares."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from synthaug import seeding
from synthaug.errors import InputError
from synthaug.mixing.standard import SCALES, WIDE_SCALES, standard_augmentation
from synthaug.sample import Sample, resized
from synthaug.segmenters.contract import Item

KINDS = ("real", "copy-paste", "synthetic")
"""Kinds of items, in the order in which they lie in a batch."""
Schedule = Literal["constant", "synthetic-first", "warm-up", "auto"]
SCHEDULES = ("constant", "synthetic-first", "warm-up", "auto")
CACHE_BYTES = 256 * 2**20
"""Bank samples kept at the working size, per stream."""
_UNITS = 10**9  # shares are counted in billionths, so that sums are exact


@dataclass(frozen=True)
class Arm:
    """One way to fill the training batches.

    Attributes:
        name: the arm's name in tables and folders.
        shares: share of the items of each kind, ``real``, ``copy-paste`` and ``synthetic``;
            they sum to 1.
        augment: run `standard_augmentation` over every item, whatever its kind.
        wide: that scales by 0.5 to 2.
        weight: loss weight of the items that are not real.
        schedule: how the share of items that are not real runs over the training:
            ``constant``; ``synthetic-first``: doubled, or 1 where that is less, in the first half
            of the steps and 0 in the second; ``warm-up``: rising linearly from 0 over the first
            half of the steps, in full afterwards; ``auto``: shares, weight and schedule stand for
            those that `synthaug.mixing.auto.choose_mix` will choose.

    Raises:
        InputError: an unknown kind or schedule, shares that are negative or do not sum to 1, or a
            weight that is no number from 0 up.
    """

    name: str
    shares: Mapping[str, float] = field(hash=False)
    augment: bool
    weight: float = 1.0
    schedule: Schedule = "constant"
    wide: bool = False

    def __post_init__(self) -> None:
        where = f"arm {self.name!r}"
        if not self.name or set(self.name) & set("/\\") or self.name[0] in "._":
            raise InputError(f"{where} must name a folder: no slash, and no dot or _ in front")
        if unknown := sorted(set(self.shares) - set(KINDS)):
            raise InputError(f"{where} has items of kind {unknown[0]!r}: use {', '.join(KINDS)}")
        values = list(self.shares.values())
        if min(values, default=-1) < 0 or not math.isclose(sum(values), 1, abs_tol=1e-6):
            raise InputError(f"{where} has shares {dict(self.shares)}: they must sum to 1")
        if not 0 <= self.weight < math.inf:
            raise InputError(f"{where} has weight {self.weight}: give 0 or a positive number")
        if self.schedule not in SCHEDULES:
            raise InputError(
                f"{where} has schedule {self.schedule!r}: choose one of {', '.join(SCHEDULES)}"
            )

    @property
    def uses(self) -> tuple[str, ...]:
        """Kinds that a source is looked at for, where there is one."""
        return tuple(kind for kind in KINDS[1:] if self.shares.get(kind, 0) > 0)

    @property
    def needs(self) -> tuple[str, ...]:
        """Kinds that the arm cannot do without; ``auto`` chooses among the sources there are."""
        return () if self.schedule == "auto" else self.uses

    def shares_at(self, step: int, steps: int) -> dict[str, float]:
        """Return the shares of the kinds in step ``step`` of ``steps``, by the schedule."""
        rest = sum(self.shares.get(kind, 0.0) for kind in KINDS[1:])
        place = 2 * step / steps  # 0..2, the second half begins at 1
        factor = 1.0
        if self.schedule == "synthetic-first":
            factor = min(2.0, 1 / max(rest, 0.5)) if place < 1 else 0.0
        elif self.schedule == "warm-up":
            factor = min(1.0, place)
        scaled = {kind: factor * self.shares.get(kind, 0.0) for kind in KINDS[1:]}
        return {"real": max(0.0, 1 - factor * rest), **scaled}

    def as_dict(self) -> dict[str, Any]:
        """Return the arm in plain JSON values; ``Arm(**value)`` makes it again."""
        found = {
            "name": self.name,
            "shares": {kind: float(self.shares[kind]) for kind in KINDS if kind in self.shares},
            "augment": self.augment,
            "weight": float(self.weight),
            "schedule": self.schedule,
        }
        return {**found, "wide": True} if self.wide else found


def _built_in() -> dict[str, Arm]:
    half = {"real": 0.5, "synthetic": 0.5}
    pasted = {"real": 0.5, "copy-paste": 0.5}
    both = {"real": 0.5, "copy-paste": 0.25, "synthetic": 0.25}
    arms = (
        Arm("none", {"real": 1.0}, augment=False),
        Arm("standard", {"real": 1.0}, augment=True),
        Arm("wide", {"real": 1.0}, augment=True, wide=True),
        Arm("copy-paste", pasted, augment=False),
        Arm("synthetic", half, augment=False),
        Arm("standard+synthetic", half, augment=True),
        Arm("standard+copy-paste", pasted, augment=True),
        Arm("standard+copy-paste+synthetic", both, augment=True),
        Arm("auto", both, augment=True, schedule="auto"),
    )
    return {arm.name: arm for arm in arms}


ARMS: dict[str, Arm] = _built_in()
"""The arms out of the box; half of the items are real wherever there are others, as in the papers
on one-shot synthesis (OSMIS, Sushko et al. 2023)."""


class PairSource(Protocol):
    """Where items that are not real come from; `synthaug.mixing.source.Source` is one."""

    @property
    def ids(self) -> list[str]:
        """Names of the stored samples; empty where samples are drawn live."""
        ...

    def draw(self, pick: Callable[[int], int]) -> dict[str, Any]:
        """Choose a pair; ``pick(n)`` returns an integer in [0, n)."""
        ...

    def fetch(self, choice: dict[str, Any]) -> Sample:
        """Return the pair that was chosen."""
        ...


class ArmStream:
    """Training batches of an arm; a `synthaug.segmenters.contract.Stream`.

    The number of items of each kind is exact: no kind strays by a whole item from its share of
    all items so far, and remainders rotate over the steps. A batch holds its real items first,
    then the pasted, then the synthetic ones.

    Every slot has random streams of its own, named by seed, step, kind and place. Streams of one
    seed are therefore paired: a slot that is real in several arms holds the same real image there
    (by shuffled passes over all slots), augmented alike, however the other slots are filled.

    Samples of a bank follow each other in shuffled passes over the whole bank; other sources are
    drawn live, with a fresh latent seed per item.

    Args:
        arm: the arm.
        training: labelled samples, at least one.
        sources: a source for every kind that the arm `needs`.
        steps: number of batches.
        batch_size: items per batch.
        seed: every random draw follows from it.
        size: height and width of all items in pixels; samples are resized once, then augmented.

    Raises:
        InputError: no training sample, no positive number of steps or items, a missing source, or
            an arm that is yet to be chosen.
    """

    def __init__(
        self,
        arm: Arm,
        training: Sequence[Sample],
        sources: Mapping[str, PairSource],
        *,
        steps: int,
        batch_size: int,
        seed: int,
        size: tuple[int, int],
    ) -> None:
        if not training:
            raise InputError("there is no labelled sample to train on: give at least one")
        if steps < 1 or batch_size < 1:
            raise InputError(
                f"{steps} steps of {batch_size} items are no training: give at least 1 of each"
            )
        if arm.schedule == "auto":
            raise InputError(f"arm {arm.name!r} is yet to be chosen: choose_mix does that")
        if missing := [kind for kind in arm.needs if kind not in sources]:
            raise InputError(
                f"arm {arm.name!r} needs a source of {missing[0]} items: give a bank or generator"
            )
        self.arm, self.steps, self.seed, self.size = arm, steps, seed, size
        self._sources = {kind: sources[kind] for kind in arm.needs}
        self._ids = {kind: source.ids for kind, source in self._sources.items()}
        self._real = [resized(sample, *size) for sample in training]
        self._counts = _counts(arm, steps, batch_size)  # (steps, kinds)
        self._before = np.cumsum(self._counts, axis=0) - self._counts
        self._batch_size = batch_size
        self._orders: dict[str, tuple[int, NDArray[np.int64]]] = {}
        self._cache: OrderedDict[tuple[str, str], Sample] = OrderedDict()
        self._cached = max(1, CACHE_BYTES // (4 * size[0] * size[1]))
        self._augment = None
        if arm.augment:
            scales = WIDE_SCALES if arm.wide else SCALES
            self._augment = standard_augmentation(*size, scales=scales)

    def counts(self, step: int) -> dict[str, int]:
        """Return the number of items of each kind in a batch."""
        return dict(zip(KINDS, self._counts[step].tolist(), strict=True))

    def batch(self, step: int) -> list[Item]:
        """Return batch ``step``, 0 <= step < steps: items of ``size``, as the arm mixes them."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} is out of range for {self.steps} steps")
        items = []
        for column, kind in enumerate(KINDS):
            for place in range(int(self._counts[step, column])):
                if kind == "real":
                    rank = step * self._batch_size + place
                    sample = self._real[self._shuffled(kind, rank, len(self._real))]
                else:
                    rank = int(self._before[step, column]) + place
                    sample = self._other(kind, rank, step, place)
                image, mask = self._augmented(sample, kind, step, place)
                items.append(Item(image, mask, 1.0 if kind == "real" else self.arm.weight, kind))
        return items

    def _other(self, kind: str, rank: int, step: int, place: int) -> Sample:
        source, ids = self._sources[kind], self._ids[kind]
        if not ids:
            stream = seeding.python_stream(self.seed, "arm", kind, "latent", step, place)
            return resized(source.fetch(source.draw(stream.randrange)), *self.size)
        name = ids[self._shuffled(kind, rank, len(ids))]
        sample = self._cache.pop((kind, name), None)
        if sample is None:
            sample = resized(source.fetch({"sample_id": name}), *self.size)
        self._cache[kind, name] = sample
        if len(self._cache) > self._cached:
            self._cache.popitem(last=False)
        return sample

    def _shuffled(self, kind: str, rank: int, size: int) -> int:
        """The item at ``rank`` when shuffled passes over ``size`` items follow each other."""
        number, place = divmod(rank, size)
        known = self._orders.get(kind)
        if known is None or known[0] != number:
            order = seeding.numpy_stream(self.seed, "arm", kind, "pass", number).permutation(size)
            known = self._orders[kind] = (number, order)
        return int(known[1][place])

    def _augmented(
        self, sample: Sample, kind: str, step: int, place: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        if self._augment is None:
            return sample.image, sample.mask
        names = ("arm", kind, "augmentation", step, place)
        self._augment.set_random_state(
            seeding.numpy_stream(self.seed, *names), seeding.python_stream(self.seed, *names)
        )
        result = self._augment(image=sample.image, mask=sample.mask)
        return result["image"], result["mask"]


def _counts(arm: Arm, steps: int, batch_size: int) -> NDArray[np.int64]:
    """Items of each kind per step, (steps, kinds): each item goes to the kind most behind."""
    counts = np.zeros((steps, len(KINDS)), np.int64)
    owed = [0] * len(KINDS)
    for step in range(steps):
        shares = arm.shares_at(step, steps)
        units = [round(shares[kind] * _UNITS) for kind in KINDS]
        units[units.index(max(units))] += _UNITS - sum(units)
        owed = [debt + batch_size * unit for debt, unit in zip(owed, units, strict=True)]
        present = [column for column, unit in enumerate(units) if unit > 0]
        for _ in range(batch_size):
            column = max(present, key=lambda c: owed[c])
            counts[step, column] += 1
            owed[column] -= _UNITS
    return counts
