"""New label maps to paint: edits of given ones, objects moved between them, or maps as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from synthaug.composing.components import grow
from synthaug.composing.cutting import movable_objects
from synthaug.errors import InputError
from synthaug.sample import IGNORE_ID, ClassMap, class_list
from synthaug.seeding import derive_seed, numpy_stream

Mask = NDArray[np.uint8]
Flags = NDArray[np.bool_]
Kind = Literal["edited", "moved", "given"]
Rare = int | str | Sequence[int | str] | Mapping[int | str, float]

RARE_SHARE = 0.5
LARGEST_ZOOM = 1.5
LARGEST_ROTATION_DEG = 5.0
MOST_PLACED = 4
SCALES = (0.7, 1.4)
LARGEST_RISE = 0.05
"""How far an object's foot moves up or down, as a share of the height."""
PLACES_TRIED = 12
DRAWS = 8
"""Draws from an endless source of maps of which the one with most of a wanted class is taken."""


@dataclass(frozen=True, eq=False)
class Outline:
    """An object of a map, cut out, so that many of them are held at little cost.

    Attributes:
        flags: (h, w) bool.
        corner: row and column where it begins.
        size: (H, W) of the map.
    """

    flags: Flags
    corner: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def of(cls, flags: Flags) -> Outline:
        """Cut out of (H, W) bool."""
        rows, columns = np.flatnonzero(flags.any(1)), np.flatnonzero(flags.any(0))
        if not len(rows):
            return cls(flags[:0, :0].copy(), (0, 0), flags.shape)
        cropped = flags[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return cls(cropped.copy(), (int(rows[0]), int(columns[0])), flags.shape)

    def whole(self) -> Flags:
        """Return (H, W) bool."""
        canvas = np.zeros(self.size, bool)
        (top, left), (height, width) = self.corner, self.flags.shape
        canvas[top : top + height, left : left + width] = self.flags
        return canvas


Objects = Sequence[tuple[int, Flags | Outline]]
"""(class id, (H, W) bool or its outline) of a map's objects; later ones are in front of earlier."""


class Layouts:
    """Label maps by seed.

    - ``edited``: a map mirrored, enlarged by up to 1.5 and cropped, turned by up to 5 degrees; what
      comes in from outside is unlabelled.
    - ``moved``: some objects of a map taken away, the nearest class that is no object filling
      their place, and one to four objects of any map of the set put in: mirrored, scaled, at
      another place, where they stand on what they stood on. Of two objects the one whose foot is
      lower is in front. Objects that the frame may cut are not put anywhere.
    - ``given``: maps as they are.

    Half of the layouts start from a map that holds a rare class, if such are named: first one of
    the classes is drawn, then a map, in proportion to its pixels of that class. Crops then hold
    the class, and an object of it is the first to be put in.

    Args:
        maps: M maps (H, W) of ids, all of one size; or, for ``given``, a function from seeds to
            maps.
        classes: classes of the maps, the background first.
        kind: see above.
        objects: of every map, for ``moved``; by default its compact connected parts, as the preset
            ``compose`` finds them.
        rare: classes by id or name that shall appear more often; ``"auto"`` gives all classes the
            same chance in every layout, however few pixels they have. A mapping says for each class
            what share of the layouts is drawn for it.
        flip: mirror images are plausible.

    Raises:
        InputError: there is no such kind, there is no map with a label, maps are of several sizes,
            none holds a class named as rare, shares add up to more than 1 or name a class twice, or
            nothing can be moved.
    """

    def __init__(
        self,
        maps: Sequence[Mask] | Callable[[int], Mask],
        classes: ClassMap,
        *,
        kind: Kind = "edited",
        objects: Sequence[Objects] | None = None,
        rare: Rare = (),
        flip: bool = True,
    ) -> None:
        if kind not in get_args(Kind):
            raise InputError(f"no layouts {kind}: take {', '.join(get_args(Kind))}")
        self._classes, self._kind, self._flip = classes, kind, flip
        self._draw = maps if callable(maps) else None
        given = [] if callable(maps) else list(maps)
        if len(shapes := sorted({mask.shape for mask in given})) > 1:
            raise InputError(f"maps are of shapes {shapes[0]} and {shapes[1]}: bring all to one")
        kept = [number for number, mask in enumerate(given) if (mask != IGNORE_ID).any()]
        self._kept, self._maps = kept, [given[number] for number in kept]
        if self._draw is None and not kept:
            raise InputError("no map has a label: there is nothing to lay out")
        counts = [np.bincount(mask.ravel(), minlength=256)[:255] for mask in self._maps]
        self._pixels = np.array(counts, float).reshape(-1, 255)  # (M, 255)
        self.shares = self._class_shares(rare)
        """Share of the layouts that is drawn for a class, by id."""
        self._objects: list[list[tuple[int, Outline]]] = []
        self._pieces: list[_Piece] = []
        if kind == "moved":
            self._take_apart(None if objects is None else [objects[number] for number in kept])

    def layout(self, seed: int) -> Mask:
        """Return the map of a seed, (H, W) uint8 ids, 255 where nothing is known."""
        return self.layout_and_origin(seed)[0]

    def layout_and_origin(self, seed: int) -> tuple[Mask, int | None]:
        """Return also which of the maps it was made of; None where they come from a function."""
        stream = numpy_stream(seed, "layout")
        wanted = self._pick_class(stream)
        if self._draw is not None:
            return self._drawn(seed, wanted), None
        number = self._pick_map(wanted, stream)
        return self._changed(number, wanted, stream), self._kept[number]

    def _changed(self, number: int, wanted: int | None, stream: np.random.Generator) -> Mask:
        if self._kind == "moved":
            return self._moved(number, wanted, stream)
        mask = self._maps[number]
        if self._kind == "edited":
            edited = _edited(mask, wanted, stream, flip=self._flip)
            mask = edited if (edited != IGNORE_ID).any() else mask
        return mask.copy()

    def _class_shares(self, rare: Rare) -> dict[int, float]:
        if isinstance(rare, Mapping):
            shares = {self._classes.find(name): float(share) for name, share in rare.items()}
            if len(shares) < len(rare):
                raise InputError(f"a rare class is named twice: {dict(rare)}; name each once")
            if min(shares.values(), default=0) < 0 or sum(shares.values()) > 1 + 1e-9:
                raise InputError(f"shares of rare classes must add up to at most 1: {dict(rare)}")
        elif "auto" in (asked := class_list(rare)):
            if len(asked) > 1:
                raise InputError("rare classes are auto, which means all alike, or named: not both")
            held = [i for i in self._classes.ids if self._draw or self._pixels[:, i].any()]
            shares = dict.fromkeys(held, 1 / len(held))
        else:
            chosen = {self._classes.find(name) for name in asked}
            shares = {class_id: RARE_SHARE / len(chosen) for class_id in sorted(chosen)}
        for class_id in shares:
            if self._draw is None and not self._pixels[:, class_id].any():
                raise InputError(f"no map holds class {class_id}: it cannot appear more often")
        return shares

    def _pick_class(self, stream: np.random.Generator) -> int | None:
        """The class that a layout is drawn for, if any."""
        left = stream.random()
        for class_id, share in self.shares.items():
            left -= share
            if left < 0:
                return class_id
        return None

    def _pick_map(self, wanted: int | None, stream: np.random.Generator) -> int:
        if wanted is None:
            return int(stream.integers(len(self._maps)))
        held = self._pixels[:, wanted]
        return int(stream.choice(len(held), p=held / held.sum()))

    def _drawn(self, seed: int, wanted: int | None) -> Mask:
        assert self._draw is not None
        if wanted is None:
            return self._draw(derive_seed(seed, "layout", 0))
        draws = [self._draw(derive_seed(seed, "layout", number)) for number in range(DRAWS)]
        return max(draws, key=lambda mask: int((mask == wanted).sum()))

    def _take_apart(self, objects: Sequence[Objects] | None) -> None:
        for number, mask in enumerate(self._maps):
            if objects is None:
                found = movable_objects(mask, self._classes)
                own = [(self._classes.ids[channel], flags) for channel, flags in found]
            else:
                own = [
                    (i, flags.whole() if isinstance(flags, Outline) else flags)
                    for i, flags in objects[number]
                ]
            self._objects.append([(i, Outline.of(flags)) for i, flags in _visible(own)])
            self._pieces += [_Piece.cut(mask, i, flags) for i, flags in own if _whole(flags)]
        if not self._pieces and objects is not None:
            raise InputError(
                "no given object can be moved, as crowd regions and objects without an outline, or "
                "that the frame cuts, cannot: outline others, or use edited layouts"
            )
        if not self._pieces:
            raise InputError(
                "no map holds an object that can be moved: name a COCO file of objects, or use "
                "edited layouts"
            )

    def _moved(self, number: int, wanted: int | None, stream: np.random.Generator) -> Mask:
        mask = self._maps[number]
        own = [(i, outline.whole()) for i, outline in self._objects[number]]
        stays = [i == wanted or stream.random() < 0.5 for i, _ in own]
        leaving = [flags for (_, flags), stay in zip(own, stays, strict=True) if not stay]
        ground = _without(mask, leaving, [flags for _, flags in own])
        scene = [(_foot(f), i, f) for (i, f), stay in zip(own, stays, strict=True) if stay]
        most = MOST_PLACED if wanted is None else 2 * MOST_PLACED
        for place in range(int(stream.integers(1, most + 1))):  # every other one is wanted
            pieces = [p for p in self._pieces if p.class_id == wanted] if place % 2 == 0 else []
            pieces = pieces or self._pieces
            piece = pieces[int(stream.integers(len(pieces)))]
            flags = piece.placed(ground, stream, flip=self._flip)
            scene.append((_foot(flags), piece.class_id, flags))
        for _, class_id, flags in sorted(scene, key=lambda item: item[0]):
            ground[flags] = class_id
        return ground


@dataclass(frozen=True, eq=False)
class _Piece:
    """An object cut out of its map.

    Attributes:
        class_id: its id.
        flags: (h, w) bool.
        corner: row and column where it began.
        stood_on: id below its foot; 255 if that is unknown.
    """

    class_id: int
    flags: Flags
    corner: tuple[int, int]
    stood_on: int

    @classmethod
    def cut(cls, mask: Mask, class_id: int, flags: Flags) -> _Piece:
        outline = Outline.of(flags)
        (top, left), (height, width) = outline.corner, outline.flags.shape
        below = mask[top + height, left + (width - 1) // 2]
        return cls(class_id, outline.flags, outline.corner, int(below))

    def placed(self, ground: Mask, stream: np.random.Generator, *, flip: bool) -> Flags:
        """Return where the object lies in a new place, (H, W) bool."""
        H, W = ground.shape
        flags = self.flags[:, ::-1] if flip and stream.random() < 0.5 else self.flags
        scale = float(np.exp(stream.uniform(*np.log(SCALES))))
        scale = min(scale, (H - 1) / flags.shape[0], W / flags.shape[1])
        height, width = (max(1, round(scale * side)) for side in flags.shape)
        resized = cv2.resize(
            flags.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT
        )
        foot = self.corner[0] + self.flags.shape[0]  # the first row below
        left = self.corner[1] + (self.flags.shape[1] - width) // 2
        spots = [
            (foot + round(H * LARGEST_RISE * stream.uniform(-1, 1)), stream.integers(W - width + 1))
            for _ in range(PLACES_TRIED)
        ]
        for row, column in [*spots, (foot, left)]:
            row = int(np.clip(row, height, H - 1))
            column = int(np.clip(column, 0, W - width))
            if ground[row, column + width // 2] == self.stood_on:
                break
        canvas = np.zeros((H, W), bool)
        canvas[row - height : row, column : column + width] = resized > 0
        return canvas


def _edited(mask: Mask, wanted: int | None, stream: np.random.Generator, *, flip: bool) -> Mask:
    """Mirror, enlarge, crop and turn a map; a wanted class stays in sight."""
    H, W = mask.shape
    zoom = stream.uniform(1, LARGEST_ZOOM)
    angle = np.deg2rad(stream.uniform(-1, 1) * LARGEST_ROTATION_DEG)
    mirror = -1.0 if flip and stream.random() < 0.5 else 1.0
    centre = np.array([(W - 1) / 2, (H - 1) / 2])
    room = centre * (1 - 1 / zoom)  # how far the window's centre may lie from the map's
    lowest, highest = centre - room, centre + room
    if wanted is not None:
        places = np.argwhere(mask == wanted)
        focus = places[stream.integers(len(places))][::-1]  # x, y
        reach = 0.8 * centre / zoom  # less than half a window
        lowest = np.clip(focus - reach, lowest, highest)
        highest = np.clip(focus + reach, lowest, highest)
    middle = stream.uniform(lowest, highest)
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    edited: Mask = mask
    for turned in (angle, 0.0):  # far from the centre, turning may take a small class out of sight
        cos, sin = np.cos(turned) / zoom, np.sin(turned) / zoom
        turn = np.array([[cos * mirror, -sin], [sin * mirror, cos]])
        matrix = np.column_stack([turn, middle - turn @ centre])  # from new pixels to old ones
        edited = cv2.warpAffine(mask, matrix, (W, H), flags=flags, borderValue=IGNORE_ID)
        if wanted is None or (edited == wanted).any():
            break
    return edited


def _without(mask: Mask, leaving: Sequence[Flags], objects: Sequence[Flags]) -> Mask:
    """Fill the places of some objects with the nearest class that is no object.

    Strips thinner than about 2 % of the longer side, such as poles, are not continued.
    """
    ground = mask.copy()
    if not leaving:
        return ground
    hole = np.logical_or.reduce(leaving)
    hole |= grow(hole, 2) & (mask == IGNORE_ID)  # outlines are often left unlabelled
    known = ~np.logical_or.reduce(objects) & ~hole & (mask != IGNORE_ID)
    if not known.any():
        ground[hole] = IGNORE_ID
        return ground
    reach = max(1, round(0.01 * max(mask.shape)))
    around = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    wide = known & (cv2.dilate(mask, around) == cv2.erode(mask, around))
    known = wide if wide.any() else known  # poles and outlines are no background
    _, nearest = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    ids = np.zeros(nearest.max() + 1, np.uint8)
    ids[nearest[known]] = mask[known]
    ground[hole] = ids[nearest[hole]]
    return ground


def _visible(objects: Sequence[tuple[int, Flags]]) -> list[tuple[int, Flags]]:
    """What later objects leave to see of earlier ones."""
    seen: list[tuple[int, Flags]] = []
    if not objects:
        return []
    covered = np.zeros_like(objects[0][1])
    for class_id, flags in reversed(objects):
        left = flags & ~covered
        covered |= flags
        if left.any():
            seen.append((class_id, left))
    return seen[::-1]


def _whole(flags: Flags) -> bool:
    """Whether an object is there and the frame does not cut it."""
    frame = (flags[0], flags[-1], flags[:, 0], flags[:, -1])
    return bool(flags.any()) and not any(side.any() for side in frame)


def _foot(flags: Flags) -> int:
    rows = np.flatnonzero(flags.any(1))
    return int(rows[-1]) if len(rows) else -1
