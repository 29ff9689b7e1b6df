"""Weights of BigGAN-deep as ``pytorch-pretrained-biggan`` keeps them: a JSON and a state dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from synthaug.errors import InputError
from synthaug.gans.biggan.networks import START_PX, BigGenerator, Layer
from synthaug.gans.state_dicts import fill

WHAT = "BigGAN"
MOST_LAYERS = 40
MOST = 1 << 16


def from_pretrained(config: Any, state: Any, path: object) -> tuple[dict[str, Any], BigGenerator]:
    """Build the generator that a configuration describes and fill it.

    Args:
        config: content of the JSON file; nothing in it is assumed.
        state: content of the weights, a state dict.
        path: of the files, for error lines.

    Returns:
        Settings for `synthaug.gans.biggan.build_generator`, and the generator in evaluation mode.

    Raises:
        InputError: the two are no such files, or do not fit each other.
    """
    spec = _settings(config, path)
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise InputError(f"{path} is no {WHAT} checkpoint: its weights are no state dict")
    with torch.device("meta"):
        generator = build_generator(**{k: v for k, v in spec.items() if k != "name"})
    if generator.size != config.get("output_dim"):
        raise InputError(f"{path}: its layers make {generator.size} px, not its output_dim")
    plain = {name.removeprefix("generator."): tensor for name, tensor in state.items()}
    fill(generator, plain, str(path), WHAT)
    return spec, generator.eval()


def build_generator(layers: list[Any], attention_at: int, **settings: Any) -> BigGenerator:
    """Build from plain settings; see `BigGenerator`."""
    blocks: list[Layer] = [(bool(up), int(before), int(after)) for up, before, after in layers]
    return BigGenerator(blocks, attention_at, **settings)


def _settings(config: Any, path: object) -> dict[str, Any]:
    def number(name: str) -> int:
        value = config.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < MOST:
            raise InputError(f"{path} is no {WHAT} configuration: it has no possible {name}")
        return value

    if not isinstance(config, Mapping):
        raise InputError(f"{path} is no {WHAT} configuration: it is no table")
    layers = config.get("layers")
    if not isinstance(layers, list) or not 0 < len(layers) <= MOST_LAYERS:
        raise InputError(f"{path} is no {WHAT} configuration: it has no possible layers")
    for layer in layers:
        if (
            not isinstance(layer, list)
            or len(layer) != 3
            or not isinstance(layer[0], bool)
            or not all(isinstance(n, int) and 0 < n <= 64 for n in layer[1:])
            or layer[2] > layer[1]
        ):
            raise InputError(f"{path} is no {WHAT} configuration: layer {layer!r:.40} is none")
    if START_PX << sum(layer[0] for layer in layers) > 1024:
        raise InputError(f"{path} is no {WHAT} configuration: it makes more than 1024 px")
    eps = config.get("eps", 1e-4)
    if not isinstance(eps, float) or not 0 < eps < 1:
        raise InputError(f"{path} is no {WHAT} configuration: it has no possible eps")
    return {
        "name": "biggan",
        "layers": layers,
        "attention_at": number("attention_layer_position"),
        "width": number("channel_width"),
        "z_dim": number("z_dim"),
        "embedding_dim": number("class_embed_dim"),
        "num_classes": number("num_classes"),
        "statistics": number("n_stats"),
        "eps": eps,
    }
