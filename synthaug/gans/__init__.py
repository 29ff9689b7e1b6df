"""One room per GAN: its networks and its losses together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from synthaug.errors import InputError

if TYPE_CHECKING:
    from synthaug.gans.contract import GAN


def build(spec: Mapping[str, Any]) -> GAN:
    """Build a GAN with fresh weights from its plain description.

    Args:
        spec: ``name`` of the GAN and the keywords of its own ``build``, all JSON values, as a
            generator's manifest stores them: ``{"name": "osmis", "preset": "fast", ...}``.

    Raises:
        InputError: no GAN of that name.
    """
    keywords = {key: value for key, value in spec.items() if key != "name"}
    if spec.get("name") == "osmis":
        from synthaug.gans import osmis

        return osmis.build(**keywords)
    if spec.get("name") == "oasis":
        from synthaug.gans import oasis

        return oasis.build(**keywords)
    if spec.get("name") == "stylegan2":
        from synthaug.gans import stylegan2

        return stylegan2.build(**keywords)
    if spec.get("name") == "transgan":
        from synthaug.gans import transgan

        return transgan.build(**keywords)
    if spec.get("name") == "biggan":
        from synthaug.gans import biggan

        return biggan.build(**keywords)
    known = "biggan, oasis, osmis, stylegan2 and transgan"
    raise InputError(f"unknown GAN {spec.get('name')!r}: known are {known}")


def build_saved(spec: Mapping[str, Any], path: object) -> GAN:
    """Build the GAN that a generator's manifest describes.

    Args:
        spec: see `build`.
        path: the generator's folder, named in errors.

    Raises:
        InputError: this version knows no such GAN, or no such option of it.
    """
    try:
        return build(spec)
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(
            f"generator {path} has a manifest that does not fit this version of synthaug (gan: "
            f"{str(error)[:80]}): fit again"
        ) from error
