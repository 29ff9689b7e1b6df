"""Draws compositions: the objects of labelled pairs, changed and moved, over their backgrounds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from synthaug.composing.components import largest_scale, object_share
from synthaug.composing.parts import (
    MARGIN_PX,
    PARTS,
    Background,
    Cutout,
    read_parts,
)
from synthaug.generator_folder import GeneratorFolder, read_verified
from synthaug.sample import Sample
from synthaug.seeding import latent_seed, numpy_stream

NAME = "compose"
ZOOM = 1.3
SCALES = (0.6, 1.6)
STRETCH = 0.08
ANGLE_DEG = 20.0
CUT_ANGLE_DEG = 4.0
BEND = 0.04
BEND_NODES = 4
CUT_BEND = 0.01
MAX_SIDE = 1.1
SPANNING_SCALE = 1.15
NEAR = (0.25, 0.125)
AROUND = (0.5, 0.25)

Matrix = NDArray[np.float64]
Reach = tuple[float, float] | None
"""None: anywhere."""


class Composer(GeneratorFolder):
    """A folder of parts, opened for composing samples; it is used like a `Generator`.

    Args:
        path: folder that ``fit`` wrote with the preset ``compose``.

    Raises:
        InputError: the folder is no such folder, or a file of it is missing or damaged.
    """

    _GANS = (NAME,)
    _NEEDS = (
        "gan.flip",
        "gan.shift",
        "gan.enlarge",
        "gan.copies",
        "gan.generated_share",
        "gan.background_share",
    )
    _OTHER = "{path} holds no compositions: its manifest.json is of another kind"

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        read_verified(self.path / PARTS, self.hash)
        self._stock = _Stock(*read_parts(self.path))
        options = self.manifest["gan"]
        self._flip: bool = options["flip"]
        self._shift: str = options["shift"]
        self._largest = [SCALES[1]] * len(self.pairs)
        shares = [object_share(pair.mask, self.classes) for pair in self.pairs]
        if options["enlarge"]:
            self._largest = [max(SCALES[1], largest_scale(share)) for share in shares]
        self._bare = [share == 0 for share in shares]
        self._copies: int = options["copies"]
        self._generated_objects: float = options["generated_share"]
        self._generated_backgrounds: float = options["background_share"]

    def sample(self, seed: int) -> Sample:
        """Compose the sample of a seed; the same seed gives the same bits.

        One background, cropped by a factor of up to 1.3, half of the time bare where its pair shows
        no object; else every object of its pair or another
        object in its stead, in random order, and some of them again. Each is scaled by 0.6-1.6, or
        further up where the objects are small (`largest_scale`), turned by up to 20 degrees,
        stretched, bent, recoloured and shifted; at most a quarter of its width and height leaves
        the frame. An object that the frame cut keeps its cut side outside the frame.

        Args:
            seed: seeds every draw, a whole number in [0, 2**64).

        Returns:
            A pair at the training pairs' size, (H, W); ids as in the training masks.

        Raises:
            InputError: the seed is no such number.
        """
        rng = numpy_stream(latent_seed(seed), NAME)
        index, background = self._stock.background(rng, self._generated_backgrounds)
        view = self._view(rng)
        image, mask = self._ground(rng, background, view)
        reach = self._reach(rng)
        for cutout in self._cast(rng, index):
            self._paste(rng, cutout, view, reach, image, mask)
        return Sample(image, mask, f"z{seed}", self.grey)

    def only(self, pairs: Collection[int]) -> Composer:
        """Return a composer of the parts of some pairs alone, without generated parts.

        Args:
            pairs: indices into `pairs`, at least one.
        """
        chosen = [index for index in range(len(self.pairs)) if index in pairs]
        own = [part for part in self._stock.backgrounds if not part.generated]
        cutouts = [
            replace(cutout, background=chosen.index(cutout.background))
            for cutout in self._stock.real
            if cutout.background in chosen
        ]
        found = copy(self)
        found.pairs = [self.pairs[index] for index in chosen]
        found._largest = [self._largest[index] for index in chosen]
        found._bare = [self._bare[index] for index in chosen]
        found._stock = _Stock([own[index] for index in chosen], cutouts)
        return found

    def _view(self, rng: np.random.Generator) -> Matrix:
        """Draw where each pixel of the sample lies in its background, (2, 3)."""
        height, width = self.size
        share = 1 / rng.uniform(1, ZOOM)
        left, top = rng.uniform(0, 1, 2) * (1 - share) * (width, height)
        begin = 0.5 * share - 0.5  # pixel centres lie at halves
        view = np.array([[share, 0, left + begin], [0, share, top + begin]])
        if self._flip and rng.random() < 0.5:
            view[0] = -share, 0, left + share * width - 0.5 * share - 0.5
        return view

    def _ground(
        self, rng: np.random.Generator, background: Sample, view: Matrix
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Crop the background and change its colours a little."""
        height, width = self.size
        back = cv2.WARP_INVERSE_MAP
        image = cv2.warpAffine(
            background.image,
            view,
            (width, height),
            flags=cv2.INTER_CUBIC | back,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        mask = cv2.warpAffine(
            background.mask,
            view,
            (width, height),
            flags=cv2.INTER_NEAREST | back,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        tint = np.zeros(3) if self.colourless else rng.uniform(-0.04, 0.04, 3)
        gain = rng.uniform(0.9, 1.1) * (1 + tint)
        levels = (np.arange(256)[:, None] - 128) * gain + 128 + rng.uniform(-12, 12)
        table = np.rint(levels).clip(0, 255).astype(np.uint8)
        return cv2.LUT(image, table[None]), mask

    def _cast(self, rng: np.random.Generator, index: int) -> list[Cutout]:
        """Choose which objects to paste, in order, over the background of one pair."""
        stock = self._stock
        if not stock.real:
            return []
        if self._bare[index] and rng.random() < 0.5:
            return []  # as some pictures show nothing, so do some samples
        slots = stock.of_background.get(index) or [stock.pick(rng, stock.real)]
        again = int(rng.integers(0, self._copies + 1, 2).min())
        slots = [*slots, *(stock.pick(rng, slots) for _ in range(again))]
        cast = [self._stand_in(rng, slot) for slot in slots]
        return [cast[position] for position in rng.permutation(len(cast))]

    def _stand_in(self, rng: np.random.Generator, slot: Cutout) -> Cutout:
        """Put a generated object, or one of another pair, into an object's place."""
        generated = self._stock.generated.get(slot.class_id)
        if generated and rng.random() < self._generated_objects:
            return self._stock.pick(rng, generated)
        if rng.random() < 0.5:
            return self._stock.pick(rng, self._stock.real_of_class[slot.class_id])
        return slot

    def _reach(self, rng: np.random.Generator) -> Reach:
        """Draw how far objects may lie from their place, in shares of width and height."""
        if self._shift == "near":
            return NEAR
        return AROUND if self._shift == "both" and rng.random() < 0.5 else None

    def _paste(
        self,
        rng: np.random.Generator,
        cutout: Cutout,
        view: Matrix,
        reach: Reach,
        image: NDArray[np.uint8],
        mask: NDArray[np.uint8],
    ) -> None:
        """Change an object and paste it into image and mask."""
        placed = self._place(rng, cutout, view, reach)
        bend = rng.normal(0, 1, (BEND_NODES, BEND_NODES, 2)) * rng.uniform(
            0, CUT_BEND if cutout.sides else BEND
        )
        bend *= np.sqrt(np.prod(cutout.rgba.shape[:2]))
        colours = self._colours(rng)
        height, width = cutout.rgba.shape[:2]
        corners = placed @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
        left, top = np.floor(corners.min(1)).astype(int) - 2
        right, bottom = np.ceil(corners.max(1)).astype(int) + 2
        left, top = max(0, left), max(0, top)
        right, bottom = min(self.size[1], right), min(self.size[0], bottom)
        if left >= right or top >= bottom:
            return
        back = cv2.invertAffineTransform(placed).astype(np.float32)
        x = np.arange(left, right, dtype=np.float32)
        y = np.arange(top, bottom, dtype=np.float32)[:, None]
        size = (right - left, bottom - top)
        waves = cv2.resize(bend.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
        at_x = back[0, 0] * x + back[0, 1] * y + back[0, 2] + waves[..., 0]
        at_y = back[1, 0] * x + back[1, 1] * y + back[1, 2] + waves[..., 1]
        part = cv2.remap(cutout.rgba, at_x, at_y, cv2.INTER_CUBIC)
        alpha = part[..., 3]
        box = (slice(top, bottom), slice(left, right))
        colour = cv2.transform(part[..., :3], colours)
        share = alpha.astype(np.float32)[..., None] / 255
        under = image[box].astype(np.float32)
        image[box] = np.rint(under + share * (colour - under)).astype(np.uint8)
        mask[box][alpha >= 128] = cutout.class_id

    def _place(
        self, rng: np.random.Generator, cutout: Cutout, view: Matrix, reach: Reach
    ) -> Matrix:
        """Draw where an object goes: (2, 3) from its own pixels to those of the sample."""
        height, width = self.size
        h, w = cutout.rgba.shape[:2]
        scale = np.exp(rng.uniform(*np.log((SCALES[0], self._most(cutout)))))
        scale = min(scale, MAX_SIDE * min(height / h, width / w))
        stretch = np.exp(rng.uniform(-STRETCH, STRETCH))
        angle = np.deg2rad(rng.uniform(-1, 1) * (CUT_ANGLE_DEG if cutout.sides else ANGLE_DEG))
        mirror = -1 if self._flip and rng.random() < 0.5 else 1
        sides = cutout.sides
        if mirror < 0:
            sides = sides.translate(str.maketrans("lr", "rl"))
        if {"l", "r"} <= set(sides) or {"t", "b"} <= set(sides):
            scale = max(scale, SPANNING_SCALE)
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        turn = np.array([[cos, -sin], [sin, cos]]) @ np.diag([mirror * stretch, 1 / stretch])
        middle = np.array([w / 2, h / 2])
        visible = np.minimum(np.abs(turn) @ middle / 2, (width / 2, height / 2))
        extent = np.array([width, height]) - 2 * visible
        if reach is not None:
            ahead = cv2.invertAffineTransform(view)
            own = ahead[:, :2] @ (middle + cutout.corner) + ahead[:, 2]
            goal = own + rng.uniform(-1, 1, 2) * reach * (width, height)
            goal = goal.clip(visible, visible + extent)
        else:
            goal = visible + rng.uniform(0, 1, 2) * extent
        goal += _keep_cuts_outside(turn, cutout, sides, goal, self.size)
        return np.column_stack([turn, goal - turn @ middle])

    def _most(self, cutout: Cutout) -> float:
        """Largest scale of an object; generated ones come in all sizes already."""
        return SCALES[1] if cutout.background is None else self._largest[cutout.background]

    def _colours(self, rng: np.random.Generator) -> Matrix:
        """Draw an object's change of brightness, contrast, saturation and hue, (3, 4)."""
        gain, shift = rng.uniform(0.85, 1.15), rng.uniform(-18, 18)
        saturation, hue = rng.uniform(0.75, 1.25), np.deg2rad(rng.uniform(-10, 10))
        linear = np.eye(3)
        if not self.colourless:
            grey = np.tile([0.299, 0.587, 0.114], (3, 1))
            axis = np.sqrt(1 / 3)
            cross = axis * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
            turn = np.cos(hue) * np.eye(3) + np.sin(hue) * cross + (1 - np.cos(hue)) / 3
            linear = (grey + saturation * (np.eye(3) - grey)) @ turn
        return np.column_stack([gain * linear, np.full(3, shift + 128 * (1 - gain))])


def _keep_cuts_outside(
    turn: Matrix,
    cutout: Cutout,
    sides: str,
    goal: NDArray[np.float64],
    size: tuple[int, int],
) -> NDArray[np.float64]:
    """How far (x, y) an object must move for the sides that the frame cut to stay outside."""
    move = np.zeros(2)
    h, w = cutout.rgba.shape[:2]
    half = np.array([w / 2, h / 2]) - MARGIN_PX
    corners = turn @ (np.array([[-1, 1, -1, 1], [-1, -1, 1, 1]]) * half[:, None])
    corners = corners + goal[:, None]
    for axis, (low, high), end in ((0, "lr", size[1]), (1, "tb", size[0])):
        values = np.sort(corners[axis])
        if low in sides:
            move[axis] = min(0, -values[1])
        if high in sides:
            move[axis] = max(0, end - values[2])
    return move


@dataclass
class _Stock:
    """All parts, ordered for drawing."""

    backgrounds: list[Background]
    cutouts: list[Cutout]
    real: list[Cutout] = field(init=False)
    of_background: dict[int, list[Cutout]] = field(init=False)
    real_of_class: dict[int, list[Cutout]] = field(init=False)
    generated: dict[int, list[Cutout]] = field(init=False)

    def __post_init__(self) -> None:
        self.real = [cutout for cutout in self.cutouts if cutout.background is not None]
        self.of_background, self.real_of_class, self.generated = {}, {}, {}
        for cutout in self.cutouts:
            if cutout.background is None:
                self.generated.setdefault(cutout.class_id, []).append(cutout)
            else:
                self.of_background.setdefault(cutout.background, []).append(cutout)
                self.real_of_class.setdefault(cutout.class_id, []).append(cutout)

    def background(self, rng: np.random.Generator, generated: float) -> tuple[int, Sample]:
        """Draw a pair's index, and its background or, with this share, a generated one."""
        own = [b.sample for b in self.backgrounds if not b.generated]
        other = [b.sample for b in self.backgrounds if b.generated]
        index = int(rng.integers(len(own)))
        if other and rng.random() < generated:
            return index, other[int(rng.integers(len(other)))]
        return index, own[index]

    @staticmethod
    def pick(rng: np.random.Generator, cutouts: Sequence[Cutout]) -> Cutout:
        """Draw one of several objects."""
        return cutouts[int(rng.integers(len(cutouts)))]
