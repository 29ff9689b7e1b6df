"""Whether a source has learned from what it would be tested on, or from more than arms train on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from synthaug import files
from synthaug.bank import pictures_behind
from synthaug.errors import InputError
from synthaug.formats import folder
from synthaug.gain.keys import fingerprint
from synthaug.mixing.source import Source
from synthaug.sample import IGNORE_ID

if TYPE_CHECKING:
    from synthaug.formats.splits import Unit

MOST_NAMES = 3
_learned: WeakKeyDictionary[Source, frozenset[str]] = WeakKeyDictionary()


def trained_on(unit: Unit) -> list[str]:
    """Return the ids of test pictures that are among the training pictures, pixel by pixel."""
    found = fingerprint(unit)
    own = {key for key, _ in found.training}
    return [name for key, name in found.test if key in own]


def named(ids: Sequence[str]) -> str:
    """Return the first few ids as text."""
    return ", ".join(ids[:MOST_NAMES]) + (", ..." if len(ids) > MOST_NAMES else "")


def refuse_leak(unit: Unit, source: Source) -> None:
    """Compare the pictures behind a source with the test pictures, pixel by pixel.

    Masks that it was given to paint are compared with the test masks likewise.

    Test pictures that the unit trains on itself do not count: they are not the source's fault.

    Args:
        unit: what is tested on.
        source: those of a folder without training pairs pass.

    Raises:
        InputError: some are the same.
    """
    found, repeated = fingerprint(unit), set(trained_on(unit))
    tested = {key: name for key, name in (*found.test, *found.masks) if name not in repeated}
    if source not in _learned:
        _learned[source] = frozenset(pictures_behind(Path(source.path)))
    seen = sorted({tested[key] for key in _learned[source] & tested.keys()})
    if seen:
        raise InputError(
            f"{source.path} has learned from {len(seen)} of the {len(unit.test)} pictures that "
            f"{unit.name} is tested on ({named(seen)}): make it from the training pictures alone "
            "and name the test pictures with --test-images and --test-masks, or let synthaug run "
            "split them and make it"
        )


def more_labels(unit: Unit, path: str | Path) -> str:
    """Say that a source has learned from labels that a unit does not train on.

    Its pairs are compared with the training pictures by their pixels, and by their names, which
    they keep where ``fit`` resized them.

    Args:
        unit: what is trained on.
        path: a bank or generator.

    Returns:
        One line; empty where there are no such labels, or no pairs are kept.
    """
    keys, names = map(set, zip(*fingerprint(unit).training, strict=True))
    images, masks = (Path(path) / "pairs" / kind for kind in ("images", "masks"))
    count = 0
    for image, mask in folder.match_pairs(images, masks) if masks.is_dir() else ():
        if image.stem in names:
            continue
        pixels = folder.read_image(image)[0].tobytes()
        foreign = files.sha256_bytes(pixels) not in keys
        count += foreign and bool((folder.read_mask(mask) != IGNORE_ID).any())
    if not count:
        return ""
    return (
        f"{path} has learned from {count} labelled picture(s) that no arm of {unit.name} trains "
        "on: its gain may be that of more labels"
    )
