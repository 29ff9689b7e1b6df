"""GENERATE: a fitted generator's folder -> a bank of image+mask pairs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from synthaug import files
from synthaug.bank import FORMAT as BANK_FORMAT
from synthaug.bank import GENERATOR_FORMAT as FORMAT
from synthaug.bank import (
    Bank,
    mask_key,
    pictures_behind,
    read_manifest,
    require_pairs,
    write_bank,
)
from synthaug.composing import Composer
from synthaug.config import Accelerator, GenerateConfig, make, versions
from synthaug.errors import InputError
from synthaug.filtering import filter_bank
from synthaug.formats import coco, folder
from synthaug.generation.generator import Generator, not_truncated, pick_device
from synthaug.generation.layouts import Kind, Layouts, Objects, Outline
from synthaug.generation.map_generator import MapGenerator
from synthaug.generator_folder import GeneratorFolder
from synthaug.rendering import PatchGenerator, PatchRenderer
from synthaug.sample import Sample, ignore_table, size_within
from synthaug.seeding import derive_seed

RENDERED_TOGETHER = 8
_OWN_LAYOUTS = (None, "edited", "moved")
"""Layouts that are made of the training masks; others are paths."""


def load_generator(
    path: str | Path, *, accelerator: Accelerator = "cpu", truncation: float = 1.0
) -> Generator | Composer | PatchGenerator:
    """Open the folder that ``fit`` wrote.

    Args:
        path: the folder.
        accelerator: where to compute; compositions are made on the CPU.
        truncation: see `Generator`.

    Returns:
        A `Composer` where the preset was ``compose``, a `PatchGenerator` where it was ``patch``,
        a `MapGenerator` where the GAN paints masks, else a `Generator`.

    Raises:
        InputError: the folder is no generator, or a file of it is missing or damaged; or it knows
            no truncation.
    """
    manifest = read_manifest(Path(path), "generator")
    opened: Generator | Composer | PatchGenerator
    if Composer.draws(manifest):
        opened = Composer(path)
    elif PatchGenerator.draws(manifest):
        opened = PatchGenerator(path, device=pick_device(accelerator))
    elif MapGenerator.draws(manifest):
        opened = MapGenerator(path, accelerator=accelerator)
    else:
        opened = Generator(path, accelerator=accelerator, truncation=truncation)
    if opened.truncation != truncation:
        raise not_truncated(opened.path)
    return opened


def open_source(path: str | Path) -> Bank | Generator | Composer | PatchGenerator:
    """Open a folder of samples, whichever kind its manifest says it is.

    Raises:
        InputError: the folder is neither a bank nor a generator, or is damaged.
    """
    manifest = read_manifest(Path(path), "bank or generator")
    kind = manifest.get("format") if isinstance(manifest, dict) else None
    if kind == BANK_FORMAT:
        return Bank(path)
    if kind == FORMAT:
        return load_generator(path)
    raise InputError(f"{path} is neither a bank nor a generator: its manifest.json says {kind!r}")


def generate(
    source: str | Path | GeneratorFolder,
    out: str | Path,
    n: int = 100,
    seed: int = 0,
    filter: Literal["sifid"] | None = None,  # noqa: A002
    drop: float = 0.15,
    coco: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    *,
    render: Literal["patches"] | None = None,
    accelerator: Accelerator = "auto",
    layouts: str | Path | None = None,
    rare: Sequence[int | str] = (),
    truncation: float = 1.0,
    labelmix: float = 0.0,
    keep: Sequence[int | str] = (),
) -> Bank:
    """Draw a bank of samples; the folder appears when all of it, scores included, is written.

    Args:
        source: folder that ``fit`` wrote, or ``convert`` of OASIS, or the generator opened.
        out: folder of the bank.
        n: number of samples, before the filter.
        seed: the latent seed of sample i is ``derive_seed(seed, "latent", i)``, so that a larger
            bank of the same seed begins with the same samples.
        filter: ``sifid`` scores every sample and drops the worst.
        drop: share to drop, in [0, 1).
        coco: also write the kept samples as COCO instances, ``instances.json``.
        overwrite: replace a bank that is already there.
        progress: called with (samples done, n), then likewise by the filter.
        render: ``patches`` makes every sample anew of the training pairs' patches, see
            `synthaug.rendering.PatchRenderer`.
        accelerator: where to compute, when ``source`` is a path.
        layouts: for a generator that paints masks: ``edited`` or ``moved`` training masks instead
            of these as they are, a COCO file of their objects to move, or the masks of a folder of
            index PNGs, of a bank or of a generator, their middle if they have another aspect; see
            `Layouts`.
        rare: classes, by id or name, that the masks shall show more often, or ``("auto",)``.
        truncation: see `Generator`; where ``source`` is one opened, its own counts.
        labelmix: for a generator that paints masks: probability with which a class keeps the pixels
            of the training picture, see `MapGenerator.mix`; of ``moved`` masks where they are as
            they were. See `check_labelmix` for what does not go with it.
        keep: likewise: classes, by id or name, that keep them in every sample.

    Returns:
        The bank; it shows the samples that the filter kept.

    Raises:
        InputError: an option out of range, a damaged generator, an output folder in use, or a
            full disk (nothing is left behind).
    """
    config = make(
        GenerateConfig,
        {
            "n": n,
            "seed": seed,
            "filter": filter,
            "drop": drop,
            "coco": coco,
            "render": render,
            "accelerator": accelerator,
            "layouts": None if layouts is None else os.fspath(layouts),
            "rare": tuple(rare),
            "truncation": truncation,
            "labelmix": labelmix,
            "keep": tuple(keep),
        },
    )
    check_labelmix(config)
    if config.filter is None and config.drop != GenerateConfig().drop:
        raise InputError(f"drop={config.drop} goes with a filter: add one, or leave it out")
    made_from = source.path if isinstance(source, GeneratorFolder) else source
    files.check_output_folder(out, overwrite=overwrite, reads=(made_from, layouts))
    if not isinstance(source, GeneratorFolder):
        source = load_generator(
            source, accelerator=config.accelerator, truncation=config.truncation
        )
    if config.truncation not in (1.0, source.truncation):
        raise InputError(
            f"truncation={config.truncation} goes with the path of a generator: open this one with "
            "it, or leave it out"
        )
    config = replace(config, truncation=source.truncation)
    if not source.classes.ids and (config.filter is not None or config.coco):
        what = "COCO tells of masks" if config.filter is None else "the filter judges pairs"
        raise InputError(f"{source.path} draws images without masks and {what}: leave it out")
    for option in ("filter", "render"):
        if getattr(config, option) is not None:
            require_pairs(source.path, source.pairs, f"leave out {option}, which needs them")
    source_hash = _source_hash(source.manifest["pairs"])
    manifest = {
        "config": asdict(config),
        "seed": config.seed,
        "generator": {**source.manifest["gan"], "path": str(source.path), "sha256": source.hash},
        "sources": source.manifest["pairs"],
        "source_sha256": source_hash,
        "size": list(source.size),
        "grey": source.grey,
        "versions": versions(),
    }
    draw_sample: Callable[[int], Sample] = source.sample
    behind = set(source.manifest.get("learned_from", ()))
    if config.layouts is not None or config.rare:
        draw_sample, manifest["layouts"], given = _from_layouts(source, config)
        behind |= given
    elif config.labelmix or config.keep:
        draw_sample = _mixed(source, config)
    if config.layouts not in _OWN_LAYOUTS:
        behind |= pictures_behind(Path(config.layouts))
    if behind:
        manifest["learned_from"] = sorted(behind)
    seeds = [derive_seed(config.seed, "latent", index) for index in range(config.n)]
    renderer = None if config.render is None else _renderer(source, config.accelerator)

    def draw() -> Iterator[tuple[Sample, dict[str, Any]]]:
        for index, sample in enumerate(_samples(draw_sample, seeds, renderer)):
            yield (
                sample,
                {
                    "latent_seed": seeds[index],
                    "generator_sha256": source.hash,
                    "source_sha256": source_hash,
                },
            )
            if progress is not None:
                progress(index + 1, config.n)

    with files.new_directory(out, overwrite=overwrite) as staging:
        bank = write_bank(staging, draw(), source.pairs, source.classes, manifest)
        if config.filter is not None:
            bank = filter_bank(bank, drop=config.drop, progress=progress)
        if config.coco:
            write_coco(bank)
    return Bank(out)


def _renderer(source: GeneratorFolder, accelerator: Accelerator) -> PatchRenderer:
    flip = source.manifest["config"].get("flip", True)
    device = pick_device(accelerator)
    return PatchRenderer(source.pairs, source.classes, flip=flip, device=device)


def _samples(
    draw: Callable[[int], Sample], seeds: Sequence[int], renderer: PatchRenderer | None
) -> Iterator[Sample]:
    if renderer is None:
        yield from map(draw, seeds)
        return
    for start in range(0, len(seeds), RENDERED_TOGETHER):
        together = seeds[start : start + RENDERED_TOGETHER]
        yield from renderer.render([draw(seed) for seed in together])


def check_labelmix(config: GenerateConfig, rule: str | None = None) -> None:
    """Refuse what does not go with LabelMix, whatever the generator.

    Args:
        config: how a bank is drawn.
        rule: by which it will be filtered.

    Raises:
        InputError: layouts of which there is no picture, rendering, or a filter.
    """
    name = config.layouts
    if not config.labelmix and not config.keep:
        return
    if name == "edited" or (name and Path(name).is_dir()):
        raise InputError(
            f"labelmix and keep keep pixels of training pictures, and of layouts {name} there are "
            "none: leave one of them out, or take moved layouts"
        )
    if config.render is not None:
        raise InputError(
            "labelmix and keep keep pixels, and render makes them all anew: leave one of them out"
        )
    if config.filter is not None or rule is not None:
        raise InputError(
            "the filter ranks samples by their likeness to the training pictures, which labelmix "
            "and keep give them: leave one of them out (in a recipe filter.rule: null)"
        )


def _mixed(source: GeneratorFolder, config: GenerateConfig) -> Callable[[int], Sample]:
    """Return what paints a seed's training pair anew, some classes kept."""
    if not isinstance(source, MapGenerator):
        raise InputError(
            f"{source.path} paints no masks, so that labelmix and keep have no use: fit with "
            "--generator oasis"
        )
    source.require_training_masks()
    share, keep = config.labelmix, [source.classes.find(name) for name in config.keep]
    return lambda seed: source.mix(source.training_pair(seed), seed, share, keep=keep)


def _from_layouts(
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
    if name in _OWN_LAYOUTS:
        painter.require_training_masks()
        maps = [pair.mask for pair in painter.pairs]
        layouts = Layouts(maps, painter.classes, kind=cast("Kind", name or "given"), **options)
        digest, keys = _source_hash(painter.manifest["pairs"]), set[str]()
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
    masks = painter.meanings([folder.read_mask(file) for file in paths])
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
    by_stem = {pair.id: pair for pair in painter.pairs}
    objects: dict[str, list[tuple[int, Outline]]] = {}
    for file_name, found in coco.read_objects(path, lambda name: Path(name).stem in by_stem):
        stem = Path(file_name).stem
        if stem in objects:
            raise InputError(
                f"{path} names two pictures {stem}: leave in that of the training pictures alone"
            )
        for class_id, flags in found:
            if class_id not in known:
                raise InputError(
                    f"{path} holds category id {class_id} that {painter.path} was not fitted to: "
                    f"known are {sorted(known)}"
                )
            if flags.shape != by_stem[stem].size:
                height, width = by_stem[stem].size
                raise InputError(
                    f"{path} says that {file_name} is {flags.shape[1]}x{flags.shape[0]} px, but "
                    f"the training picture is {width}x{height}: export it for these pictures"
                )
        objects[stem] = [(class_id, Outline.of(flags)) for class_id, flags in found]
    if not objects:
        raise InputError(
            f"{path} names none of the training pictures of {painter.path}: their names without "
            "suffix must be the same"
        )
    return [objects.get(pair.id, []) for pair in painter.pairs]


def write_coco(bank: Bank) -> Path:
    """Write the bank's kept samples as COCO instances and return the file's path."""
    path = Path(bank) / coco.INSTANCES
    coco.write_instances(bank, bank.classes, path)
    return path


def _source_hash(pairs: Sequence[dict[str, Any]]) -> str:
    """One SHA-256 over the hashes of the training pairs' files, in order."""
    text = "".join(pair["image_sha256"] + pair["mask_sha256"] for pair in pairs)
    return files.sha256_bytes(text.encode())
