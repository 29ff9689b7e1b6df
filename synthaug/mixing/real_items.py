"""What the items of a user's dataset look like, so that a bank's samples can look alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from synthaug.errors import InputError


class Structure(NamedTuple):
    """What real items look like: how one is made of image and mask, and the type of masks.

    Attributes:
        keyed: whether they are dicts.
        mask_dtype: of their masks.
        make: function of (image, mask) that makes an item of the same type; RGB pixels become grey
            where the item has one channel.
    """

    keyed: bool
    mask_dtype: np.dtype[Any]
    make: Callable[[Any, Any], Any]


def structure(item: Any) -> Structure:
    """Look at a real item; refuse what the default ``adapt`` of `SynthMix` cannot imitate.

    Raises:
        InputError: the item is no pair of a picture and a mask as a bank holds them.
    """
    keyed = isinstance(item, dict) and set(item) == {"image", "mask"}
    if keyed:
        image, mask = item["image"], item["mask"]
    elif isinstance(item, (tuple, list)) and len(item) == 2:
        image, mask = item
    else:
        what = f"keys {sorted(item)}" if isinstance(item, dict) else f"type {type(item).__name__}"
        raise InputError(
            f"the dataset's items ({what}) are neither (image, mask) nor a dict of image and mask: "
            "pass SynthMix(adapt=...), a function from a Sample to such an item"
        )
    if not _is_like_a_sample(image, mask):
        raise InputError(
            f"the dataset yields {described(image)} images and {described(mask)} masks, not RGB or "
            "grey uint8 arrays, channels last, and (H, W) integer arrays: "
            "pass SynthMix(adapt=...), a function from a Sample to an item like the dataset's"
        )
    empty, shape = with_parts(item, {"image": None, "mask": None}), image.shape

    def make(image: Any, mask: Any) -> Any:
        return with_parts(empty, {"image": in_channels(image, shape), "mask": mask})

    return Structure(keyed, mask.dtype, make)


def with_parts(item: Any, parts: Mapping[str, Any]) -> Any:
    """Return an item of the same type and order with other parts: ``image`` and ``mask``.

    Of a tuple or list they are the first two entries; a dict takes whatever else is given, too.
    """
    if isinstance(item, dict):
        made = copy(item)
        made.update(parts)
        return made
    entries = [parts["image"], parts["mask"], *item[2:]]
    return type(item)(*entries) if hasattr(item, "_fields") else type(item)(entries)


def in_channels(image: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return an (H, W, 3) RGB picture in the channels of a shape (H, W), (H, W, 1) or (H, W, 3)."""
    if len(shape) == 3 and shape[2] == 3:
        return image
    grey: NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return grey if len(shape) == 2 else grey[..., None]


def _is_like_a_sample(image: Any, mask: Any) -> bool:
    if not (isinstance(image, np.ndarray) and isinstance(mask, np.ndarray)):
        return False
    channels = 1 if image.ndim == 2 else image.shape[2] if image.ndim == 3 else 0
    picture = image.dtype == np.uint8 and channels in (1, 3)
    return picture and mask.ndim == 2 and np.issubdtype(mask.dtype, np.integer)


def described(part: Any) -> str:
    """Name the type of an item's part, or of an item."""
    if isinstance(part, dict):
        return f"a dict of {', '.join(map(str, part)) or 'nothing'}"
    shape, dtype = getattr(part, "shape", None), getattr(part, "dtype", None)
    kind = type(part).__name__
    return kind if shape is None else f"{tuple(shape)} {dtype} {kind}"
