"""One frozen dataclass per stage, and the reading of recipes (YAML) that fill them.

Classes are plain keywords inside the package; values are validated once, where they come in: in
`load_recipe` (files, ``--set`` and command line flags) and in `make` (keywords of an API call).
"""

from __future__ import annotations

from synthaug.config.arms import Arm
from synthaug.config.fit import Accelerator, FitConfig
from synthaug.config.recipes import dump_stage, load_recipe, make, versions
from synthaug.config.stages import (
    CompareConfig,
    DataConfig,
    DemoConfig,
    FilterConfig,
    GenerateConfig,
    Recipe,
)

__all__ = [
    "Accelerator",
    "Arm",
    "CompareConfig",
    "DataConfig",
    "DemoConfig",
    "FilterConfig",
    "FitConfig",
    "GenerateConfig",
    "Recipe",
    "dump_stage",
    "load_recipe",
    "make",
    "versions",
]
