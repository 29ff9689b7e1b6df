"""The rows of the score table, from what `synthaug.evaluation.bank_quality.evaluate` measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthaug.report.page import Score

_SIFID_NOTES = (
    "distance of feature statistics to the training image, fine textures; lower is closer",
    "small structures",
    "parts",
    "whole objects",
)


def score_rows(quality: dict[str, Any]) -> list[Score]:
    """Lay out a bank's quality for the page.

    Args:
        quality: the value of `synthaug.evaluation.bank_quality.evaluate`, mask agreement or not.

    Returns:
        SIFID at the four depths, diversity, distance to the training pair, copies, and mask
        agreement if it was measured, each beside standard augmentation.
    """
    sifid, diversity = quality["sifid"], quality["diversity"]
    nearest, memorised = quality["nearest_training_distance"], quality["memorised"]
    rows = [
        Score(f"SIFID-{depth}", _three_digits(ours), _three_digits(theirs), note)
        for depth, (ours, theirs, note) in enumerate(
            zip(sifid["bank"], sifid["standard"], _SIFID_NOTES, strict=True), start=1
        )
    ]
    rows += [
        Score(
            "diversity",
            f"{diversity['bank']:.3f}",
            f"{diversity['standard']:.3f}",
            "mean perceptual distance between two pictures; higher is more varied",
        ),
        Score(
            "diversity, both together",
            f"{diversity['bank_and_standard']:.3f}",
            f"{diversity['standard']:.3f}",
            "standard augmentation of the synthetic pairs",
        ),
        Score(
            "distance to the training pair",
            f"{nearest['bank']['mean']:.3f}",
            f"{nearest['standard']['mean']:.3f}",
            "mean perceptual distance to it or its mirror image; 0 is a copy",
        ),
        Score(
            "copies of the training pair",
            str(near_copies(memorised)),
            f"{memorised['standard']}",
            f"nearer than {memorised['threshold']:.3f}, which a mild change of the pair reaches; "
            "counted before the filter, which drops them",
        ),
    ]
    if quality["mask_agreement"] is not None:
        agreement = quality["mask_agreement"]["foreground_iou"]
        note = "IoU on the real pair of a segmenter trained on synthetic pairs alone"
        rows.append(Score("mask agreement", f"{agreement:.3f}", "", note))
    return rows


def near_copies(memorised: Mapping[str, Any]) -> int:
    """Return a bank's near copies of its training pair, before a filter dropped them.

    Args:
        memorised: of the value of `synthaug.evaluation.bank_quality.evaluate`.
    """
    found: int = memorised["bank" if memorised["filtered"] is None else "filtered"]
    return found


def _three_digits(value: float) -> str:
    """Three digits, or all before the point, never an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
