"""What a fit learns from: pairs read from files, and the tensors made of them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from synthaug import files
from synthaug.config.fit import Resize
from synthaug.errors import InputError
from synthaug.formats import folder
from synthaug.generator_folder import read_verified
from synthaug.sample import (
    IGNORE_ID,
    ClassMap,
    Sample,
    meaning_table,
    resized,
    size_kept,
    usual_size,
    white_is_object,
)
from synthaug.seeding import numpy_stream

CROPS = 2000
"""Squares that `read_square_crops` cuts at least."""
CROPS_FILE = "crops.npy"
KEPT_CROPS = 16
"""Squares that a fit's folder holds as pictures, too."""


def read_training_pairs(
    image: str | Path | None,
    mask: str | Path | None,
    images: str | Path | None,
    masks: str | Path | None,
    ignore: Sequence[int] = (),
    *,
    white: bool | None = None,
) -> tuple[list[Sample], bool]:
    """Read what to learn from; pictures without masks, and pixels of ignored ids, get 255.

    Where all masks together hold 0 and 255 alone, 255 is the object and becomes 1. Pairs may
    differ in size.

    Args:
        image: a photograph.
        mask: its mask.
        images: folder of photographs, instead of ``image``.
        masks: folder of their masks.
        ignore: ids that stand for "not labelled".
        white: whether 255 is the object, where that is known.

    Returns:
        The pairs, and whether 255 was the object.

    Raises:
        InputError: nothing or too much is named, or a file is unusable.

    Warns:
        UserWarning: some masks hold 0 and 255 alone, and others do not.
    """
    if (image is None) == (images is None):
        raise InputError("name what to learn from: IMAGE MASK, or --images DIR --masks DIR")
    if (image is None and mask is not None) or (images is None and masks is not None):
        raise InputError("IMAGE goes with MASK, and --images with --masks: name both of one kind")
    if image is not None:
        if mask is None:
            return [_unlabelled(image)], False
        return _relabelled([folder.read_pair(image, mask)], ignore, white)
    assert images is not None
    if masks is not None:
        pairs = folder.read_pairs(images, masks)
    else:
        pairs = [_unlabelled(path) for path in folder.list_images(images)]
    if masks is None:
        return _of_one_colour(pairs), False
    pairs, white = _relabelled(pairs, ignore, white)
    return _of_one_colour(pairs), white


def require_one_size(pairs: Sequence[Sample], remedy: str) -> None:
    """Refuse pairs of several sizes.

    Raises:
        InputError: the line ends with the remedy.
    """
    for pair in pairs:
        if pair.size != pairs[0].size:
            raise InputError(
                f"image {pair.id} is {pair.size[1]}x{pair.size[0]} px but {pairs[0].id} is "
                f"{pairs[0].size[1]}x{pairs[0].size[0]}: {remedy}"
            )


def bring_to_usual_size(pairs: list[Sample], how: Resize) -> tuple[list[str], str]:
    """Resize pairs to their `usual_size`.

    Args:
        pairs: replaced one by one, so that large photographs are not held twice.
        how: ``stretch``; or ``crop`` those first that would be stretched by more than
            `sample.MOST_STRETCH`, to the part that shows most of their objects.

    Returns:
        SHA-256 of the pixels that each resized picture had before, and words on what was done.

    Raises:
        InputError: a class is in no picture any more.
    """
    size = usual_size(pair.size for pair in pairs)
    background = min(int(pair.mask.min()) for pair in pairs)
    originals, cropped = [], 0
    shown = _all_ids(pairs)
    for number, pair in enumerate(pairs):
        if pair.size == size:
            continue
        originals.append(files.sha256_bytes(pair.image.tobytes()))
        part = _near_shape(pair, size[0] / size[1], background) if how == "crop" else pair
        cropped += part.size != pair.size
        pairs[number] = resized(part, *size)
    if lost := sorted(shown - _all_ids(pairs)):
        raise InputError(
            f"resized to {size[1]}x{size[0]} px no image shows class {lost[0]} any more: bring the "
            "images to one size yourself" + (", or use fit.resize: stretch" if cropped else "")
        )
    words = f"{len(originals)} of {len(pairs)} images resized to {size[1]}x{size[0]} px"
    return originals, words + (f", {cropped} of them cropped first" if cropped else "")


def _all_ids(pairs: Sequence[Sample]) -> set[int]:
    return {value for pair in pairs for value in np.unique(pair.mask).tolist()} - {IGNORE_ID}


def _near_shape(pair: Sample, aspect: float, background: int) -> Sample:
    """The largest part of a pair whose height / width is near enough to ``aspect``."""
    tall, wide = size_kept(pair.size, aspect)
    objects = (pair.mask != background) & (pair.mask != IGNORE_ID)
    top, left = _fullest(objects.sum(1), tall), _fullest(objects.sum(0), wide)
    part = np.s_[top : top + tall, left : left + wide]
    return replace(pair, image=pair.image[part], mask=pair.mask[part])


def _fullest(counts: NDArray[np.integer], length: int) -> int:
    """Where ``length`` neighbours among counts (L,) begin whose sum is largest, near the middle."""
    before = np.concatenate([[0], np.cumsum(counts)])
    sums = before[length:] - before[:-length]
    best = np.flatnonzero(sums == sums.max())
    return int(best[np.abs(2 * best - (len(sums) - 1)).argmin()])


def _of_one_colour(samples: Sequence[Sample]) -> list[Sample]:
    """Grey files among colour pictures count as colour ones: what is made takes after all."""
    grey = all(sample.grey for sample in samples)
    return [replace(sample, grey=grey) for sample in samples]


def read_square_crops(
    images: str | Path, size: int, seed: int
) -> tuple[list[Sample], dict[str, str]]:
    """Cut random squares out of pictures of any size, to learn from without masks.

    A square's side is drawn between half of the picture's shorter side and all of it, so that
    layouts stay, and a few photographs still give many views. Every picture gives as many, `CROPS`
    or more in all; first one of each, then the next of each.

    Args:
        images: folder of photographs.
        size: side that every square is resampled to, in pixels.
        seed: of the draws.

    Returns:
        Samples (size, size) whose masks are 255; and the photographs: SHA-256 of the pixels ->
        path.
    """
    return _crops(folder.list_images(images), CROPS, size, seed)


def class_folders(images: str | Path) -> list[Path]:
    """Return a folder's sub-folders by name, one per class; none where it holds pictures itself.

    Raises:
        InputError: it holds pictures, and several of its sub-folders do, too.
    """
    root = Path(images)
    if not root.is_dir():
        return []
    found = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    beside = next(filter(folder.is_picture, sorted(root.iterdir())), None)
    if beside is None:
        return found if len(found) > 1 else []
    classes = [path.name for path in found if any(map(folder.is_picture, path.iterdir()))]
    if len(classes) > 1:
        raise InputError(
            f"{root} holds pictures, such as {beside.name}, beside folders of pictures, such as "
            f"{classes[0]}, which would be classes: move one or the other elsewhere"
        )
    return []


def read_class_crops(
    folders: Sequence[Path], size: int, seed: int
) -> tuple[list[Sample], dict[str, str]]:
    """Cut random squares as `read_square_crops` does, as many of every class.

    There are `CROPS` in all, or as many as pictures if those are more; of a class that has more
    pictures than that leaves, evenly spread ones are taken.

    Args:
        folders: of K classes.
        size: side that every square is resampled to, in pixels.
        seed: of the draws.

    Returns:
        Samples (size, size) whose masks are 255, the i-th of class i modulo K; and the
        photographs that were taken, as `read_square_crops` does.
    """
    paths = [folder.list_images(path) for path in folders]
    count = -(-max(CROPS, sum(map(len, paths))) // len(folders))
    rows, photographs = [], dict[str, str]()
    for path, listed in zip(folders, paths, strict=True):
        few = min(count, len(listed))
        taken = [listed[place * len(listed) // few] for place in range(few)]
        crops, found = _crops(taken, count, size, seed, f"{path.name}-")
        rows.append(crops[:count])
        photographs |= found
    named = [  # a class "cat-big" may have what a class "cat" calls big-1: numbers tell them apart
        replace(crop, id=f"{number:04d}-{crop.id}")
        for turn in zip(*rows, strict=True)
        for number, crop in enumerate(turn)
    ]
    return _of_one_colour(named), photographs


def _crops(
    paths: Sequence[Path], at_least: int, size: int, seed: int, prefix: str = ""
) -> tuple[list[Sample], dict[str, str]]:
    each = -(-at_least // len(paths))
    blank = np.full((size, size), IGNORE_ID, np.uint8)
    rows, photographs = [], dict[str, str]()
    for path in paths:
        image, grey = folder.read_image(path)
        photographs[files.sha256_bytes(image.tobytes())] = str(path)
        stream = numpy_stream(seed, "fit", "crops", prefix + path.name)
        names = [f"{prefix}{path.stem}-{i}" for i in range(each)]
        squares = (_square(image, size, stream) for _ in names)
        rows.append([Sample(s, blank, n, grey) for s, n in zip(squares, names, strict=True)])
    return _of_one_colour([crop for turn in zip(*rows, strict=True) for crop in turn]), photographs


def _square(image: NDArray[np.uint8], size: int, stream: np.random.Generator) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    short = min(height, width)
    side = int(stream.integers(max(short // 2, min(size, short)), short + 1))
    top = int(stream.integers(height - side + 1))
    left = int(stream.integers(width - side + 1))
    way = cv2.INTER_AREA if side >= size else cv2.INTER_CUBIC
    crop = cv2.resize(image[top : top + side, left : left + side], (size, size), interpolation=way)
    return np.asarray(crop, np.uint8)


def _relabelled(
    pairs: Sequence[Sample], ignore: Sequence[int], white: bool | None
) -> tuple[list[Sample], bool]:
    """Give ids their meaning: what is ignored becomes 255, the white of binary masks 1."""
    shown = {pair.id: set(np.unique(pair.mask).tolist()) for pair in pairs}
    table = meaning_table(shown, ignore, white=white)
    ids = set[int]().union(*shown.values())
    if unused := sorted(set(ignore) - ids - {IGNORE_ID}):
        warnings.warn(
            f"id(s) {', '.join(map(str, unused))} to be ignored are in no mask: they hold "
            f"{', '.join(map(str, sorted(ids)))}",
            UserWarning,
            stacklevel=2,
        )
    return [replace(pair, mask=table[pair.mask]) for pair in pairs], white_is_object(table)


def _unlabelled(path: str | Path) -> Sample:
    image, grey = folder.read_image(path)
    mask = np.full(image.shape[:2], IGNORE_ID, np.uint8)
    return Sample(image, mask, Path(path).stem, grey)


def kept_pairs(out: Path, manifest: dict[str, Any]) -> list[Sample]:
    """Read what an earlier fit in the folder ``out`` learned from."""
    if "crops" in manifest:
        data = read_verified(out / manifest["crops"], manifest["crops_sha256"])
        crops = np.load(io.BytesIO(data), allow_pickle=False)
        blank = np.full(crops.shape[1:3], IGNORE_ID, np.uint8)
        return [Sample(crop, blank, f"crop-{i}", manifest["grey"]) for i, crop in enumerate(crops)]
    root = out / "pairs"
    return [
        folder.read_pair(root / r["image"], root / r["mask"], r["id"]) for r in manifest["pairs"]
    ]


def keep_crops(out: Path, crops: Sequence[Sample]) -> dict[str, str]:
    """Write all squares into one file of the folder ``out``; returns its lines of the manifest."""
    buffer = io.BytesIO()
    np.save(buffer, np.stack([crop.image for crop in crops]), allow_pickle=False)
    files.write_bytes(out / CROPS_FILE, buffer.getvalue())
    return {"crops": CROPS_FILE, "crops_sha256": files.sha256_bytes(buffer.getvalue())}


def training_tensors(
    pairs: Sequence[Sample], classes: ClassMap | None, size: tuple[int, int], scale: int | None
) -> tuple[Tensor, Tensor | None]:
    """Bring pairs to the training size.

    Args:
        pairs: P pairs of one size.
        classes: their classes; None without masks.
        size: height and width in training, px.
        scale: multiple of that size; None: once, and masks as indices.

    Returns:
        Images (P, 3, h, w) in [-1, 1] and masks (P, N, h, w), one-hot shares of each pixel's area
        per class, zero where ignored; None without masks. As indices: (P, h, w) int16, the nearest
        pixel's class in [0, N), -1 where ignored.
    """
    target = (size[0] * (scale or 1), size[1] * (scale or 1))
    images = torch.empty(len(pairs), 3, *target)
    masks = None
    if classes is not None:
        shape = target if scale is None else (len(classes), *target)
        masks = torch.empty(len(pairs), *shape, dtype=torch.int16 if scale is None else None)
    for number, pair in enumerate(pairs):
        image = torch.from_numpy(pair.image).permute(2, 0, 1).float() / 127.5 - 1
        images[number] = _smaller(image, target)
        if classes is None or masks is None:
            continue
        if scale is None:
            masks[number] = index_mask(pair.mask, classes, target)
        else:
            masks[number] = _shares(pair.mask, classes, target)
    return images.clamp_(-1, 1), masks


def _shares(mask: NDArray[np.uint8], classes: ClassMap, size: tuple[int, int]) -> Tensor:
    """Turn ids (H, W) into the classes' shares of each pixel's area, (N, h, w)."""
    index, shares = torch.from_numpy(classes.encode(mask)), torch.empty(len(classes), *size)
    for channel in range(len(classes)):  # one by one: large pictures of many would not fit
        shares[channel] = _smaller((index == channel)[None].float(), size)[0]
    return shares


def _smaller(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring (C, H, W) to a size (h, w)."""
    return F.interpolate(maps[None], size, mode="bilinear", antialias=True, align_corners=False)[0]


def lost_classes(pairs: Iterable[Sample], classes: ClassMap, size: tuple[int, int]) -> list[str]:
    """Name the classes that prevail in no pixel of any pair once those have a size (h, w).

    The background, which is the first, is none of them.
    """
    left = {0}
    for pair in pairs:
        if pair.size == size:
            prevailing = classes.encode(pair.mask)
        else:
            shares = _shares(pair.mask, classes, size)
            prevailing = shares.argmax(0)[shares.sum(0) > 0.5].numpy()
        left |= set(np.unique(prevailing).tolist())
        if left >= set(range(len(classes))):
            return []
    return [name for channel, name in enumerate(classes.names) if channel not in left]


def words_on_lost(pairs: Sequence[Sample], classes: ClassMap, size: tuple[int, int]) -> str:
    """Return a line that names what is lost where a preset learns at a size (h, w), "" if nothing.

    Raises:
        InputError: nothing but the background is left.
    """
    lost = lost_classes(pairs, classes, size)
    if not lost:
        return ""
    at = f"at {size[1]}x{size[0]} px, at which this preset learns, "
    if len(lost) >= len(classes) - 1:
        raise InputError(
            f"{at}the objects of the masks are smaller than a pixel: use --preset compose, a "
            "larger --max-size, or pictures cropped around the objects"
        )
    words = f"no pixel is left of {', '.join(lost)}: --preset compose moves objects at full size"
    return f"beware: {at}{words}"


def index_mask(mask: NDArray[np.uint8], classes: ClassMap, size: tuple[int, int]) -> Tensor:
    """Turn ids (H, W) into classes (h, w) int16 in [0, N), -1 where ignored, by nearest pixel."""
    index = torch.from_numpy(classes.encode(mask)).float()[None, None]
    return F.interpolate(index, size, mode="nearest-exact")[0, 0].to(torch.int16)
