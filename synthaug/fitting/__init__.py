"""FIT: a labelled pair, a few, or the frames of a video -> a folder with a generator.

- `fitting.fit`: from what the user names to a trained GAN
- `training_pairs`: what it learns from, read, checked and brought to one size
- `presets`: which GAN, plug-ins and settings of the loop a preset stands for, one module per GAN
- `adaptation`: the trained GAN that a few-shot fit starts from
- `keeping`, `monitoring`: what is done between steps; which snapshot is best
- `fit_folder`: the folder that a fit writes
"""

from __future__ import annotations

from synthaug.fitting.fitting import Progress, fit

__all__ = ["Progress", "fit"]
