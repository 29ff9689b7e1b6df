"""The one exception a user's input can raise."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: one line that says what is wrong, where, and how to mend it.

    The command line prints the line to stderr and exits with code 2.
    """
