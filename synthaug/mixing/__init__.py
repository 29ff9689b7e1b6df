"""MIX: synthetic pairs beside real ones, as a transform or as a dataset.

Names are imported on first use, so that importing this package costs nothing:

- `standard_augmentation`: the baseline pipeline (albumentations)
- `SynthAugment`: a transform that replaces the labelled image by a synthetic pair
- `SynthMix`: a PyTorch dataset that keeps an exact share of synthetic pairs
- `seed_worker`: seeds every pipeline in a `DataLoader` worker
- `SynthReplace`: the torchvision v2 counterpart of `SynthAugment`
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synthaug.mixing.datasets import SynthMix as SynthMix
    from synthaug.mixing.standard import standard_augmentation as standard_augmentation
    from synthaug.mixing.torchvision import SynthReplace as SynthReplace
    from synthaug.mixing.transform import SynthAugment as SynthAugment
    from synthaug.mixing.workers import seed_worker as seed_worker

_ROOMS = {
    "SynthAugment": "transform",
    "SynthMix": "datasets",
    "SynthReplace": "torchvision",
    "seed_worker": "workers",
    "standard_augmentation": "standard",
}

__all__ = sorted(_ROOMS)


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
