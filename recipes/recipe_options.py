"""What the recipes' command lines share."""

from __future__ import annotations

import argparse
from typing import Any


def positive(text: str) -> int:
    """Read a whole number from 1 up."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1 up")
    return int(text)


class Distinct(argparse.Action):
    """Take what is named several times once."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Keep the first of each."""
        setattr(namespace, self.dest, list(dict.fromkeys(values)))
