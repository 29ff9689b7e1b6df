"""Public StyleGAN2 weights: ``.pt`` of the PyTorch port, ``.pkl`` of NVIDIA's.

Sizes are inferred, every name and shape is verified. Files are read by `synthaug.unpickling`:
nothing in them is run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from synthaug.errors import InputError
from synthaug.gans.state_dicts import fill
from synthaug.gans.stylegan2.layers import fir_kernel
from synthaug.gans.stylegan2.networks import StyleDiscriminator, StyleGenerator
from synthaug.unpickling import Record, brief

WHAT = "StyleGAN2"
MOST_LEVELS = 9
"""4 px up to 1024."""
LR_MLP = 0.01
State = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class StyleWeights:
    """What a public checkpoint holds.

    Attributes:
        spec: settings for `synthaug.gans.build`.
        generator: the averaged one, in evaluation mode.
        discriminator: None if the file has none.
    """

    spec: dict[str, Any]
    generator: StyleGenerator
    discriminator: StyleDiscriminator | None


def from_port(checkpoint: Mapping[str, Any], path: object) -> StyleWeights:
    """Take the networks from a ``.pt``: ``g_ema``, and ``d`` and ``latent_avg`` if there.

    Args:
        checkpoint: what the file holds; prefixes ``module.`` are dropped.
        path: of the file, for error lines.

    Raises:
        InputError: it is no such checkpoint.
    """
    generator = _generator(_state(checkpoint, "g_ema", path), path)
    average = checkpoint.get("latent_avg")
    if average is None:
        generator.measure_latent_avg()
    else:
        if not isinstance(average, Tensor) or average.numel() != generator.w_dim:
            raise InputError(f"{path} is no {WHAT} checkpoint: its latent_avg is no style")
        generator.latent_avg = average.detach().float().flatten().clone()
    discriminator = None
    if "d" in checkpoint:
        discriminator = _discriminator(_state(checkpoint, "d", path), path)
    return _weights(generator, discriminator, path)


def from_nvidia(checkpoint: Mapping[str, Any], path: object) -> StyleWeights:
    """Take ``G_ema`` and ``D`` from a ``.pkl`` that `unpickling.load_persistent_pickle` read.

    Args:
        checkpoint: what the file holds.
        path: of the file, for error lines.

    Raises:
        InputError: it is no such checkpoint, or of a kind whose pictures would differ: with
            labels, other architectures, filters, activations or learning-rate multipliers.
    """
    try:
        return _from_nvidia(checkpoint, path)
    except InputError:
        raise
    except (
        AttributeError,
        OverflowError,
        RecursionError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        kind = type(error).__name__
        raise InputError(
            f"{path} is no {WHAT} checkpoint: it has values of other kinds ({kind})"
        ) from error


def _from_nvidia(checkpoint: Mapping[str, Any], path: object) -> StyleWeights:
    tensors, attributes = _walk(checkpoint.get("G_ema"), "G_ema", path)
    clamp = _check_nvidia(tensors, attributes, "skip", path)
    renamed = _renamed(tensors, _generator_name, path)
    average = renamed.pop("latent_avg", None)
    if average is None:
        raise InputError(f"{path} is no {WHAT} checkpoint: G_ema has no mapping.w_avg")
    generator = _generator(_with_kernels(renamed), path, clamp)
    if average.shape != generator.latent_avg.shape:
        raise InputError(f"{path} is no {WHAT} checkpoint: its mapping.w_avg is no style")
    generator.latent_avg = average.detach().float().clone()
    discriminator = None
    if checkpoint.get("D") is not None:
        tensors, attributes = _walk(checkpoint["D"], "D", path)
        if _check_nvidia(tensors, attributes, "resnet", path) != clamp:
            raise InputError(f"{path}: generator and discriminator clamp differently")
        group = attributes.get("b4.mbstd", {}).get("group_size")
        if not isinstance(group, int) or attributes["b4.mbstd"].get("num_channels") != 1:
            raise InputError(f"{path}: its minibatch deviation is of another kind than published")
        size = max(_resolutions(tensors), default=0)
        state = _renamed(tensors, lambda name: _discriminator_name(name, size), path)
        discriminator = _discriminator(_with_kernels(state), path, clamp, group)
    return _weights(generator, discriminator, path)


def _weights(
    generator: StyleGenerator, discriminator: StyleDiscriminator | None, path: object
) -> StyleWeights:
    spec: dict[str, Any] = {
        "name": "stylegan2",
        "size": generator.size,
        "channels": generator.channels,
        "z_dim": generator.z_dim,
        "w_dim": generator.w_dim,
        "n_mlp": generator.n_mlp,
        "clamp": generator.clamp,
    }
    if discriminator is not None:
        if discriminator.channels != generator.channels:
            raise InputError(f"{path}: generator and discriminator are of different sizes")
        spec["group"] = discriminator.group
        discriminator.eval()
    return StyleWeights(spec, generator.eval(), discriminator)


def _generator(state: State, path: object, clamp: float | None = None) -> StyleGenerator:
    """Build a generator of the sizes that a state dict in the port's names implies."""
    n_mlp = sum(bool(re.fullmatch(r"style\.\d+\.weight", name)) for name in state)
    levels = 1 + sum(bool(re.fullmatch(r"to_rgbs\.\d+\.bias", name)) for name in state)
    if not 2 <= levels <= MOST_LEVELS or n_mlp < 1:
        raise InputError(f"{path} is no {WHAT} checkpoint: no generator of 8 to 1024 px is in it")
    for level in range(levels):
        _length(state, "conv1.conv.weight" if level == 0 else _last_conv(level), 1, path, 5)
    w_dim, z_dim = (_length(state, "style.1.weight", axis, path) for axis in (0, 1))
    with torch.device("meta"):
        generator = StyleGenerator(
            _channels(state), z_dim=z_dim, w_dim=w_dim, n_mlp=n_mlp, lr_mlp=LR_MLP, clamp=clamp
        )
    fill(generator, {**state, "latent_avg": torch.zeros(w_dim)}, str(path), WHAT)
    return generator


def _discriminator(
    state: State, path: object, clamp: float | None = None, group: int = 4
) -> StyleDiscriminator:
    blocks = sum(bool(re.fullmatch(r"convs\.\d+\.skip\.1\.weight", name)) for name in state)
    if not 1 <= blocks < MOST_LEVELS:
        raise InputError(f"{path} is no {WHAT} checkpoint: no discriminator up to 1024 px is in it")
    channels = [_length(state, f"convs.{i}.conv2.1.weight", 0, path) for i in range(blocks, 0, -1)]
    channels.append(_length(state, "convs.0.0.weight", 0, path))
    with torch.device("meta"):
        discriminator = StyleDiscriminator(channels, group=group, clamp=clamp)
    fill(discriminator, state, str(path), WHAT)
    return discriminator


def _last_conv(level: int) -> str:
    return f"convs.{2 * level - 1}.conv.weight"


def _channels(state: Mapping[str, Tensor]) -> list[int]:
    """Return a generator's channels at 4, 8, ... pixels."""
    channels = [state["conv1.conv.weight"].shape[1]]
    while (name := _last_conv(len(channels))) in state:
        channels.append(state[name].shape[1])
    return channels


def _length(
    state: Mapping[str, Tensor], name: str, axis: int, path: object, ndim: int | None = None
) -> int:
    tensor = state.get(name)
    if (
        tensor is None
        or 0 in tensor.shape
        or tensor.ndim <= axis
        or (ndim is not None and tensor.ndim != ndim)
    ):
        raise InputError(f"{path} is no {WHAT} checkpoint: it has no weights {name}")
    return tensor.shape[axis]


def _state(checkpoint: Mapping[str, Any], key: str, path: object) -> State:
    state = checkpoint.get(key)
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise InputError(f"{path} is no {WHAT} checkpoint: {key} is no state dict of tensors")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _walk(module: Any, name: str, path: object) -> tuple[State, dict[str, dict[str, Any]]]:
    """Return a recorded module's tensors by dotted name, and every sub-module's attributes."""
    tensors: State = {}
    attributes: dict[str, dict[str, Any]] = {}
    seen: set[int] = set()

    def visit(module: Any, prefix: str) -> None:
        if not isinstance(module, Record) or id(module) in seen:
            raise InputError(f"{path} is no {WHAT} checkpoint: {name} is no tree of modules")
        seen.add(id(module))
        attributes[prefix.rstrip(".")] = module.state
        for kind in ("_parameters", "_buffers"):
            for key, value in _entries(module, kind):
                if isinstance(value, Tensor):
                    tensors[prefix + key] = value
        for key, value in _entries(module, "_modules"):
            if value is not None:
                visit(value, f"{prefix}{key}.")

    def _entries(module: Record, kind: str) -> Iterator[tuple[str, Any]]:
        entries = module.state.get(kind, {})
        if not isinstance(entries, dict):
            raise InputError(f"{path} is no {WHAT} checkpoint: {name} is no tree of modules")
        return ((str(key), value) for key, value in entries.items())

    visit(module, "")
    return tensors, attributes


def _check_nvidia(
    tensors: State, attributes: Mapping[str, Mapping[str, Any]], architecture: str, path: object
) -> float | None:
    """Refuse what our networks would draw otherwise; return the limit of activations."""
    clamps = set()
    for name, own in attributes.items():
        expected = {"c_dim": 0, "architecture": architecture, "use_noise": True}
        for key, value in expected.items():
            if key in own and own[key] != value:
                raise InputError(f"{path}: {name or 'it'} has {key} {brief(own[key])}, not {value}")
        if "conv_clamp" in own and not (name.endswith("skip") and own["conv_clamp"] is None):
            clamp = own["conv_clamp"]
            if clamp is not None and type(clamp) not in (int, float):
                raise InputError(f"{path}: {name or 'it'} has conv_clamp {brief(clamp)}, no number")
            clamps.add(clamp)  # the discriminator's shortcuts are never clamped
        if re.search(r"(^|\.)conv[01]?$", name) and own.get("activation", "lrelu") != "lrelu":
            raise InputError(f"{path}: {name} has another activation than published")
        if re.fullmatch(r"mapping\.fc\d+", name) and not math.isclose(
            own.get("bias_gain", LR_MLP), LR_MLP, rel_tol=1e-4
        ):
            raise InputError(f"{path}: its mapping network has another learning-rate multiplier")
    for name, tensor in tensors.items():
        if name.endswith("resample_filter") and not (
            tensor.shape == (4, 4) and torch.allclose(tensor.float(), fir_kernel(), atol=1e-6)
        ):
            raise InputError(f"{path}: {name} is another filter than published")
    if len(clamps) > 1:
        raise InputError(f"{path}: its layers clamp differently")
    clamp = next(iter(clamps), None)
    return None if clamp is None else float(clamp)


def _resolutions(tensors: Mapping[str, Tensor]) -> set[int]:
    return {int(m[1]) for name in tensors if (m := re.match(r"b(\d{1,4})\.", name))}


def _generator_name(name: str) -> tuple[str, tuple[int, ...]] | None:
    """Return the port's name of a tensor and where axes of length 1 are to be inserted."""
    if name == "mapping.w_avg":
        return "latent_avg", ()
    if match := re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", name):
        return f"style.{int(match[1]) + 1}.{match[2]}", ()
    if name == "synthesis.b4.const":
        return "input.input", (0,)
    match = re.fullmatch(r"synthesis\.b(\d{1,4})\.(conv0|conv1|torgb)\.(.+)", name)
    if match is None:
        return None
    level = int(match[1]).bit_length() - 3  # 4 px: 0
    kind, rest = match[2], match[3]
    if kind == "torgb":
        to = "to_rgb1" if level == 0 else f"to_rgbs.{level - 1}"
        rows = {"weight": (f"{to}.conv.weight", (0,)), "bias": (f"{to}.bias", (0, 2, 3))}
    else:
        index = 2 * level - 2 + (kind == "conv1")  # of the convs; -1: conv1 at 4 px
        to = "conv1" if level == 0 else f"convs.{index}"
        rows = {
            "weight": (f"{to}.conv.weight", (0,)),
            "bias": (f"{to}.activate.bias", ()),
            "noise_strength": (f"{to}.noise.weight", (0,)),
            "noise_const": (f"noises.noise_{index + 1}", (0, 1)),
        }
    rows["affine.weight"] = (f"{to}.conv.modulation.weight", ())
    rows["affine.bias"] = (f"{to}.conv.modulation.bias", ())
    return rows.get(rest)


def _discriminator_name(name: str, size: int) -> tuple[str, tuple[int, ...]] | None:
    match = re.fullmatch(r"b(\d{1,4})\.(fromrgb|conv|conv0|conv1|skip|fc|out)\.(weight|bias)", name)
    if match is None:
        return None
    block = size.bit_length() - int(match[1]).bit_length() + 1
    layer = {
        "fromrgb": "convs.0",
        "conv0": f"convs.{block}.conv1",
        "conv1": f"convs.{block}.conv2",
        "skip": f"convs.{block}.skip",
        "conv": "final_conv",
        "fc": "final_linear.0",
        "out": "final_linear.1",
    }[match[2]]
    if match[2] in ("fc", "out"):
        return f"{layer}.{match[3]}", ()
    after_blur = match[2] in ("conv1", "skip")
    return f"{layer}.{after_blur + (match[3] == 'bias')}.{match[3]}", ()


def _renamed(tensors: State, rename: Any, path: object) -> State:
    renamed: State = {}
    for name, tensor in tensors.items():
        if name.endswith("resample_filter"):
            continue
        found = rename(name)
        if found is None or found[0] in renamed:
            raise InputError(f"{path} is no {WHAT} checkpoint of this kind: it has {name:.60}")
        for axis in found[1]:
            if axis > tensor.ndim:
                raise InputError(f"{path}: {name} is of shape {tuple(tensor.shape)}")
            tensor = tensor.unsqueeze(axis)
        renamed[found[0]] = tensor
    return renamed


def _with_kernels(state: State) -> State:
    """Add the filters, which NVIDIA's files keep once per block."""
    kernels: State = {}
    for name in state:
        if match := re.fullmatch(r"convs\.(\d+)\.conv\.weight", name):
            if int(match[1]) % 2 == 0:
                kernels[f"convs.{match[1]}.conv.blur.kernel"] = fir_kernel(4.0)
        elif match := re.fullmatch(r"to_rgbs\.(\d+)\.bias", name):
            kernels[f"to_rgbs.{match[1]}.upsample.kernel"] = fir_kernel(4.0)
        elif match := re.fullmatch(r"(convs\.\d+\.(?:conv2|skip))\.1\.weight", name):
            kernels[f"{match[1]}.0.kernel"] = fir_kernel()
    return state | kernels
