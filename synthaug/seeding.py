"""Named random streams: stage x rank x worker x index. Nobody else creates a generator."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import TYPE_CHECKING, Any

from synthaug.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """Derive a 63-bit seed for a named stream.

    Args:
        seed: the user's seed.
        *names: the stream's name, for example ``("fit", rank, iteration)``.

    Returns:
        An integer in ``[0, 2**63)``; a different name gives an independent stream.

    Raises:
        InputError: the seed is no whole number.
    """
    if not isinstance(seed, Integral):
        raise InputError(f"seed is {seed!r}: give a whole number")
    text = "/".join([str(int(seed)), *map(str, names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def latent_seed(seed: Any) -> int:
    """Return a sample's seed, checked: in the range that torch takes.

    Raises:
        InputError: it is no whole number in ``[0, 2**64)``.
    """
    if not isinstance(seed, Integral) or not 0 <= int(seed) < 2**64:
        raise InputError(f"seed is {seed!r}: give a whole number from 0 to 2**64 - 1")
    return int(seed)


def numpy_stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the NumPy generator of a named stream."""
    import numpy as np

    return np.random.default_rng(derive_seed(seed, *names))


def python_stream(seed: int, *names: str | int) -> random.Random:
    """Return the `random.Random` of a named stream."""
    return random.Random(derive_seed(seed, *names))


def torch_stream(seed: int, *names: str | int) -> torch.Generator:
    """Return the CPU `torch.Generator` of a named stream."""
    import torch

    generator = torch.Generator()
    generator.manual_seed(derive_seed(seed, *names))
    return generator


@contextmanager
def torch_seeded(seed: int) -> Iterator[None]:
    """Seed torch's global streams, and put them back afterwards.

    Those of the GPUs are among them once CUDA is in use; before, they are left alone.
    """
    import torch

    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    gpus = range(torch.cuda.device_count()) if in_use else ()
    with torch.random.fork_rng(devices=gpus):
        if gpus or torch.backends.mps.is_available():
            torch.manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)  # the other would seed later GPUs, too
        yield
