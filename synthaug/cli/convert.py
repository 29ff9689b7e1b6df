"""``synthaug convert``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from synthaug.cli import options
from synthaug.cli.progress import tell


def convert_command(
    source: Annotated[
        Path,
        typer.Argument(
            help="StyleGAN2 .pt or .pkl; BigGAN *pytorch_model.bin beside *config.json; OASIS "
            "*_EMA.pth, *_D.pth beside it if there."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    size: Annotated[
        str | None,
        typer.Option(
            help="OASIS: of its training pictures in px. [published weights: theirs]",
            metavar="WIDTHxHEIGHT",
        ),
    ] = None,
    names: options.Names = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Turn public GAN weights into safetensors; no code in a file is ever run.

    OASIS' become a painter for generate --layouts, edit, segment, recreate and evaluate.
    """
    from synthaug.conversion import convert

    manifest = convert(source, out, size=_size(size), names=names, overwrite=overwrite)
    if as_json:
        print(json.dumps(manifest, indent=2))
        return
    tell(_summary(manifest))
    print(out)


def _size(text: str | None) -> tuple[int, int] | None:
    """Read WIDTHxHEIGHT; returns height and width."""
    from synthaug.errors import InputError

    if text is None:
        return None
    sides = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if sides is None:
        raise InputError(f"--size {text} is no size: write it as 512x256, width first")
    return int(sides[2]), int(sides[1])


def _summary(manifest: dict[str, Any]) -> str:
    gan = manifest["gan"]
    if gan["name"] == "stylegan2":
        widths = " ".join(map(str, gan["channels"]))
        about = (
            f"{gan['size']} px, channels {widths} from 4 px up, {gan['n_mlp']} mapping layers, "
            f"z {gan['z_dim']}, w {gan['w_dim']}"
        )
    elif gan["name"] == "oasis":
        ids = manifest["classes"]["ids"]
        about = (
            f"{gan['width']}x{gan['height']} px, width {gan['base']}, {len(ids)} classes with ids "
            f"{ids[0]} to {ids[-1]}"
        )
    else:
        size = 4 << sum(up for up, _, _ in gan["layers"])
        about = (
            f"{size} px, width {gan['width']}, {len(gan['layers'])} blocks, z {gan['z_dim']}, "
            f"{gan['num_classes']} classes"
        )
    return f"{manifest['source_format']}: {about}; {' and '.join(manifest['networks'])}"
