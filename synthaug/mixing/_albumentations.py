"""Load albumentations, the MIT-licensed one, without letting it contact the package index."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from typing import Any

from synthaug.errors import InputError


def load_albumentations() -> Any:
    """Import albumentations and return its module.

    Its version check over the network at import is switched off unless the user has set
    ``NO_ALBUMENTATIONS_UPDATE``.

    Raises:
        InputError: AlbumentationsX is installed (it takes the same import name, is AGPL-licensed
            and refuses custom transforms of this interface), or albumentations is missing.
    """
    if _installed("albumentationsx"):
        raise InputError(
            "AlbumentationsX is installed and takes the place of albumentations: "
            "pip uninstall albumentationsx albucore && pip install 'albumentations>=2.0.8,<2.1'"
        )
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        return importlib.import_module("albumentations")
    except ImportError as error:
        raise InputError(
            f"cannot import albumentations ({error}): pip install 'albumentations>=2.0.8,<2.1'"
        ) from error


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
