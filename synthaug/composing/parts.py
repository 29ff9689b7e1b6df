"""What compositions are made of, and its files: objects cut out, and backgrounds without them.

DIR/parts.json           the parts with their hashes; its own hash stands in the manifest
DIR/backgrounds/images/  pictures with their objects removed, and masks/ of what stayed
DIR/objects/*.png        RGBA: colours continued beyond the outline, and a soft alpha
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synthaug import files
from synthaug.formats import folder
from synthaug.generator_folder import read_verified, read_written_pairs
from synthaug.sample import Sample

PARTS = "parts.json"
MARGIN_PX = 6
"""Pixels around an object in its file, so that it can be resampled."""


@dataclass(frozen=True, eq=False)
class Cutout:
    """An object cut out of a picture.

    Attributes:
        rgba: (h, w, 4) uint8; where alpha is 128 and more lies the object.
        class_id: its id in the mask.
        corner: (x, y) in pixels of the picture where ``rgba`` begins; may lie outside of it.
        sides: those of ``"ltrb"`` (left, top, right, bottom) where the frame cuts the object.
        background: index of the background it comes from; None for generated objects.
    """

    rgba: NDArray[np.uint8]
    class_id: int
    corner: tuple[int, int]
    sides: str
    background: int | None


@dataclass(frozen=True, eq=False)
class Background:
    """A picture without its movable objects.

    Attributes:
        sample: (H, W) picture and the mask of what stayed.
        generated: whether it comes from a bank.
    """

    sample: Sample
    generated: bool


def write_parts(root: Path, backgrounds: Sequence[Background], cutouts: Sequence[Cutout]) -> str:
    """Write all parts below a folder and return the hash of ``parts.json``."""
    ground = []
    for index, background in enumerate(backgrounds):
        written = folder.write_pair(root / "backgrounds", f"{index:04d}", background.sample)
        ground.append({"id": background.sample.id, **written, "generated": background.generated})
    objects = []
    for index, cutout in enumerate(cutouts):
        buffer = io.BytesIO()
        Image.fromarray(cutout.rgba).save(buffer, "PNG")
        name = f"{index:04d}.png"
        files.write_bytes(root / "objects" / name, buffer.getvalue())
        objects.append(
            {
                "file": name,
                "sha256": files.sha256_bytes(buffer.getvalue()),
                "class": cutout.class_id,
                "corner": list(cutout.corner),
                "sides": cutout.sides,
                "background": cutout.background,
            }
        )
    files.write_json(root / PARTS, {"backgrounds": ground, "objects": objects})
    return files.sha256_file(root / PARTS)


def read_parts(root: Path) -> tuple[list[Background], list[Cutout]]:
    """Read what `write_parts` wrote.

    Raises:
        InputError: a file is missing or damaged.
    """
    value = files.read_json(root / PARTS, "parts of the compositions")
    backgrounds = [
        Background(sample, record["generated"])
        for record, sample in zip(
            value["backgrounds"],
            read_written_pairs(root / "backgrounds", value["backgrounds"]),
            strict=True,
        )
    ]
    return backgrounds, [_read_cutout(root / "objects", record) for record in value["objects"]]


def _read_cutout(root: Path, record: dict[str, Any]) -> Cutout:
    data = read_verified(root / record["file"], record["sha256"])
    return Cutout(
        np.array(Image.open(io.BytesIO(data))),
        record["class"],
        (record["corner"][0], record["corner"][1]),
        record["sides"],
        record["background"],
    )
