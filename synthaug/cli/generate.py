"""``synthaug generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthaug.cli import options


def generate_command(
    generator: Annotated[Path, typer.Argument(help="Folder that fit, or convert of OASIS, wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bank.")],
    n: Annotated[
        int | None, typer.Option("-n", help="Samples, before the filter. [100]", metavar="N")
    ] = None,
    filter_by: Annotated[
        str | None, typer.Option("--filter", help="sifid: score the samples, drop the worst.")
    ] = None,
    drop: Annotated[
        float | None, typer.Option(help="Share that the filter drops. [0.15]", metavar="SHARE")
    ] = None,
    coco: Annotated[
        bool | None,
        typer.Option("--coco", help="Also write COCO JSON, an instance per connected part."),
    ] = None,
    render: Annotated[
        str | None, typer.Option(help="patches: render every sample from the pairs' patches.")
    ] = None,
    layouts: Annotated[
        str | None,
        typer.Option(
            help="oasis: paint edited or moved training masks, the objects of a COCO file moved, "
            "or masks of a folder, bank or generator. [the training masks, if it has any]",
            metavar="edited|moved|PATH",
        ),
    ] = None,
    rare: Annotated[
        list[str] | None,
        typer.Option(
            help="oasis: class, by id or name, to show more often, or auto; repeatable.",
            metavar="CLASS",
        ),
    ] = None,
    labelmix: Annotated[
        float | None,
        typer.Option(
            help="oasis: probability that a class keeps the photograph's pixels; goes with the "
            "training masks, or with moved ones where they are as they were. [0]",
            metavar="SHARE",
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            help="oasis: class, by id or name, that always keeps the photograph's pixels; "
            "repeatable.",
            metavar="CLASS",
        ),
    ] = None,
    truncation: options.Truncation = None,
    seed: options.Seed = None,
    accelerator: options.Accelerator = None,
    overwrite: options.Overwrite = False,
    recipe: options.Recipe = None,
    overrides: options.Overrides = None,
    dry_run: options.DryRun = False,
) -> None:
    """Draw a bank of image+mask pairs from a fitted generator."""
    from synthaug.config import dump_stage, load_recipe

    config = load_recipe(
        recipe,
        overrides or (),
        {
            "generate": {
                "n": n,
                "filter": filter_by,
                "drop": drop,
                "coco": coco,
                "render": render,
                "seed": seed,
                "accelerator": accelerator,
                "layouts": layouts,
                "rare": tuple(rare) if rare else None,
                "labelmix": labelmix,
                "keep": tuple(keep) if keep else None,
                "truncation": truncation,
            }
        },
    ).generate
    if dry_run:
        print(dump_stage("generate", config), end="")
        return
    from synthaug.cli.progress import ProgressLine, tell
    from synthaug.generation import generate as run_generate

    bank = run_generate(
        generator,
        out,
        config.n,
        config.seed,
        config.filter,
        config.drop,
        config.coco,
        overwrite,
        ProgressLine("sample"),
        render=config.render,
        accelerator=config.accelerator,
        layouts=config.layouts,
        rare=config.rare,
        truncation=config.truncation,
        labelmix=config.labelmix,
        keep=config.keep,
    )
    tell(f"kept {len(bank)} of {len(bank.all_records)} samples")
    print(bank.path)
