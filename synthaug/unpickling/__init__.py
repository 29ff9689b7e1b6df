"""Reading pickled weights of others without running anything that a file brings along.

A pickle is a program that names functions to call. Here every name is looked up in a short list of
exact names, each of which means a reader of ours that only collects plain values; any other name
is refused, and the refusal says which. Sizes are compared with the bytes that are there before
memory is taken for them.
"""

from __future__ import annotations

from synthaug.unpickling.archives import (
    Record,
    brief,
    is_archive,
    load_persistent_pickle,
    load_weights,
)

__all__ = ["Record", "brief", "is_archive", "load_persistent_pickle", "load_weights"]
