"""GENERATE: a fitted generator's folder -> a bank of image+mask pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from synthaug import files
from synthaug.bank import FORMAT as BANK_FORMAT
from synthaug.bank import GENERATOR_FORMAT as FORMAT
from synthaug.bank import Bank, write_bank
from synthaug.composing import Composer
from synthaug.config import Accelerator, GenerateConfig, make, versions
from synthaug.errors import InputError
from synthaug.filtering import filter_bank
from synthaug.generator import Generator, pick_device
from synthaug.generator_folder import GeneratorFolder
from synthaug.map_generator import MapGenerator
from synthaug.rendering import PatchGenerator, PatchRenderer
from synthaug.sample import Sample
from synthaug.seeding import derive_seed

INSTANCES = "instances.json"
RENDERED_TOGETHER = 8


def load_generator(
    path: str | Path, *, accelerator: Accelerator = "cpu"
) -> Generator | Composer | PatchGenerator:
    """Open the folder that ``fit`` wrote.

    Args:
        path: the folder.
        accelerator: where to compute; compositions are made on the CPU.

    Returns:
        A `Composer` where the preset was ``compose``, a `PatchGenerator` where it was ``patch``,
        a `MapGenerator` where the GAN paints masks, else a `Generator`.

    Raises:
        InputError: the folder is no generator, or a file of it is missing or damaged.
    """
    manifest = files.read_json(Path(path) / "manifest.json", "generator manifest")
    if Composer.draws(manifest):
        return Composer(path)
    if PatchGenerator.draws(manifest):
        return PatchGenerator(path, device=pick_device(accelerator))
    if MapGenerator.draws(manifest):
        return MapGenerator(path, accelerator=accelerator)
    return Generator(path, accelerator=accelerator)


def open_source(path: str | Path) -> Bank | Generator | Composer | PatchGenerator:
    """Open a folder of samples, whichever kind its manifest says it is.

    Raises:
        InputError: the folder is neither a bank nor a generator, or is damaged.
    """
    manifest = files.read_json(Path(path) / "manifest.json", "bank or generator manifest")
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
) -> Bank:
    """Draw a bank of samples; the folder appears when all of it, scores included, is written.

    Args:
        source: folder that ``fit`` wrote, or the generator opened.
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
        },
    )
    files.check_output_folder(out, overwrite=overwrite)
    if not isinstance(source, GeneratorFolder):
        source = load_generator(source, accelerator=config.accelerator)
    if source.path.resolve().is_relative_to(Path(out).resolve()):
        raise InputError(f"{out} holds the generator: choose another folder for the bank")
    if config.filter is not None and not source.classes.ids:
        raise InputError(
            f"{source.path} draws images without masks and the filter judges pairs: leave it out"
        )
    source_hash = _source_hash(source.manifest["pairs"])
    manifest = {
        "config": asdict(config),
        "seed": config.seed,
        "generator": {"path": str(source.path), "sha256": source.hash, **source.manifest["gan"]},
        "sources": source.manifest["pairs"],
        "source_sha256": source_hash,
        "size": list(source.size),
        "grey": source.grey,
        "versions": versions(),
    }

    seeds = [derive_seed(config.seed, "latent", index) for index in range(config.n)]
    renderer = None if config.render is None else _renderer(source, config.accelerator)

    def draw() -> Iterator[tuple[Sample, dict[str, Any]]]:
        for index, sample in enumerate(_samples(source, seeds, renderer)):
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
    source: GeneratorFolder, seeds: Sequence[int], renderer: PatchRenderer | None
) -> Iterator[Sample]:
    if renderer is None:
        yield from map(source.sample, seeds)
        return
    for start in range(0, len(seeds), RENDERED_TOGETHER):
        yield from renderer.render(source.samples(seeds[start : start + RENDERED_TOGETHER]))


def write_coco(bank: Bank) -> Path:
    """Write the bank's kept samples as COCO instances and return the file's path."""
    from synthaug.formats.coco import write_instances

    path = bank.path / INSTANCES
    write_instances(bank, bank.classes, path)
    return path


def _source_hash(pairs: Sequence[dict[str, Any]]) -> str:
    """One SHA-256 over the hashes of the training pairs' files, in order."""
    text = "".join(pair["image_sha256"] + pair["mask_sha256"] for pair in pairs)
    return files.sha256_bytes(text.encode())
