"""State dicts of the public OASIS implementation: ``*_EMA.pth``, ``*_G.pth`` and ``*_D.pth``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from synthaug.errors import InputError
from synthaug.gans.oasis.networks import (
    ENCODER_WIDTHS,
    NOISE_DIM,
    OasisDiscriminator,
    OasisGenerator,
)
from synthaug.gans.state_dicts import fill

GRID_PX = 64
"""What sides of training pictures are multiples of: the discriminator halves them six times."""
MOST = 1 << 16
"""Channels that a kernel may have at most."""


class Published(NamedTuple):
    """A data set of published weights.

    Attributes:
        size: height and width of the training pictures in pixels.
        first_id: id, in the data set's own masks, of the first label that is not void.
    """

    size: tuple[int, int]
    first_id: int


PUBLISHED = {
    151: Published((256, 256), 1),
    183: Published((256, 256), 0),
    35: Published((256, 512), 1),
}
"""By label channels, void included: ADE20K, COCO-Stuff and Cityscapes."""
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


def generator_from_official(
    state: Any, path: str | Path, size: tuple[int, int] | None = None
) -> tuple[dict[str, Any], OasisGenerator]:
    """Build a generator, best of the averaged weights, ``best_EMA.pth``, and fill it.

    Args:
        state: content of the file, a bare state dict.
        path: where it was read, for error lines.
        size: height and width of the training pictures, multiples of 64; None = those of the data
            set in `PUBLISHED` with as many label channels. They are not stored in the file.

    Returns:
        Settings for `synthaug.gans.oasis.build`, and the generator in evaluation mode. Its classes
        count the file's label channels without the first, which stands for unlabelled pixels:
        class c is the file's label c + 1.

    Raises:
        InputError: it is no such state dict or not finite, or the size is not known or not
            possible.
    """
    state = _checked(state, path)
    stem = _kernel(state, "fc.weight", path)
    shared = _kernel(state, "body.0.norm_0.mlp_shared.0.weight", path)
    image = _kernel(state, "conv_img.weight", path)
    labels = stem.shape[1] - NOISE_DIM
    if labels < 2:
        raise InputError(
            f"{path} holds no OASIS generator with {NOISE_DIM} noise channels: its fc.weight has "
            f"{stem.shape[1]} input channels"
        )
    if size is None and labels not in PUBLISHED:
        raise InputError(
            f"{path} has {labels} label channels, as no published weights have, and does not say "
            "how large its pictures are: give --size WIDTHxHEIGHT"
        )
    height, width = size or PUBLISHED[labels].size
    if min(height, width) < GRID_PX or height % GRID_PX or width % GRID_PX:
        raise InputError(
            f"no OASIS was trained on pictures of {width}x{height} px: its sides are multiples of "
            f"{GRID_PX}"
        )
    sizes = {"height": height, "width": width, "num_classes": labels - 1}
    sizes |= {"base": image.shape[1], "hidden": len(shared)}
    with torch.device("meta"):
        generator = OasisGenerator(**sizes)
    fill(generator, _renamed(state, (*_GENERATOR_NAMES, *_NORMALISED)), path, "OASIS")
    generator.maps = torch.zeros(1, height, width, dtype=torch.int16)
    _refuse_dead_norms(generator.eval(), path)
    return {"name": "oasis", "preset": "paper", **sizes}, generator


def discriminator_from_official(
    state: Any, path: str | Path, num_classes: int
) -> tuple[dict[str, Any], OasisDiscriminator]:
    """Build a discriminator, ``best_D.pth``, and fill it.

    Args:
        state: content of the file, a bare state dict.
        path: where it was read, for error lines.
        num_classes: N of the generator beside it.

    Returns:
        Further settings for `synthaug.gans.oasis.build`, and the discriminator in evaluation mode,
        a segmenter: class c is logit c + 2.

    Raises:
        InputError: it is no such state dict or not finite, or is for other classes.
    """
    state = _checked(state, path)
    found = len(_kernel(state, "layer_up_last.weight", path)) - 2
    if found != num_classes:
        raise InputError(
            f"discriminator {path} is for {found} classes, {num_classes} are needed beside its "
            "generator: take both from one training"
        )
    first = _kernel(state, "body_down.0.conv1.0.weight_orig", path)
    width = len(first) / ENCODER_WIDTHS[1]
    with torch.device("meta"):
        discriminator = OasisDiscriminator(found, width=width)
    fill(discriminator, _renamed(state, (*_DISCRIMINATOR_NAMES, *_NORMALISED)), path, "OASIS")
    _refuse_dead_norms(discriminator.eval(), path)
    return {"discriminator_width": width}, discriminator


def _checked(state: Any, path: str | Path) -> dict[str, Tensor]:
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise InputError(f"{path} is no plain state dict of tensors: take an OASIS *.pth")
    return dict(state)


def _kernel(state: Mapping[str, Tensor], name: str, path: str | Path) -> Tensor:
    tensor = state.get(name)
    if tensor is None or tensor.ndim != 4 or not all(0 < side <= MOST for side in tensor.shape):
        raise InputError(f"{path} is no OASIS checkpoint of this kind: it has no kernel {name}")
    return tensor


def _refuse_dead_norms(network: nn.Module, path: str | Path) -> None:
    """Refuse a network in evaluation mode of which a kernel is divided by a spectral norm of 0."""
    for name, part in network.named_modules():
        if is_parametrized(part) and not part.weight.isfinite().all():
            raise InputError(f"{path} cannot be used: the spectral norm of {name} is 0")


def _renamed(state: Mapping[str, Tensor], rules: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed
