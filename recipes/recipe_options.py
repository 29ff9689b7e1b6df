"""What the recipes' command lines share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from synthaug.errors import InputError


def run_main(main: Callable[[], object]) -> None:
    """Call a recipe's main function; bad input is one line and exit code 2, Ctrl-C is 130."""
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; what is done is kept, and the same command goes on", file=sys.stderr)
        sys.exit(130)


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
