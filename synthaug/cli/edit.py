"""``synthaug edit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from synthaug.cli import options

if TYPE_CHECKING:
    from synthaug.config import Accelerator
    from synthaug.gans.oasis.noise import Per


def edit_command(
    generator: Annotated[Path, typer.Argument(help="Folder that fit wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the versions.")],
    mask: Annotated[
        Path | None,
        typer.Argument(help="oasis: index PNG of ids of the training masks."),
    ] = None,
    n: options.Versions = 4,
    seed: Annotated[
        int | None,
        typer.Option(help="Noise of the first version; the next have the next numbers. [0]"),
    ] = None,
    per: options.NoisePer = "image",
    resample: Annotated[
        str | None,
        typer.Option(
            help="oasis: class, by id or name, that alone gets other noise; the rest keeps "
            "--seed's.",
            metavar="CLASS",
        ),
    ] = None,
    between: Annotated[
        tuple[int, int] | None,
        typer.Option(
            help="Go in N pictures from the noise of one seed to that of another, in the class "
            "of --resample alone if that is given.",
            metavar="SEED SEED",
        ),
    ] = None,
    truncation: options.Truncation = None,
    accelerator: options.Accelerator = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Paint a mask in several versions, or go from one picture of a generator to another.

    Generators that paint masks (oasis) paint MASK anew, whole or one class of it; all others draw
    pictures --between two seeds, without a MASK.
    """
    from synthaug.painting import edit

    sheet = edit(
        generator,
        mask,
        out,
        n,
        seed=seed,
        per=cast("Per", per),
        resample=resample,
        between=between,
        truncation=1.0 if truncation is None else truncation,
        accelerator=cast("Accelerator", accelerator or "auto"),
        overwrite=overwrite,
    )
    print(sheet)
