"""Composition at full size: objects of labelled pairs, moved, over completed backgrounds."""

from __future__ import annotations

from synthaug.composing.composer import Composer

__all__ = ["Composer"]
