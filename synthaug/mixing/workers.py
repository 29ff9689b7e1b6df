"""Random streams in `DataLoader` workers: different per worker and epoch, repeatable per seed."""

from __future__ import annotations

import functools
import random
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from synthaug import seeding
from synthaug.errors import InputError

MAX_CONTAINER = 256
"""Longer lists and dicts are taken for data and not searched for pipelines."""


def worker_seed() -> int | None:
    """Return the seed that PyTorch gave this `DataLoader` worker and epoch, None elsewhere."""
    data = sys.modules.get("torch.utils.data")
    info = data.get_worker_info() if data is not None else None
    return None if info is None else int(info.seed)


def seed_worker(worker_id: int) -> None:
    """Give every albumentations pipeline in a worker's dataset a random stream of its own.

    Pass it as ``DataLoader(..., worker_init_fn=seed_worker)``. In albumentations 2.0.8 all
    workers inherit the same random state, and every epoch starts from it again; each of them
    then augments alike. Here the streams come from the worker's seed, which differs per worker
    and, drawn anew when workers start, per epoch. With ``persistent_workers=True`` workers start
    once and their streams simply run on, so epochs differ too. The whole run repeats exactly
    when the loader gets a seeded ``generator``.

    The dataset is searched through attributes, wrapped datasets (``Subset``, ``ConcatDataset``,
    `SynthMix`), lists, dicts, partials, bound methods and closures. A pipeline inside the
    ``collate_fn`` cannot be reached from here. Python's and NumPy's global generators, which
    code of your own dataset may use, are seeded from the same seed.

    Args:
        worker_id: given by the loader, unused: the seed already tells the workers apart.

    Raises:
        InputError: called outside a worker.
    """
    seed = worker_seed()
    if seed is None:
        raise InputError(
            "seed_worker runs inside DataLoader workers: pass it as worker_init_fn=seed_worker"
        )
    random.seed(seeding.derive_seed(seed, "worker", "python"))
    np.random.seed(seeding.derive_seed(seed, "worker", "numpy") % 2**32)  # noqa: NPY002
    dataset = sys.modules["torch.utils.data"].get_worker_info().dataset
    for index, pipeline in enumerate(find_pipelines(dataset)):
        pipeline.set_random_state(
            seeding.numpy_stream(seed, "worker", "pipeline", index),
            seeding.python_stream(seed, "worker", "pipeline", index),
        )


def find_pipelines(root: Any) -> list[Any]:
    """List the albumentations pipelines and single transforms reachable from an object.

    A transform inside a pipeline is not listed: it shares its pipeline's stream.
    """
    albumentations = sys.modules.get("albumentations")
    if albumentations is None:
        return []
    kinds = (albumentations.BaseCompose, albumentations.BasicTransform)
    found, seen, waiting = [], {id(root)}, [root]
    while waiting:
        value = waiting.pop(0)
        if isinstance(value, kinds):
            found.append(value)
            continue
        for child in _children(value):
            if id(child) not in seen:
                seen.add(id(child))
                waiting.append(child)
    return found


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, (str, bytes, int, float, np.ndarray, type, types.ModuleType)):
        return
    if isinstance(value, Mapping):
        yield from value.values() if len(value) <= MAX_CONTAINER else ()
    elif isinstance(value, (list, tuple)):
        yield from value if len(value) <= MAX_CONTAINER else ()
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, types.MethodType):
        yield value.__self__
    elif isinstance(value, types.FunctionType):
        for cell in value.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # a name that is not bound yet
                continue
    else:
        yield from getattr(value, "__dict__", {}).values()
