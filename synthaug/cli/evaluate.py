"""``synthaug evaluate``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from synthaug.cli import options


def evaluate(
    bank: Annotated[Path, typer.Argument(help="Folder that generate wrote.")],
    as_json: options.Json = False,
) -> None:
    """Measure a bank beside standard augmentation of its pair."""
    from synthaug.evaluation import evaluate as run_evaluate

    value = run_evaluate(bank)
    if as_json:
        print(json.dumps(value, indent=2))
        return
    for name, entry in _rows(value):
        print(f"{name:48} {entry:.4g}" if isinstance(entry, float) else f"{name:48} {entry}")


def _rows(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, entry in value.items():
        if isinstance(entry, Mapping):
            yield from _rows(entry, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", entry
