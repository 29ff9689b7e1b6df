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
    generator: Annotated[Path, typer.Argument(help="Folder that fit --generator oasis wrote.")],
    image: Annotated[Path, typer.Argument(help="Unlabelled photograph.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the versions.")],
    n: Annotated[int, typer.Option("-n", help="Number of versions.", metavar="N")] = 4,
    seed: Annotated[
        int, typer.Option(help="Noise of the first version; the next have the next numbers.")
    ] = 0,
    per: Annotated[
        str, typer.Option(help="What gets noise of its own: image, class, region or pixel.")
    ] = "image",
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
