"""DAVIS videos: frame 0 and its mask to learn from, the later labelled frames to be tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthaug.errors import InputError
from synthaug.formats.folder import list_images, read_mask, read_pair
from synthaug.formats.splits import LazyPairs, Unit
from synthaug.sample import ClassMap, Sample, meaning_table, white_is_object


def read_video(root: str | Path, video: str, *, every: int = 1, ignore: Sequence[int] = ()) -> Unit:
    """Read one video of a folder laid out as DAVIS is (2016 or 2017).

    Frames are ``JPEGImages/VIDEO`` or ``JPEGImages/480p/VIDEO``, masks the same below
    ``Annotations``. Ids are kept, so that every object of DAVIS-2017 is a class; where the
    first mask holds 0 and 255 only, as in DAVIS-2016, 255 is object 1 in all masks, otherwise it
    is ignore.

    Args:
        root: folder that holds ``JPEGImages`` and ``Annotations``.
        video: name of the video's folder.
        every: test on every n-th of the later labelled frames, beginning with the first of them.
        ignore: ids, 0..255, that stand for "not labelled"; they become 255.

    Returns:
        A unit of kind ``video``: the first labelled frame, and the later ones read when indexed.

    Raises:
        InputError: a folder is missing or empty, there is no second labelled frame, an ignored id
            is out of range, the first mask holds fewer than two classes, or `read_pair` refuses
            the first frame.
    """
    if every < 1:
        raise InputError(f"cannot test on every {every}th frame: give 1 or more")
    frames = {path.stem: path for path in list_images(_find(root, "JPEGImages", video), "frames")}
    pairs = []
    for mask in list_images(_find(root, "Annotations", video), "masks"):
        if mask.stem not in frames:
            raise InputError(f"mask {mask} has no frame {mask.stem}.jpg in JPEGImages: add it")
        pairs.append((frames[mask.stem], mask))
    if len(pairs) < 2:
        raise InputError(
            f"video {video} in {root} has one mask: at least a second is needed to test on"
        )
    ids = set(np.unique(read_mask(pairs[0][1])).tolist())
    table = meaning_table({pairs[0][1].name: ids}, ignore)
    read = partial(_read, table=table)
    first = LazyPairs(pairs, read)[0]
    classes = ClassMap.from_masks([first.mask], str(pairs[0][1]))
    tests = LazyPairs(pairs[1::every], read)
    return Unit(video, [first], tests, classes, "video", white_is_object(table))


def _find(root: str | Path, part: str, video: str) -> Path:
    plain, small = Path(root) / part / video, Path(root) / part / "480p" / video
    for folder in (plain, small):
        if video and folder.is_dir():
            return folder
    raise InputError(f"no video {video!r} at {plain} or {small}: check the folder and the name")


def _read(image: Path, mask: Path, sample_id: str, *, table: NDArray[np.uint8]) -> Sample:
    sample = read_pair(image, mask, sample_id)
    return replace(sample, mask=table[sample.mask])
