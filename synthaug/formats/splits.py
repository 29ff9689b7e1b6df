"""Units of a comparison: a few training pairs and the test pairs, from a user's own folders."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, overload

import numpy as np

from synthaug.errors import InputError
from synthaug.formats.folder import (
    Colours,
    match_pairs,
    read_mask,
    read_pair,
    warn_of_lone_masks,
)
from synthaug.sample import (
    IGNORE_ID,
    ClassMap,
    Sample,
    ignore_table,
    meaning_table,
    usual_size,
    white_is_object,
)
from synthaug.seeding import numpy_stream

PathPair = tuple[Path, Path]


class LazyPairs(Sequence[Sample]):
    """Pairs on disk; one is read when it is indexed, and none is kept.

    Args:
        paths: image and mask file of every pair; the image's stem is the sample's id.
        read: called with both paths and the id.

    Raises:
        InputError: when indexed: the files are damaged, or others than at the first reading.
    """

    def __init__(
        self, paths: Sequence[PathPair], read: Callable[[Path, Path, str], Sample] = read_pair
    ) -> None:
        self.paths = list(paths)
        self._read = read
        self._seen: dict[Path, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> LazyPairs: ...

    def __getitem__(self, index: int | slice) -> Sample | LazyPairs:
        if isinstance(index, slice):
            part = LazyPairs(self.paths[index], self._read)
            part._seen = self._seen
            return part
        image, mask = self.paths[index]
        sample = self._read(image, mask, image.stem)
        for path in (image, mask):
            status = path.stat()
            state = (status.st_mtime_ns, status.st_size)
            if self._seen.setdefault(path, state) != state:
                raise InputError(
                    f"{path} has changed since it was first read: let it be while this runs, and "
                    "start again"
                )
        return sample


@dataclass(frozen=True, eq=False)
class Unit:
    """One video or data set on which a segmenter learns and is tested.

    Attributes:
        name: unique among the units of a comparison, usable as a folder's name.
        training: labelled pairs to learn from, read when indexed; sizes may differ.
        test: pairs to be measured on, read when indexed; sizes may differ. Pixels of ids that
            ``classes`` lacks are not counted.
        classes: of the training masks.
        kind: ``video`` (measured by J&F) or ``images`` (measured by mIoU).
        white_is_object: whether 255 was the object in the masks' files, which is class 1 here.
    """

    name: str
    training: Sequence[Sample]
    test: Sequence[Sample]
    classes: ClassMap
    kind: Literal["video", "images"]
    white_is_object: bool = False

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of every training image, px."""
        return [sample.size for sample in self.training]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width that most training images are near, px: see `usual_size`."""
        return usual_size(self.sizes)


def read_split(
    images: str | Path,
    masks: str | Path,
    *,
    test_images: str | Path | None = None,
    test_masks: str | Path | None = None,
    train: int | float | None = None,
    seed: int = 0,
    ignore: Sequence[int] = (),
    name: str = "data",
) -> Unit:
    """Read a user's folders as a unit; the split is given as two more folders or drawn.

    Images and masks are matched by file stem. Every mask is read once, so that a damaged file is
    found before anything is trained. Where all of ``masks`` together hold 0 and 255 alone, 255 is
    the object, class 1, in test masks as well.

    A drawn split is stratified: first, greedily and in drawn order, come images that show most of
    the classes still missing, until every class is trained on or the places are taken; the other
    places are drawn alike. Classes of a single image do not count where the test images are what
    is left. Where all images show the same classes, the draw is plain.

    Args:
        images: folder of training images, or of all images when no test folder is given.
        masks: folder of their index masks.
        test_images: folder of test images.
        test_masks: folder of their masks.
        train: whole number or share (a float below 1, rounded, at least one) of ``images`` to
            train on, drawn by ``seed``. By default all of them when a test folder is given, else
            half. What is left is the test set, unless a test folder is given.
        seed: of the draw.
        ignore: ids in the masks, 0..255, that stand for "not labelled", in training and test;
            they become 255.
        name: of the unit. What `synthaug.gain.compare` draws depends on it, so it is no folder's:
            data that moves stays what it is. Several units of one comparison need names of their
            own.

    Returns:
        A unit of kind ``images``.

    Raises:
        InputError: a folder is missing or empty, an image has no mask or shares its stem with
            another, the split leaves no test image, training and test folder are the same, an
            ignored id is out of range, a training pair is refused by `read_pair` or a mask by
            `read_mask`, two masks' palettes give an id two colours, or the training masks hold
            fewer than two classes.

    Warns:
        UserWarning: the test masks hold classes that no training mask has, or lack one that
            training masks have, some masks look binary and others do not, or masks have no image.
    """
    if (test_images is None) != (test_masks is None):
        raise InputError("a test set needs both its folders: give test images and test masks")
    paths = list(match_pairs(images, masks))
    labels = _Labels([mask for _, mask in paths], ignore)
    if test_images is None or test_masks is None:
        count = _count(0.5 if train is None else train, len(paths))
        if count >= len(paths):
            raise InputError(
                f"{images} holds {len(paths)} images, {count} to train on leave none to test: "
                "train on fewer or name a test folder"
            )
        training, test = _draw(paths, count, seed, labels, least=2)
    else:
        if Path(test_images).resolve() == Path(images).resolve():
            raise InputError(
                f"{images} is both training and test folder: leave the test folder out and say "
                "how many images to train on"
            )
        count = len(paths) if train is None else _count(train, len(paths))
        if count > len(paths):
            raise InputError(f"{images} holds {len(paths)} images, not {count}: train on fewer")
        training = paths
        if count < len(paths):
            training, _ = _draw(paths, count, seed, labels, least=1)
        test = list(match_pairs(test_images, test_masks))
    for folder in dict.fromkeys((Path(masks), Path(test_masks or masks))):
        warn_of_lone_masks(folder, (mask for _, mask in (*paths, *test)))
    samples = LazyPairs(training, labels.read_pair)
    classes = ClassMap.from_masks((sample.mask for sample in samples), str(masks))
    warn_of_others(classes, set[int]().union(*(labels.ids(mask) for _, mask in test)))
    tests = LazyPairs(test, labels.read_pair)
    return Unit(name, samples, tests, classes, "images", labels.white_is_object)


def _count(train: int | float, available: int) -> int:
    if isinstance(train, float) and 0 < train < 1:
        return max(1, round(train * available))
    if train < 1 or not float(train).is_integer():
        raise InputError(
            f"cannot train on {train} of {available} images: give a whole number or a share "
            "between 0 and 1"
        )
    return int(train)


class _Labels:
    """Reads masks in which some ids stand for "not labelled", and the white of binary ones for 1.

    Args:
        masks: all that a split may train on.
        ignore: ids that stand for "not labelled".
    """

    def __init__(self, masks: Sequence[Path], ignore: Sequence[int]) -> None:
        ignore_table(ignore)  # refuses what is no id before files are read
        self._colours: Colours = {}
        self._raw = {mask: self._read(mask) for mask in masks}
        self._table = meaning_table({mask.name: ids for mask, ids in self._raw.items()}, ignore)
        self.white_is_object = white_is_object(self._table)

    def read_pair(self, image: Path, mask: Path, sample_id: str) -> Sample:
        """Read a pair; what is ignored is 255."""
        sample = read_pair(image, mask, sample_id)
        return replace(sample, mask=self._table[sample.mask])

    def ids(self, mask: Path) -> frozenset[int]:
        """Labelled ids of a mask; it is read once."""
        if mask not in self._raw:
            self._raw[mask] = self._read(mask)
        return frozenset(self._table[list(self._raw[mask])].tolist()) - {IGNORE_ID}

    def _read(self, mask: Path) -> frozenset[int]:
        return frozenset(np.unique(read_mask(mask, self._colours)).tolist())


def _draw(
    paths: list[PathPair], count: int, seed: int, labels: _Labels, *, least: int
) -> tuple[list[PathPair], list[PathPair]]:
    """Split into ``count`` drawn pairs and the others, both in the order of ``paths``.

    The drawn pairs show the classes that ``least`` pairs or more have, as `read_split` says.
    """
    shown = [labels.ids(mask) for _, mask in paths]
    frequency = Counter(value for ids in shown for value in ids)
    missing = {value for value, images in frequency.items() if images >= least}
    rest = numpy_stream(seed, "split").permutation(len(paths)).tolist()
    chosen: set[int] = set()
    while missing and len(chosen) < count:
        best = max(rest, key=lambda index: len(shown[index] & missing))  # the first of equals
        rest.remove(best)
        chosen.add(best)
        missing -= shown[best]
    chosen.update(rest[: count - len(chosen)])
    return (
        [path for i, path in enumerate(paths) if i in chosen],
        [path for i, path in enumerate(paths) if i not in chosen],
    )


def warn_of_others(classes: ClassMap, tested: Set[int], *, video: str = "") -> None:
    """Warn, in the name of the caller's caller, where training and test masks show other classes.

    Args:
        classes: of the training masks.
        tested: labelled ids of the test masks.
        video: its name, where its first mask is the only one to train on.

    Warns:
        UserWarning: of each kind of classes that there are.
    """
    head = f"video {video}: " if video else ""
    missing = [class_id for class_id in classes.ids if class_id not in tested]
    if missing:
        warnings.warn(
            f"{head}classes {missing} are in the training masks but in no test mask: nothing is "
            "known of them; do the test masks use the same ids?",
            UserWarning,
            stacklevel=3,
        )
    unknown = tested - {*classes.ids}
    if unknown:
        remedy = "train on more images, or on others (another seed)"
        if video:
            remedy = "to test them, too, remove the masks before the first that shows them"
        warnings.warn(
            f"{head}classes {sorted(unknown)} are in the test masks but in no training mask: their "
            f"pixels are not counted; {remedy}",
            UserWarning,
            stacklevel=3,
        )
