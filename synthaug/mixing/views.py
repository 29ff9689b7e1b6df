"""Held-out views of a labelled pair: what training on that pair does not draw."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from synthaug.composing.cutting import cut_out, empty, movable_objects
from synthaug.composing.parts import Cutout
from synthaug.mixing.inpainting import inpaint
from synthaug.sample import IGNORE_ID, ClassMap, Sample
from synthaug.seeding import numpy_stream

ZOOMS = ((0.5, 0.7), (1.4, 2.0))
ANGLES_DEG = (20.0, 40.0)
CORNER_SHIFT = 0.12
OBJECT_SCALES = ((0.7, 0.85), (1.2, 1.45))
OBJECT_SHIFT = (0.15, 0.35)
BACKGROUND_ZOOM = (1.05, 1.5)
_TRIES = 20

Image = NDArray[np.uint8]
Matrix = NDArray[np.float64]
Picture = tuple[Image, Image]


def held_out_views(pair: Sample, classes: ClassMap, count: int, *, seed: int = 0) -> list[Sample]:
    """Draw views of a pair that differ more from it than its standard augmentation does.

    Half of them, the first, are the whole picture: scaled by 0.5-0.7 or 1.4-2, turned by 20-40
    degrees, in perspective (corners moved by up to 12 % of the sides), mirrored half the time.
    In the other half the objects move apart from the background, as they do when a camera or an
    object moves: over the background, inpainted and cropped by 1.05-1.5, all objects are scaled
    by 0.7-0.85 or 1.2-1.45 and displaced by 15-35 % of the sides, roughly together. Objects that
    the frame cuts stay at their side of it. Light (gamma, colour, a gradient over the frame),
    blur and noise change in all of them. Pixels from outside the picture are ignored (255).

    A pair without movable objects has views of the first sort only.

    Args:
        pair: the pair, at the size of the views, (H, W).
        classes: its classes, the background first.
        count: number of views.
        seed: seeds every draw; a view does not depend on how many there are of its sort.

    Returns:
        ``count`` pairs of size (H, W); ids begin with ``whole`` or ``apart``.
    """
    ids = classes.ids[1:]
    objects = movable_objects(pair.mask, classes)
    apart = count // 2 if objects else 0
    views = []
    for index in range(count - apart):
        views.append(_visible(pair, ids, "whole", index, seed, lambda r: _whole(pair, ids, r)))
    if apart:
        ground = _ground(pair, objects, classes)
        cutouts = [cut_out(pair.image, part, classes.ids[c], 0) for c, part in objects]
        for index in range(apart):
            views.append(
                _visible(pair, ids, "apart", index, seed, lambda r: _apart(ground, cutouts, r))
            )
    return views


def _visible(
    pair: Sample,
    ids: tuple[int, ...],
    sort: str,
    index: int,
    seed: int,
    draw: Callable[[np.random.Generator], Picture],
) -> Sample:
    """Draw until the view shows enough pixels of ``ids``."""
    rng = numpy_stream(seed, "held-out view", sort, index)
    least = 0.1 * np.isin(pair.mask, ids).sum()
    image, mask = pair.image, pair.mask
    for _ in range(_TRIES):
        image, mask = draw(rng)
        if np.isin(mask, ids).sum() >= least:
            break
    return Sample(_relit(image, pair.colourless, rng), mask, f"{sort}{index}", pair.grey)


def _whole(pair: Sample, ids: tuple[int, ...], rng: np.random.Generator) -> Picture:
    height, width = pair.size
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    angle = np.deg2rad(_either(rng, (-ANGLES_DEG[1], -ANGLES_DEG[0]), ANGLES_DEG))
    zoom = _either(rng, *ZOOMS)
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    mirror = -1 if rng.random() < 0.5 else 1
    turn = np.array([[cos, -sin], [sin, cos]]) @ np.diag([mirror, 1])
    seen = np.argwhere(np.isin(pair.mask, ids))[:, ::-1]
    focus = seen[rng.integers(len(seen))] if len(seen) else corners[2] / 2
    goal = rng.uniform(0.3, 0.7, 2) * (width, height)
    bend = rng.uniform(-CORNER_SHIFT, CORNER_SHIFT, (4, 2)) * (width, height)
    moved = (corners - focus) @ turn.T + goal + bend
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))
    size = (width, height)
    image = cv2.warpPerspective(
        pair.image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    mask = cv2.warpPerspective(
        pair.mask,
        matrix,
        size,
        flags=cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(IGNORE_ID,),
    )
    return np.asarray(image, np.uint8), np.asarray(mask, np.uint8)


def _ground(
    pair: Sample, objects: list[tuple[int, NDArray[np.bool_]]], classes: ClassMap
) -> Sample:
    """The pair without its objects, filled otherwise than a composer fills it."""
    emptied = empty(pair, objects, classes)
    hole = np.zeros(pair.size, bool)
    for _, part in objects:
        hole |= part
    reach = max(3, round(0.015 * max(pair.size)))
    hole = cv2.dilate(hole.astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > 0
    picture = torch.from_numpy(pair.image).permute(2, 0, 1).float() / 127.5 - 1
    filled = inpaint(picture, torch.from_numpy(hole))
    image = ((filled + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    return Sample(np.ascontiguousarray(image), emptied.mask, pair.id, pair.grey)


def _apart(ground: Sample, cutouts: list[Cutout], rng: np.random.Generator) -> Picture:
    height, width = ground.size
    sides = np.array([width, height], np.float64)
    angle = rng.uniform(0, 2 * np.pi)
    away = np.array([np.cos(angle), np.sin(angle)])
    reach, scale = rng.uniform(*OBJECT_SHIFT), _either(rng, *OBJECT_SCALES)
    share = 1 / rng.uniform(*BACKGROUND_ZOOM)
    corner = (1 - share) * sides * (0.5 + 0.5 * away * rng.uniform(0.3, 1))
    view = np.array([[share, 0, corner[0]], [0, share, corner[1]]])
    size = (width, height)
    image = cv2.warpAffine(
        ground.image, view, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=4
    )
    mask = cv2.warpAffine(
        ground.mask, view, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP, borderMode=4
    )
    for cutout in cutouts:
        move = (away * reach + rng.uniform(-0.05, 0.05, 2)) * sides
        placed = _place(cutout, sides, move, scale * rng.uniform(0.95, 1.05))
        part = cv2.warpAffine(cutout.rgba, placed, size, flags=cv2.INTER_LINEAR)
        alpha = part[..., 3:].astype(np.float32) / 255
        image = np.rint(image + alpha * (part[..., :3] - image.astype(np.float32)))
        image = image.astype(np.uint8)
        mask[part[..., 3] >= 128] = cutout.class_id
    return np.asarray(image, np.uint8), np.asarray(mask, np.uint8)


def _place(cutout: Cutout, sides: Matrix, move: Matrix, scale: float) -> Matrix:
    """Map an object's own pixels to those of the view, (2, 3); cut sides stay outside."""
    cuts = cutout.sides
    if cuts:
        scale = max(scale, 2 - scale)  # a smaller one would show its cut
    for axis, (low, high) in enumerate((("l", "r"), ("t", "b"))):
        if low in cuts and high in cuts:
            move[axis] = 0
        elif low in cuts:
            move[axis] = -abs(move[axis]) / 2
        elif high in cuts:
            move[axis] = abs(move[axis]) / 2
    height, width = cutout.rgba.shape[:2]
    middle = np.array([width / 2, height / 2])
    own = middle + cutout.corner
    goal = own + move
    if not cuts:
        goal = goal.clip(0.1 * sides, 0.9 * sides)
    offset = goal - scale * middle
    return np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])


def _relit(image: Image, grey: bool, rng: np.random.Generator) -> Image:
    """Change light, sharpness and noise."""
    height, width = image.shape[:2]
    gamma = np.exp(rng.uniform(-0.4, 0.4))
    tint = rng.uniform(0.88, 1.12, 3)
    gain = rng.uniform(0.75, 1.25) * (1.0 if grey else tint)
    angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.35)
    x, y = np.linspace(-1, 1, width), np.linspace(-1, 1, height)[:, None]
    slope = 1 + depth * (np.cos(angle) * x + np.sin(angle) * y) / np.sqrt(2)  # (H, W)
    light = 255 * (image / 255.0) ** gamma * gain * slope[..., None]
    sigma = rng.uniform(0, 1.2)
    if sigma > 0.3:
        light = cv2.GaussianBlur(light, (0, 0), sigma)
    noise = rng.normal(0, rng.uniform(0, 6), (height, width, 1 if grey else 3))
    found: Image = np.rint(light + noise).clip(0, 255).astype(np.uint8)
    return found


def _either(rng: np.random.Generator, low: tuple[float, float], high: tuple[float, float]) -> float:
    """Draw from one of two ranges."""
    chosen = low if rng.random() < 0.5 else high
    return float(rng.uniform(*chosen))
