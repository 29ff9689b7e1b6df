"""``synthaug demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthaug.cli import options
from synthaug.cli.progress import tell


def demo_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the demonstration.")] = Path(
        "synthaug-demo"
    ),
    iterations: Annotated[
        int | None, typer.Option(help="Training steps, to shorten the run.", metavar="N")
    ] = None,
    seed: options.Seed = None,
    overwrite: options.Overwrite = False,
    recipe: options.Recipe = None,
    overrides: options.Overrides = None,
    dry_run: options.DryRun = False,
) -> None:
    """Run everything on a bundled photo and show it on one HTML page."""
    from synthaug.config import dump_stage, load_recipe

    config = load_recipe(
        recipe, overrides or (), {"demo": {"seed": seed, "iterations": iterations}}
    ).demo
    if dry_run:
        print(dump_stage("demo", config), end="")
        return
    from synthaug.demo import demo as run_demo

    page = run_demo(
        out,
        seed=config.seed,
        overwrite=overwrite,
        echo=tell,
        iterations=config.iterations,
    )
    print(page)
