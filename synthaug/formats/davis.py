"""DAVIS videos: frame 0 and its mask to learn from, the later labelled frames to be tested on."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthaug.errors import InputError
from synthaug.formats.folder import Colours, list_images, plain_stem, read_mask, read_pair
from synthaug.formats.splits import LazyPairs, Unit, warn_of_others
from synthaug.sample import IGNORE_ID, ClassMap, Sample, meaning_table, white_is_object


def read_video(root: str | Path, video: str, *, every: int = 1, ignore: Sequence[int] = ()) -> Unit:
    """Read one video of a folder laid out as DAVIS is (2016 or 2017).

    Frames are ``JPEGImages/VIDEO`` or ``JPEGImages/480p/VIDEO``, masks the same below
    ``Annotations``. Ids are kept, so that every object of DAVIS-2017 is a class; where the
    first mask holds 0 and 255 only, as in DAVIS-2016, 255 is object 1 in all masks, otherwise it
    is ignore. Numbers in the frames' names count as numbers: frame 10 comes after frame 9. Masks
    to be tested on are looked at once, so that a damaged file is found before anything is trained.

    Args:
        root: folder that holds ``JPEGImages`` and ``Annotations``.
        video: name of the video's folder.
        every: test on every n-th of the later labelled frames, beginning with the first of them.
        ignore: ids, 0..255, that stand for "not labelled"; they become 255.

    Returns:
        A unit of kind ``video``: the first labelled frame, and the later ones read when indexed.

    Raises:
        InputError: a folder is missing or empty, there is no second labelled frame, an ignored id
            is out of range, the first mask holds fewer than two classes, no later one shows
            any of them but some hold 0 and 255 alone (unless 255 is ignored by name), or
            `read_pair` refuses the first frame or `read_mask` a mask, also where palettes give an
            object's id to another one later.

    Warns:
        UserWarning: a later mask shows objects that the first does not, no later one shows one
            that the first does, some later ones hold 0 and 255 alone where the first does not, or
            the first shows no background that later ones show, so that an object is taken for it.
    """
    if every < 1:
        raise InputError(f"cannot test on every {every}th frame: give 1 or more")
    frames = {plain_stem(p): p for p in list_images(_find(root, "JPEGImages", video), "frames")}
    pairs = []
    for mask in sorted(list_images(_find(root, "Annotations", video), "masks"), key=_place):
        if plain_stem(mask) not in frames:
            raise InputError(f"mask {mask} has no frame {mask.stem}.jpg in JPEGImages: add it")
        pairs.append((frames[plain_stem(mask)], mask))
    if len(pairs) < 2:
        raise InputError(
            f"video {video} in {root} has one mask: at least a second is needed to test on"
        )
    (_, begin), tested = pairs[0], pairs[1::every]
    colours: Colours = {}
    ids = _ids(begin, colours)
    if ids == {0}:
        raise InputError(
            f"{begin}, the first mask of video {video}, shows no object: remove the masks before "
            "the first that shows one"
        )
    table = meaning_table({begin.name: ids}, ignore)
    shown = {f"{video}/{mask.name}": _ids(mask, colours) for _, mask in tested}
    read = partial(_read, table=table)
    first = LazyPairs(pairs, read)[0]
    classes = ClassMap.from_masks([first.mask], str(begin))
    labelled = set(table[list(set[int]().union(*shown.values()))].tolist()) - {IGNORE_ID}
    if not white_is_object(table) and IGNORE_ID not in ignore:
        if not labelled & set(classes.ids) - {0}:
            _refuse_white(begin, shown)
        meaning_table({f"{video}/{begin.name}": ids, **shown})  # it warns
    warn_of_others(classes, labelled, video=video)
    if 0 in labelled and 0 not in classes.ids:
        warnings.warn(
            f"video {video}: the first mask has no background (id 0), so that id {classes.ids[0]} "
            "is taken for it: remove the masks before the first that shows some",
            UserWarning,
            stacklevel=2,
        )
    return Unit(video, [first], LazyPairs(tested, read), classes, "video", white_is_object(table))


def _place(path: Path) -> list[str | int]:
    """Key that sorts by name, numbers in it by their value."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.stem)]


def _ids(mask: Path, colours: Colours) -> set[int]:
    return set(np.unique(read_mask(mask, colours)).tolist())


def _refuse_white(first: Path, shown: Mapping[str, Set[int]]) -> None:
    """Refuse black-and-white masks where the first has ids: their object would be void."""
    white = sum(ids == {0, IGNORE_ID} for ids in shown.values())
    if white:
        raise InputError(
            f"none of the {len(shown)} test masks shows an object of {first}, {white} of them hold "
            "0 and 255 alone: if 255 is the object there, write the same id in all masks; if it "
            "means not labelled, ignore id 255"
        )


def _find(root: str | Path, part: str, video: str) -> Path:
    plain, small = Path(root) / part / video, Path(root) / part / "480p" / video
    for folder in (plain, small):
        if video and folder.is_dir():
            return folder
    raise InputError(f"no video {video!r} at {plain} or {small}: check the folder and the name")


def _read(image: Path, mask: Path, sample_id: str, *, table: NDArray[np.uint8]) -> Sample:
    sample = read_pair(image, mask, sample_id)
    return replace(sample, mask=table[sample.mask])
