"""Takes labelled pictures apart: objects cut out, and the background completed behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from synthaug.bank import Bank
from synthaug.composing.completion import complete
from synthaug.composing.components import find_components, grow
from synthaug.composing.parts import MARGIN_PX, Background, Cutout
from synthaug.sample import IGNORE_ID, ClassMap, Sample

MAX_OBJECTS = 24
MAX_GENERATED_OBJECTS = 100
MAX_GENERATED_BACKGROUNDS = 8
MAX_FRAME_CONTACT = 0.2
SOFTNESS_PX = 0.8

Flags = NDArray[np.bool_]


def take_apart(
    pairs: Sequence[Sample], classes: ClassMap, progress: Callable[[int, int], None] | None = None
) -> tuple[list[Background], list[Cutout]]:
    """Return every pair's background, and the objects of all pairs.

    Args:
        pairs: P pairs of one size.
        classes: their classes, the background first.
        progress: called with (pairs done, P).
    """
    backgrounds, cutouts = [], []
    for index, pair in enumerate(pairs):
        objects = movable_objects(pair.mask, classes)
        backgrounds.append(Background(empty(pair, objects, classes), generated=False))
        for channel, component in objects:
            cutouts.append(cut_out(pair.image, component, classes.ids[channel], index))
        if progress is not None:
            progress(index + 1, len(pairs))
    return backgrounds, cutouts


def movable_objects(mask: NDArray[np.uint8], classes: ClassMap) -> list[tuple[int, Flags]]:
    """List (channel, (H, W) bool) of the objects to move, the largest first, at most 24.

    They are those of `find_components`, but for areas that lie along more than 20 % of the frame,
    such as a road or the sky: these stay with the background.
    """
    found = find_components(classes.encode(mask), len(classes), MAX_OBJECTS)
    return [
        (channel, component)
        for channel, component, _ in found
        if _along_frame(component) <= MAX_FRAME_CONTACT
    ]


def empty(pair: Sample, objects: Sequence[tuple[int, Flags]], classes: ClassMap) -> Sample:
    """Remove objects from a pair; labels come with the pixels that fill their places.

    The hole is larger than the objects by about 1 % of the longer side, and by 3 % below them,
    where shadows lie. Nothing is copied from ignored pixels or from classes that have a movable
    object. Ignored pixels that are not part of an object stay ignored.
    """
    taken = np.zeros(pair.size, bool)
    for _, component in objects:
        taken |= component
    reach = max(3, round(0.01 * max(pair.size)))
    below = np.ones((2 * reach + 1, 1), np.uint8)
    hole = cv2.dilate(grow(taken, reach).astype(np.uint8), below, anchor=(0, 2 * reach)) > 0
    moving = [IGNORE_ID, *(classes.ids[channel] for channel, _ in objects)]
    image, mask = complete(pair.image, pair.mask, hole, np.isin(pair.mask, moving))
    mask[pair.mask == IGNORE_ID] = IGNORE_ID
    return Sample(image, mask, pair.id, pair.grey)


def cut_out(
    image: NDArray[np.uint8], component: Flags, class_id: int, background: int | None
) -> Cutout:
    """Cut one object out of its picture.

    The outermost pixels of an object are mixed with what lies behind it. They and the margin take
    the nearest colour from further inside instead, except in parts too thin to have an inside,
    so that no seam of the old background shows elsewhere.

    Args:
        image: (H, W, 3) uint8.
        component: (H, W) bool.
        class_id: id in the mask.
        background: index of its background; None for generated objects.
    """
    ys, xs = np.flatnonzero(component.any(1)), np.flatnonzero(component.any(0))
    height, width = component.shape
    edges = {"l": xs[0] == 0, "t": ys[0] == 0, "r": xs[-1] == width - 1, "b": ys[-1] == height - 1}
    box = (slice(ys[0], ys[-1] + 2 * MARGIN_PX + 1), slice(xs[0], xs[-1] + 2 * MARGIN_PX + 1))
    padded = np.pad(component, MARGIN_PX, mode="edge")  # an object goes on beyond the frame
    inside = padded[box].astype(np.uint8)
    pixels = np.pad(image, ((MARGIN_PX, MARGIN_PX), (MARGIN_PX, MARGIN_PX), (0, 0)), mode="edge")
    core = cv2.erode(inside, np.ones((3, 3), np.uint8))
    thin = (inside > 0) & (cv2.dilate(core, np.ones((5, 5), np.uint8)) == 0)
    colours = _continued(pixels[box], (core > 0) | thin)
    soft = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), SOFTNESS_PX)
    alpha = np.where(inside > 0, np.maximum(soft, 0.55), np.minimum(soft, 0.45))
    alpha = np.rint(alpha * 255).astype(np.uint8)
    corner = (int(xs[0]) - MARGIN_PX, int(ys[0]) - MARGIN_PX)
    sides = "".join(side for side, cut in edges.items() if cut)
    return Cutout(np.dstack([colours, alpha]), class_id, corner, sides, background)


def harvest(bank: Bank, classes: ClassMap, real: Sequence[Cutout]) -> list[Cutout]:
    """Cut the clean objects out of a bank's kept samples, at most 100, evenly over the bank.

    Clean is one connected part, at least 90 % of what was found near each other, 0.5 to 2 times
    as large as the smallest and largest real object of its class, not much more ragged than the
    real ones; and the class has no more than 5 % of its pixels outside of such objects.
    """
    limits = _limits(real)
    found: list[Cutout] = []
    for sample in bank:
        clean: dict[int, list[Flags]] = {}
        for channel, component in movable_objects(sample.mask, classes):
            class_id = classes.ids[channel]
            blob = _largest_part(component)
            if class_id in limits and blob.sum() >= 0.9 * component.sum():
                smallest, largest, solidity = limits[class_id]
                if smallest <= blob.sum() <= largest and _solidity(blob) >= solidity:
                    clean.setdefault(class_id, []).append(blob)
        for class_id, blobs in clean.items():
            if sum(blob.sum() for blob in blobs) >= 0.95 * (sample.mask == class_id).sum():
                found += [cut_out(sample.image, blob, class_id, None) for blob in blobs]
    chosen = np.linspace(0, len(found) - 1, min(len(found), MAX_GENERATED_OBJECTS)).astype(int)
    return [found[index] for index in chosen]


def generated_backgrounds(bank: Bank, classes: ClassMap) -> list[Background]:
    """Return up to eight of a bank's kept samples without their objects, evenly over the bank."""
    chosen = np.linspace(0, len(bank) - 1, min(len(bank), MAX_GENERATED_BACKGROUNDS)).astype(int)
    samples = (bank[int(index)] for index in chosen)
    return [
        Background(empty(s, movable_objects(s.mask, classes), classes), generated=True)
        for s in samples
    ]


def _along_frame(component: Flags) -> float:
    """Share of the frame's pixels that a component covers."""
    frame = np.concatenate([component[0], component[-1], component[1:-1, 0], component[1:-1, -1]])
    return float(frame.mean())


def _continued(pixels: NDArray[np.uint8], known: Flags) -> NDArray[np.uint8]:
    """Give every unknown pixel the colour around its nearest known one."""
    unknown = (~known).astype(np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(
        unknown, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colour_of = np.zeros((int(nearest.max()) + 1, 3), np.uint8)
    colour_of[nearest[known]] = pixels[known]
    continued = colour_of[nearest]
    smooth = cv2.GaussianBlur(continued, (0, 0), 1.0)
    result: NDArray[np.uint8] = np.where(known[..., None], pixels, smooth)
    return result


def _limits(real: Sequence[Cutout]) -> dict[int, tuple[float, float, float]]:
    """Return (smallest, largest area in pixels, least solidity) of generated objects per class."""
    limits = {}
    for class_id in {cutout.class_id for cutout in real}:
        blobs = [cutout.rgba[..., 3] >= 128 for cutout in real if cutout.class_id == class_id]
        areas = [int(blob.sum()) for blob in blobs]
        solidity = min(_solidity(blob) for blob in blobs)
        limits[class_id] = (0.5 * min(areas), 2.0 * max(areas), 0.8 * solidity)
    return limits


def _largest_part(component: Flags) -> Flags:
    _, numbered, statistics, _ = cv2.connectedComponentsWithStats(component.astype(np.uint8))
    part: Flags = numbered == 1 + statistics[1:, cv2.CC_STAT_AREA].argmax()
    return part


def _solidity(component: Flags) -> float:
    """Area over the area of the convex hull."""
    points = np.argwhere(component)[:, ::-1].astype(np.int32)
    hull = np.zeros(component.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    return float(component.sum() / max(1, hull.sum()))
