"""The folders of presets that train nothing: parts to compose, or patches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from synthaug import files
from synthaug.bank import GENERATOR_FORMAT, Bank
from synthaug.composing import Composer
from synthaug.composing.cutting import (
    MAX_OBJECTS,
    count_movable,
    generated_backgrounds,
    harvest,
    is_scene,
    take_apart,
    why_none_moves,
)
from synthaug.composing.parts import PARTS, Cutout, write_parts
from synthaug.config import FitConfig
from synthaug.errors import InputError
from synthaug.fitting.fit_folder import GRID_SAMPLES, FitFolder, manifest_header
from synthaug.formats import folder
from synthaug.rendering import PatchGenerator
from synthaug.rendering.generator import write_settings
from synthaug.sample import ClassMap, Sample
from synthaug.seeding import derive_seed


def write_composition(
    path: Path,
    pairs: Sequence[Sample],
    classes: ClassMap,
    config: FitConfig,
    *,
    overwrite: bool,
    progress: Callable[[int, int], None] | None,
    originals: Iterable[str] = (),
    white_is_object: bool = False,
) -> str:
    """Write the folder of the preset ``compose``; it appears when all of it is written.

    Args:
        path: the folder.
        pairs: P pairs of one size.
        classes: their classes.
        config: seed, flip and the options of ``compose``.
        overwrite: replace an earlier output.
        progress: called with (pairs done, P).
        originals: see `manifest_header`.
        white_is_object: likewise.

    Returns:
        Words on what was found.

    Raises:
        InputError: an output folder in use, a full disk (nothing is left behind), or a bank of
            objects that does not fit the pairs.
    """
    size = pairs[0].size
    bank = None if config.objects is None else _object_bank(config.objects, size, classes)
    shift = config.shift
    if shift == "auto":
        shift = "near" if any(is_scene(pair.mask, classes) for pair in pairs) else "both"
    gan: dict[str, Any] = {
        "name": "compose",
        "flip": config.flip,
        "shift": shift,
        "enlarge": config.enlarge,
        "generated_share": config.generated_share,
        "background_share": config.background_share,
    }
    with files.new_directory(path, overwrite=overwrite, becomes=GENERATOR_FORMAT) as staging:
        lines = [{"id": p.id, **folder.write_pair(staging / "pairs", p.id, p)} for p in pairs]
        backgrounds, cutouts = take_apart(pairs, classes, progress)
        gan["copies"] = _copies(cutouts) if config.copies is None else config.copies
        words = f"{len(cutouts)} movable object(s)"
        if len(cutouts) >= MAX_OBJECTS:  # perhaps more than a picture's share
            count = sum(count_movable(pair.mask, classes) for pair in pairs)
            if count > len(cutouts):
                words = (
                    f"{len(cutouts)} of {count} movable objects (the others stay where they are)"
                )
        if not cutouts:
            words += ": beware, every sample will show the picture without its objects, or as it "
            words += f"is ({why_none_moves(pairs, classes)})"
        if bank is not None:
            generated = harvest(bank, classes, cutouts)
            words += f" and {len(generated)} clean one(s) of {bank.path}"
            cutouts += generated
            if config.background_share > 0:
                backgrounds += generated_backgrounds(bank, classes)
        header = manifest_header(
            gan, classes, lines, pairs[0], asdict(config), "32-true", originals, white_is_object
        )
        digest = write_parts(staging, backgrounds, cutouts)
        parts = {"snapshot": PARTS, "snapshot_sha256": digest}
        files.write_json(staging / "manifest.json", {**header, **parts})
        seeds = [derive_seed(config.seed, "grid", index) for index in range(GRID_SAMPLES)]
        shown = [pairs[0], *Composer(staging).samples(seeds)]
        FitFolder(staging).write_grid([(s.image, s.mask) for s in shown], 0)
    return words


def _copies(cutouts: Sequence[Cutout]) -> int:
    """How many objects may be pasted once more: none where every picture shows a single one."""
    shown = Counter(cutout.background for cutout in cutouts)
    return 2 if max(shown.values(), default=0) > 1 else 0


def write_patches(
    path: Path,
    pairs: Sequence[Sample],
    classes: ClassMap | None,
    config: FitConfig,
    *,
    overwrite: bool,
    originals: Iterable[str] = (),
    white_is_object: bool = False,
) -> None:
    """Write the folder of the preset ``patch``; it appears when all of it is written.

    Args:
        path: the folder.
        pairs: P pairs of one size.
        classes: their classes; None for pictures without masks.
        config: seed and flip.
        overwrite: replace an earlier output.
        originals: see `manifest_header`.
        white_is_object: likewise.

    Raises:
        InputError: an output folder in use, a full disk (nothing is left behind), or pairs too
            small to copy patches from.
    """
    gan = {"name": "patch", "flip": config.flip}
    with files.new_directory(path, overwrite=overwrite, becomes=GENERATOR_FORMAT) as staging:
        lines = [{"id": p.id, **folder.write_pair(staging / "pairs", p.id, p)} for p in pairs]
        header = manifest_header(
            gan, classes, lines, pairs[0], asdict(config), "32-true", originals, white_is_object
        )
        settings = write_settings(staging, {**gan, "seed": config.seed, "pairs": lines})
        files.write_json(staging / "manifest.json", {**header, **settings})
        seeds = [derive_seed(config.seed, "grid", index) for index in range(GRID_SAMPLES)]
        shown = [pairs[0], *PatchGenerator(staging).samples(seeds)]
        FitFolder(staging).write_grid([(s.image, s.mask) for s in shown], 0)


def _object_bank(objects: str, size: tuple[int, int], classes: ClassMap) -> Bank:
    bank = Bank(objects)
    if not set(bank.classes.ids) <= set(classes.ids):
        raise InputError(
            f"bank {objects} has classes {list(bank.classes.ids)} but the masks have "
            f"{list(classes.ids)}: take a bank made from these pairs"
        )
    classes.refuse_swapped(bank.classes, f"bank {objects}")
    if len(bank) and bank[0].size != size:
        height, width = bank[0].size
        raise InputError(
            f"bank {objects} holds pictures of {width}x{height} px but the pairs have "
            f"{size[1]}x{size[0]}: take a bank made from these pairs"
        )
    return bank
