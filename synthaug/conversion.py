"""CONVERT: public weights of others -> a folder of ours that holds no code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from synthaug import files
from synthaug.config import versions
from synthaug.errors import InputError
from synthaug.gans.stylegan2.checkpoints import StyleWeights, from_nvidia, from_port
from synthaug.unpickling import is_archive, load_persistent_pickle, load_weights

WEIGHTS_FORMAT = "synthaug-weights-1"
WEIGHTS_FILE = "weights.safetensors"


def convert(source: str | Path, out: str | Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Turn a public checkpoint into a folder with ``weights.safetensors`` and ``manifest.json``.

    Recognised are StyleGAN2 weights: ``.pt`` of the PyTorch port (``g_ema``, with ``d`` and
    ``latent_avg`` if there) and ``.pkl`` of NVIDIA's PyTorch ports.

    Args:
        source: the file. Nothing in it is run.
        out: the folder to write, at once or not at all.
        overwrite: replace an earlier output.

    Returns:
        The manifest: ``source`` and its ``source_format`` and hash, ``gan`` as
        `synthaug.gans.build` takes it, the ``networks`` held.

    Raises:
        InputError: the file is missing, damaged, refused, or of no known kind; or the folder
            cannot be written.
    """
    files.check_output_folder(out, overwrite=overwrite)
    source_format, weights = _read(source)
    networks = {"generator": weights.generator, "discriminator": weights.discriminator}
    tensors = {
        f"{name}.{key}": tensor.contiguous().clone()
        for name, network in networks.items()
        if network is not None
        for key, tensor in network.state_dict().items()
    }
    manifest: dict[str, Any] = {
        "format": WEIGHTS_FORMAT,
        "source": Path(source).name,
        "source_format": source_format,
        "source_sha256": files.sha256_file(source),
        "gan": weights.spec,
        "networks": [name for name, network in networks.items() if network is not None],
        "versions": versions(),
    }
    with files.new_directory(out, overwrite=overwrite) as staging:
        save_file(tensors, staging / WEIGHTS_FILE)
        manifest["weights_sha256"] = files.sha256_file(staging / WEIGHTS_FILE)
        files.write_json(staging / "manifest.json", manifest)
    return manifest


def load_converted(folder: str | Path) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """Open a folder that `convert` wrote.

    Returns:
        Settings for `synthaug.gans.build`, and the state dict of every network by name.

    Raises:
        InputError: it is no such folder, or its weights are damaged.
    """
    folder = Path(folder)
    manifest = files.read_json(folder / "manifest.json", "manifest of converted weights")
    if not isinstance(manifest, Mapping) or manifest.get("format") != WEIGHTS_FORMAT:
        raise InputError(f"{folder} holds no converted weights: run synthaug convert on the source")
    path = folder / WEIGHTS_FILE
    try:
        intact = files.sha256_file(path) == manifest["weights_sha256"]
        tensors = load_file(path) if intact else {}
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"weights {path} cannot be read ({error}): convert again") from error
    if not intact:
        raise InputError(f"weights {path} are damaged (hash differs): convert again")
    states: dict[str, dict[str, Tensor]] = {name: {} for name in manifest["networks"]}
    for key, tensor in tensors.items():
        name, _, rest = key.partition(".")
        states[name][rest] = tensor
    return dict(manifest["gan"]), states


def _read(source: str | Path) -> tuple[str, StyleWeights]:
    try:
        with open(source, "rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror}; check the path") from error
    if is_archive(start):
        content = load_weights(source)
        if isinstance(content, Mapping) and "g_ema" in content:
            return "stylegan2-pytorch .pt", from_port(content, source)
        found = f"holds {_keys(content)}"
    elif start[:1] == pickle.PROTO:
        content = load_persistent_pickle(source)
        if isinstance(content, Mapping) and "G_ema" in content:
            return "NVIDIA .pkl", from_nvidia(content, source)
        found = f"holds {_keys(content)}"
    else:
        found = "is neither a PyTorch archive nor a pickle"
    raise InputError(
        f"{source} {found}: known are StyleGAN2's .pt with g_ema and NVIDIA's .pkl with G_ema"
    )


def _keys(content: object) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    names = [str(key)[:30] for key in content]
    return f"{len(names)} entries ({', '.join(names[:4])})" if names else "nothing"
