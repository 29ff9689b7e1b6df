"""PAINT: a mask or a picture in a file -> a folder of painted versions, or of predicted masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthaug import files
from synthaug.config import Accelerator, versions
from synthaug.errors import InputError
from synthaug.formats import folder
from synthaug.gans.oasis.noise import Per
from synthaug.map_generator import MapGenerator
from synthaug.map_segmenter import MapSegmenter
from synthaug.report.figures import grid
from synthaug.sample import Sample

FORMAT = "synthaug-versions-1"
MASKS_FORMAT = "synthaug-masks-1"
SHEET = "sheet.png"
SHEET_COLUMNS = 5


def edit(
    generator: str | Path,
    mask: str | Path,
    out: str | Path,
    n: int = 4,
    *,
    seed: int | None = None,
    per: Per = "image",
    resample: int | str | None = None,
    between: tuple[int, int] | None = None,
    accelerator: Accelerator = "cpu",
    overwrite: bool = False,
) -> Path:
    """Paint a mask in several versions; see `MapGenerator.versions` and `MapGenerator.between`.

    Writes ``version-000.png`` and so on, ``mask.png``, ``sheet.png`` with the coloured mask before
    all versions (in one row between two seeds), and ``manifest.json``; the folder appears when all
    of it is written.

    Args:
        generator: folder that ``fit`` wrote with a generator that paints masks.
        mask: index PNG of ids of the training masks, of any size.
        out: folder to write.
        n: number of pictures.
        seed: noise of the first; the next have the next numbers; None = 0.
        per: what gets a noise vector of its own: image, class, region or pixel.
        resample: class, by id or name, that alone gets other noise than the first picture.
        between: two seeds: go from one's noise to the other's instead.
        accelerator: where to paint.
        overwrite: replace an earlier output.

    Returns:
        Path of the sheet.

    Raises:
        InputError: the folder paints no masks, the mask is unreadable or holds unknown ids, the
            class is unknown or not in the mask, n is too small, the output folder is in use, or a
            seed is named beside two to go between.
    """
    if between is not None and seed is not None:
        raise InputError(f"seed {seed} has no use between two seeds: leave it out")
    files.check_output_folder(out, overwrite=overwrite, reads=(generator, mask))
    _check_number(n)
    painter = MapGenerator(generator, accelerator=accelerator)
    ids = painter.meaning(folder.read_mask(mask))
    painter.check_ids(ids, f"mask {mask}")
    if between is None:
        seed = seed or 0
        pictures = painter.versions(ids, n, seed=seed, per=per, resample=resample)
    else:
        pictures = painter.between(ids, between, n, per=per, resample=resample)
    settings = {"seed": seed, "per": per, "resample": resample, "between": between}
    return _write_versions(Path(out), painter, ids, pictures, settings, overwrite=overwrite)


def segment(
    generator: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    accelerator: Accelerator = "cpu",
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Label pictures with a generator's discriminator; see `MapSegmenter`.

    Writes ``STEM.png`` for every picture, an index PNG of ids of the training masks, and
    ``manifest.json``; the folder appears when all of it is written.

    Args:
        generator: folder that ``fit`` wrote with a generator that paints masks.
        images: a picture, or a folder of them.
        out: folder to write.
        accelerator: where to compute.
        overwrite: replace an earlier output.
        progress: called with (pictures done, pictures).

    Returns:
        ``out``.

    Raises:
        InputError: the folder holds no discriminator that segments, a picture is unreadable, two
            share their name, or the output folder is in use.
    """
    out = Path(out)
    files.check_output_folder(out, overwrite=overwrite, reads=(generator, images))
    segmenter = MapSegmenter(generator, accelerator=accelerator)
    paths = folder.list_images(images) if Path(images).is_dir() else [Path(images)]
    with files.new_directory(out, overwrite=overwrite) as staging:
        for number, path in enumerate(paths, start=1):
            mask = segmenter.segment(folder.read_image(path)[0])
            files.write_bytes(staging / f"{path.stem}.png", folder.mask_png(mask))
            if progress is not None:
                progress(number, len(paths))
        files.write_json(
            staging / "manifest.json",
            {
                "format": MASKS_FORMAT,
                "generator": {"path": str(segmenter.path), "discriminator_sha256": segmenter.hash},
                "images": str(images),
                "classes": asdict(segmenter.classes),
                "versions": versions(),
            },
        )
    return out


def recreate(
    generator: str | Path,
    image: str | Path,
    out: str | Path,
    n: int = 4,
    *,
    seed: int = 0,
    per: Per = "image",
    accelerator: Accelerator = "cpu",
    overwrite: bool = False,
) -> Path:
    """Label a picture with a generator's discriminator, and paint that label map anew.

    Writes what `edit` writes; the sheet begins with the picture and its predicted map.

    Args:
        generator: folder that ``fit`` wrote with a generator that paints masks.
        image: the unlabelled picture.
        out: folder to write.
        n: number of pictures.
        seed: noise of the first; the next have the next numbers.
        per: what gets a noise vector of its own: image, class, region or pixel.
        accelerator: where to compute.
        overwrite: replace an earlier output.

    Returns:
        Path of the sheet.

    Raises:
        InputError: as `edit` and `segment`.
    """
    files.check_output_folder(out, overwrite=overwrite, reads=(generator, image))
    _check_number(n)
    segmenter = MapSegmenter(generator, accelerator=accelerator)
    painter = MapGenerator(generator, accelerator=accelerator)
    picture, _ = folder.read_image(image)
    mask = segmenter.segment(picture)
    pictures = painter.versions(mask, n, seed=seed, per=per)
    settings = {
        "image": str(image),
        "image_sha256": files.sha256_file(image),
        "discriminator_sha256": segmenter.hash,
        "seed": seed,
        "per": per,
    }
    return _write_versions(
        Path(out), painter, mask, pictures, settings, before=[picture], overwrite=overwrite
    )


def _check_number(n: int) -> None:
    if n < 1:
        raise InputError(f"cannot paint {n} versions: ask for 1 or more")


def _write_versions(
    out: Path,
    painter: MapGenerator,
    mask: NDArray[np.uint8],
    pictures: Sequence[NDArray[np.uint8]],
    settings: dict[str, Any],
    *,
    before: Sequence[NDArray[np.uint8]] = (),
    overwrite: bool,
) -> Path:
    """Write the versions of a mask and their sheet.

    Args:
        out: the folder.
        painter: what painted them.
        mask: (H, W) ids.
        pictures: (H, W, 3) each.
        settings: what the manifest says about them.
        before: (H, W, 3) pictures that begin the sheet.
        overwrite: replace an earlier output.

    Returns:
        Path of the sheet.
    """
    with files.new_directory(out, overwrite=overwrite) as staging:
        for number, picture in enumerate(pictures):
            sample = Sample(picture, mask, grey=painter.grey)
            name = f"version-{number:03d}.png"
            files.write_bytes(staging / name, folder.image_png(sample))
        files.write_bytes(staging / "mask.png", folder.mask_png(mask))
        tiles = [*before, folder.palette()[mask], *pictures]
        columns = SHEET_COLUMNS if settings.get("between") is None else len(tiles)
        sheet = Sample(grid(tiles, min(len(tiles), columns)), mask)
        files.write_bytes(staging / SHEET, folder.image_png(sheet))
        files.write_json(
            staging / "manifest.json",
            {
                "format": FORMAT,
                "generator": {"path": str(painter.path), "sha256": painter.hash},
                "mask_sha256": files.sha256_bytes(folder.mask_png(mask)),
                "n": len(pictures),
                **settings,
                "versions": versions(),
            },
        )
    return out / SHEET
