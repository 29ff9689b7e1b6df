"""State dicts of the public OASIS implementation: ``*_EMA.pth``, ``*_G.pth`` and ``*_D.pth``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from synthaug.errors import InputError
from synthaug.gans.oasis.networks import NOISE_DIM, OasisDiscriminator, OasisGenerator
from synthaug.gans.state_dicts import fill
from synthaug.unpickling import load_weights

_SPECTRAL = "parametrizations.weight"
_GENERATOR_NAMES = (
    (r"^fc\.", "stem."),
    (r"^conv_img\.", "image."),
    (r"^body\.", "blocks."),
    (r"\.first_norm\.", ".norm."),
    (r"\.mlp_shared\.0\.", ".shared."),
    (r"\.mlp_(gamma|beta)\.", r".\1."),
)
_DISCRIMINATOR_NAMES = (
    (r"^body_(down|up)\.", r"\1."),
    (r"\.conv([12])\.\d\.", r".conv\1."),
    (r"^layer_up_last\.", "logits."),
)
_NORMALISED = (
    (r"\.weight_orig$", f".{_SPECTRAL}.original"),
    (r"\.weight_([uv])$", rf".{_SPECTRAL}.0._\1"),
)


def load_official_generator(path: str | Path, height: int, width: int) -> OasisGenerator:
    """Read a generator, best its averaged weights, ``best_EMA.pth``.

    Args:
        path: file of a bare state dict; nothing but tensors is unpickled.
        height: of the pictures to make, a multiple of 32 (not stored in the file).
        width: likewise.

    Returns:
        The generator in evaluation mode. Its classes count the file's label channels without the
        first, which stands for unlabelled pixels: class c is the file's label c + 1.

    Raises:
        InputError: the file is unreadable, or is not such a state dict.
    """
    state = _read(path, "generator")
    stem = _matrix(state, "fc.weight", path)
    shared = _matrix(state, "body.0.norm_0.mlp_shared.0.weight", path)
    image = _matrix(state, "conv_img.weight", path)
    labels = stem.shape[1] - NOISE_DIM
    if labels < 2:
        raise InputError(
            f"{path} holds no OASIS generator with {NOISE_DIM} noise channels: its fc.weight has "
            f"{stem.shape[1]} input channels"
        )
    with torch.device("meta"):
        generator = OasisGenerator(
            height, width, labels - 1, base=image.shape[1], hidden=len(shared)
        )
    fill(generator, _renamed(state, (*_GENERATOR_NAMES, *_NORMALISED)), path, "OASIS")
    generator.maps = torch.zeros(1, height, width, dtype=torch.int16)
    return generator.eval()


def load_official_discriminator(
    path: str | Path, num_classes: int | None = None
) -> OasisDiscriminator:
    """Read a discriminator, ``best_D.pth``.

    Args:
        path: file of a bare state dict; nothing but tensors is unpickled.
        num_classes: N that it must have, such as that of the generator beside it.

    Returns:
        The discriminator in evaluation mode, a segmenter: class c is logit c + 2.

    Raises:
        InputError: the file is unreadable, is not such a state dict, or is for other classes.
    """
    state = _read(path, "discriminator")
    logits = _matrix(state, "layer_up_last.weight", path)
    found = len(logits) - 2
    if found < 1 or (num_classes is not None and found != num_classes):
        wanted = "at least 1" if num_classes is None else str(num_classes)
        raise InputError(f"discriminator {path} is for {found} classes, {wanted} are needed")
    first = _matrix(state, "body_down.0.conv1.0.weight_orig", path)
    with torch.device("meta"):
        discriminator = OasisDiscriminator(found, width=len(first) / 128)
    fill(discriminator, _renamed(state, (*_DISCRIMINATOR_NAMES, *_NORMALISED)), path, "OASIS")
    return discriminator.eval()


def _read(path: str | Path, what: str) -> dict[str, Tensor]:
    state = load_weights(path)
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise InputError(f"{what} {path} is no plain state dict of tensors: take an OASIS *.pth")
    return dict(state)


def _matrix(state: Mapping[str, Tensor], name: str, path: str | Path) -> Tensor:
    tensor = state.get(name)
    if tensor is None or tensor.ndim != 4:
        raise InputError(f"{path} is no OASIS checkpoint of this kind: it has no kernel {name}")
    return tensor


def _renamed(state: Mapping[str, Tensor], rules: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed
