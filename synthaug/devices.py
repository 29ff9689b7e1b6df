"""Whether there is a GPU that computes: a driver may be too old for the wheel, or a card too."""

from __future__ import annotations

import functools
import textwrap
import warnings

import torch

NO_MEMORY = (
    "the GPU's memory is full: take a smaller --batch-size or --max-size (compare.side_px), fewer "
    "--jobs, or the CPU (--accelerator cpu, or CUDA_VISIBLE_DEVICES= before the command)"
)


def cuda_works() -> bool:
    """Whether a CUDA device is there and computes.

    Warns:
        UserWarning: once, if one is there and does not.
    """
    return torch.cuda.is_available() and _computes()


@functools.cache
def _computes() -> bool:
    try:
        return float((torch.ones(1, device="cuda") + 1).item()) == 2
    except (RuntimeError, AssertionError) as error:  # the latter of a wheel without CUDA
        reason = textwrap.shorten(str(error), 120, placeholder=" ...")
        warnings.warn(
            f"the GPU cannot be used ({reason}): computing on the CPU", UserWarning, stacklevel=3
        )
        return False
