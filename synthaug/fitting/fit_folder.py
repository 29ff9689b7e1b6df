"""The folder that FIT writes: snapshot, checkpoint, metrics, grids, manifest."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save as save_safetensors
from torch import Tensor

from synthaug import files
from synthaug.bank import GENERATOR_FORMAT, pictures_behind, read_manifest
from synthaug.config import FitConfig, make, versions
from synthaug.errors import InputError
from synthaug.fitting.presets import UNTRAINED
from synthaug.formats import folder
from synthaug.generator_folder import check_manifest
from synthaug.sample import ClassMap, Sample, resize_image, resize_mask

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
        files.check_replaceable(self.path, overwrite=overwrite, becomes=GENERATOR_FORMAT)
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


def _metrics(line: str) -> dict[str, Any]:
    """Read a line of metrics; one that is cut off belongs to no step."""
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    return found if isinstance(found, dict) and "step" in found else {"step": math.inf}
