"""Where synthetic pairs come from: a bank or a fitted generator, opened once per process."""

from __future__ import annotations

import os
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from synthaug.bank import FORMAT, Bank, read_manifest, require_masks, require_pairs
from synthaug.composing import Composer
from synthaug.errors import InputError
from synthaug.sample import IGNORE_ID, ClassMap, Sample

MAX_OPEN_SOURCES = 8
CACHE_BYTES = 64 * 2**20
"""Decoded samples of a bank kept in memory, per open source: 160 of 427x240 px."""
WHITE_MASKS = 4
"""Masks of 0 and 255 alone that may be "not labelled" before their user is asked."""
FOREIGN_PICTURES = 8
"""Pictures in a row whose boxes all have labels of no class of the source before one is told."""
OVERSHOOT = (-0.5, 2.0)
"""A float picture beyond these is not in [0, 1]; resampling may overshoot a little."""
LATENT_SEEDS = 2**53
"""Latent seeds are drawn below this, so that they survive any JSON reader."""


def is_normalised(least: float, most: float) -> bool:
    """Whether a float picture of these ends, which may be NaN, cannot be one in [0, 1]."""
    return least < OVERSHOOT[0] or most > OVERSHOOT[1]


class Source:
    """Synthetic pairs by name: a bank's kept samples, or the latents of a generator.

    The samples of a bank that were fetched last stay decoded, up to `CACHE_BYTES`. The memory is
    each process's own and goes with it: a `DataLoader` keeps it over epochs when it is made with
    ``persistent_workers=True``.

    Args:
        path: a bank or a generator folder.

    Raises:
        InputError: the folder is neither, is damaged, or is a bank without kept samples.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._opened = _open_folder(path)
        self._index: dict[str, int] = {}
        self._decoded: OrderedDict[str, Sample] = OrderedDict()
        self._free_bytes = CACHE_BYTES
        self._lock = Lock()
        self._compared, self._white = False, 0
        self._labels_shared, self._labels_told = set[str](), set[str]()
        self._labels_foreign = Counter[str]()
        if isinstance(self._opened, Bank):
            self._index = {r["id"]: i for i, r in enumerate(self._opened.records)}
            if not self._index:
                raise InputError(f"bank {path} holds no kept sample: generate more or filter less")

    def __reduce__(self) -> tuple[Callable[[str], Source], tuple[str]]:
        return open_source_once, (self.path,)  # another process opens its own, once

    @property
    def classes(self) -> ClassMap:
        """Classes of the masks; the first id is the background."""
        classes: ClassMap = self._opened.classes
        return classes

    @property
    def ids(self) -> list[str]:
        """Ids of the kept samples of a bank, in order; empty for a generator."""
        return list(self._index)

    @property
    def composer(self) -> Composer | None:
        """The composer, where pairs are composed live."""
        return self._opened if isinstance(self._opened, Composer) else None

    def require_pairs(self) -> None:
        """Refuse a painter that was converted: alone it has no masks to paint.

        Raises:
            InputError: it is one.
        """
        if self.paints_masks:
            remedy = "draw a bank with synthaug generate --layouts FOLDER, and name that"
            require_pairs(self.path, self._opened.pairs, remedy)

    def require_masks(self) -> None:
        """Refuse a source of pictures alone; see `synthaug.bank.require_masks`."""
        require_masks(self.path, self.classes)

    def compare_ids(self, mask: NDArray[Any]) -> None:
        """Warn, once, if a mask of the data that is mixed with shows none of the classes.

        Args:
            mask: class ids, any shape; one that shows the background alone says nothing, and
                neither do the first few that hold 255 beside it: it may mean "not labelled",
                but where 255 was the object in the masks that the source was made from.

        Warns:
            UserWarning: its ids are others than the source's, or no whole numbers.
        """
        if self._compared or mask.dtype == bool:
            return
        ids = set(np.unique(mask).tolist()) - set(self.classes.ids[:1])
        grace = 0 if self._opened.manifest.get("white_is_object") else WHITE_MASKS
        if ids == {IGNORE_ID} and self._white < grace:
            self._white += 1
            return
        self._compared = bool(ids)
        soft = sorted(value for value in ids if value % 1)
        if soft:
            remedy = "make whole ids of them first"
        elif ids and not ids & set(self.classes.ids[1:]):
            remedy = "if they mean the same objects, bring your masks to its ids"
            if ids == {IGNORE_ID} and len(self.classes) == 2:
                remedy += f", mask[mask == 255] = {self.classes.ids[1]}"
        else:
            return
        values = soft or sorted(ids)
        shown = f"[{', '.join(map(str, values[:5]))}{', ...' * (len(values) > 5)}]"
        warnings.warn(
            f"a mask of your data holds ids {shown}, {self.path} has {list(self.classes.ids)} "
            f"(255 is not labelled): {remedy}",
            UserWarning,
            stacklevel=2,
        )

    def compare_labels(self, kind: Literal["name", "id"], labels: Iterable[Any]) -> None:
        """Warn, once of names and once of ids, if boxes of the data that is mixed with mean others.

        Args:
            kind: what the boxes of the source are labelled with.
            labels: of the boxes of one picture, words or numbers; none say nothing.

        Warns:
            UserWarning: the labels of the first eight pictures are none of the source's, or a
                label of any is the background's id, which ids counted from 0 look like.
        """
        found = {f"{x:g}" if isinstance(x, int | float) else str(x) for x in labels}
        if not found or kind in self._labels_told:
            return
        ids, names = self.classes.ids, self.classes.names
        background, *own = map(str, ids if kind == "id" else names)
        shared = kind in self._labels_shared or not found.isdisjoint(own)
        zero = kind == "id" and background in found
        if shared and not zero:
            self._labels_shared.add(kind)
            return
        self._labels_foreign[kind] += 1
        if self._labels_foreign[kind] < FOREIGN_PICTURES and not zero:
            return
        self._labels_told.add(kind)
        listed = sorted(found)[:5]
        shown = f"{', '.join(listed)}{', ...' * (len(found) > 5)}"
        remedy = f"bring them to its ids ({background} is the background)"
        if kind == "name":
            remedy = "use its names, or name its classes likewise with fit --names"
        warnings.warn(
            f"boxes of your data are labelled {shown}, those of {self.path} {', '.join(own)}: if "
            f"they mean the same objects, {remedy}",
            UserWarning,
            stacklevel=2,
        )

    @property
    def paints_masks(self) -> bool:
        """Whether it makes new pictures for masks that are given."""
        return bool(getattr(self._opened, "paints_masks", False))

    def sees_label(self, mask: NDArray[Any]) -> bool:
        """Whether a mask of ids holds anything that can be painted; raises as `repaint` does."""
        return bool((self._meaning(mask) != IGNORE_ID).any())

    def require_painter(self, option: str) -> None:
        """Refuse an option of re-rendering where nothing is repainted.

        Raises:
            InputError: the source holds or makes whole pairs.
        """
        if not self.paints_masks:
            raise InputError(
                f"{option} is for a generator that paints masks (oasis), and {self.path} gives "
                "whole pairs: leave it out"
            )

    def repaint(
        self, mask: NDArray[Any] | None, size: tuple[int, ...], choice: dict[str, Any]
    ) -> NDArray[np.uint8]:
        """Paint a pipeline's own mask; the same choice gives the same picture.

        Args:
            mask: (H, W) or (H, W, 1) ids as in training; what training ignored is unlabelled, and
                so is 255 unless it was the object.
            size: (H, W) of the picture to replace.
            choice: what `draw` returned.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            InputError: there is no mask, it is of another size, or it holds anything but ids of the
                training masks.
        """
        if mask is None:
            raise InputError(
                f"{self.path} paints masks: pass mask=..., the class ids of the picture to replace"
            )
        ids = mask[..., 0] if mask.ndim == 3 and mask.shape[2] == 1 else mask
        if ids.shape[:2] != size:
            raise InputError(
                f"an image of shape {size} cannot be painted for a mask of shape {ids.shape}: "
                "bring both to one size"
            )
        picture: NDArray[np.uint8] = self._opened.render(
            self._meaning(ids), int(choice["latent_seed"])
        )
        return picture

    def mix(
        self,
        picture: NDArray[Any],
        painted: NDArray[Any],
        mask: NDArray[Any],
        choice: dict[str, Any],
        share: float,
        keep: Sequence[int | str],
    ) -> NDArray[Any]:
        """Put back some classes of the picture that was repainted; see `MapGenerator.kept`.

        Args:
            picture: (H, W) or (H, W, C), what came in.
            painted: what `repaint` made of it, in its shape and dtype.
            mask: (H, W) or (H, W, 1), as `repaint` takes it.
            choice: the same.
            share: probability of a class to be kept, in [0, 1).
            keep: classes, by id or name, that are kept in any case.
        """
        from synthaug.generation.map_generator import label_mix

        ids = self._meaning(mask.reshape(mask.shape[:2]))
        kept = self._opened.kept(ids, int(choice["latent_seed"]), share, keep=keep)
        return label_mix(picture, painted, kept)

    def _meaning(self, mask: NDArray[Any]) -> NDArray[np.uint8]:
        """What the ids of a mask that is to be painted meant in training."""
        if mask.dtype == bool or not np.equal(mask, np.rint(mask)).all():
            raise InputError(f"a mask of dtype {mask.dtype} cannot be painted: pass class ids")
        meaning: NDArray[np.uint8] = self._opened.meaning(mask.astype(np.int64))
        return meaning

    def draw(self, pick: Callable[[int], int]) -> dict[str, Any]:
        """Choose a pair.

        Args:
            pick: returns an integer in [0, n); the only randomness used.

        Returns:
            ``{"sample_id": str}`` or ``{"latent_seed": int}``; `fetch` turns it into the pair.
        """
        if self._index:
            return {"sample_id": self._opened.records[pick(len(self._index))]["id"]}
        return {"latent_seed": pick(LATENT_SEEDS)}

    def fetch(self, choice: dict[str, Any]) -> Sample:
        """Read or generate the pair that `draw` chose; the same choice gives the same pair.

        Its arrays are the caller's own.

        Raises:
            InputError: the bank has no such kept sample, or its files are damaged.
        """
        if not self._index:
            sample: Sample = self._opened.sample(int(choice["latent_seed"]))
            return sample
        name = choice.get("sample_id")
        if name not in self._index:
            raise InputError(f"bank {self.path} has no kept sample {name!r}: was it made again?")
        with self._lock:
            sample = self._read(name)
        return replace(sample, image=sample.image.copy(), mask=sample.mask.copy())

    def _read(self, name: str) -> Sample:
        """Return a bank's sample, from memory if it is there; the oldest make room."""
        if name in self._decoded:
            self._decoded.move_to_end(name)
            return self._decoded[name]
        sample: Sample = self._opened[self._index[name]]
        self._decoded[name] = sample
        self._free_bytes -= sample.image.nbytes + sample.mask.nbytes
        while self._free_bytes < 0:
            _, oldest = self._decoded.popitem(last=False)
            self._free_bytes += oldest.image.nbytes + oldest.mask.nbytes
        return sample


def _open_folder(path: str) -> Any:
    manifest = read_manifest(Path(path), "bank or generator")
    if isinstance(manifest, dict) and manifest.get("format") == FORMAT:
        return Bank(path)  # workers that only read a bank load no GAN code
    if Composer.draws(manifest):
        return Composer(path)  # nor do those that compose
    from synthaug.generation import open_source

    return open_source(path)


def open_source_once(path: str) -> Source:
    """Open a bank or generator, or return the one that this process has open already.

    At most `MAX_OPEN_SOURCES` stay open; a folder whose manifest has changed is opened anew, and
    a forked worker opens its own.
    """
    try:
        status = (Path(path) / "manifest.json").stat()
        stamp = (status.st_mtime_ns, status.st_size)
    except OSError:
        stamp = (0, 0)
    return _open(str(Path(path).absolute()), stamp, os.getpid())


@lru_cache(maxsize=MAX_OPEN_SOURCES)
def _open(path: str, stamp: tuple[int, int], process: int) -> Source:
    return Source(path)


def working_size(size: tuple[int, int], side_px: int) -> tuple[int, int]:
    """Scale (height, width) so that the longer side is at most ``side_px``, no side under 32."""
    scale = min(1.0, side_px / max(size))
    return max(32, round(size[0] * scale)), max(32, round(size[1] * scale))


@dataclass(frozen=True, eq=False)
class SegmentedObject:
    """One object of a mask.

    Attributes:
        id: class id.
        name: class name.
        box: left, top, right, bottom in pixels; right and bottom are exclusive.
        parts: (H, W) numbers of all objects of its class.
        part: its own number among them.
    """

    id: int
    name: str
    box: tuple[int, int, int, int]
    parts: NDArray[Any]
    part: int

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W) bool, made when it is asked for."""
        mask: NDArray[np.bool_] = self.parts == self.part
        return mask


def objects_of(ids: NDArray[np.uint8], classes: ClassMap) -> NDArray[np.bool_]:
    """Return where a mask of ids shows an object: neither background nor ignored."""
    return ~np.isin(ids, (*classes.ids[:1], IGNORE_ID))


def check_ids_fit(ids: NDArray[np.uint8], largest: int, dtype: object) -> None:
    """Refuse class ids that a pipeline's own masks cannot hold.

    Raises:
        InputError: an id, 255 for ignored pixels among them, is above ``largest``.
    """
    if ids.max() > largest:
        raise InputError(
            f"class id {ids.max()} does not fit into a mask of dtype {dtype}: use uint8"
        )


def find_objects(
    mask: NDArray[np.uint8], classes: ClassMap, *, per: str = "id"
) -> list[SegmentedObject]:
    """List the objects of a mask, by ascending id.

    Args:
        mask: (H, W) uint8 ids.
        classes: their names; the first id is the background and, like the ignore id, no object.
        per: ``"id"``: all pixels of an id are one object; ``"component"``: each 8-connected part.
    """
    found = []
    for class_id, name in zip(classes.ids[1:], classes.names[1:], strict=True):
        region = mask == class_id
        if class_id == IGNORE_ID or not region.any():
            continue
        if per == "id":
            found.append(SegmentedObject(class_id, name, _box(region), region, 1))
            continue
        _, parts, rows, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8))
        for part, (left, top, width, height, _) in enumerate(rows.tolist()):
            if part > 0:
                box = left, top, left + width, top + height
                found.append(SegmentedObject(class_id, name, box, parts, part))
    return found


def _box(region: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
