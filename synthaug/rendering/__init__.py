"""Patch rendering: coarse image+mask pairs are made anew, sharp, from the training pairs' patches."""

from __future__ import annotations

from synthaug.rendering.renderer import PatchRenderer

__all__ = ["PatchRenderer"]
