"""Tiles of photographs that need no download: the data of limited_data.py and medgan_crops.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from synthaug.errors import InputError
from synthaug.files import read_json, sha256_bytes, sha256_file, write_json
from synthaug.formats.folder import list_images, read_image
from synthaug.quality.features import FeatureNet, pooled_features, split_batches

TILE_PX = 32
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "stereo_motorcycle")
Tiles = tuple[Tensor, Tensor]
"""Tiles (n, 3, 32, 32) in [-1, 1] and the numbers of their photographs (n,)."""


def photographs(folder: Path | None) -> list[np.ndarray]:
    """Read those of a folder, or scikit-image's, each (H, W, 3) uint8."""
    if folder is not None:
        return [read_image(path)[0] for path in list_images(folder)]
    try:
        from skimage import data
    except ImportError as error:
        raise InputError("the photographs come with scikit-image: install synthaug[dev]") from error
    found = [getattr(data, name)() for name in PHOTOGRAPHS]
    return [picture[0] if isinstance(picture, tuple) else picture for picture in found]


def note_data(path: Path, pictures: Sequence[np.ndarray], source: Path | None = None) -> None:
    """Note in a file what the runs beside it are of; refuse to mix them with runs on other data."""
    data = {"photographs": [sha256_bytes(picture.tobytes()) for picture in pictures]}
    if source is not None:
        data["source"] = [sha256_file(source / "manifest.json")]
    if not path.is_file():
        write_json(path, data)
    elif read_json(path, "note on the runs' data") != data:
        raise InputError(
            f"{path.parent / 'runs'} holds runs on other photographs, or from another source: "
            "choose another --out"
        )


def tiles(pictures: Sequence[np.ndarray]) -> tuple[Tiles, Tiles]:
    """Cut pictures into tiles to train on and tiles held out, like the fields of a chess board."""
    halves: tuple[list[tuple[Tensor, int]], list[tuple[Tensor, int]]] = ([], [])
    for number, picture in enumerate(pictures):
        whole = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1) / 127.5 - 1
        for y in range(whole.shape[1] // TILE_PX):
            for x in range(whole.shape[2] // TILE_PX):
                top, left = y * TILE_PX, x * TILE_PX
                tile = whole[:, top : top + TILE_PX, left : left + TILE_PX]
                halves[(x + y) % 2].append((tile, number))
    if min(map(len, halves)) < 2:
        raise InputError("the photographs give no tiles: take some from 64 px a side")
    made = [
        (torch.stack([tile for tile, _ in half]), torch.tensor([number for _, number in half]))
        for half in halves
    ]
    return made[0], made[1]


def describe(images: Tensor, net: FeatureNet) -> Tensor:
    """Pooled features (n, d) of images (n, 3, 32, 32) in [-1, 1], for FID."""
    return pooled_features(split_batches((images + 1) / 2), net)
