"""``synthaug report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report_command(
    comparison: Annotated[Path, typer.Argument(help="Folder that compare wrote.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The page. [index.html in the folder]")
    ] = None,
) -> None:
    """Write a comparison's HTML page again."""
    from synthaug.report.comparison import write_comparison_page

    print(write_comparison_page(comparison, out))
