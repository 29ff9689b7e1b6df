"""Takes labelled pictures apart: objects cut out, and the background completed behind them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from synthaug.bank import Bank
from synthaug.composing.completion import complete, continued
from synthaug.composing.components import (
    MAX_OBJECT_AREA,
    MIN_OBJECT_AREA,
    MIN_OBJECT_PX,
    Component,
    grow,
    in_turns,
    largest_area,
    largest_part,
    list_components,
)
from synthaug.composing.parts import MARGIN_PX, Background, Cutout
from synthaug.sample import IGNORE_ID, ClassMap, Sample

MAX_OBJECTS = 24
MAX_GENERATED_OBJECTS = 100
MAX_GENERATED_BACKGROUNDS = 8
MAX_FRAME_CONTACT = 0.2
MAX_SCENE_OBJECT_AREA = 0.1
MIN_SCENE_SOLIDITY = 0.5
SOFTNESS_PX = 0.8
SLIM_SOFTNESS_PX = 0.5
SLIM_SHARE = 0.02
"""Share of an object's pixels that lie in parts one pixel wide, from which those count."""

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


def is_scene(mask: NDArray[np.uint8], classes: ClassMap) -> bool:
    """Whether classes other than the background cover most of a mask, as in a street scene."""
    labels = classes.encode(mask)
    return bool((labels > 0).sum() > (labels == 0).sum())


def movable_objects(mask: NDArray[np.uint8], classes: ClassMap) -> list[tuple[int, Flags]]:
    """List (channel, (H, W) bool) of the objects to move, the largest first, at most 24.

    They are those of `list_components`, tiny ones included, but for what lies along more than 20 %
    of the frame. In a scene, where areas such as roads and houses have classes, only compact
    objects of 0.1 to 10 % of the picture that do not touch the frame move. A class most of which
    stays, stays. Of more than 24 the largest are taken, each class in turn.
    """
    moving = in_turns(_moving(mask, classes), MAX_OBJECTS)
    return [(part.channel, part.whole(mask.shape)) for part in moving]


def count_movable(mask: NDArray[np.uint8], classes: ClassMap) -> int:
    """Count the objects that could move, also those beyond the 24 that do."""
    return len(_moving(mask, classes))


def _moving(mask: NDArray[np.uint8], classes: ClassMap) -> list[Component]:
    labels = classes.encode(mask)
    scene = is_scene(mask, classes)
    found = list_components(labels, len(classes), tiny=not scene)
    moving = [part for part in found if _moves(part, labels.shape, scene)]
    area = np.zeros(len(classes))
    for part in moving:
        area[part.channel] += part.area
    mostly = area > 0.5 * np.bincount(labels[labels >= 0], minlength=len(classes))
    return [part for part in moving if mostly[part.channel]]


def why_none_moves(pairs: Sequence[Sample], classes: ClassMap) -> str:
    """Say what keeps the objects of pairs, none of which moves, in their places."""
    largest, first = max(largest_area(pair.mask, classes) for pair in pairs), pairs[0].mask
    least = MIN_OBJECT_AREA * first.size
    if not is_scene(first, classes):
        least = min(least, MIN_OBJECT_PX)
    if largest < least:
        return (
            f"the largest object covers {largest} pixels, and from {math.ceil(least)} up they "
            "move: label them on larger pictures"
        )
    return (
        f"what covers over {MAX_OBJECT_AREA:.0%} of its picture, or lies along more than "
        f"{MAX_FRAME_CONTACT:.0%} of its frame, does not move, nor do areas of a scene"
    )


def _moves(part: Component, shape: tuple[int, ...], scene: bool) -> bool:
    along = part.along_frame(shape)
    if not scene:
        return along <= MAX_FRAME_CONTACT
    small = part.area <= MAX_SCENE_OBJECT_AREA * shape[0] * shape[1]
    return along == 0 and small and _solidity(part.inside) >= MIN_SCENE_SOLIDITY


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
    if hole.all():  # small objects all over a small picture
        hole = taken
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
    so that no seam of the old background shows elsewhere. Lines one pixel wide stay opaque: as soft
    as other outlines they would come out dashed.

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
    colours = continued(pixels[box], (core > 0) | thin)
    soft = _softened(inside, thin)
    alpha = np.where(inside > 0, np.maximum(soft, 0.55), np.minimum(soft, 0.45))
    alpha = np.rint(alpha * 255).astype(np.uint8)
    corner = (int(xs[0]) - MARGIN_PX, int(ys[0]) - MARGIN_PX)
    sides = "".join(side for side, cut in edges.items() if cut)
    return Cutout(np.dstack([colours, alpha]), class_id, corner, sides, background)


def _softened(inside: NDArray[np.uint8], thin: Flags) -> NDArray[np.float32]:
    """Soften an outline, (H, W) from 0 to 1; less along lines one pixel wide, whose middle is 1."""
    filled = inside.astype(np.float32)
    soft: NDArray[np.float32] = cv2.GaussianBlur(filled, (0, 0), SOFTNESS_PX)
    slim = thin & (cv2.morphologyEx(inside, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)) == 0)
    if slim.sum() >= SLIM_SHARE * inside.sum():
        sharp = cv2.GaussianBlur(filled, (0, 0), SLIM_SOFTNESS_PX)
        sharp /= np.maximum(cv2.dilate(sharp, np.ones((3, 3), np.uint8)), 0.25)
        soft = np.where(grow(slim, 1), sharp, soft)
    return soft


def harvest(bank: Bank, classes: ClassMap, real: Sequence[Cutout]) -> list[Cutout]:
    """Cut the clean objects out of a bank's kept samples, at most 100, evenly over the bank.

    Clean is what is 0.65 to 1.6 times as large as the smallest and largest real object of its
    class, about as much of one piece and about as little ragged; and no more than 5 % of the
    class' pixels may lie outside of such objects.
    """
    limits = _limits(real)
    found: list[tuple[int, int, Flags]] = []
    for index, sample in enumerate(bank):
        clean: dict[int, list[Flags]] = {}
        for channel, component in movable_objects(sample.mask, classes):
            class_id = classes.ids[channel]
            if class_id in limits and limits[class_id].hold(component):
                clean.setdefault(class_id, []).append(component)
        for class_id, objects in clean.items():
            if sum(o.sum() for o in objects) >= 0.95 * (sample.mask == class_id).sum():
                found += [(index, class_id, o) for o in objects]
    chosen = np.linspace(0, len(found) - 1, min(len(found), MAX_GENERATED_OBJECTS)).astype(int)
    return [
        cut_out(bank[index].image, component, class_id, None)
        for index, class_id, component in (found[i] for i in chosen)
    ]


def generated_backgrounds(bank: Bank, classes: ClassMap) -> list[Background]:
    """Return up to eight of a bank's kept samples without their objects, evenly over the bank."""
    chosen = np.linspace(0, len(bank) - 1, min(len(bank), MAX_GENERATED_BACKGROUNDS)).astype(int)
    samples = (bank[int(index)] for index in chosen)
    return [
        Background(empty(s, movable_objects(s.mask, classes), classes), generated=True)
        for s in samples
    ]


@dataclass(frozen=True)
class _Limits:
    """What a generated object of a class must be like."""

    smallest: float
    largest: float
    unity: float
    solidity: float

    def hold(self, component: Flags) -> bool:
        return (
            self.smallest <= component.sum() <= self.largest
            and _unity(component) >= self.unity
            and _solidity(component) >= self.solidity
        )


def _limits(real: Sequence[Cutout]) -> dict[int, _Limits]:
    limits = {}
    for class_id in {cutout.class_id for cutout in real}:
        inside = slice(MARGIN_PX, -MARGIN_PX)  # beyond the frame a cut object is continued
        objects = [c.rgba[inside, inside, 3] >= 128 for c in real if c.class_id == class_id]
        areas = [int(o.sum()) for o in objects]
        unity, solidity = min(map(_unity, objects)), min(map(_solidity, objects))
        limits[class_id] = _Limits(
            0.65 * min(areas), 1.6 * max(areas), 0.9 * unity, 0.85 * solidity
        )
    return limits


def _unity(component: Flags) -> float:
    """Share of the largest connected part."""
    return float(largest_part(component) / component.sum())


def _solidity(component: Flags) -> float:
    """Area over the area of the convex hull."""
    points = np.argwhere(component)[:, ::-1].astype(np.int32)
    hull = np.zeros(component.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    return float(component.sum() / max(1, hull.sum()))
