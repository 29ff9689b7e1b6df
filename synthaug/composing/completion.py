"""Completion of a picture by shifted copies of itself: sharp, because nothing is averaged.

After He and Sun, "Statistics of Patch Offsets for Image Completion" (ECCV 2012): similar patches
of the known part lie a few typical offsets apart; every pixel of the hole takes the pixel one of
these offsets away, and a Markov random field chooses offsets whose seams show least. It is solved
here by min-sum belief propagation on a coarse grid; a screened Poisson equation then takes the
remaining steps in brightness out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from synthaug.composing.levelling import Slopes

MAX_OFFSETS = 64
MATCH_SIDE_PX = 256
QUERIES = 3000
NODES = 1000
ROUNDS = 40
STILL_ROUNDS = 4
SEAM = 6.0
FORBIDDEN = 1e4
UNSEEN = 120.0
FEATHER_PX = 1.0
FEATHER_REACH_PX = 4
ONE_BOX_PX = 1_000_000
"""Pictures up to this size are completed as one, so that what was published stays the same."""

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


def complete(
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    hole: Flags,
    avoid: Flags,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Fill a hole of a labelled picture with shifted copies of the rest.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) uint8 ids; they are copied along with the pixels.
        hole: (H, W), True where the picture is unknown.
        avoid: (H, W), True where nothing may be copied from, such as other objects; where that
            leaves under 5 % of the picture it is ignored.

    Returns:
        Picture and mask, new arrays; pixels outside the hole are untouched.
    """
    image, mask = image.copy(), mask.copy()
    if not hole.any():
        return image, mask
    source = ~(hole | avoid)
    if source.mean() < 0.05:
        source = ~hole
    image[hole] = continued(image, ~hole)[hole]  # what lies in the hole must not matter
    filled = np.zeros_like(hole)
    offsets = _candidates(image, source, hole) if source.any() else np.zeros((0, 2), np.int64)
    if len(offsets):
        grid = _Grid.cover(hole)
        labels = _choose(image, source, grid, offsets)
        owner = _enlarge(grid, labels, hole, source, offsets)
        filled = owner >= 0
        rows, columns = np.nonzero(filled)
        shift = offsets[owner[rows, columns]]
        mask[rows, columns] = mask[rows + shift[:, 0], columns + shift[:, 1]]
        image = _assemble(image, filled, owner, source, offsets)
    rest = hole & ~filled
    if rest.any():  # no offset reaches it
        image = cv2.inpaint(image, rest.astype(np.uint8), 3, cv2.INPAINT_TELEA)
        mask[rest] = _most_frequent(mask[source])
    return image, mask


def continued(image: NDArray[np.uint8], known: Flags) -> NDArray[np.uint8]:
    """Give every unknown pixel the colour around its nearest known one.

    Args:
        image: (H, W, 3) uint8.
        known: (H, W); where nothing is known the result is black.

    Returns:
        (H, W, 3) uint8, a new array; known pixels are untouched.
    """
    if not known.any():
        return np.zeros_like(image)
    _, nearest = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colour_of = np.zeros((int(nearest.max()) + 1, 3), np.uint8)
    colour_of[nearest[known]] = image[known]
    smooth = cv2.GaussianBlur(colour_of[nearest], (0, 0), 1.0)
    result: NDArray[np.uint8] = np.where(known[..., None], image, smooth)
    return result


def _candidates(image: NDArray[np.uint8], source: Flags, hole: Flags) -> Ints:
    """Offsets (L, 2) in pixels, (down, right), that reach the source from 2 % of the hole."""
    rows, columns = np.nonzero(hole)
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    across = [(0.0, sign * part * width) for part in (0.5, 0.7, 1, 1.5, 2) for sign in (-1, 1)]
    along = [(sign * part * height, 0.0) for part in (0.5, 1) for sign in (-1, 1)]
    fixed = np.rint(np.array(across + along)).astype(np.int64)

    def reach(offset: Ints) -> float:
        y, x = rows + offset[0], columns + offset[1]
        inside = (y >= 0) & (y < hole.shape[0]) & (x >= 0) & (x < hole.shape[1])
        return float(source[y[inside], x[inside]].sum()) / len(rows)

    typical = (o for o in _typical_offsets(image, source, hole) if reach(o) > 0.05)
    chosen = list(islice(typical, MAX_OFFSETS - len(fixed)))
    chosen += [o for o in fixed if reach(o) > 0.02]
    return np.array(chosen, np.int64).reshape(-1, 2)


def _typical_offsets(image: NDArray[np.uint8], source: Flags, hole: Flags) -> Ints:
    """Peaks of the histogram of offsets between similar patches, the highest first."""
    shrink = max(1.0, max(hole.shape) / MATCH_SIDE_PX)
    h, w = (max(1, round(side / shrink)) for side in hole.shape)
    small = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA).astype(np.float32)
    unknown = cv2.resize((~source).astype(np.float32), (w, h), interpolation=cv2.INTER_AREA)
    whole = cv2.erode((unknown < 0.01).astype(np.uint8), np.ones((9, 9), np.uint8), borderValue=0)
    ys, xs = np.nonzero(whole)
    if len(ys) < 2:
        return np.zeros((0, 2), np.int64)
    small = cv2.blur(small, (2, 2))
    steps = (-3, -1, 1, 3)
    patches = [np.roll(small, (dy, dx), (0, 1)) for dy in steps for dx in steps]
    keys = np.concatenate(patches, 2)[ys, xs]  # (S, 48)
    keys -= keys.mean(0)
    outside = cv2.resize(hole.astype(np.uint8), (w, h), interpolation=cv2.INTER_NEAREST) == 0
    distance = cv2.distanceTransform(outside.astype(np.uint8), cv2.DIST_L2, 3)[ys, xs]
    near = np.argsort(distance, kind="stable")[: max(1, len(ys) // 2)]
    queries = near[np.linspace(0, len(near) - 1, min(QUERIES, len(near))).astype(int)]
    norms = (keys**2).sum(1)
    histogram = np.zeros((2 * h + 1, 2 * w + 1), np.float32)
    too_near = max(h, w) / 15
    gap = math.ceil(too_near) - 1  # the largest whole distance below
    for part in np.array_split(queries, max(1, len(queries) // 500)):
        costs = norms - 2 * keys[part] @ keys.T
        for row, y, x in zip(costs, ys[part], xs[part], strict=True):
            band = slice(*np.searchsorted(ys, (y - gap, y + gap + 1)))  # ys ascend
            row[band][np.abs(xs[band] - x) <= gap] = np.inf
        best = costs.argmin(1)
        down, right = ys[best] - ys[part], xs[best] - xs[part]
        np.add.at(histogram, (h + down, w + right), 1)
        np.add.at(histogram, (h - down, w - right), 1)
    histogram = cv2.GaussianBlur(histogram, (0, 0), 1.0)
    peaks = (histogram == cv2.dilate(histogram, np.ones((5, 5), np.uint8))) & (histogram > 0.05)
    down, right = np.nonzero(peaks)
    order = np.argsort(-histogram[down, right], kind="stable")
    offsets = np.stack([down[order] - h, right[order] - w], 1)
    moved = (np.abs(offsets) >= too_near).any(1)
    typical: Ints = np.rint(offsets[moved] * shrink).astype(np.int64)
    return typical


@dataclass(frozen=True)
class _Grid:
    """Square cells over the picture; those that the hole touches are the field's nodes."""

    cell: int
    inside: Flags  # (R, C)
    y: Ints  # (R,) centres of the rows in pixels
    x: Ints  # (C,)

    @classmethod
    def cover(cls, hole: Flags) -> _Grid:
        height, width = hole.shape
        cell = max(2, int(np.ceil(np.sqrt(hole.sum() / NODES))))
        rows, columns = -(-height // cell), -(-width // cell)
        padded = np.pad(hole, ((0, rows * cell - height), (0, columns * cell - width)))
        return cls(
            cell,
            np.asarray(padded.reshape(rows, cell, columns, cell).any((1, 3))),
            np.minimum(np.arange(rows) * cell + cell // 2, height - 1),
            np.minimum(np.arange(columns) * cell + cell // 2, width - 1),
        )


class _Look:
    """What a cell looks like anywhere in the picture: four blurred samples and its texture."""

    def __init__(self, image: NDArray[np.uint8], source: Flags, cell: int) -> None:
        smooth = max(1, cell // 2)
        self.colour = cv2.blur(image, (smooth, smooth)).astype(np.float32)
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        side = (2 * cell + 1, 2 * cell + 1)
        edges = [
            np.abs(cv2.Sobel(grey, cv2.CV_32F, *axis, scale=0.25)) for axis in ((1, 0), (0, 1))
        ]
        self.texture = np.stack([cv2.blur(edge, side) for edge in edges], 2)
        self.step = max(1, cell // 4)
        kernel = np.ones((cell, cell), np.uint8)
        self.usable = cv2.erode(source.astype(np.uint8), kernel, borderValue=0) > 0

    def at(self, y: Ints, x: Ints) -> Floats:
        """Return features (..., 14); positions outside the picture are clamped."""
        height, width = self.usable.shape
        parts = [1.5 * self.texture[y.clip(0, height - 1), x.clip(0, width - 1)]]
        for dy in (-self.step, self.step):
            for dx in (-self.step, self.step):
                rows, columns = (y + dy).clip(0, height - 1), (x + dx).clip(0, width - 1)
                parts.append(0.5 * self.colour[rows, columns])
        return np.concatenate(parts, -1)

    def allowed(self, y: Ints, x: Ints) -> Flags:
        height, width = self.usable.shape
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        allowed: Flags = inside & self.usable[y.clip(0, height - 1), x.clip(0, width - 1)]
        return allowed


def _choose(image: NDArray[np.uint8], source: Flags, grid: _Grid, offsets: Ints) -> Ints:
    """Return the offset's index of every cell, (R, C), -1 outside the hole."""
    look = _Look(image, source, grid.cell)
    rows, columns = np.nonzero(grid.inside)
    y, x = grid.y[rows, None] + offsets[:, 0], grid.x[columns, None] + offsets[:, 1]
    seams = _differences(look.at(y, x)) + SEAM / 2 * (1 - np.eye(len(offsets), dtype=np.float32))
    unary = np.where(look.allowed(y, x), 0, FORBIDDEN).astype(np.float32)
    unary += _border_costs(look, grid, rows, columns, offsets)
    index = np.full(grid.inside.shape, -1)
    index[rows, columns] = np.arange(len(rows))
    pairs = [
        np.stack([a.ravel(), b.ravel()])
        for a, b in ((index[:, :-1], index[:, 1:]), (index[:-1], index[1:]))
    ]
    edges = np.concatenate(pairs, 1)
    edges = edges[:, (edges >= 0).all(0)]
    labels = np.full(grid.inside.shape, -1)
    labels[rows, columns] = _settle(unary, seams, edges)
    return labels


def _differences(features: Floats) -> Floats:
    """Distances (n, L, L) between what the offsets (n, L, F) would put into a cell."""
    squares = (features**2).sum(-1)
    products = features @ features.transpose(0, 2, 1)
    distances: Floats = np.sqrt(
        np.maximum(squares[:, :, None] + squares[:, None] - 2 * products, 0)
    )
    return distances


def _border_costs(look: _Look, grid: _Grid, rows: Ints, columns: Ints, offsets: Ints) -> Floats:
    """How badly each offset continues the known cells around a cell, (n, L)."""
    ring = cv2.dilate(grid.inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    ring_rows, ring_columns = np.nonzero(ring & ~grid.inside)
    costs = np.zeros((len(rows), len(offsets)), np.float32)
    if len(ring_rows) == 0:
        return costs
    own = look.at(grid.y[ring_rows], grid.x[ring_columns])
    y, x = grid.y[ring_rows, None] + offsets[:, 0], grid.x[ring_columns, None] + offsets[:, 1]
    misfit = np.linalg.norm(look.at(y, x) - own[:, None], axis=-1)
    misfit = np.where(look.allowed(y, x), misfit, UNSEEN)
    height, width = grid.inside.shape
    index = np.full((height + 4, width + 4), -1)
    index[ring_rows + 2, ring_columns + 2] = np.arange(len(ring_rows))
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            other = index[rows + 2 + dy, columns + 2 + dx]
            weight = 1.0 if max(abs(dy), abs(dx)) == 1 else 0.3
            costs[other >= 0] += weight * misfit[other[other >= 0]]
    return costs


def _settle(unary: Floats, seams: Floats, edges: Ints) -> Ints:
    """Minimise the field's energy by damped min-sum belief propagation; returns labels (n,)."""
    first, second = edges
    to_second = np.zeros((len(first), unary.shape[1]), np.float32)
    to_first = np.zeros_like(to_second)
    belief = unary
    labels: Ints = belief.argmin(1)
    still = 0
    for _ in range(ROUNDS if len(first) else 0):
        for start in range(0, len(first), 256):
            part = slice(start, start + 256)
            cost = seams[first[part]] + seams[second[part]]  # (256, L, L), symmetric
            from_first = (belief[first[part]] - to_first[part])[:, :, None]
            from_second = (belief[second[part]] - to_second[part])[:, :, None]
            for message, sender in ((to_second, from_first), (to_first, from_second)):
                new = (cost + sender).min(1)
                new -= new.min(1, keepdims=True)
                message[part] = (message[part] + np.minimum(new, FORBIDDEN)) / 2
        belief = unary.copy()
        np.add.at(belief, second, to_second)
        np.add.at(belief, first, to_first)
        before, labels = labels, belief.argmin(1)
        still = still + 1 if np.array_equal(before, labels) else 0
        if still == STILL_ROUNDS:
            break
    return labels


def _enlarge(grid: _Grid, labels: Ints, hole: Flags, source: Flags, offsets: Ints) -> Ints:
    """Bring labels to pixels, with smooth borders, where the source is reached; -1 elsewhere."""
    height, width = hole.shape
    cell, owner = grid.cell, np.full(hole.shape, -1)
    for box in _boxes(hole, 3 * cell):  # the blur's reach
        top, left = (side.start // cell * cell for side in box)
        near = labels[top // cell : -(-box[0].stop // cell), left // cell : -(-box[1].stop // cell)]
        rows, columns = np.nonzero(hole[box])
        rows, columns = rows + box[0].start, columns + box[1].start
        best = np.zeros(len(rows), np.float32)
        chosen = np.full(len(rows), -1)
        for label in np.unique(labels[labels >= 0]):
            cells, share = (near == label).astype(np.float32), np.zeros(len(rows), np.float32)
            if cells.any():
                area = np.repeat(np.repeat(cells, cell, 0), cell, 1)[: height - top, : width - left]
                area = cv2.GaussianBlur(area, (0, 0), cell / 2)
                share = area[rows - top, columns - left]
            y, x = rows + offsets[label, 0], columns + offsets[label, 1]
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            reached = inside.copy()
            reached[inside] = source[y[inside], x[inside]]
            weight = np.where(reached, share + 1e-6, 0)
            chosen[weight > best] = label
            best = np.maximum(best, weight)
        owner[rows, columns] = chosen
    return owner


def _assemble(
    image: NDArray[np.uint8], hole: Flags, owner: Ints, source: Flags, offsets: Ints
) -> NDArray[np.uint8]:
    """Copy the pixels, feather the seams and level the steps."""
    result = image.copy()
    for box in _boxes(hole, FEATHER_REACH_PX):
        part = _assemble_box(image, box, hole[box], owner[box], source, offsets)
        result[box] = np.rint(part).clip(0, 255).astype(np.uint8)
    return result


def _boxes(hole: Flags, reach: int) -> list[tuple[slice, slice]]:
    """Cover the hole and ``reach`` px around it by boxes that do not touch; one if small."""
    area, count = hole.astype(np.uint8), 0
    if hole.size <= ONE_BOX_PX:
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        area[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = 1
    while True:
        _, _, stats, _ = cv2.connectedComponentsWithStats(area)
        boxes = [
            (
                slice(max(0, top - reach), min(hole.shape[0], top + height + reach)),
                slice(max(0, left - reach), min(hole.shape[1], left + width + reach)),
            )
            for left, top, width, height, _ in stats[1:].tolist()
        ]
        if len(boxes) == count:
            return boxes
        for box in boxes:
            area[box] = 1
        reach, count = 0, len(boxes)


def _assemble_box(
    image: NDArray[np.uint8],
    box: tuple[slice, slice],
    inside: Flags,
    owner: Ints,
    source: Flags,
    offsets: Ints,
) -> Floats:
    height, width = source.shape
    ground = image[box].astype(np.float32)
    share = cv2.GaussianBlur((~inside).astype(np.float32), (0, 0), FEATHER_PX)
    total = np.where(inside, 0, share) + 1e-6
    mixed = ground * total[..., None]
    slopes = Slopes(inside)
    y, x = (np.arange(side.start, side.stop) for side in box)
    for label in np.unique(owner[inside]):
        yy, xx = y + offsets[label, 0], x + offsets[label, 1]
        reached = ((yy >= 0) & (yy < height))[:, None] & ((xx >= 0) & (xx < width))
        at = np.ix_(yy.clip(0, height - 1), xx.clip(0, width - 1))
        moved = image[at].astype(np.float32)
        own = (owner == label).astype(np.float32)
        usable = (reached & source[at]).astype(np.float32)
        share = cv2.GaussianBlur(own, (0, 0), FEATHER_PX) * usable
        mixed += moved * share[..., None]
        total += share
        slopes.add(moved, own, usable)
    composed = np.where(inside[..., None], mixed / total[..., None], ground)
    levelled: Floats = composed + slopes.levelling(composed, max(source.shape) / 427)
    return levelled


def _most_frequent(ids: NDArray[np.uint8]) -> int:
    return int(np.bincount(ids, minlength=1).argmax()) if ids.size else 0
