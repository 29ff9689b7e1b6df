"""Arms of a comparison: which kinds of items fill the training batches, and in what shares."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from synthaug.errors import InputError

KINDS = ("real", "copy-paste", "synthetic")
"""Kinds of items, in the order in which they lie in a batch."""
Schedule = Literal["constant", "synthetic-first", "warm-up", "auto"]
SCHEDULES = ("constant", "synthetic-first", "warm-up", "auto")
MOST_BORDER_PX = 32
MOST_LENGTH = 100
_NO_FOLDER = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for itself, whatever follows a dot."""


@dataclass(frozen=True)
class Arm:
    """One way to fill the training batches.

    Attributes:
        name: the arm's name in tables and folders, one that may name a folder on any system.
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
        border_px: in the masks of synthetic items, this many pixels at the training size on either
            side of a class border are not labelled, for masks that are wrong there.
        length: trained for this many times the steps of the others: not a rival of theirs, but to
            see whether trainings end too early.

    Raises:
        InputError: a name that cannot be a folder's, an unknown kind or schedule, shares that are
            negative or do not sum to 1, a weight or border out of range, or a setting that would
            have no effect.
    """

    name: str
    shares: Mapping[str, float] = field(hash=False)
    augment: bool
    weight: float = 1.0
    schedule: Schedule = "constant"
    wide: bool = False
    border_px: int = 0
    length: float = 1.0

    def __post_init__(self) -> None:
        where = f"arm {self.name!r}"
        if (
            not self.name
            or self.name.strip() != self.name
            or not self.name.isprintable()
            or set(self.name) & set('/\\<>:"|?*')
            or self.name[0] in "._"
            or self.name[-1] == "."
            or _NO_FOLDER.fullmatch(self.name)
        ):
            raise InputError(
                f'{where} must name a folder on any system: no slash, none of <>:"|?*, no line '
                "break or space around it, no dot or _ in front, no dot at the end, and not con, "
                "prn, aux, nul, com1, lpt1 or the like"
            )
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
        if not 0 <= self.border_px <= MOST_BORDER_PX:
            raise InputError(
                f"{where} has border_px {self.border_px}: give 0 to {MOST_BORDER_PX} pixels"
            )
        weighed = self.weight != 1
        if self.wide and not self.augment:
            raise InputError(f"{where} is wide but does not augment: give both or neither")
        if not self.uses and (weighed or self.schedule in ("synthetic-first", "warm-up")):
            raise InputError(
                f"{where} has real items alone: leave out weight and schedule, they change nothing"
            )
        if not 0 < self.length <= MOST_LENGTH:
            raise InputError(
                f"{where} has length {self.length}: give a positive number, {MOST_LENGTH} at most"
            )
        if self.border_px and "synthetic" not in self.needs:
            raise InputError(f"{where} has no synthetic items of its own: leave out border_px")
        if self.schedule == "auto" and (weighed or self.wide or not self.augment):
            raise InputError(
                f"{where} leaves its mix to auto, which always augments and chooses the weight: "
                "set augment, and leave out weight and wide"
            )

    @property
    def uses(self) -> tuple[str, ...]:
        """Kinds that a source is looked at for, where there is one."""
        return tuple(kind for kind in KINDS[1:] if self.shares.get(kind, 0) > 0)

    @property
    def needs(self) -> tuple[str, ...]:
        """Kinds that the arm cannot do without; ``auto`` chooses among the sources there are."""
        return () if self.schedule == "auto" else self.uses

    def steps(self, usual: int) -> int:
        """Return the steps that the arm is trained for where others are for ``usual``."""
        return max(1, round(self.length * usual))

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
        found: dict[str, Any] = {
            "name": self.name,
            "shares": {kind: float(self.shares[kind]) for kind in KINDS if kind in self.shares},
            "augment": self.augment,
            "weight": float(self.weight),
            "schedule": self.schedule,
        }
        if self.wide:
            found["wide"] = True
        if self.border_px:
            found["border_px"] = self.border_px
        if self.length != 1:
            found["length"] = float(self.length)
        return found


def _built_in() -> dict[str, Arm]:
    half = {"real": 0.5, "synthetic": 0.5}
    pasted = {"real": 0.5, "copy-paste": 0.5}
    both = {"real": 0.5, "copy-paste": 0.25, "synthetic": 0.25}
    arms = (
        Arm("none", {"real": 1.0}, augment=False),
        Arm("standard", {"real": 1.0}, augment=True),
        Arm("wide", {"real": 1.0}, augment=True, wide=True),
        Arm("standard-2x", {"real": 1.0}, augment=True, length=2),
        Arm("copy-paste", pasted, augment=False),
        Arm("synthetic", half, augment=False),
        Arm("standard+synthetic", half, augment=True),
        Arm("synthetic-first", half, augment=True, schedule="synthetic-first"),
        Arm("standard+copy-paste", pasted, augment=True),
        Arm("standard+copy-paste+synthetic", both, augment=True),
        Arm("auto", both, augment=True, schedule="auto"),
    )
    return {arm.name: arm for arm in arms}


ARMS: dict[str, Arm] = _built_in()
"""The arms out of the box; half of the items are real wherever there are others, as in the papers
on one-shot synthesis (OSMIS, Sushko et al. 2023)."""


def name_of(arm: str | Arm) -> str:
    """Return the name of an arm that may be given by its name."""
    return arm if isinstance(arm, str) else arm.name
