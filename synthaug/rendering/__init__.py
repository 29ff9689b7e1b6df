"""Patch rendering: pairs made anew, sharp, from patches of the training pairs; no training."""

from __future__ import annotations

from synthaug.rendering.generator import PatchGenerator, is_patch_generator
from synthaug.rendering.renderer import PatchRenderer

__all__ = ["PatchGenerator", "PatchRenderer", "is_patch_generator"]
