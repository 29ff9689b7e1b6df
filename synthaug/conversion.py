"""CONVERT: public weights of others -> a folder of ours that holds no code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file, save
from torch import Tensor, nn

from synthaug import files
from synthaug.config import versions
from synthaug.errors import InputError
from synthaug.gans.biggan.checkpoints import from_pretrained
from synthaug.gans.stylegan2.checkpoints import StyleWeights, from_nvidia, from_port
from synthaug.unpickling import brief, is_archive, load_persistent_pickle, load_weights

WEIGHTS_FORMAT = "synthaug-weights-1"
_ENTRIES: dict[str, type] = {"gan": dict, "networks": list, "weights_sha256": str}
WEIGHTS_FILE = "weights.safetensors"


def convert(source: str | Path, out: str | Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Turn a public checkpoint into a folder with ``weights.safetensors`` and ``manifest.json``.

    Recognised are StyleGAN2 weights, ``.pt`` of the PyTorch port (``g_ema``, with ``d`` and
    ``latent_avg`` if there) and ``.pkl`` of NVIDIA's PyTorch ports; and the BigGAN-deep generators
    of ``pytorch-pretrained-biggan``, ``*pytorch_model.bin`` with its ``*config.json`` beside it.

    Args:
        source: the file. Nothing in it is run.
        out: the folder to write, at once or not at all.
        overwrite: replace an earlier output.

    Returns:
        The manifest: ``source`` and its ``source_format`` and hash, ``gan`` as
        `synthaug.gans.build` takes it (BigGAN, a generator alone: `biggan.build_generator`), the
        ``networks`` held.

    Raises:
        InputError: the file is missing, damaged, refused, or of no known kind; or the folder
            cannot be written.
    """
    files.check_output_folder(out, overwrite=overwrite, reads=(source,))
    found = _read(source)
    tensors = {
        f"{name}.{key}": tensor.contiguous().clone()
        for name, network in found.networks.items()
        for key, tensor in network.state_dict().items()
    }
    manifest: dict[str, Any] = {
        "format": WEIGHTS_FORMAT,
        "source": Path(source).name,
        "source_format": found.source_format,
        "source_sha256": files.sha256_file(source),
        "gan": found.spec,
        "networks": list(found.networks),
        "versions": versions(),
    }
    with files.new_directory(out, overwrite=overwrite) as staging:
        data = save(tensors)
        files.write_bytes(staging / WEIGHTS_FILE, data)
        manifest["weights_sha256"] = files.sha256_bytes(data)
        files.write_json(staging / "manifest.json", manifest)
    return manifest


def load_converted(folder: str | Path) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """Open a folder that `convert` wrote.

    Returns:
        Settings as `convert` tells them, and the state dict of every network by name.

    Raises:
        InputError: it is no such folder, or its weights are damaged.
    """
    folder = Path(folder)
    manifest = files.read_json(folder / "manifest.json", "manifest of converted weights")
    if not isinstance(manifest, Mapping) or manifest.get("format") != WEIGHTS_FORMAT:
        raise InputError(f"{folder} holds no converted weights: run synthaug convert on the source")
    for key, kind in _ENTRIES.items():
        if not isinstance(manifest.get(key), kind):
            raise InputError(f"{folder} has a damaged manifest ({key}): convert again")
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
        states.setdefault(name, {})[rest] = tensor
    return dict(manifest["gan"]), states


@dataclass(frozen=True, eq=False)
class _Found:
    source_format: str
    spec: dict[str, Any]
    networks: dict[str, nn.Module]


def _read(source: str | Path) -> _Found:
    try:
        with open(source, "rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror}; check the path") from error
    if is_archive(start):
        content = load_weights(source)
        if isinstance(content, Mapping) and "g_ema" in content:
            return _style("stylegan2-pytorch .pt", from_port(content, source))
        if isinstance(content, Mapping) and "embeddings.weight" in content:
            config = _biggan_config(Path(source))
            spec, generator = from_pretrained(config, content, source)
            return _Found("pytorch-pretrained-biggan", spec, {"generator": generator})
        holds = f"holds {_keys(content)}"
    elif start[:1] == pickle.PROTO:
        content = load_persistent_pickle(source)
        if isinstance(content, Mapping) and "G_ema" in content:
            return _style("NVIDIA .pkl", from_nvidia(content, source))
        holds = f"holds {_keys(content)}"
    else:
        holds = "is neither a PyTorch archive nor a pickle"
    raise InputError(
        f"{source} {holds}: known are StyleGAN2's .pt with g_ema, NVIDIA's .pkl with G_ema and "
        "BigGAN's *pytorch_model.bin"
    )


def _style(source_format: str, weights: StyleWeights) -> _Found:
    networks: dict[str, nn.Module] = {"generator": weights.generator}
    if weights.discriminator is not None:
        networks["discriminator"] = weights.discriminator
    return _Found(source_format, weights.spec, networks)


def _biggan_config(source: Path) -> Any:
    name = source.name.removesuffix("pytorch_model.bin")
    if name == source.name:
        raise InputError(f"{source} looks like BigGAN: name it *pytorch_model.bin")
    return files.read_json(source.with_name(f"{name}config.json"), "BigGAN configuration")


def _keys(content: object) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    names = [key[:30] if type(key) is str else brief(key) for key in islice(content, 4)]
    return f"{len(content)} entries ({', '.join(names)})" if names else "nothing"
