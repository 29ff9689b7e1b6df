"""CONVERT: public weights of others -> a folder of ours that holds no code."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file, save
from torch import Tensor, nn

from synthaug import files
from synthaug.bank import GENERATOR_FORMAT
from synthaug.config import versions
from synthaug.errors import InputError
from synthaug.formats.names import read_names
from synthaug.gans.biggan.checkpoints import from_pretrained
from synthaug.gans.oasis.checkpoints import (
    PUBLISHED,
    discriminator_from_official,
    generator_from_official,
)
from synthaug.gans.stylegan2.checkpoints import StyleWeights, from_nvidia, from_port
from synthaug.sample import IGNORE_ID, ClassMap
from synthaug.unpickling import brief, is_archive, load_persistent_pickle, load_weights

WEIGHTS_FORMAT = "synthaug-weights-1"
_ENTRIES: dict[str, type] = {"gan": dict, "networks": list, "weights_sha256": str}
WEIGHTS_FILE = "weights.safetensors"


def convert(
    source: str | Path,
    out: str | Path,
    *,
    size: tuple[int, int] | None = None,
    names: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Turn a public checkpoint into a folder with its weights as safetensors and ``manifest.json``.

    Recognised are StyleGAN2 weights, ``.pt`` of the PyTorch port (``g_ema``, with ``d`` and
    ``latent_avg`` if there) and ``.pkl`` of NVIDIA's PyTorch ports; the BigGAN-deep generators
    of ``pytorch-pretrained-biggan``, ``*pytorch_model.bin`` with its ``*config.json`` beside it;
    and OASIS' generators, ``*_EMA.pth`` or ``*_G.pth``, with ``*_D.pth`` if it lies beside.

    OASIS' become a painter like a fitted one, but for the training pairs, which the weights come
    without. Its classes are the ids of the data set's own masks: ADE20K's 1 to 150, Cityscapes'
    ``labelIds`` 1 to 34 (0 is unlabelled in both), COCO-Stuff's 0 to 181; with another number of
    classes N, 1 to N. It works at the size that it was trained at, to which the public code
    stretches maps and pictures of any size.

    Args:
        source: the file. Nothing in it is run.
        out: the folder to write, at once or not at all.
        size: OASIS: height and width of the training pictures, not stored in the file; None: those
            of the published weights with as many classes.
        names: OASIS: of the classes, see `synthaug.formats.names.read_names`.
        overwrite: replace an earlier output.

    Returns:
        The manifest: ``source`` and its ``source_format`` and hash, ``gan`` as
        `synthaug.gans.build` takes it (BigGAN, a generator alone: `biggan.build_generator`), the
        ``networks`` held; of OASIS also what the manifest of a fit says.

    Raises:
        InputError: the file is missing, damaged, refused, or of no known kind; the size or an
            option does not fit it; or the folder cannot be written.
    """
    files.check_output_folder(out, overwrite=overwrite, reads=(source,), becomes=WEIGHTS_FORMAT)
    found = _read(Path(source), size)
    painter = found.classes is not None
    if not painter and (size is not None or names is not None):
        option = "--names" if size is None else "--size"
        raise InputError(f"{option} is for OASIS, {source} is {found.source_format}: leave it out")
    manifest: dict[str, Any] = {
        "format": GENERATOR_FORMAT if painter else WEIGHTS_FORMAT,
        "source": Path(source).name,
        "source_format": found.source_format,
        "source_sha256": files.sha256_file(source),
        "gan": found.spec,
        "networks": list(found.networks),
        "versions": versions(),
    }
    if found.classes is not None:
        classes = found.classes if names is None else found.classes.named(read_names(names))
        manifest |= {
            "classes": classes.as_dict(),
            "pairs": [],
            "size": [found.spec["height"], found.spec["width"]],
            "grey": False,
            "config": {"ignore": list(range(classes.ids[0]))},
        }
    with files.new_directory(out, overwrite=overwrite, becomes=WEIGHTS_FORMAT) as staging:
        write = _write_painter if painter else _write_weights
        manifest |= write(staging, found.networks)
        files.write_json(staging / "manifest.json", manifest)
    return manifest


def _write_weights(folder: Path, networks: Mapping[str, nn.Module]) -> dict[str, str]:
    """Write all networks into one file, for `load_converted`; return its manifest entry."""
    tensors = {
        f"{name}.{key}": tensor.contiguous().clone()
        for name, network in networks.items()
        for key, tensor in network.state_dict().items()
    }
    data = save(tensors)
    files.write_bytes(folder / WEIGHTS_FILE, data)
    return {"weights_sha256": files.sha256_bytes(data)}


def _write_painter(folder: Path, networks: Mapping[str, nn.Module]) -> dict[str, str]:
    """Write a file per network, as a fit does; return the manifest entries."""
    entries: dict[str, str] = {}
    for name, network in networks.items():
        kind = "snapshot" if name == "generator" else name
        data = save({key: tensor.clone() for key, tensor in network.state_dict().items()})
        files.write_bytes(folder / f"{kind}.safetensors", data)
        entries |= {kind: f"{kind}.safetensors", f"{kind}_sha256": files.sha256_bytes(data)}
    return entries


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
    classes: ClassMap | None = None
    """Of a painter of label maps."""


def _read(source: Path, size: tuple[int, int] | None) -> _Found:
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
            config = _biggan_config(source)
            spec, generator = from_pretrained(config, content, source)
            return _Found("pytorch-pretrained-biggan", spec, {"generator": generator})
        if isinstance(content, Mapping) and {"fc.weight", "conv_img.weight"} <= content.keys():
            return _oasis(content, source, size)
        if isinstance(content, Mapping) and "layer_up_last.weight" in content:
            raise InputError(
                f"{source} is OASIS' discriminator alone: convert the *_EMA.pth that it lies beside"
            )
        holds = f"holds {_keys(content)}"
    elif start[:1] == pickle.PROTO:
        content = load_persistent_pickle(source)
        if isinstance(content, Mapping) and "G_ema" in content:
            return _style("NVIDIA .pkl", from_nvidia(content, source))
        holds = f"holds {_keys(content)}"
    else:
        holds = "is neither a PyTorch archive nor a pickle of protocol 2 or later"
    raise InputError(
        f"{source} {holds}: known are StyleGAN2's .pt with g_ema, NVIDIA's .pkl with G_ema, "
        "BigGAN's *pytorch_model.bin and OASIS' *_EMA.pth"
    )


def _style(source_format: str, weights: StyleWeights) -> _Found:
    networks: dict[str, nn.Module] = {"generator": weights.generator}
    if weights.discriminator is not None:
        networks["discriminator"] = weights.discriminator
    return _Found(source_format, weights.spec, networks)


def _oasis(content: Any, source: Path, size: tuple[int, int] | None) -> _Found:
    spec, generator = generator_from_official(content, source, size)
    count = spec["num_classes"]
    published = PUBLISHED.get(count + 1)
    first = 1 if published is None else published.first_id
    if first + count > IGNORE_ID:
        raise InputError(
            f"{source} paints {count} classes: masks here hold ids up to {IGNORE_ID - 1}"
        )
    networks: dict[str, nn.Module] = {"generator": generator}
    beside = source.with_name(re.sub(r"(EMA|G)\.pth$", "D.pth", source.name))
    if beside != source and beside.is_file():
        more, networks["discriminator"] = discriminator_from_official(
            load_weights(beside), beside, count
        )
        spec |= more
    return _Found("OASIS .pth", spec, networks, ClassMap(tuple(range(first, first + count))))


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
