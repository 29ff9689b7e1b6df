"""``synthaug segment``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from synthaug.cli import options

if TYPE_CHECKING:
    from synthaug.config import Accelerator


def segment_command(
    generator: options.Painter,
    images: Annotated[Path, typer.Argument(help="Photograph, or folder of them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the masks.")],
    accelerator: options.Accelerator = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Label pictures with the discriminator of a painter of masks."""
    from synthaug.cli.progress import ProgressLine
    from synthaug.painting import segment

    path = segment(
        generator,
        images,
        out,
        accelerator=cast("Accelerator", accelerator or "auto"),
        overwrite=overwrite,
        progress=ProgressLine("picture"),
    )
    print(path)
