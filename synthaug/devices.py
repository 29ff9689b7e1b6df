"""What the devices here can do: whether a GPU computes, and whether bf16 is faster on the CPU."""

from __future__ import annotations

import functools
import textwrap
import time
import warnings

import torch

NO_MEMORY = (
    "the GPU's memory is full: take a smaller --batch-size or --max-size (compare.side_px), fewer "
    "--jobs, or the CPU (--accelerator cpu, or CUDA_VISIBLE_DEVICES= before the command)"
)
_GAIN = 1.25
"""How much faster bf16 must be: casts between the precisions take a part of it back."""


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


@functools.cache
def bf16_pays() -> bool:
    """Whether the CPU convolves faster in bf16 than in float32, clearly and in hardware.

    It is timed, in less than half a second: with AVX512-BF16 a processor may be slower in bf16
    (Intel's, where a virtual machine hides their AMX) or faster (AMD's).
    """
    named = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    if not any(getattr(torch.cpu, name, lambda: False)() for name in named):
        return False
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for each other where others use the cores, too
    try:
        return _seconds(torch.float32) > _GAIN * _seconds(torch.bfloat16)
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode()
def _seconds(dtype: torch.dtype) -> float:
    """Least seconds for a convolution of the size that a CPU's GANs are made of."""
    maps, kernel = torch.ones(1, 128, 32, 56, dtype=dtype), torch.ones(128, 128, 3, 3, dtype=dtype)
    taken = []
    for _ in range(8):
        start = time.thread_time()
        torch.nn.functional.conv2d(maps, kernel, padding=1)
        taken.append(time.thread_time() - start)
    return min(taken)
