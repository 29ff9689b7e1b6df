"""GENERATE: a generator's folder -> samples, and a bank of them.

- `drawing.generate`: draws a bank
- `generator`, `map_generator`: a fitted GAN; one that paints label maps
- `map_segmenter`: the discriminator of such a painter, which labels pictures
- `layouts`, `asked_layouts`: new label maps to paint, made of given ones; where those come from
- `opening`: which kind of generator lies in a folder
"""

from __future__ import annotations

from synthaug.generation.drawing import generate
from synthaug.generation.generator import Generator
from synthaug.generation.layouts import Layouts
from synthaug.generation.map_generator import MapGenerator
from synthaug.generation.map_segmenter import MapSegmenter
from synthaug.generation.opening import load_generator, open_source

__all__ = [
    "Generator",
    "Layouts",
    "MapGenerator",
    "MapSegmenter",
    "generate",
    "load_generator",
    "open_source",
]
