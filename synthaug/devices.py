"""What the devices here can do: whether a GPU computes, and whether the CPU knows bf16."""

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
    """Whether a CUDA device is there and computes; a driver may be too old for it or the wheel.

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


def has_native_bf16() -> bool:
    """Whether the CPU has instructions for bf16; whether they are faster hangs on the processor."""
    named = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in named)
