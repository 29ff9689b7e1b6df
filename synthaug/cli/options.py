"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Recipe = Annotated[
    Path | None, typer.Option("--recipe", help="YAML file of options; flags override it.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STAGE.OPTION=VALUE", help="Override one option; repeatable."),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Every random draw follows from it. [0]")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a non-empty output folder.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the resolved options as YAML and stop.")
]
Accelerator = Annotated[
    str | None, typer.Option("--accelerator", help="auto, cpu, cuda or mps. [auto]")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
