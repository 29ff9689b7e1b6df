"""What the items of a user's dataset look like, so that a bank's samples can look alike."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from synthaug.errors import InputError


class Structure(NamedTuple):
    """What real items look like: dicts or tuples, and the type of their masks."""

    keyed: bool
    mask_dtype: np.dtype[Any]


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
            f"the dataset yields {_described(image)} images and {_described(mask)} masks, a bank "
            "(H, W, 3) uint8 and (H, W) integer arrays: "
            "pass SynthMix(adapt=...), a function from a Sample to an item like the dataset's"
        )
    return Structure(keyed, mask.dtype)


def _is_like_a_sample(image: Any, mask: Any) -> bool:
    if not (isinstance(image, np.ndarray) and isinstance(mask, np.ndarray)):
        return False
    coloured = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    return coloured and mask.ndim == 2 and np.issubdtype(mask.dtype, np.integer)


def _described(part: Any) -> str:
    shape, dtype = getattr(part, "shape", None), getattr(part, "dtype", None)
    kind = type(part).__name__
    return kind if shape is None else f"{tuple(shape)} {dtype} {kind}"
