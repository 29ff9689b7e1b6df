"""The report page: one HTML file that needs no network and no other file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from synthaug import files
from synthaug.report import figures
from synthaug.report.templates import render
from synthaug.sample import ClassMap, Sample


@dataclass(frozen=True)
class Score:
    """One row of the score table, already rounded for the eye.

    Attributes:
        name: the metric.
        bank: its value for the kept synthetic samples.
        standard: the same figure for standard augmentation of the training pair, or "" if none.
        note: how to read it, in a few words.
    """

    name: str
    bank: str
    standard: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False)
class Arm:
    """One way to train, or the paired difference between two.

    Attributes:
        name: what is shown, for example "standard + synthetic".
        values: IoU (or difference of IoU) per seed.
        mean: mean over the seeds.
        low: lower end of the 95 % interval of the mean.
        high: upper end.
        prediction: (H, W) uint8 ids on the held-out picture; None for a difference.
    """

    name: str
    values: tuple[float, ...]
    mean: float
    low: float
    high: float
    prediction: NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The held-out test.

    Attributes:
        truth: the labelled test picture.
        arms: baseline first.
        gain: paired difference, second arm minus baseline.
        note: what was trained, how long, and what the interval is.
    """

    truth: Sample
    arms: tuple[Arm, ...]
    gain: Arm
    note: str = ""


@dataclass(frozen=True, eq=False)
class Page:
    """Everything the page shows. Numbers come in finished; the page only draws them.

    Attributes:
        title: headline.
        verdict: one line, what came out.
        classes: classes of all masks.
        pairs: the labelled training pair(s); the first four are drawn.
        kept: samples to show of those the filter kept.
        dropped: samples to show of those it dropped, with their reasons.
        about: paragraphs beside the training pair.
        counts: numbers of all kept and all dropped samples.
        scores: rows of the quality table.
        timings: (stage, seconds).
        peak_memory_gb: peak resident memory of the process, 10^9 bytes.
        held_out: the test of the downstream segmenter, if one was made.
        settings: name -> value, everything needed to make the page again.
        commands: shell lines that make it again.
        sources: whose picture and which networks, one line each.
    """

    title: str
    verdict: str
    classes: ClassMap
    pairs: Sequence[Sample]
    kept: Sequence[Sample]
    dropped: Sequence[tuple[Sample, Sequence[str]]]
    counts: tuple[int, int]
    about: Sequence[str] = ()
    scores: Sequence[Score] = ()
    timings: Sequence[tuple[str, float]] = ()
    peak_memory_gb: float | None = None
    held_out: HeldOut | None = None
    settings: dict[str, object] = field(default_factory=dict)
    commands: Sequence[str] = ()
    sources: Sequence[str] = ()


def write_page(path: str | Path, page: Page) -> Path:
    """Write the page as one self-contained HTML file.

    Args:
        path: the ``.html`` file to write; it appears only when it is complete.
        page: what to show.

    Returns:
        ``path``.

    Raises:
        InputError: the file cannot be written.
    """
    classes = page.classes

    def photo(sample: Sample) -> str:
        return figures.data_uri(sample.image)

    def outlined(sample: Sample) -> str:
        return figures.data_uri(figures.overlay(sample, classes))

    def mask(sample: Sample) -> str:
        blank = Sample(np.full_like(sample.image, 24), sample.mask)
        return figures.data_uri(
            figures.overlay(blank, classes, opacity=1.0, contour=False), lossless=True
        )

    html = render(
        "page.html.j2",
        page=page,
        photo=photo,
        outlined=outlined,
        mask=mask,
        predicted=lambda truth, ids: outlined(Sample(truth.image, ids)),
        legend=_legend(classes),
        timing_chart=Markup(figures.bar_chart(page.timings)) if page.timings else "",
        iou_chart=Markup(_iou_chart(page.held_out)) if page.held_out else "",
        gain_chart=Markup(_gain_chart(page.held_out)) if page.held_out else "",
        columns=_columns(page.pairs[0]),
        pair_px=_pair_width(page.pairs[0]),
    )
    files.write_text(path, html)
    return Path(path)


def _legend(classes: ClassMap) -> list[tuple[str, str]]:
    """(name, CSS colour) of every class but the background."""
    colours = [figures.class_colour(i) for i in range(1, len(classes))]
    return [(name, f"rgb{colour}") for name, colour in zip(classes.names[1:], colours, strict=True)]


def _columns(pair: Sample) -> int:
    """Samples per row: the narrower they are, the more."""
    height, width = pair.size
    return next(
        n for n, aspect in ((8, 0.8), (6, 1.3), (4, 2.0), (3, np.inf)) if width <= aspect * height
    )


def _pair_width(pair: Sample) -> int:
    """Width of the training pair's pictures in CSS px: at most 340 high and 340 wide."""
    height, width = pair.size
    return round(340 * min(1.0, width / height))


def _iou_chart(held_out: HeldOut) -> str:
    values = [v for arm in held_out.arms for v in (*arm.values, arm.mean)]
    low, high = np.floor(min(values) * 50) / 50 - 0.02, np.ceil(max(values) * 50) / 50 + 0.02
    rows = [(a.name, a.values, a.mean, a.low, a.high) for a in held_out.arms]
    return figures.interval_chart(rows, low=max(0.0, low), high=min(1.0, high))


def _gain_chart(held_out: HeldOut) -> str:
    gain = held_out.gain
    reach = 1.15 * max(abs(v) for v in (*gain.values, gain.low, gain.high, 1e-3))
    reach = min(reach, 3 * max(abs(v) for v in (*gain.values, 1e-3)))
    row = (gain.name, gain.values, gain.mean, gain.low, gain.high)
    return figures.interval_chart([row], low=-reach, high=reach, reference=0.0)
