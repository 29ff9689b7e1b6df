"""Options that several commands share."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthaug.errors import InputError

if TYPE_CHECKING:
    from synthaug.config import FitConfig

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
Iterations = Annotated[
    int | None, typer.Option("--iterations", help="Training steps. [the preset's]", metavar="N")
]
Flip = Annotated[
    bool | None, typer.Option("--flip/--no-flip", help="Mirror images are plausible. [flip]")
]
Devices = Annotated[
    int | None, typer.Option("--devices", help="Processes, one per device. [1]", metavar="N")
]
Precision = Annotated[
    str | None, typer.Option("--precision", help="auto, 32-true or bf16-mixed. [auto]")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")]
Painter = Annotated[
    Path, typer.Argument(help="Folder that fit --generator oasis or convert wrote.")
]
Versions = Annotated[int, typer.Option("-n", help="Number of versions.", metavar="N")]
FirstNoise = Annotated[
    int, typer.Option("--seed", help="Noise of the first version; the next have the next numbers.")
]
NoisePer = Annotated[
    str, typer.Option("--per", help="What gets noise of its own: image, class, region or pixel.")
]
Truncation = Annotated[
    float | None,
    typer.Option(
        "--truncation",
        help="stylegan2: pull samples towards one mean picture, from 1, not at all, to 0: fewer "
        "broken ones, less variety. [1]",
        metavar="PSI",
    ),
]
Names = Annotated[
    str | None,
    typer.Option(
        "--names",
        help="Names of the ids 0, 1, 2, ... in the masks: a,b,c or ID=NAME,ID=NAME; or a file of "
        "them, one a line; or a COCO file.",
        metavar="NAMES",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def resumed(ctx: typer.Context, out: Path) -> FitConfig:
    """Return the settings that a command goes on with, those of its earlier run.

    Where to train may be another place: ``--accelerator`` and ``--devices`` are heeded.

    Raises:
        InputError: more is given than the folder, which holds settings and pictures, or another
            command has begun it.
    """
    place = {}
    for param in ctx.command.params:
        source = ctx.get_parameter_source(param.name or "")
        if source is None or source.name != "COMMANDLINE" or param.name in ("out", "resume"):
            continue
        if param.name in ("accelerator", "devices"):
            place[param.name] = ctx.params[param.name]
            continue
        name = param.opts[0] if param.param_type_name == "option" else (param.name or "").upper()
        raise InputError(
            f"--resume goes on with the settings and pictures that {out} keeps: leave out {name}, "
            "or start anew without --resume"
        )
    from synthaug.config import FitConfig, make
    from synthaug.fitting.fit_folder import FitFolder

    config = FitFolder(out).read_config()
    if config.command != ctx.info_name:
        raise InputError(
            f"synthaug {config.command} has begun {out}: go on with {config.resuming(out)}"
        )
    return make(FitConfig, {**asdict(config), **place})
