"""``synthaug filter``."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from synthaug.cli import options


def filter_command(
    bank: Annotated[Path, typer.Argument(help="Folder that generate wrote.")],
    rule: Annotated[
        str | None,
        typer.Option(help="sifid-1234 (average of four ranks) or sifid-1 .. sifid-4. [sifid-1234]"),
    ] = None,
    drop: Annotated[
        float | None, typer.Option(help="Share to drop. [0.15]", metavar="SHARE")
    ] = None,
    network: Annotated[
        str | None, typer.Option(help="auto, inception_v3 or efficientnet_lite0. [auto]")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="File of InceptionV3 weights.", metavar="FILE")
    ] = None,
    max_stray: Annotated[
        float | None,
        typer.Option(help="Share of object pixels allowed in stray blobs. [0.1]", metavar="SHARE"),
    ] = None,
    recipe: options.Recipe = None,
    overrides: options.Overrides = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> None:
    """Score a bank's samples and drop the worst. Their files stay, marked with the reasons."""
    from synthaug.config import dump_stage, load_recipe

    config = load_recipe(
        recipe,
        overrides or (),
        {
            "filter": {
                "rule": rule,
                "drop": drop,
                "network": network,
                "weights": weights,
                "max_stray": max_stray,
            }
        },
    ).filter
    if dry_run:
        print(dump_stage("filter", config), end="")
        return
    from synthaug.cli.progress import ProgressLine, tell
    from synthaug.filtering import filter_bank

    filtered = filter_bank(bank, progress=ProgressLine("sample"), **asdict(config))
    if as_json:
        print(json.dumps(filtered.manifest["filter"], indent=2))
        return
    dropped = [record for record in filtered.all_records if not record["kept"]]
    tell(f"kept {len(filtered)} of {len(filtered.all_records)} samples")
    for reason, count in Counter(r for record in dropped for r in record["reasons"]).most_common():
        print(f"{count:5d}  {reason}")
