"""BigGAN-deep: the generator of the public weights; no discriminator was published with it."""

from __future__ import annotations

from synthaug.gans.biggan.checkpoints import build_generator, from_pretrained
from synthaug.gans.biggan.networks import BigGenerator

__all__ = ["BigGenerator", "build_generator", "from_pretrained"]
