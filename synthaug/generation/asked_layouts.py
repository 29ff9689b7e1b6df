"""Which label maps a painter is given: what ``layouts`` and ``rare`` of `generate` stand for."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from synthaug import files
from synthaug.bank import FORMAT as BANK_FORMAT
from synthaug.bank import GENERATOR_FORMAT as FORMAT
from synthaug.bank import Bank, mask_key
from synthaug.config import GenerateConfig
from synthaug.errors import InputError
from synthaug.formats import coco, folder
from synthaug.generation.layouts import Kind, Layouts, Objects, Outline
from synthaug.generation.map_generator import MapGenerator
from synthaug.generation.opening import open_source
from synthaug.generator_folder import GeneratorFolder
from synthaug.sample import (
    IGNORE_ID,
    ClassMap,
    Sample,
    ignore_table,
    resize_mask,
    size_kept,
    size_within,
)

OWN_LAYOUTS = (None, "edited", "moved")
"""Layouts that are made of the training masks; others are paths."""
LEAST_MATCH = 0.2
"""Share of a category's pixels that has its id in the training masks, at least."""


def from_layouts(
    source: GeneratorFolder, config: GenerateConfig
) -> tuple[Callable[[int], Sample], dict[str, Any], set[str]]:
    """Return what paints a seed's layout, what the manifest says of it, and `mask_key` of masks.

    Raises:
        InputError: the source paints no masks, nothing is at the path, or the maps or classes do
            not fit the source.
    """
    if not isinstance(source, MapGenerator):
        raise InputError(
            f"{source.path} paints no masks, so that layouts and rare classes cannot be asked for: "
            "fit with --generator oasis"
        )
    name, painter = config.layouts, source
    share, keep = config.labelmix, [source.classes.find(name) for name in config.keep]
    options = {"rare": config.rare, "flip": source.manifest["config"].get("flip", True)}
    if name in OWN_LAYOUTS:
        painter.require_training_masks()
        maps = [pair.mask for pair in painter.pairs]
        layouts = Layouts(maps, painter.classes, kind=cast("Kind", name or "given"), **options)
        digest, keys = painter.pairs_hash, set[str]()
    else:
        assert name is not None
        layouts, digest, keys = _layouts_at(Path(name), painter, options)
    record = {
        "from": name or "training masks",
        "sha256": digest,
        "shares": {str(class_id): share for class_id, share in layouts.shares.items()},
    }

    def draw(seed: int) -> Sample:
        mask, origin = layouts.layout_and_origin(seed)
        if not share and not keep:
            return painter.paint(mask, seed)
        assert origin is not None
        return painter.mix(painter.pairs[origin], seed, share, keep=keep, mask=mask)

    return draw, record, keys


def _layouts_at(
    path: Path, painter: MapGenerator, options: dict[str, Any]
) -> tuple[Layouts, str, set[str]]:
    """Return a path's layouts, the SHA-256 of what is there, and `mask_key` of a folder's masks."""
    classes = painter.classes
    if path.is_file():
        painter.require_training_masks()
        objects = _objects_of(path, painter)
        maps = [pair.mask for pair in painter.pairs]
        layouts = Layouts(maps, classes, kind="moved", objects=objects, **options)
        return layouts, files.sha256_file(path), set()
    if not path.is_dir():
        raise InputError(
            f"no layouts at {path}: use edited, moved, a COCO file, or a folder of masks, a bank "
            "or a generator"
        )

    def fitted(mask: NDArray[np.uint8], where: str) -> NDArray[np.uint8]:
        painter.check_ids(mask, where)
        height, width = painter.size
        mask = _cropped(mask, height / width)
        return np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT))

    manifest = path / "manifest.json"
    written = files.read_json(manifest, "manifest") if manifest.is_file() else {}
    if isinstance(written, dict) and written.get("format") in (BANK_FORMAT, FORMAT):
        opened = open_source(path)
        classes.refuse_swapped(opened.classes, str(path))
        ignored = ignore_table(painter.manifest["config"].get("ignore", ()))  # 255 is unlabelled
        if isinstance(opened, Bank):
            maps = [fitted(ignored[sample.mask], f"bank {path}") for sample in opened]
            return Layouts(maps, classes, kind="given", **options), opened.content_hash, set()
        endless = Layouts(
            lambda seed: fitted(ignored[opened.sample(seed).mask], f"generator {path}"),
            classes,
            kind="given",
            **options,
        )
        return endless, opened.hash, set()
    paths = folder.list_images(path, "masks")
    colours: folder.Colours = {}
    masks = painter.meanings([folder.read_mask(file, colours) for file in paths])
    maps = [fitted(mask, f"mask {file}") for mask, file in zip(masks, paths, strict=True)]
    digest = files.sha256_bytes("".join(files.sha256_file(file) for file in paths).encode())
    keys = {mask_key(mask) for mask in masks}
    return Layouts(maps, classes, kind="given", **options), digest, keys


def _cropped(mask: NDArray[np.uint8], aspect: float) -> NDArray[np.uint8]:
    """The middle of a mask with height / width near ``aspect``."""
    height, width = mask.shape
    tall, wide = size_within((height, width), aspect)
    top, left = (height - tall) // 2, (width - wide) // 2
    return mask[top : top + tall, left : left + wide]


def _objects_of(path: Path, painter: MapGenerator) -> list[Objects]:
    """Read the objects of the training pairs from a COCO file that names their pictures."""
    known = set(painter.classes.ids)
    by_stem = {_stem(f"{pair.id}.png"): pair for pair in painter.pairs}
    objects: dict[str, list[tuple[int, Outline]]] = {}
    shown = {class_id: np.zeros(256, int) for class_id in known}
    for file_name, found in coco.read_objects(path, lambda name: _stem(name) in by_stem):
        stem = _stem(file_name)
        if stem in objects:
            raise InputError(
                f"{path} names two pictures {stem}: leave in that of the training pictures alone"
            )
        objects[stem] = []
        for class_id, flags in found:
            if class_id not in known:
                raise InputError(
                    f"{path} holds category id {class_id} that {painter.path} was not fitted to: "
                    f"known are {sorted(known)}"
                )
            flags = _as_fitted(flags, painter, f"{path} says that {file_name}")
            shown[class_id] += np.bincount(by_stem[stem].mask[flags], minlength=256)
            objects[stem].append((class_id, Outline.of(flags)))
    if not objects:
        raise InputError(
            f"{path} names none of the training pictures of {painter.path}: their names without "
            "suffix must be the same"
        )
    _check_categories(path, painter.classes, shown)
    if len(objects) < len(by_stem):
        warnings.warn(
            f"{path} names {len(objects)} of {len(by_stem)} training pictures: no object is taken "
            "from the others",
            UserWarning,
            stacklevel=2,
        )
    return [objects.get(stem, []) for stem in by_stem]


def _stem(file_name: str) -> str:
    return folder.plain_stem(PureWindowsPath(file_name))


def _as_fitted(flags: NDArray[np.bool_], painter: MapGenerator, where: str) -> NDArray[np.bool_]:
    """Bring an object (H, W) to the size of the training pictures as fit did."""
    height, width = size = painter.pairs[0].size
    if flags.shape == size:
        return flags
    said = f"{where} is {flags.shape[1]}x{flags.shape[0]} px, but the training picture "
    how = painter.manifest["config"].get("resize")
    if how is None:
        raise InputError(f"{said}is {width}x{height}: export it for these pictures")
    if how == "crop" and size_kept(flags.shape, height / width) != flags.shape:
        raise InputError(
            f"{said}is a part of it, cut to {width}x{height} as --resize asked: leave it out of "
            "this file, or use --layouts moved"
        )
    return resize_mask(flags.astype(np.uint8), size) > 0


def _check_categories(path: Path, classes: ClassMap, shown: dict[int, NDArray[np.integer]]) -> None:
    """Refuse categories whose objects lie on other classes of the training masks.

    Args:
        path: the COCO file.
        classes: of the masks.
        shown: how many pixels of each category (256,) have each id in the masks.
    """
    for class_id, pixels in shown.items():
        labelled = pixels[:IGNORE_ID]
        if labelled[class_id] < LEAST_MATCH * labelled.sum():
            most = int(labelled.argmax())
            name = classes.names[classes.ids.index(most)]
            raise InputError(
                f"category {class_id} of {path} lies on class {most} ({name}) of the training "
                "masks: renumber the categories as the masks"
            )
