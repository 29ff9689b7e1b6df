"""``synthaug info``: what a bug report needs, and the clashes that other packages cause."""

from __future__ import annotations

import json
import os
from importlib.metadata import PackageNotFoundError, distribution, version
from typing import Any

from synthaug.cli import options

_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "opencv-python-headless",
    "albumentations",
    "segmentation-models-pytorch",
    "lightning-fabric",
    "pycocotools",
    "pydantic",
)
_OPENCVS = (
    "opencv-python-headless",
    "opencv-python",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


def info_command(as_json: options.Json = False) -> None:
    """Show versions, devices, weights found and package clashes."""
    from synthaug.config import versions

    value = {
        "versions": {**versions(), **_installed(_PACKAGES)},
        "devices": _devices(),
        "weights": _weights(),
        "problems": find_problems(),
    }
    if as_json:
        print(json.dumps(value, indent=2))
        return
    for title, entries in value.items():
        if isinstance(entries, dict):
            for name, entry in entries.items():
                print(f"{name:32} {entry}")
        for entry in entries if isinstance(entries, list) else ():
            print(f"{title[:-1]}: {entry}")


def find_problems() -> list[str]:
    """Return one line per clash between installed packages, with the command that mends it."""
    problems = []
    opencvs = list(_installed(_OPENCVS))
    if len(opencvs) > 1:
        problems.append(
            f"{' and '.join(opencvs)} overwrite each other's files: pip uninstall -y "
            f"{' '.join(opencvs)} && pip install opencv-python-headless"
        )
    if _installed(("albumentationsx",)):
        problems.append(
            "albumentationsx replaces albumentations and breaks custom transforms: pip uninstall "
            "-y albumentationsx albumentations && pip install 'albumentations>=2.0.8,<2.1'"
        )
    return problems


def _installed(names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            distribution(name)
        except PackageNotFoundError:
            continue
        found[name] = version(name)
    return found


def _devices() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "cuda": ", ".join(gpus) or "none",
        "mps": "yes" if torch.backends.mps.is_available() else "none",
    }


def _weights() -> dict[str, str]:
    from synthaug.errors import InputError
    from synthaug.weights import efficientnet_lite0_state, inception_v3_path

    found = {}
    try:
        efficientnet_lite0_state()
        found["efficientnet_lite0"] = "bundled, hash verified"
    except (InputError, ImportError) as error:
        found["efficientnet_lite0"] = str(error)
    try:
        path = inception_v3_path()
        found["inception_v3"] = str(path) if path else "not found (optional)"
    except InputError as error:
        found["inception_v3"] = str(error)
    return found
