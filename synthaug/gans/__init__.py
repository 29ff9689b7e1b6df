"""One room per GAN: its networks and its losses together."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from synthaug.errors import InputError
from synthaug.seeding import torch_seeded

if TYPE_CHECKING:
    from synthaug.gans.contract import GAN

NAMES = ("biggan", "oasis", "osmis", "stylegan2", "transgan")


def build(spec: Mapping[str, Any]) -> GAN:
    """Build a GAN with fresh weights from its plain description.

    Args:
        spec: ``name`` of the GAN and the keywords of its own ``build``, all JSON values, as a
            generator's manifest stores them: ``{"name": "osmis", "preset": "fast", ...}``.

    Raises:
        InputError: no GAN of that name.
    """
    name = spec.get("name")
    if name not in NAMES:
        known = f"{', '.join(NAMES[:-1])} and {NAMES[-1]}"
        raise InputError(f"unknown GAN {name!r}: known are {known}")
    keywords = {key: value for key, value in spec.items() if key != "name"}
    gan: GAN = import_module(f"synthaug.gans.{name}").build(**keywords)
    return gan


def build_saved(spec: Mapping[str, Any], path: object) -> GAN:
    """Build the GAN that a generator's manifest describes.

    Args:
        spec: see `build`.
        path: the generator's folder, named in errors.

    Raises:
        InputError: this version knows no such GAN, or no such option of it.
    """
    try:
        with torch_seeded(0):  # what is read next replaces the weights: the caller's stream stays
            return build(spec)
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(
            f"generator {path} has a manifest that does not fit this version of synthaug (gan: "
            f"{str(error)[:80]}): fit again"
        ) from error
