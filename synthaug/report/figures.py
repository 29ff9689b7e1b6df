"""Pictures of the report: mask overlays, grids, data URIs and three small SVG charts."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synthaug.report.numbers import signed
from synthaug.sample import IGNORE_ID, ClassMap, Sample

# Magenta first, which few photographs hold; then Okabe & Ito (2008), distinct for colour-blind
# eyes too. Classes beyond the eleventh start again.
CLASS_COLOURS = (
    (255, 30, 130),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
    (178, 223, 138),
    (152, 78, 163),
    (166, 118, 80),
)
IGNORE_COLOUR = (160, 160, 160)
LONGEST_LABEL = 53
"""Letters of an arm's name in `gain_chart`: about 420 px, so that the axis keeps its room."""


def class_colour(position: int) -> tuple[int, int, int]:
    """Return the RGB colour of the class at ``position`` (1 = first after the background)."""
    return CLASS_COLOURS[(position - 1) % len(CLASS_COLOURS)]


def overlay(
    sample: Sample, classes: ClassMap | None = None, *, opacity: float = 0.15, contour: bool = True
) -> NDArray[np.uint8]:
    """Tint the classes of a sample and draw their outlines.

    Args:
        sample: the image and its mask; neither is changed.
        classes: gives every id its colour; the ids of the mask when left out. The first class is
            the background and stays as it is; ignored pixels turn grey.
        opacity: strength of the tint, 0 (none) to 1 (opaque).
        contour: draw the pixels of a class that touch another class in the full colour.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    ids = classes.ids if classes else tuple(i for i in np.unique(sample.mask) if i != IGNORE_ID)
    edge = _edges(sample.mask) if contour else np.zeros(sample.size, bool)
    canvas = sample.image.astype(np.float32)
    regions = [(sample.mask == IGNORE_ID, IGNORE_COLOUR)]
    regions += [(sample.mask == id_, class_colour(i)) for i, id_ in enumerate(ids) if i > 0]
    for region, colour in regions:
        tint = np.asarray(colour, np.float32)
        canvas[region] += opacity * (tint - canvas[region])
        canvas[region & edge] = tint
    return canvas.round().astype(np.uint8)


def grid(
    images: Sequence[NDArray[np.uint8]], columns: int, *, gap_px: int = 6, background: int = 255
) -> NDArray[np.uint8]:
    """Arrange pictures in rows.

    Args:
        images: (H, W, 3) uint8 pictures of one size.
        columns: pictures per row; the last row may be shorter.
        gap_px: space between and around the pictures.
        background: grey level of the space, 0..255.

    Returns:
        (rows * (H + gap) + gap, columns * (W + gap) + gap, 3) uint8 RGB.
    """
    height, width = images[0].shape[:2]
    rows = math.ceil(len(images) / columns)
    shape = (rows * (height + gap_px) + gap_px, columns * (width + gap_px) + gap_px, 3)
    canvas = np.full(shape, background, np.uint8)
    for index, image in enumerate(images):
        top = gap_px + index // columns * (height + gap_px)
        left = gap_px + index % columns * (width + gap_px)
        canvas[top : top + height, left : left + width] = image
    return canvas


def data_uri(image: NDArray[np.uint8], *, lossless: bool = False) -> str:
    """Encode a (H, W, 3) or (H, W) uint8 picture as a ``data:`` URI (JPEG, or PNG if lossless)."""
    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(image))
    if lossless:
        picture.save(buffer, "PNG", optimize=True)
    else:
        picture.save(buffer, "JPEG", quality=88, subsampling=0)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def bar_chart(rows: Sequence[tuple[str, float]], *, unit: str = "s", width_px: int = 520) -> str:
    """Draw horizontal bars, one per (label, value >= 0), as an inline SVG."""
    label_px, value_px, row_px = 150, 70, 26
    longest = max([value for _, value in rows] + [1e-9])
    parts = []
    for i, (label, value) in enumerate(rows):
        y = i * row_px
        length = max(1.0, (width_px - label_px - value_px) * value / longest)
        parts.append(
            f'<text x="{label_px - 10}" y="{y + 17}" text-anchor="end">{html.escape(label)}</text>'
            f'<rect x="{label_px}" y="{y + 5}" width="{length:.1f}" height="16" rx="2"/>'
            f'<text x="{label_px + length + 8:.1f}" y="{y + 17}" class="value">'
            f"{value:.1f} {unit}</text>"
        )
    words = "; ".join(f"{label} {value:.1f} {unit}" for label, value in rows)
    return _svg("bars", words, width_px, len(rows) * row_px, parts)


def interval_chart(
    rows: Sequence[tuple[str, Sequence[float], float, float, float]],
    *,
    low: float,
    high: float,
    reference: float | None = None,
    width_px: int = 620,
) -> str:
    """Draw one row per arm: a dot per seed, the mean and its interval, as an inline SVG.

    Args:
        rows: (label, values per seed, mean, interval's lower end, interval's upper end).
        low: value at the left end of the axis.
        high: value at the right end; intervals that reach beyond are cut there.
        reference: where to draw a dashed vertical line.
        width_px: width of the drawing.
    """
    label_px, margin_px, row_px = 190, 30, 44
    span = max(high - low, 1e-9)

    def x(value: float) -> float:
        share = min(max((value - low) / span, 0.0), 1.0)
        return label_px + share * (width_px - label_px - margin_px)

    bottom = len(rows) * row_px
    parts = []
    for tick in np.linspace(low, high, 5):
        parts.append(
            f'<line class="tick" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="0" y2="{bottom}"/>'
            f'<text x="{x(tick):.1f}" y="{bottom + 18}" text-anchor="middle" class="value">'
            f"{tick:.3f}</text>"
        )
    if reference is not None:
        at = f"{x(reference):.1f}"
        parts.append(f'<line class="reference" x1="{at}" x2="{at}" y1="0" y2="{bottom}"/>')
    for i, (label, values, mean, lower, upper) in enumerate(rows):
        y = i * row_px + row_px / 2
        at = f"{x(mean):.1f}"
        parts.append(
            f'<text x="{label_px - 14}" y="{y + 5}" text-anchor="end">{html.escape(label)}</text>'
            f'<line class="interval" x1="{x(lower):.1f}" x2="{x(upper):.1f}" y1="{y}" y2="{y}"/>'
            f'<line class="mean" x1="{at}" x2="{at}" y1="{y - 11}" y2="{y + 11}"/>'
        )
        parts += [f'<circle cx="{x(value):.1f}" cy="{y}" r="4.5"/>' for value in values]
    words = "; ".join(
        f"{label}: {mean:.3f}, interval {lower:.3f} to {upper:.3f}"
        for label, _, mean, lower, upper in rows
    )
    return _svg("intervals", words, width_px, bottom + 26, parts)


@dataclass(frozen=True)
class GainRow:
    """One line of `gain_chart`.

    Attributes:
        label: the arm.
        mean: its mean gain; None = not measured.
        low: lower end of the interval; None = no interval, not finite = open.
        high: upper end, likewise.
        dots: gains of the single units.
        verdict: ``helps``, ``hurts`` or anything else; gives the colour.
    """

    label: str
    mean: float | None
    low: float | None = None
    high: float | None = None
    dots: tuple[float, ...] = ()
    verdict: str = ""


def gain_chart(rows: Sequence[GainRow], *, baseline: str, width_px: int = 1060) -> str:
    """Draw gains against a baseline with their intervals, as an inline SVG.

    Args:
        rows: top to bottom; the line at zero is the baseline.
        baseline: its name, written at that line.
        width_px: width of the drawing.

    Intervals and dots beyond three times the largest mean or dot are cut and end in an arrow, names
    of over `LONGEST_LABEL` letters in "…".
    """
    head_px, row_px, value_px = 26, 40, 230
    label_px = 24 + 7.4 * max(len(_shortened(row.label)) for row in rows)
    low, high, step = _gain_axis(rows)

    def x(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return label_px + share * (width_px - label_px - value_px)

    bottom = head_px + len(rows) * row_px
    parts = []
    for i in range(round((high - low) / step) + 1):
        tick = low + i * step
        zero = abs(tick) < step / 2
        parts.append(
            f'<line class="{"zero" if zero else "tick"}" x1="{x(tick):.1f}" x2="{x(tick):.1f}" '
            f'y1="{head_px - 6}" y2="{bottom}"/>'
            f'<text x="{x(tick):.1f}" y="{bottom + 18}" text-anchor="middle" class="value">'
            f"{'0' if zero else format(tick, '+g')}</text>"
        )
    parts.append(
        f'<text x="{x(0):.1f}" y="13" text-anchor="middle" class="value">{_label(baseline)}</text>'
    )
    for i, row in enumerate(rows):
        parts += _gain_row(row, head_px + (i + 0.5) * row_px, x, label_px, (low, high))
    words = f"Gain over {baseline} per arm; the numbers stand in the table below"
    return _svg("gains", words, width_px, bottom + 26, parts)


def _gain_row(
    row: GainRow,
    y: float,
    x: Callable[[float], float],
    label_px: float,
    ends: tuple[float, float],
) -> list[str]:
    colour = row.verdict if row.verdict in ("helps", "hurts") else "unclear"
    text = f'<text x="{label_px - 14:.1f}" y="{y + 5:.1f}" text-anchor="end">'
    parts = [f'<g class="{colour}">{text}{_label(row.label)}</text>']
    right = x(ends[1])
    if row.mean is None:
        parts.append(
            f'<text x="{right + 16:.1f}" y="{y + 5:.1f}" class="value">not measured</text></g>'
        )
        return parts
    parts += [f'<circle cx="{x(d):.1f}" cy="{y:.1f}" r="3.5"/>' for d in row.dots]
    words = signed(row.mean)
    if row.low is not None and row.high is not None:
        parts.append(
            f'<line class="interval" x1="{x(row.low):.1f}" x2="{x(row.high):.1f}" '
            f'y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        for value, inward in ((row.low, 7), (row.high, -7)):
            if not ends[0] <= value <= ends[1]:
                at = x(value)
                parts.append(
                    f'<path d="M{at + inward:.1f} {y - 6:.1f}L{at:.1f} {y:.1f}'
                    f'L{at + inward:.1f} {y + 6:.1f}"/>'
                )
        if math.isfinite(row.low) and math.isfinite(row.high):
            words += f"  ({signed(row.low)} to {signed(row.high)})"
    mean = f"{x(row.mean):.1f}"
    parts.append(
        f'<line class="mean" x1="{mean}" x2="{mean}" y1="{y - 10:.1f}" y2="{y + 10:.1f}"/>'
        f'<text x="{right + 16:.1f}" y="{y + 5:.1f}" class="figure">{words}</text></g>'
    )
    return parts


def _shortened(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…"


def _label(label: str) -> str:
    """The text of a label; of one that is cut, the whole of it shows where one points."""
    whole = f"<title>{html.escape(label)}</title>" if len(label) > LONGEST_LABEL else ""
    return whole + html.escape(_shortened(label))


def _gain_axis(rows: Sequence[GainRow]) -> tuple[float, float, float]:
    """Lower end, upper end and tick distance of an axis that holds zero."""
    inner = [v for row in rows if row.mean is not None for v in (row.mean, *row.dots)]
    reach = 3 * max([abs(v) for v in inner] + [0.1])
    ends = [v for row in rows for v in (row.low, row.high) if v is not None and math.isfinite(v)]
    values = [0.0, *inner, *(min(max(v, -reach), reach) for v in ends)]
    span = max(max(values) - min(values), 0.2)
    power = 10.0 ** math.floor(math.log10(span / 6))
    step = next(power * m for m in (1, 2, 5, 10) if span / (power * m) <= 7)
    low, high = math.floor(min(values) / step) * step, math.ceil(max(values) / step) * step
    return (low, high if high > low else low + step, step)


def _edges(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels with a 4-neighbour of another id: (H, W) bool."""
    edge = np.zeros(mask.shape, bool)
    vertical, horizontal = mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]
    edge[1:] |= vertical
    edge[:-1] |= vertical
    edge[:, 1:] |= horizontal
    edge[:, :-1] |= horizontal
    return edge


def _svg(kind: str, words: str, width_px: int, height_px: float, parts: Sequence[str]) -> str:
    return (
        f'<svg class="{kind}" role="img" aria-label="{html.escape(words)}" '
        f'viewBox="0 0 {width_px} {height_px:.0f}" '
        f'width="{width_px}" height="{height_px:.0f}">{"".join(parts)}</svg>'
    )
