"""The machine under a measurement: what it is, and how much of its memory was held."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

import torch

from synthaug import devices


def hardware() -> dict[str, Any]:
    """Describe this machine in plain JSON values."""
    gpu = torch.cuda.get_device_name(0) if devices.cuda_works() else None
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }


def used_gpu() -> bool:
    """Whether this process has begun to compute on a GPU."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def peak_memory_gb() -> float | None:
    """Most memory that this process has held so far, on the GPU if it computed there, in GB."""
    if used_gpu() and torch.cuda.max_memory_allocated() > 0:
        return round(torch.cuda.max_memory_allocated() / 1e9, 3)
    peak = peak_resident_gb()
    return None if peak is None else round(peak, 3)


def peak_resident_gb() -> float | None:
    """Peak resident memory of this process so far, in 10^9 bytes; None where it is not told."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9
