"""Kernel distance between feature sets: KID.

The squared maximum mean discrepancy under the kernel k(x, y) = (x.y / d + 1)^3, estimated without
bias (Binkowski et al. 2018, arXiv:1801.01401). Unlike FID its expectation does not depend on how
many images there are, so it serves for a hundred of them; it may come out slightly below 0.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from synthaug.errors import InputError
from synthaug.seeding import torch_stream

LARGEST_SUBSET = 1000
LEAST_IMAGES = 4
"""Of a set whose distance can be told."""
DEGREE = 3


class KernelDistance(NamedTuple):
    """KID and how sure it is.

    Attributes:
        value: mean over the subsets.
        error: standard deviation over the subsets. A subset is half of each set, drawn without
            replacement, so this is the delete-half jackknife's standard error of the whole, up to
            1.7 times too large where the sets are alike; where sets hold more than 2000 images,
            subsets hold 1000 as published, and it is larger.
    """

    value: float
    error: float


def kid(
    features: Tensor, reference: Tensor, *, subsets: int = 100, seed: int = 0
) -> KernelDistance:
    """Kernel distance of two feature sets, over random subsets of both.

    Args:
        features: (n, d), for example pooled features of n generated images, n >= 4.
        reference: (m, d) of the real ones, m >= 4; n and m may differ.
        subsets: how many subsets are drawn, at least 2.
        seed: of the draws.

    Raises:
        InputError: a set holds fewer than four images.
    """
    if min(len(features), len(reference)) < LEAST_IMAGES:
        raise InputError(
            f"KID of {len(features)} and {len(reference)} images: give at least "
            f"{LEAST_IMAGES} on each side"
        )
    stream = torch_stream(seed, "kid")
    values = torch.stack(
        [squared_mmd(_half(features, stream), _half(reference, stream)) for _ in range(subsets)]
    )
    return KernelDistance(float(values.mean()), float(values.std()))


def squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased estimate of the squared discrepancy of (n, d) and (m, d), float64 scalar."""
    x, y = x.double(), y.double()
    n, m = len(x), len(y)
    within_x, within_y, between = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    return (
        (within_x.sum() - within_x.diagonal().sum()) / (n * (n - 1))
        + (within_y.sum() - within_y.diagonal().sum()) / (m * (m - 1))
        - 2 * between.mean()
    )


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** DEGREE


def _half(features: Tensor, stream: torch.Generator) -> Tensor:
    size = min(len(features) // 2, LARGEST_SUBSET)
    return features[torch.randperm(len(features), generator=stream)[:size]]
