"""The words of the data: a sample and the map of its classes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthaug.errors import InputError

IGNORE_ID = 255
MAX_CLASSES = 64
MOST_STRETCH = 1.5
"""How many times one side of a picture that is resized may be stretched against the other."""


def class_list(given: int | str | Iterable[int | str]) -> tuple[int | str, ...]:
    """Return classes by id or name as a tuple; one alone is one class, whatever its length."""
    return (given,) if isinstance(given, (int, np.integer, str)) else tuple(given)


def ignore_table(ignore: Sequence[int]) -> NDArray[np.uint8]:
    """Return what each id of a mask becomes, (256,): 255 where it means "not labelled".

    Raises:
        InputError: an id is not in 0..255.
    """
    table = np.arange(256, dtype=np.uint8)
    for value in ignore:
        if not 0 <= value <= 255:
            raise InputError(f"cannot ignore id {value}: ids of masks are 0..255")
        table[value] = IGNORE_ID
    return table


def meaning_table(
    shown: Mapping[str, Set[int]], ignore: Sequence[int] = (), *, white: bool | None = None
) -> NDArray[np.uint8]:
    """Return what each id of some masks means, (256,): `ignore_table`, and 1 for white.

    Masks that together hold 0 and 255 alone are black and white: nothing could be learned from
    them unless 255 is the object. Where 255 is ignored by name, it is not.

    Args:
        shown: the ids of each mask, by its name.
        ignore: ids that stand for "not labelled".
        white: whether 255 is the object, where that is known from other masks of the data. It is
            not where one of these masks holds id 1: that is how synthaug writes the same masks.

    Raises:
        InputError: an ignored id is not in 0..255.

    Warns:
        UserWarning: some masks look so, among others that do not.
    """
    table = ignore_table(ignore)
    binary = {0, IGNORE_ID}
    if IGNORE_ID in ignore:
        return table
    lone = [name for name, ids in shown.items() if ids == binary]
    held = set().union(*shown.values())
    if (white and 1 not in held) or (white is None and held == binary):
        table[IGNORE_ID] = 1
    elif white is None and lone:
        warnings.warn(
            f"{len(lone)} of {len(shown)} masks hold 0 and 255 alone ({', '.join(lone[:3])}"
            f"{', ...' * (len(lone) > 3)}), the others other ids: 255 means not labelled there; "
            "if it is the object, write its id, as in the others",
            UserWarning,
            stacklevel=3,
        )
    return table


def white_is_object(meaning: NDArray[np.uint8]) -> bool:
    """Whether a `meaning_table` takes 255 for the object."""
    return bool(meaning[IGNORE_ID] == 1)


@dataclass(frozen=True, eq=False)
class Sample:
    """One image with its mask.

    Attributes:
        image: (H, W, 3) uint8 RGB; a grey picture is stored three times and marked ``grey``.
        mask: (H, W) uint8 class ids, 255 = ignore.
        id: name of the sample, unique in its bank or folder.
        grey: write the image with one channel.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    id: str = "sample"
    grey: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.mask.shape[0], self.mask.shape[1]

    @property
    def colourless(self) -> bool:
        """Whether the picture is grey everywhere, in one channel or in three."""
        return self.grey or bool((self.image == self.image[..., :1]).all())


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Stretch (H, W, 3) uint8 to ``size`` (height, width): by area if smaller, else bilinearly."""
    import cv2

    if image.shape[:2] == size:
        return image
    smaller = size[0] * size[1] < image.shape[0] * image.shape[1]
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size[::-1], interpolation=how), np.uint8)


def resize_mask(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Stretch (H, W) ids to ``size`` (height, width): nearest, pixel centres as `resize_image`."""
    import cv2

    if mask.shape == size:
        return mask
    return np.asarray(cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


def resized(sample: Sample, height: int, width: int) -> Sample:
    """Stretch a pair to a size in pixels.

    The image is averaged over areas when it shrinks and bilinear otherwise; the mask takes the
    nearest label, with pixel centres aligned to the image's.
    """
    size = height, width
    image, mask = resize_image(sample.image, size), resize_mask(sample.mask, size)
    return replace(sample, image=image, mask=mask)


def size_within(size: tuple[int, int], aspect: float) -> tuple[int, int]:
    """Return the largest (height, width) within ``size``, px, whose ratio is near ``aspect``."""
    height, width = size
    return min(height, round(width * aspect)), min(width, round(height / aspect))


def size_kept(size: tuple[int, int], aspect: float) -> tuple[int, int]:
    """Return how much of a (height, width), px, can become ``aspect`` within `MOST_STRETCH`."""
    own = size[0] / size[1]
    return size_within(size, min(max(own, aspect / MOST_STRETCH), aspect * MOST_STRETCH))


def usual_size(sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Return the median height and width of (height, width) in pixels, rounded."""
    height, width = np.median(list(sizes), axis=0)
    return round(height), round(width)


@dataclass(frozen=True)
class ClassMap:
    """The ids found in the masks, in order; their position is the network's channel.

    Attributes:
        ids: sorted class ids (0..254), the smallest is treated as the background.
        names: one name per id, for COCO and the report.
        ignore_id: id of pixels without a label.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...] = field(default=())
    ignore_id: int = IGNORE_ID

    def __post_init__(self) -> None:
        if not self.names:
            object.__setattr__(self, "names", tuple(f"class_{i}" for i in self.ids))

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def from_masks(
        cls, masks: Iterable[NDArray[np.uint8]], where: str = "mask", most: int = MAX_CLASSES
    ) -> ClassMap:
        """Collect the classes of (H, W) uint8 masks.

        Raises:
            InputError: fewer than two classes (nothing to segment) or more than ``most``.
        """
        found = sorted(set(np.unique(np.concatenate([np.unique(m) for m in masks])).tolist()))
        ids = [int(i) for i in found if i != IGNORE_ID]
        if len(ids) < 2:
            held = f"holds only one class (ids {ids})" if ids else "is wholly unlabelled"
            void = '; 255 and ignored ids mean "not labelled"' if len(found) > len(ids) else ""
            raise InputError(
                f"{where} {held}{void}: write the object and the background with different ids, "
                "for example 1 and 0"
            )
        if len(ids) > most:
            raise InputError(
                f"{where} holds {len(ids)} classes, at most {most} are supported: "
                "is it a grey photograph, or has every object a number of its own? Write ids of "
                "classes, one for all objects of a kind, in an index PNG"
            )
        return cls(tuple(ids))

    @classmethod
    def from_dict(cls, value: Any, where: str) -> ClassMap:
        """Read it from the ``classes`` of a manifest.

        Raises:
            InputError: they are no ids with their names; ``where`` begins the line.
        """
        found = value if isinstance(value, dict) else {}
        ids, names = found.get("ids"), found.get("names")
        if not (
            isinstance(ids, list)
            and isinstance(names, list)
            and len(ids) == len(names)
            and all(isinstance(class_id, int) for class_id in ids)
        ):
            raise InputError(f"{where} has a damaged manifest (classes): make the folder again")
        return cls(tuple(ids), tuple(names))

    def as_dict(self) -> dict[str, Any]:
        """Return ids and names as plain JSON values, as `from_dict` reads them."""
        return {"ids": list(self.ids), "names": list(self.names)}

    def refuse_swapped(self, other: ClassMap, where: str) -> None:
        """Refuse classes of which one has another id here.

        Args:
            other: the classes; those that have no name of this map pass.
            where: whose they are, to begin the line.

        Raises:
            InputError: a name, in any case, stands for two ids.
        """
        own = {
            name.casefold(): class_id for class_id, name in zip(self.ids, self.names, strict=True)
        }
        for class_id, name in zip(other.ids, other.names, strict=True):
            here = own.get(name.casefold(), class_id)
            if here != class_id:
                raise InputError(
                    f"{where} calls class {class_id} {name}, which is class {here} here: bring "
                    "both to the same ids"
                )

    def named(self, names: Mapping[int, str]) -> ClassMap:
        """Return the same ids with names; names of ids that are not there are left out.

        Raises:
            InputError: an id has no name, or two have the same (in any case).
        """
        seen: dict[str, int] = {}
        for class_id in self.ids:
            if class_id not in names:
                raise InputError(
                    f"class id {class_id} has no name: named are {', '.join(map(str, names))}; "
                    f"add one, as {class_id}=NAME where the others have ids, too"
                )
            other = seen.setdefault(names[class_id].lower(), class_id)
            if other != class_id:
                raise InputError(
                    f"class ids {other} and {class_id} are both named {names[class_id]}: "
                    "give each a name of its own"
                )
        return replace(self, names=tuple(names[class_id] for class_id in self.ids))

    def find(self, name: int | str) -> int:
        """Return the id of a class that is named by its id or its name, in any case.

        A text that is both is the id; an integer is no name.

        Raises:
            InputError: there is no such class.
        """
        text = str(name).strip().lower()
        found = {str(class_id): class_id for class_id in self.ids}
        if isinstance(name, str):
            named = zip(self.names, self.ids, strict=True)
            found = {known.lower(): class_id for known, class_id in named} | found
        if text in found:
            return found[text]
        listed = ", ".join(f"{i} ({known})" for i, known in zip(self.ids, self.names, strict=True))
        raise InputError(f"there is no class {name}: known are {listed}")

    def count_pixels(self, masks: Iterable[NDArray[np.uint8]]) -> NDArray[np.int64]:
        """Return how many pixels of (H, W) masks each class has, (N,); others do not count."""
        counts = np.zeros(256, np.int64)
        for mask in masks:
            counts += np.bincount(mask.ravel(), minlength=256)
        return counts[list(self.ids)]

    def encode(self, mask: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Turn ids into channels: (H, W) int64 in [0, N), -1 where ignored or unknown."""
        table = np.full(256, -1, np.int64)
        table[list(self.ids)] = np.arange(len(self.ids))
        return table[mask]

    def decode(self, index: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Turn channels (H, W) in [0, N) back into ids, uint8."""
        ids: NDArray[np.uint8] = np.asarray(self.ids, np.uint8)[index]
        return ids
