"""What decides a run, as one hash: runs of equal keys need not be made twice."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from synthaug import files
from synthaug.bank import mask_key
from synthaug.config.arms import Arm
from synthaug.errors import InputError
from synthaug.segmenters.factory import build_network

if TYPE_CHECKING:
    from synthaug.formats.splits import Unit
    from synthaug.gain.runs import Settings
    from synthaug.sample import Sample

RUN_FORMAT = "synthaug-run-2"
"""Raised when equal ingredients give another result than before."""
_imported: dict[str, tuple[Any, str]] = {}
"""Specs and hashes of users' modules when they were first counted: later ones are not what runs."""
_INSTALLED = {"site-packages", "dist-packages"}
_REVISIONS = {"matching": 2, "repri": 2}
"""The same of one segmenter: 2 takes items evenly from large batches, and pictures one by one."""


def run_key(
    unit: list[str], arm: Arm, seed: int, sources: Mapping[str, Any], shared: Mapping[str, Any]
) -> str:
    """SHA-256 over everything that decides a run.

    Args:
        unit: name and `fingerprint`.
        arm: its name does not count.
        seed: the repetition.
        sources: kind -> folder; those that the arm needs count, by `source_hashes`.
        shared: settings of all runs, and the hash of the unit's parent network.
    """
    ingredients = {
        "format": RUN_FORMAT,
        "unit": unit,
        "arm": {**arm.as_dict(), "name": None},
        "seed": seed,
        "sources": {kind: source_hashes(sources.get(kind)) for kind in arm.needs},
        "shared": dict(shared),
    }
    return files.sha256_bytes(json.dumps(ingredients, sort_keys=True).encode())


class Fingerprint(NamedTuple):
    """SHA-256 of a unit's content.

    Attributes:
        whole: over all images and masks, training and test, with their ids.
        training: of the pixels of each training picture, and its id.
        test: of the pixels of each test picture, and its id.
        masks: `mask_key` of each test mask that shows two classes or more, and its id.
    """

    whole: str
    training: list[tuple[str, str]]
    test: list[tuple[str, str]]
    masks: list[tuple[str, str]]


_fingerprints: WeakKeyDictionary[Unit, Fingerprint] = WeakKeyDictionary()


def fingerprint(unit: Unit) -> Fingerprint:
    """Hash a unit's pictures and masks; all of them are read, once.

    Raises:
        InputError: one is damaged, or its mask is of another size.
    """
    if unit not in _fingerprints:
        digest = hashlib.sha256(json.dumps([unit.kind, list(unit.classes.ids)]).encode())
        shown: list[int] = []
        masks: list[tuple[str, str]] = []

        def look(sample: Sample) -> None:
            channels = np.unique(unit.classes.encode(sample.mask))
            shown.append(int((channels >= 0).sum()))
            if shown[-1] > 1:
                masks.append((mask_key(sample.mask), sample.id))

        training = add_samples(digest, unit.training)
        digest.update(b"/")
        test = add_samples(digest, unit.test, look)
        digest.update(b"/")
        if set(unit.sizes) != {unit.size}:
            digest.update(b"usual size")  # where it was that of the first
        if unit.kind == "video" and not all(shown):
            digest.update(b"labelled frames")  # where those without a label counted as perfect
        _fingerprints[unit] = Fingerprint(digest.hexdigest(), training, test, masks)
    return _fingerprints[unit]


def add_samples(
    digest: hashlib._Hash,
    samples: Sequence[Sample],
    look: Callable[[Sample], object] = lambda sample: None,
) -> list[tuple[str, str]]:
    """Feed ids, sizes and pixels of samples to a hash, and look at each.

    Returns:
        SHA-256 of each picture's pixels, and its id.
    """
    pictures = []
    for index in range(len(samples)):
        sample = samples[index]
        pixels = sample.image.tobytes()
        digest.update(f"{sample.id} {sample.size}".encode())
        digest.update(pixels)
        digest.update(sample.mask.tobytes())
        pictures.append((files.sha256_bytes(pixels), sample.id))
        look(sample)
    return pictures


def source_hashes(path: Any) -> list[str]:
    """SHA-256 of what a source's folder says about itself and its samples; [] without one."""
    if path is None:
        return []
    listed = (Path(path) / name for name in ("manifest.json", "samples.jsonl"))
    return [files.sha256_file(file) for file in listed if file.is_file()]


def code_hashes(settings: Settings) -> dict[str, Any]:
    """What else decides a segmenter's results: SHA-256 of the user's own modules, our revision.

    Counted are the module that is named, once it is imported, and those of the user's that it
    takes anything from, and so on: what lies in the folder that it is imported from, without
    installed packages. Of an installed one its own modules count.

    Raises:
        InputError: the module lies in no file, or its file is another than was imported.
    """
    found: dict[str, Any] = {}
    if settings.segmenter in _REVISIONS:
        found["revision"] = _REVISIONS[settings.segmenter]
    name = settings.segmenter.split(":")[0] if ":" in settings.segmenter else ""
    module = sys.modules.get(name)
    if module is None:
        return found
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).is_file():
        raise InputError(
            f"the network of {settings.segmenter} lies in no file, so that a change of it could "
            "not be seen: put it into a module"
        )
    digests = {n: files.sha256_file(file) for n, file in sorted(_own_files(module).items())}
    for n, digest in digests.items():
        spec = sys.modules[n].__spec__  # another one after a reload
        first = _imported.setdefault(n, (spec, digest))
        if first[0] is not spec:
            _imported[n] = (spec, digest)
        elif first[1] != digest:
            raise InputError(
                f"module {n} of segmenter {settings.segmenter} has changed since it was imported: "
                "reload it or start Python again"
            )
    found["segmenter_sha256"] = digests.pop(module.__name__)
    if digests:
        found["modules_sha256"] = digests
    return found


def weight_hashes(settings: Settings, num_classes: int) -> dict[str, str]:
    """SHA-256 of the shapes of a user's network and of the weights that it brings along.

    These are what two seeds build alike: weights that are drawn, of the seed or of anything else,
    do not count, as their last bits differ between computers; the code that draws them does.

    Args:
        settings: of the comparison; {} is returned for a segmenter of ours.
        num_classes: number of classes N.

    Raises:
        InputError: the network cannot be built.
    """
    if ":" not in settings.segmenter:
        return {}
    first, second = (
        _described(build_network(settings.segmenter, num_classes, seed=seed)) for seed in (0, 1)
    )
    return {"weights_sha256": files.sha256_bytes("\n".join(sorted(first & second)).encode())}


def _described(network: nn.Module) -> set[str]:
    """Shape and content of every parameter and buffer; those of lazy layers have none yet."""
    said = set()
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        if is_lazy(value) or value.layout is not torch.strided:
            continue
        content = value.detach().cpu().flatten().view(torch.uint8).numpy()
        said.add(f"{name} {value.dtype} {tuple(value.shape)}")
        said.add(f"{name} {files.sha256_bytes(content.tobytes())}")
    return said


def _own_files(module: ModuleType) -> dict[str, str]:
    """Name and file of a module and of the user's others that it refers to."""
    assert module.__file__ is not None
    package = module.__name__.partition(".")[0]
    depth = module.__name__.count(".") + hasattr(module, "__path__")
    root = Path(module.__file__).resolve().parents[depth]
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        own = waiting.pop()
        file = getattr(own, "__file__", None)
        if file is None or own.__name__ in found:
            continue
        path = Path(file).resolve()
        users = path.is_relative_to(root) and _INSTALLED.isdisjoint(path.parts)
        if not users and own.__name__.partition(".")[0] != package:
            continue
        found[own.__name__] = file
        for value in list(vars(own).values()):
            home = sys.modules.get(str(getattr(value, "__module__", None)))
            waiting += [other for other in (value, home) if isinstance(other, ModuleType)]
        if users:  # reading all of an installed package takes long, and nobody edits it
            waiting += [sys.modules[name] for name in _imports(own, path) if name in sys.modules]
    return found


def _imports(module: ModuleType, path: Path) -> list[str]:
    """Names in a module's source that may be modules: a number that it imports tells of none."""
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError):  # compiled, or changed since it was imported
        return []
    names = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = (module.__package__ or "").split(".")
            parts = above[: len(above) + 1 - node.level] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names
