"""The folder that FIT writes: snapshot, parts or patches, checkpoint, metrics, grids, manifest."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save as save_safetensors
from torch import Tensor

from synthaug import files
from synthaug.bank import GENERATOR_FORMAT, Bank, pictures_behind, read_manifest
from synthaug.composing import Composer
from synthaug.composing.cutting import (
    generated_backgrounds,
    harvest,
    is_scene,
    take_apart,
    why_none_moves,
)
from synthaug.composing.parts import PARTS, write_parts
from synthaug.config import FitConfig, make, versions
from synthaug.errors import InputError
from synthaug.fitting.presets import UNTRAINED
from synthaug.formats import folder
from synthaug.generator_folder import check_manifest
from synthaug.rendering import PatchGenerator
from synthaug.rendering.generator import write_settings
from synthaug.sample import ClassMap, Sample, resize_image, resize_mask
from synthaug.seeding import derive_seed

CHECKPOINT = "checkpoint.pt"
BEGUN_FORMAT = "synthaug-begun-1"
"""Of the manifest until the first save: it says whose folder this is, should the fit be killed."""
GRID_SAMPLES = 15
LONGEST_TILE_PX = 512


class FitFolder:
    """Writes one fit's files, each atomically.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def create(self, pairs: Sequence[Sample], *, overwrite: bool) -> list[dict[str, str]]:
        """Empty the folder and begin it with a copy of the pairs; returns their manifest lines.

        Who has it `synthaug.files.claimed` is sure that no other process does the same.

        Raises:
            InputError: it holds something that may not be replaced, or the disk is full.
        """
        files.check_replaceable(self.path, overwrite=overwrite)
        files.clear_directory(self.path)
        with self.saved_or_emptied():
            files.write_json(self.path / "manifest.json", {"format": BEGUN_FORMAT})
            target = self.path / "pairs"
            return [{"id": p.id, **folder.write_pair(target, p.id, p)} for p in pairs]

    @contextmanager
    def saved_or_emptied(self) -> Iterator[None]:
        """Empty the folder again if an error comes before there is anything to go on with."""
        try:
            yield
        except BaseException:
            if not (self.path / CHECKPOINT).is_file():
                with suppress(InputError):
                    files.clear_directory(self.path)
            raise

    def read_manifest(self) -> dict[str, Any]:
        """Read the manifest of an earlier run to go on with.

        Raises:
            InputError: there is none, or it is not a generator's.
        """
        manifest = read_manifest(self.path, "generator")
        if isinstance(manifest, dict) and manifest.get("format") == BEGUN_FORMAT:
            raise InputError(
                f"{self.path} is of a fit that ended before its first save: fit again, with "
                "--overwrite in place of --resume"
            )
        if not isinstance(manifest, dict) or manifest.get("format") != GENERATOR_FORMAT:
            raise InputError(
                f"{self.path} is not a generator: its manifest.json is of another kind"
            )
        check_manifest(manifest, self.path)
        return manifest

    def read_config(self) -> FitConfig:
        """Return the settings of an earlier run; raises `InputError` as `read_manifest` does."""
        path = self.path / "manifest.json"
        return make(
            FitConfig, self.read_manifest()["config"], lambda name: f"{path}: option {name}"
        )

    def read_begun(self) -> tuple[dict[str, Any], FitConfig]:
        """Return manifest and settings of an earlier run that can be gone on with.

        Raises:
            InputError: there is none, it trained nothing, its checkpoint is damaged, or the VGG19
                weights that it began with are gone or changed.
        """
        manifest, config = self.read_manifest(), self.read_config()
        if config.preset in UNTRAINED:
            raise InputError(
                f"{self.path} needed no training and was finished in one go: fit again"
            )
        self._checked_checkpoint()
        if config.vgg is not None:
            try:
                same = files.sha256_file(config.vgg) == manifest.get("vgg_sha256")
                problem = "" if same else "have changed"
            except OSError as error:
                problem = f"cannot be read ({error.strerror})"
            if problem:
                raise InputError(
                    f"the VGG19 weights {config.vgg}, with which {self.path} was begun, {problem}: "
                    "put that file back"
                )
        return manifest, config

    def read_checkpoint(self) -> dict[str, Any]:
        """Load the resumable state.

        Raises:
            InputError: the file is missing or damaged.
        """
        data = io.BytesIO(self._checked_checkpoint())
        state: dict[str, Any] = torch.load(data, map_location="cpu", weights_only=True)
        return state

    def _checked_checkpoint(self) -> bytes:
        path = self.path / CHECKPOINT
        try:
            data = path.read_bytes()
            expected = (self.path / f"{CHECKPOINT}.sha256").read_text().split()
        except OSError as error:
            raise InputError(
                f"no checkpoint at {path} ({error.strerror}): fit again without --resume"
            ) from error
        if files.sha256_bytes(data) not in expected:
            raise InputError(f"checkpoint {path} is damaged (hash differs): fit again")
        return data

    def write_checkpoint(self, state: dict[str, Any]) -> None:
        """Save the resumable state beside its hash."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getvalue()
        path, hashes = self.path / CHECKPOINT, self.path / f"{CHECKPOINT}.sha256"
        known = [files.sha256_file(path)] if path.is_file() else []
        # Both hashes stand there while the file is replaced, so that no moment of it is damaged.
        files.write_text(hashes, "\n".join([files.sha256_bytes(data), *known]) + "\n")
        files.write_bytes(path, data)

    def write_snapshot(
        self,
        weights: dict[str, Tensor],
        manifest: dict[str, Any],
        step: int,
        chosen: dict[str, Any],
        discriminator: dict[str, Tensor] | None = None,
    ) -> None:
        """Save the generator to sample from, then the manifest that names it, then tidy up.

        A discriminator that is of use as a segmenter is saved beside it.
        """
        manifest = {**manifest, "snapshot_step": step, "chosen_by": chosen}
        for kind, tensors in (("snapshot", weights), ("discriminator", discriminator)):
            if tensors is not None:
                name = f"{kind}-{step:06d}.safetensors"
                plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
                data = save_safetensors(plain)
                files.write_bytes(self.path / name, data)
                manifest |= {kind: name, f"{kind}_sha256": files.sha256_bytes(data)}
        files.write_json(self.path / "manifest.json", manifest)
        for kind in ("snapshot", "discriminator"):
            for old in self.path.glob(f"{kind}-*.safetensors"):
                if old.name != manifest.get(kind):
                    old.unlink()

    def write_metrics(self, lines: Sequence[dict[str, Any]]) -> None:
        """Write all lines of ``metrics.jsonl`` so far."""
        text = "".join(json.dumps(line) + "\n" for line in lines)
        files.write_text(self.path / "metrics.jsonl", text)

    def read_metrics(self, step: int) -> list[dict[str, Any]]:
        """Return the lines up to a step, to go on from there."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        return [line for line in map(_metrics, lines) if line["step"] <= step]

    def read_diversity(self) -> float:
        """Return the kept snapshot's diversity, 1 if it was not noted.

        See `synthaug.fitting.monitoring.Verdict`.
        """
        lines = self.read_metrics(self.read_manifest()["snapshot_step"])
        return float(next((line["diversity"] for line in lines[::-1] if "diversity" in line), 1.0))

    def write_grid(
        self, samples: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]], step: int
    ) -> None:
        """Save ``samples/STEP.png``: images, and under each its mask over it.

        Tiles are at most `LONGEST_TILE_PX` long: sixteen whole photographs would fill gigabytes.
        """
        colours = folder.palette()
        tiles = []
        for whole, ids in samples:
            scale = min(1.0, LONGEST_TILE_PX / max(ids.shape))
            size = (max(1, round(ids.shape[0] * scale)), max(1, round(ids.shape[1] * scale)))
            image, mask = resize_image(whole, size), resize_mask(ids, size)
            over = image.copy()
            labelled = (mask > 0) & (mask < 255)
            over[labelled] = over[labelled] // 2 + colours[mask[labelled]] // 2
            tiles.append(np.concatenate([image, over]))
        columns = max(1, min(8, len(tiles)))
        rows = [np.concatenate(tiles[i : i + columns], 1) for i in range(0, len(tiles), columns)]
        rows = [row for row in rows if row.shape == rows[0].shape]
        buffer = io.BytesIO()
        Image.fromarray(np.concatenate(rows)).save(buffer, "PNG")
        files.write_bytes(self.path / "samples" / f"{step:06d}.png", buffer.getvalue())


def manifest_header(
    gan: dict[str, Any],
    classes: ClassMap | None,
    pairs: list[dict[str, str]],
    first: Sample,
    config: dict[str, Any],
    precision: str,
    originals: Iterable[str] = (),
    white_is_object: bool = False,
) -> dict[str, Any]:
    """Collect what a generator's manifest says before there are weights.

    ``originals``: SHA-256 of the pixels of pictures that pairs were resized or cut from.
    ``white_is_object``: 255 was the object in the masks' files.
    """
    others = [Path(config[key]) for key in ("objects", "source") if config[key] is not None]
    behind = sorted(set(originals).union(*map(pictures_behind, others)))
    return {
        "format": GENERATOR_FORMAT,
        "gan": gan,
        "classes": (classes or ClassMap(())).as_dict(),
        "pairs": pairs,
        "size": list(first.size),
        "grey": first.grey,
        "config": config,
        "precision": precision,
        "seed": config["seed"],
        "versions": versions(),
        **({"learned_from": behind} if behind else {}),
        **({"white_is_object": True} if white_is_object else {}),
    }


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
        shift = "near" if any(is_scene(pair.mask, classes) for pair in pairs) else "anywhere"
    gan = {
        "name": "compose",
        "flip": config.flip,
        "shift": shift,
        "enlarge": config.enlarge,
        "copies": config.copies,
        "generated_share": config.generated_share,
        "background_share": config.background_share,
    }
    with files.new_directory(path, overwrite=overwrite) as staging:
        lines = [{"id": p.id, **folder.write_pair(staging / "pairs", p.id, p)} for p in pairs]
        backgrounds, cutouts = take_apart(pairs, classes, progress)
        words = f"{len(cutouts)} movable object(s)"
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
    with files.new_directory(path, overwrite=overwrite) as staging:
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
    if len(bank) and bank[0].size != size:
        height, width = bank[0].size
        raise InputError(
            f"bank {objects} holds pictures of {width}x{height} px but the pairs have "
            f"{size[1]}x{size[0]}: take a bank made from these pairs"
        )
    return bank


def _metrics(line: str) -> dict[str, Any]:
    """Read a line of metrics; one that is cut off belongs to no step."""
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    return found if isinstance(found, dict) and "step" in found else {"step": math.inf}
