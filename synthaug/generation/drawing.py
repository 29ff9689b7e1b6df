"""GENERATE: a fitted generator's folder -> a bank of image+mask pairs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from synthaug import files
from synthaug.bank import FORMAT as BANK_FORMAT
from synthaug.bank import Bank, pictures_behind, require_pairs, write_bank
from synthaug.config import Accelerator, GenerateConfig, make, versions
from synthaug.errors import InputError
from synthaug.filtering import filter_bank
from synthaug.formats import coco
from synthaug.generation.asked_layouts import OWN_LAYOUTS, from_layouts
from synthaug.generation.generator import pick_device
from synthaug.generation.map_generator import MapGenerator
from synthaug.generation.opening import load_generator
from synthaug.generator_folder import GeneratorFolder
from synthaug.rendering import PatchRenderer
from synthaug.sample import Sample, class_list
from synthaug.seeding import derive_seed

RENDERED_TOGETHER = 8


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
    rare: int | str | Sequence[int | str] = (),
    truncation: float = 1.0,
    labelmix: float = 0.0,
    keep: int | str | Sequence[int | str] = (),
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
        rare: classes, by id or name, that the masks shall show more often, or ``"auto"``.
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
            "rare": class_list(rare),
            "truncation": truncation,
            "labelmix": labelmix,
            "keep": class_list(keep),
        },
    )
    check_labelmix(config)
    if config.filter is None and config.drop != GenerateConfig().drop:
        raise InputError(f"drop={config.drop} goes with a filter: add one, or leave it out")
    made_from = source.path if isinstance(source, GeneratorFolder) else source
    files.check_output_folder(
        out, overwrite=overwrite, reads=(made_from, layouts), becomes=BANK_FORMAT
    )
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
    source_hash = source.pairs_hash
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
        draw_sample, manifest["layouts"], given = from_layouts(source, config)
        behind |= given
    elif config.labelmix or config.keep:
        draw_sample = _mixed(source, config)
    if config.layouts not in OWN_LAYOUTS:
        behind |= pictures_behind(Path(config.layouts))
    if behind:
        manifest["learned_from"] = sorted(behind)
    if source.manifest.get("white_is_object"):
        manifest["white_is_object"] = True
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

    with files.new_directory(out, overwrite=overwrite, becomes=BANK_FORMAT) as staging:
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


def write_coco(bank: Bank) -> Path:
    """Write the bank's kept samples as COCO instances and return the file's path."""
    path = Path(bank) / coco.INSTANCES
    coco.write_instances(bank, bank.classes, path)
    return path
