"""GENERATE: a fitted generator's folder -> a bank of image+mask pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import nn

from synthaug import files, gans
from synthaug.bank import FORMAT as BANK_FORMAT
from synthaug.bank import GENERATOR_FORMAT as FORMAT
from synthaug.bank import Bank, write_bank
from synthaug.composing import Composer, is_composition
from synthaug.config import Accelerator, GenerateConfig, make, versions
from synthaug.errors import InputError
from synthaug.filtering import filter_bank
from synthaug.gans.contract import GAN, PairBatch
from synthaug.generator_folder import GeneratorFolder, read_verified
from synthaug.rendering import PatchGenerator, PatchRenderer, is_patch_generator
from synthaug.sample import IGNORE_ID, ClassMap, Sample
from synthaug.seeding import derive_seed

INSTANCES = "instances.json"
RENDERED_TOGETHER = 8


class Generator(GeneratorFolder):
    """A fitted generator, opened for sampling only.

    Args:
        path: folder that ``fit`` wrote.
        accelerator: ``auto`` takes CUDA where it is there.

    Raises:
        InputError: the folder is no generator, or a file of it is missing or damaged.
    """

    def __init__(self, path: str | Path, *, accelerator: Accelerator = "cpu") -> None:
        super().__init__(path)
        self._device = _device(accelerator)
        self._gan = gans.build(self.manifest["gan"])
        self._load_snapshot()
        self._gan.eval().requires_grad_(False)
        self._network = self._gan.generator.to(self._device)
        self._network.to(memory_format=torch.channels_last)

    def sample(self, seed: int) -> Sample:
        """Draw the sample of a latent seed; the same seed gives the same bits.

        Args:
            seed: seeds the latent z ~ N(0, I).

        Returns:
            A pair at the training pair's size, (H, W); mask ids as in the training mask.
        """
        classes = self.classes if self.classes.ids else None
        return self.draw(self._gan, self._network, seed, self.size, classes, self.grey)

    @staticmethod
    def draw(
        gan: GAN,
        network: nn.Module,
        seed: int,
        size: tuple[int, int],
        classes: ClassMap | None,
        grey: bool,
    ) -> Sample:
        """Draw one sample of any network that generates for ``gan``; see `sample`."""
        device = next(network.parameters()).device
        stream = torch.Generator().manual_seed(seed)
        with torch.inference_mode():
            pair: PairBatch = gan.render(network(gan.latent(1, stream).to(device)))
            image = _finish_image(pair.images[0], size, grey)
            mask = _finish_mask(pair.mask, size, classes)
        return Sample(image, mask, f"z{seed}", grey)

    def _load_snapshot(self) -> None:
        path = self.path / self.manifest["snapshot"]
        data = read_verified(path, self.hash)
        try:
            self._gan.generator.load_state_dict(load_safetensors(data), strict=True)
        except (SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"snapshot {path} does not fit this version of synthaug ({reason}): fit again"
            ) from error


def _finish_image(image: torch.Tensor, size: tuple[int, int], grey: bool) -> NDArray[np.uint8]:
    """(1, 3, h, w) in [-1, 1] -> (H, W, 3) uint8 by bicubic resampling."""
    value = ((image[0].float() + 1) * 127.5).permute(1, 2, 0).contiguous().cpu().numpy()
    height, width = size
    if value.shape[:2] != size:
        value = cv2.resize(value, (width, height), interpolation=cv2.INTER_CUBIC)
    if grey:
        value = np.repeat(value.mean(axis=2, keepdims=True), 3, axis=2)
    rounded: NDArray[np.uint8] = np.rint(value).clip(0, 255).astype(np.uint8)
    return rounded


def _finish_mask(
    mask: torch.Tensor | None, size: tuple[int, int], classes: ClassMap | None
) -> NDArray[np.uint8]:
    """(1, N, h, w) probabilities -> (H, W) ids; resized before the argmax, for smooth edges."""
    if mask is None or classes is None:
        return np.full(size, IGNORE_ID, np.uint8)
    if mask.shape[-2:] != size:
        mask = F.interpolate(mask.float(), size, mode="bilinear", align_corners=False)
    index: NDArray[np.int64] = mask[0].float().cpu().numpy().argmax(axis=0)
    return classes.decode(index)


def load_generator(
    path: str | Path, *, accelerator: Accelerator = "cpu"
) -> Generator | Composer | PatchGenerator:
    """Open the folder that ``fit`` wrote.

    Args:
        path: the folder.
        accelerator: where to compute; compositions are made on the CPU.

    Returns:
        A `Composer` where the preset was ``compose``, a `PatchGenerator` where it was ``patch``,
        else a `Generator`.

    Raises:
        InputError: the folder is no generator, or a file of it is missing or damaged.
    """
    manifest = files.read_json(Path(path) / "manifest.json", "generator manifest")
    if is_composition(manifest):
        return Composer(path)
    if is_patch_generator(manifest):
        return PatchGenerator(path, device=_device(accelerator))
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
    device = _device(accelerator)
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


def _device(accelerator: Accelerator) -> torch.device:
    if accelerator == "mps":
        available = torch.backends.mps.is_available()
    else:
        available = torch.cuda.is_available()
    if accelerator == "cpu" or (accelerator == "auto" and not available):
        return torch.device("cpu")
    if not available:
        raise InputError(f"no {accelerator} device here: use --accelerator cpu or auto")
    return torch.device("mps" if accelerator == "mps" else "cuda")
