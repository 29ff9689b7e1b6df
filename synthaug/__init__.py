"""Turn one labelled image into synthetic image+mask pairs for training segmenters.

The names below load lazily: importing the package imports neither PyTorch nor NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synthaug.bank import Bank
    from synthaug.demo import demo as run_demo
    from synthaug.errors import InputError
    from synthaug.evaluation.bank_quality import evaluate
    from synthaug.filtering import filter_bank
    from synthaug.fitting import fit
    from synthaug.generation import generate, load_generator
    from synthaug.mixing import SynthAugment, SynthMix, seed_worker
    from synthaug.sample import ClassMap, Sample

__version__ = "0.1.0"

__all__ = [
    "fit",
    "generate",
    "filter_bank",
    "evaluate",
    "run_demo",
    "load_generator",
    "Bank",
    "Sample",
    "ClassMap",
    "SynthAugment",
    "SynthMix",
    "seed_worker",
    "InputError",
    "__version__",
]

_HOMES = {
    "fit": "synthaug.fitting:fit",
    "generate": "synthaug.generation:generate",
    "filter_bank": "synthaug.filtering:filter_bank",
    "evaluate": "synthaug.evaluation.bank_quality:evaluate",
    "run_demo": "synthaug.demo:demo",
    "load_generator": "synthaug.generation:load_generator",
    "Bank": "synthaug.bank:Bank",
    "Sample": "synthaug.sample:Sample",
    "ClassMap": "synthaug.sample:ClassMap",
    "SynthAugment": "synthaug.mixing:SynthAugment",
    "SynthMix": "synthaug.mixing:SynthMix",
    "seed_worker": "synthaug.mixing:seed_worker",
    "InputError": "synthaug.errors:InputError",
}

_ROOMS = ("config", "gain", "generation", "mixing")
"""Modules that the documentation names as attributes of the package."""


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"synthaug.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'synthaug' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
