"""``synthaug run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthaug.cli import options
from synthaug.cli.compare import command_line, print_result
from synthaug.cli.progress import stage_progress, tell


def run_command(
    recipe: Annotated[Path, typer.Argument(help="YAML file of options.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the run. [runs/RECIPE, or RECIPE-smoke]"),
    ] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Shorten everything, to see that it runs.")
    ] = False,
    overrides: options.Overrides = None,
    dry_run: options.DryRun = False,
) -> None:
    """Run a recipe: fit, generate, filter, compose, compare, report."""
    from synthaug.config import dump_stage, load_recipe

    loaded = load_recipe(recipe, overrides or ())
    if dry_run:
        from synthaug.fitting import presets
        from synthaug.running.recipes import check_training, shortened

        loaded = shortened(loaded) if smoke else loaded
        presets.check(loaded.fit)
        check_training(loaded)
        for stage in ("data", "fit", "generate", "filter", "compare"):
            print(dump_stage(stage, getattr(loaded, stage)), end="")
        return
    from synthaug.running.recipes import run_recipe

    folder = out or Path("runs") / f"{recipe.stem}{'-smoke' if smoke else ''}"
    try:
        page = run_recipe(
            loaded,
            folder,
            smoke=smoke,
            reproduce=command_line(),
            progress=stage_progress(),
            echo=tell,
        )
    except KeyboardInterrupt:
        tell(f"stopped; what is done is kept. Go on with: {command_line()}")
        raise
    print_result(page.parent)
    print(page)
