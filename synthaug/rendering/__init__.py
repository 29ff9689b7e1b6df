"""Patch rendering: pairs made anew, sharp, from patches of the training pairs; no training."""

from __future__ import annotations

from synthaug.rendering.generator import PatchGenerator
from synthaug.rendering.renderer import PatchRenderer

__all__ = ["PatchGenerator", "PatchRenderer"]
