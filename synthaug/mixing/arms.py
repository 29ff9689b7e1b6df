"""The training batches of an arm: items of every kind, exact in number and paired over arms."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from synthaug import seeding
from synthaug.config.arms import KINDS, Arm
from synthaug.errors import InputError
from synthaug.mixing.standard import SCALES, WIDE_SCALES, standard_augmentation
from synthaug.sample import IGNORE_ID, Sample, resized
from synthaug.segmenters.contract import Item

CACHE_BYTES = 256 * 2**20
"""Bank samples kept at the working size, per stream."""
_UNITS = 10**9  # shares are counted in billionths, so that sums are exact


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
            return self._fitted(source.fetch(source.draw(stream.randrange)), kind)
        name = ids[self._shuffled(kind, rank, len(ids))]
        sample = self._cache.pop((kind, name), None)
        if sample is None:
            sample = self._fitted(source.fetch({"sample_id": name}), kind)
        self._cache[kind, name] = sample
        if len(self._cache) > self._cached:
            self._cache.popitem(last=False)
        return sample

    def _fitted(self, sample: Sample, kind: str) -> Sample:
        """A sample at the working size, its borders unlabelled where the arm wants that."""
        sample = resized(sample, *self.size)
        if kind != "synthetic" or not self.arm.border_px:
            return sample
        return replace(sample, mask=_without_borders(sample.mask, self.arm.border_px))

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


def _without_borders(mask: NDArray[np.uint8], reach: int) -> NDArray[np.uint8]:
    """Ignore the pixels with another class within ``reach`` px; the unlabelled are no class."""
    import cv2

    around = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    void = mask == IGNORE_ID
    highest = cv2.dilate(np.where(void, 0, mask).astype(np.uint8), around)
    return np.where(highest > cv2.erode(mask, around), IGNORE_ID, mask).astype(np.uint8)


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
