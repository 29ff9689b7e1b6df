"""``synthaug pretrain``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from synthaug.cli import options
from synthaug.errors import InputError


def pretrain_command(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the source.")],
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder of photographs of any size; biggan: or of a sub-folder per class."
        ),
    ] = None,
    generator: Annotated[str, typer.Option(help="stylegan2 or biggan.")] = "stylegan2",
    size: Annotated[
        int | None,
        typer.Option(help="Side of its pictures: 32, 64, 128, ... [64; biggan: 32]", metavar="PX"),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="small or paper. [small]")] = None,
    iterations: options.Iterations = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Pictures per step. [the preset's]", metavar="N")
    ] = None,
    flip: options.Flip = None,
    seed: options.Seed = None,
    accelerator: options.Accelerator = None,
    devices: options.Devices = None,
    precision: options.Precision = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    recipe: options.Recipe = None,
    overrides: options.Overrides = None,
    dry_run: options.DryRun = False,
) -> None:
    """Train a GAN on squares cut out of your photographs, as a source to adapt."""
    from synthaug.config import dump_stage, load_recipe
    from synthaug.config.fit import ADAPTED

    config = load_recipe(
        recipe,
        overrides or (),
        {
            "fit": {
                "generator": generator,
                "preset": preset,
                "max_size": size,
                "iterations": iterations,
                "batch_size": batch_size,
                "flip": flip,
                "seed": seed,
                "accelerator": accelerator,
                "devices": devices,
                "precision": precision,
            }
        },
    ).fit
    if resume:
        config = options.resumed(ctx, out)
    if config.generator not in ADAPTED:
        known = " or ".join(ADAPTED)
        raise InputError(f"no source for {config.generator}: pretrain {known}")
    if config.source is not None:
        raise InputError("pretrain starts from nothing: leave out fit.source, or use synthaug fit")
    if dry_run:
        from synthaug.fitting.presets import check_fit

        check_fit(config)
        print(dump_stage("fit", config), end="")
        return
    if images is None and not resume:
        raise InputError("name a folder of photographs: --images DIR")
    from synthaug.cli.progress import fit_progress, tell
    from synthaug.fitting import fit

    path = fit(
        images=images,
        out=out,
        resume=resume,
        overwrite=overwrite,
        progress=fit_progress(),
        echo=tell,
        config=config,
    )
    print(path)
    tell(
        f"next: synthaug fit --generator {config.generator} --source {shlex.quote(str(path))} "
        "--images DIR --out GENERATOR"
    )
