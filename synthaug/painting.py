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
from synthaug.generation import Generator, MapSegmenter, load_generator
from synthaug.generation.map_generator import MapGenerator, check_strip
from synthaug.generator_folder import GeneratorFolder
from synthaug.report.figures import grid
from synthaug.sample import Sample

FORMAT = "synthaug-versions-1"
MASKS_FORMAT = "synthaug-masks-1"
SHEET = "sheet.png"
SHEET_COLUMNS = 5


def edit(
    generator: str | Path,
    mask: str | Path | None,
    out: str | Path,
    n: int = 4,
    *,
    seed: int | None = None,
    per: Per = "image",
    resample: int | str | None = None,
    between: tuple[int, int] | None = None,
    truncation: float = 1.0,
    accelerator: Accelerator = "cpu",
    overwrite: bool = False,
) -> Path:
    """Paint a mask in several versions, or draw pictures between two seeds where none is painted.

    See `MapGenerator.versions` and `MapGenerator.between`, and for a generator that paints no masks
    `Generator.interpolate`; masks that come with its pictures are left out.

    Writes ``version-000.png`` and so on, ``mask.png`` if there is one, ``sheet.png`` with the
    coloured mask before all versions (in one row between two seeds), and ``manifest.json``; the
    folder appears when all of it is written.

    Args:
        generator: folder that ``fit`` wrote.
        mask: index PNG of ids of the training masks, of any size; None for a generator that paints
            no masks.
        out: folder to write.
        n: number of pictures.
        seed: noise of the first; the next have the next numbers; None = 0.
        per: what gets a noise vector of its own: image, class, region or pixel.
        resample: class, by id or name, that alone gets other noise than the first picture.
        between: two seeds: go from one's noise to the other's instead.
        truncation: see `Generator`.
        accelerator: where to paint.
        overwrite: replace an earlier output.

    Returns:
        Path of the sheet.

    Raises:
        InputError: the mask is missing, unreadable or holds unknown ids, the class is unknown or
            not in the mask, n is too small, the output folder is in use, a seed is named beside two
            to go between, or something is asked of a generator that paints no masks that it has no
            use for.
    """
    if between is not None and seed is not None:
        raise InputError(f"seed {seed} has no use between two seeds: leave it out")
    files.check_output_folder(out, overwrite=overwrite, reads=(generator, mask), becomes=FORMAT)
    _check_number(n)
    opened = load_generator(generator, accelerator=accelerator, truncation=truncation)
    if not isinstance(opened, MapGenerator):
        if mask is not None or resample is not None or per != "image":
            raise InputError(
                f"{generator} does not paint masks: leave out the mask, and what goes with it"
            )
        strip = _strip(opened, between, n)
        drawn = {"between": between, "truncation": truncation}
        return _write_versions(Path(out), opened, strip, drawn, overwrite=overwrite)
    if mask is None:
        raise InputError(f"{generator} paints masks: name one after it")
    ids = opened.meaning(folder.read_mask(mask))
    opened.check_ids(ids, f"mask {mask}")
    if between is None:
        seed = seed or 0
        pictures = opened.versions(ids, n, seed=seed, per=per, resample=resample)
    else:
        pictures = opened.between(ids, between, n, per=per, resample=resample)
    settings = {"seed": seed, "per": per, "resample": resample, "between": between}
    return _write_versions(Path(out), opened, pictures, settings, ids, overwrite=overwrite)


def _strip(
    generator: GeneratorFolder, between: tuple[int, int] | None, n: int
) -> list[NDArray[np.uint8]]:
    """Draw pictures between two seeds."""
    if not isinstance(generator, Generator):
        raise InputError(f"{generator.path} has no latents: there is nothing between two seeds")
    if between is None:
        raise InputError(
            f"{generator.path} does not paint masks: name two seeds to go between, --between 0 1"
        )
    check_strip(n)
    return [sample.image for sample in generator.interpolate(*between, n)]


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
    files.check_output_folder(
        out, overwrite=overwrite, reads=(generator, images), becomes=MASKS_FORMAT
    )
    segmenter = MapSegmenter(generator, accelerator=accelerator)
    paths = folder.list_images(images) if Path(images).is_dir() else [Path(images)]
    with files.new_directory(out, overwrite=overwrite, becomes=MASKS_FORMAT) as staging:
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
    files.check_output_folder(out, overwrite=overwrite, reads=(generator, image), becomes=FORMAT)
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
        Path(out), painter, pictures, settings, mask, before=[picture], overwrite=overwrite
    )


def _check_number(n: int) -> None:
    if n < 1:
        raise InputError(f"cannot paint {n} versions: ask for 1 or more")


def _write_versions(
    out: Path,
    generator: GeneratorFolder,
    pictures: Sequence[NDArray[np.uint8]],
    settings: dict[str, Any],
    mask: NDArray[np.uint8] | None = None,
    *,
    before: Sequence[NDArray[np.uint8]] = (),
    overwrite: bool,
) -> Path:
    """Write the versions of a mask, or pictures without one, and their sheet.

    Args:
        out: the folder.
        generator: what made them.
        pictures: (H, W, 3) each.
        settings: what the manifest says about them.
        mask: (H, W) ids, if they were painted from one.
        before: (H, W, 3) pictures that begin the sheet.
        overwrite: replace an earlier output.

    Returns:
        Path of the sheet.
    """
    blank = np.zeros(pictures[0].shape[:2], np.uint8) if mask is None else mask
    tiles = [*before, *([] if mask is None else [folder.palette()[mask]]), *pictures]
    with files.new_directory(out, overwrite=overwrite, becomes=FORMAT) as staging:
        for number, picture in enumerate(pictures):
            sample = Sample(picture, blank, grey=generator.grey)
            name = f"version-{number:03d}.png"
            files.write_bytes(staging / name, folder.image_png(sample))
        painted = {}
        if mask is not None:
            painted["mask_sha256"] = files.sha256_bytes(folder.mask_png(mask))
            files.write_bytes(staging / "mask.png", folder.mask_png(mask))
        columns = SHEET_COLUMNS if settings.get("between") is None else len(tiles)
        sheet = Sample(grid(tiles, min(len(tiles), columns)), blank)
        files.write_bytes(staging / SHEET, folder.image_png(sheet))
        files.write_json(
            staging / "manifest.json",
            {
                "format": FORMAT,
                "generator": {"path": str(generator.path), "sha256": generator.hash},
                **painted,
                "n": len(pictures),
                **settings,
                "versions": versions(),
            },
        )
    return out / SHEET
