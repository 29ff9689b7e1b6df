"""``synthaug recreate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from synthaug.cli import options

if TYPE_CHECKING:
    from synthaug.config import Accelerator
    from synthaug.gans.oasis.noise import Per


def recreate_command(
    generator: options.Painter,
    image: Annotated[Path, typer.Argument(help="Unlabelled photograph.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the versions.")],
    n: options.Versions = 4,
    seed: options.FirstNoise = 0,
    per: options.NoisePer = "image",
    accelerator: options.Accelerator = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Predict a picture's label map and paint it in several versions."""
    from synthaug.painting import recreate

    sheet = recreate(
        generator,
        image,
        out,
        n,
        seed=seed,
        per=cast("Per", per),
        accelerator=cast("Accelerator", accelerator or "auto"),
        overwrite=overwrite,
    )
    print(sheet)
