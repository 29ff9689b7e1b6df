"""A painter of label maps, quickly fitted to three drawn scenes, for the tests that need one."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from synthaug.config import FitConfig
from synthaug.fitting import fit

QUICK = FitConfig(
    generator="oasis",
    preset="fast",
    iterations=5,
    batch_size=2,
    max_size=32,
    ignore=(11,),
    accelerator="cpu",
    precision="32-true",
    checkpoint_s=600,
)


def write_scenes(folder, ids=(3, 7)):
    """Draw three scenes of sparse ids, with a void id 11 and a strip of 255."""
    rows, columns = np.mgrid[:48, :64]
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for number in range(3):
        image = np.stack([rows * 4, columns * 3, rows * 0 + 80 * number], 2).astype(np.uint8)
        mask = np.full((48, 64), ids[0], np.uint8)
        box = np.s_[10 : 30 + number, 8 + 9 * number : 30 + 9 * number]
        image[box], mask[box] = (230, 40, 20), ids[1]
        mask[:3], mask[-3:] = 11, 255
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    return {"images": folder / "images", "masks": folder / "masks"}


def quick(tmp_path, out="out", *, progress=None, **changes):
    return fit(
        out=tmp_path / out,
        config=dataclasses.replace(QUICK, **changes),
        progress=progress,
        echo=lambda line: None,
        **write_scenes(tmp_path),
    )
