"""``synthaug convert``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from synthaug.cli import options


def convert_command(
    source: Annotated[Path, typer.Argument(help="Public StyleGAN2 weights: .pt or NVIDIA's .pkl.")],
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
    return (
        f"{manifest['source_format']}: {gan['size']} px, channels "
        f"{' '.join(map(str, gan['channels']))} from 4 px up, {gan['n_mlp']} mapping layers, "
        f"z {gan['z_dim']}, w {gan['w_dim']}; {' and '.join(manifest['networks'])}"
    )
