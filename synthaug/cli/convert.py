"""``synthaug convert``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from synthaug.cli import options


def convert_command(
    source: Annotated[
        Path,
        typer.Argument(
            help="StyleGAN2 .pt or .pkl; BigGAN *pytorch_model.bin beside *config.json."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Turn public GAN weights into safetensors; no code in a file is ever run."""
    from synthaug.conversion import convert

    manifest = convert(source, out, overwrite=overwrite)
    if as_json:
        print(json.dumps(manifest, indent=2))
        return
    print(_summary(manifest), file=sys.stderr)
    print(out)


def _summary(manifest: dict[str, Any]) -> str:
    gan = manifest["gan"]
    if gan["name"] == "stylegan2":
        widths = " ".join(map(str, gan["channels"]))
        about = (
            f"{gan['size']} px, channels {widths} from 4 px up, {gan['n_mlp']} mapping layers, "
            f"z {gan['z_dim']}, w {gan['w_dim']}"
        )
    else:
        size = 4 << sum(up for up, _, _ in gan["layers"])
        about = (
            f"{size} px, width {gan['width']}, {len(gan['layers'])} blocks, z {gan['z_dim']}, "
            f"{gan['num_classes']} classes"
        )
    return f"{manifest['source_format']}: {about}; {' and '.join(manifest['networks'])}"
