"""Which kind of generator lies in a folder, and opening it."""

from __future__ import annotations

from pathlib import Path

from synthaug.bank import FORMAT as BANK_FORMAT
from synthaug.bank import GENERATOR_FORMAT as FORMAT
from synthaug.bank import Bank, read_manifest
from synthaug.composing import Composer
from synthaug.config import Accelerator
from synthaug.errors import InputError
from synthaug.generation.generator import Generator, not_truncated, pick_device
from synthaug.generation.map_generator import MapGenerator
from synthaug.rendering import PatchGenerator


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
