"""Refusing a file in one line that says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from synthaug.errors import InputError

LONGEST_AXIS = 2**48
"""Larger numbers are not looked at, nor spelled."""


class RefusedError(Exception):
    """Why a file is not read; never passed on as it is."""


def read_bytes(path: str | Path) -> bytes:
    """Read a whole file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from error


def guarded(path: str | Path, read: Callable[[], Any]) -> Any:
    """Return what ``read`` makes of a file.

    Raises:
        InputError: it refuses the file, or comes to no end with it.
    """
    try:
        return read()
    except RefusedError as refusal:
        raise InputError(f"{path} is refused, and nothing in it was run: {refusal}") from None
    except Exception as error:  # whatever a damaged or hostile program of opcodes ends in
        raise InputError(
            f"{path} holds no weights that can be read ({type(error).__name__}): it is damaged, "
            "cut short, or of another format"
        ) from error


def brief(value: object) -> str:
    """Show a value of a file in an error line; of what may be nested, only what it is."""
    if value is None or type(value) in (str, bool, float):
        return f"{value!r:.40}"
    if type(value) is int and abs(value) < LONGEST_AXIS:
        return str(value)
    return f"of the type {type(value).__name__}"
