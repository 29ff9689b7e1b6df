"""What the automatic mix chooses from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthaug.config.arms import ARMS, Arm

STANDARD = "standard"
PASTED = "copy-paste"


def usual_mix(sources: Mapping[str, Any]) -> list[Arm]:
    """Return what to mix in where one labelled image is all there is, at most one arm.

    Generated pairs as half of the items: on ten videos they gained most and harmed none by more
    than a point that could be told from chance (``recipes/RESULTS.md``). Copy-paste lost 11 points
    and more on one of them, and one image does not show on which, so it is not taken.
    """
    return [ARMS["standard+synthetic"]] if "synthetic" in sources else []


def default_candidates(sources: Mapping[str, Any]) -> list[Arm]:
    """Return the arms to choose from, at most six, by the kinds of sources there are."""

    def arm(pasted: float, synthetic: float, **options: Any) -> Arm:
        parts = {PASTED: pasted, "synthetic": synthetic}
        shares = {kind: share for kind, share in parts.items() if share}
        name = "+".join([STANDARD, *(f"{kind} {share:g}" for kind, share in shares.items())])
        name += "".join(f" {key} {value}" for key, value in options.items())
        shares["real"] = 1 - pasted - synthetic
        return Arm(name, shares, augment=True, **options)

    found = [ARMS[STANDARD]]
    if PASTED in sources:
        found += [arm(0.25, 0), arm(0.5, 0)]
    if "synthetic" in sources:
        found += [arm(0, 0.25), arm(0, 0.5, weight=0.3)]
        if PASTED not in sources:
            found.append(arm(0, 0.5))
    if {PASTED, "synthetic"} <= set(sources):
        found.append(arm(0.25, 0.25))
    elif len(found) > 1:
        kinds = (0.5, 0.0) if PASTED in sources else (0.0, 0.5)
        found.append(arm(*kinds, schedule="synthetic-first"))
    return found
