"""Comparing what checkpoints and banks hold."""

from __future__ import annotations

import numpy as np
import torch

from synthaug.sample import Sample


def same(one, two):
    """Whether nested containers of tensors and plain values are equal, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[k], two[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


def same_sample(one: Sample, two: Sample) -> bool:
    """Whether image and mask of two samples are equal, bit for bit."""
    return np.array_equal(one.image, two.image) and np.array_equal(one.mask, two.mask)
