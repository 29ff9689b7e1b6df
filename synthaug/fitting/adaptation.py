"""ADAPT: the trained GAN that a few-shot fit starts from, and what keeps it varied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from synthaug import files
from synthaug.bank import GENERATOR_FORMAT
from synthaug.config.fit import SMOOTH, Adaptation
from synthaug.conversion import WEIGHTS_FORMAT, load_converted
from synthaug.errors import InputError
from synthaug.gans.biggan import SMOOTHNESS_SCALE, BigGAN
from synthaug.gans.contract import GAN
from synthaug.gans.stylegan2 import PATH, StyleGAN2
from synthaug.generator_folder import check_manifest, read_verified

SMOOTHNESS = 5.0
"""Weight of smoothness similarity (published)."""
NAMES = {"stylegan2": "StyleGAN2", "biggan": "BigGAN"}
"""GANs that can be adapted."""
_NETWORK_OPTIONS = {
    "stylegan2": (
        *("name", "size", "preset", "channels"),
        *("z_dim", "w_dim", "n_mlp", "clamp", "group"),
    ),
    "biggan": (
        *("name", "layers", "attention_at", "width", "z_dim", "embedding_dim"),
        *("num_classes", "statistics", "eps"),
    ),
}
_NEW_PARTS = ("focus.", "heads.", "mask_head.", "mask_judge.")
"""Beginnings of the names of weights that every adaptation learns anew."""


@dataclass(frozen=True, eq=False)
class Source:
    """A trained GAN.

    Attributes:
        spec: settings of its networks, for `synthaug.gans.build`.
        generator: its state dict.
        discriminator: its state dict; None where a public file had none.
    """

    spec: dict[str, Any]
    generator: dict[str, Tensor]
    discriminator: dict[str, Tensor] | None

    @property
    def size(self) -> int:
        """Side of the pictures in pixels."""
        if self.spec["name"] == "biggan":
            return 4 << sum(bool(up) for up, _, _ in self.spec["layers"])
        return int(self.spec["size"])

    def target_spec(self, adaptation: str, smoothness: float | None = None) -> dict[str, Any]:
        """Return the settings of a GAN that is adapted from this one.

        Args:
            adaptation: as `synthaug.config.FitConfig` lists them.
            smoothness: weight of smoothness similarity, where it has any; None = `SMOOTHNESS`.

        Raises:
            InputError: there is no such adaptation, or FreezeD has no discriminator to freeze.
        """
        ways = get_args(Adaptation)
        if adaptation not in ways:
            raise InputError(f"unknown adaptation {adaptation!r}: one of {', '.join(ways)}")
        spec = dict(self.spec)
        if spec["name"] == "biggan":
            spec["adapted"] = True
        if adaptation in ("both", "blocks"):
            spec["block_heads"] = True
        if adaptation in SMOOTH:
            spec["smoothness"] = SMOOTHNESS if smoothness is None else smoothness
            if spec["name"] == "biggan":
                spec["smoothness_scale"] = SMOOTHNESS_SCALE
        if adaptation == "path":
            spec["path"] = PATH
        if adaptation == "freezed":
            if self.discriminator is None:
                raise InputError(
                    "adaptation freezed keeps layers of the source's discriminator, and there is "
                    "none in the source: choose another"
                )
            blocks = self.size.bit_length() - 3  # from the image's size down to 4 px
            spec["frozen"] = max(1, blocks // 2)  # half of them, ours
        return spec

    def give(self, gan: GAN) -> None:
        """Start a GAN of `target_spec` from these weights."""
        assert isinstance(gan, StyleGAN2 | BigGAN)
        gan.adapt(self.generator, self.discriminator)


def read_source(folder: str | Path, gan: str) -> Source:
    """Open a folder of ``pretrain`` or ``convert``, or of a fit with a source.

    Args:
        folder: the source.
        gan: name of the GAN, one of `NAMES`.

    Raises:
        InputError: there is none, it holds another GAN, or its weights are damaged.
    """
    folder = Path(folder)
    manifest = files.read_json(folder / "manifest.json", "source to adapt")
    kind = manifest.get("format") if isinstance(manifest, Mapping) else None
    own_gan = manifest.get("gan") if kind in (WEIGHTS_FORMAT, GENERATOR_FORMAT) else None
    if not isinstance(own_gan, Mapping) or own_gan.get("name") != gan:
        raise InputError(
            f"{folder} holds no {NAMES[gan]}: make a source with synthaug pretrain, or convert one"
        )
    states: dict[str, dict[str, Tensor]]
    if kind == WEIGHTS_FORMAT:
        _, states = load_converted(folder)
    else:
        check_manifest(manifest, folder, ["discriminator", "discriminator_sha256"])
        states = {
            name: _weights(folder / manifest[file], manifest[f"{file}_sha256"])
            for name, file in (("generator", "snapshot"), ("discriminator", "discriminator"))
        }
    own = {
        name: {key: value for key, value in state.items() if not key.startswith(_NEW_PARTS)}
        for name, state in states.items()
    }
    options = _NETWORK_OPTIONS[gan]
    spec = {key: manifest["gan"][key] for key in options if key in manifest["gan"]}
    return Source(spec, own["generator"], own.get("discriminator"))


def _weights(path: Path, sha256: str) -> dict[str, Tensor]:
    try:
        return dict(load_safetensors(read_verified(path, sha256)))
    except SafetensorError as error:
        raise InputError(f"source weights {path} cannot be read ({error}): fit again") from error
