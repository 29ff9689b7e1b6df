"""Random streams in `DataLoader` workers: different per worker and epoch, repeatable per seed."""

from __future__ import annotations

import functools
import os
import random
import sys
import types
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

from synthaug import seeding
from synthaug.errors import InputError

MAX_CONTAINER = 256
"""Longer lists and dicts of plain values are taken for data and not searched for pipelines."""
MAX_OBJECTS = 10_000
"""Longer ones of other objects, such as data sets, are not searched either."""
_LIBRARIES = ("abc", "builtins", "numpy", "torch", "typing")
_PLAIN = (str, bytes, int, float, complex, tuple, list, dict, np.ndarray, os.PathLike, type(None))


def worker_seed() -> int | None:
    """Return the seed of this `DataLoader` worker and epoch, None elsewhere.

    It is PyTorch's, and in distributed training another on every rank: the processes of one
    training are usually seeded alike.
    """
    data = sys.modules.get("torch.utils.data")
    info = data.get_worker_info() if data is not None else None
    if info is None:
        return None
    rank = _rank()
    return seeding.derive_seed(info.seed, "rank", rank) if rank else int(info.seed)


def _rank() -> int:
    """This process's number in a distributed training; workers that were spawned have the name."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    if _brought is not None:
        return _brought
    named = os.environ.get("RANK", "")
    return int(named) if named.isdecimal() else 0


class _SeedWorker:
    """Give every albumentations pipeline in a worker's dataset a random stream of its own.

    Pass it as ``DataLoader(..., worker_init_fn=seed_worker)``. In albumentations 2.0.8 all
    workers inherit the same random state, and every epoch starts from it again; each of them
    then augments alike. Here the streams come from the worker's seed, which differs per worker
    and, drawn anew when workers start, per epoch. With ``persistent_workers=True`` workers start
    once and their streams simply run on, so epochs differ too. The whole run repeats exactly
    when the loader gets a seeded ``generator``.

    The dataset is searched through attributes, its own and its classes', wrapped datasets
    (``Subset``, ``ConcatDataset``, `SynthMix`), lists, dicts, partials, bound methods, closures,
    defaults of functions, and what its methods, and functions of the same package that they call,
    take from their modules. A pipeline in a set, which has no order, inside the ``collate_fn``, in
    a mapping that is no dict, or in another package's function is not reached. Python's, NumPy's
    and torch's global generators, which code of your own dataset and torchvision's transforms use,
    are seeded from the same seed. In distributed training the streams differ per rank as well.

    Args:
        worker_id: given by the loader, unused: the seed already tells the workers apart.

    Raises:
        InputError: called outside a worker.
    """

    def __call__(self, worker_id: int) -> None:
        """Seed this worker."""
        seed = worker_seed()
        if seed is None:
            raise InputError(
                "seed_worker runs inside DataLoader workers: pass it as worker_init_fn=seed_worker"
            )
        random.seed(seeding.derive_seed(seed, "worker", "python"))
        np.random.seed(seeding.derive_seed(seed, "worker", "numpy") % 2**32)  # noqa: NPY002
        sys.modules["torch"].manual_seed(seed)  # on the first rank that is what it is seeded with
        dataset = sys.modules["torch.utils.data"].get_worker_info().dataset
        for index, pipeline in enumerate(find_pipelines(dataset)):
            pipeline.set_random_state(
                seeding.numpy_stream(seed, "worker", "pipeline", index),
                seeding.python_stream(seed, "worker", "pipeline", index),
            )

    def __reduce__(self) -> tuple[Callable[[int], _SeedWorker], tuple[int]]:
        return _arrive, (_rank(),)  # a worker that is spawned has no process group to ask


def _arrive(rank: int) -> _SeedWorker:
    """Note in a spawned worker which process of a training it belongs to."""
    global _brought
    _brought = rank
    return seed_worker


_brought: int | None = None
seed_worker = _SeedWorker()


def find_pipelines(root: Any) -> list[Any]:
    """List the albumentations pipelines and single transforms reachable from an object.

    A transform inside a pipeline is not listed: it shares its pipeline's stream.
    """
    albumentations = sys.modules.get("albumentations")
    if albumentations is None:
        return []
    kinds = (albumentations.BaseCompose, albumentations.BasicTransform)
    found, seen, waiting = [], {id(root)}, deque([root])
    while waiting:
        value = waiting.popleft()
        if isinstance(value, kinds):
            found.append(value)
            continue
        for child in _children(value):
            if id(child) not in seen:
                seen.add(id(child))
                waiting.append(child)
    return found


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, (str, bytes, int, float, np.ndarray, types.ModuleType)):
        return
    if isinstance(value, type):
        yield from _of_class(value)
        return
    if isinstance(value, dict):  # other mappings may read what they hold from a disk
        yield from () if _is_data(value.values()) else value.values()
    elif isinstance(value, (list, tuple)):  # a set has no order of its own to number streams by
        yield from () if _is_data(value) else value
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
        yield from value.__defaults__ or ()
        yield from (value.__kwdefaults__ or {}).values()
        named = [value.__globals__.get(name) for name in _names(value.__code__)]
        yield from (found for found in named if _is_near(found, value))
    elif isinstance(value, property):
        yield from (value.fget, value.fset)
    elif isinstance(value, (staticmethod, classmethod)):
        yield value.__func__
    else:
        yield from getattr(value, "__dict__", {}).values()
        for base in type(value).__mro__[:-1]:
            slots = vars(base).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                yield getattr(value, name, None)
        yield type(value)


def _names(code: types.CodeType) -> Iterator[str]:
    """Names that a function takes from its module, those of its comprehensions and lambdas too."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _is_near(value: Any, user: types.FunctionType) -> bool:
    """Whether what a function names is worth a search: no other package's function or class."""
    if not isinstance(value, (types.FunctionType, type)):
        return True
    mine, other = (str(f.__module__).partition(".")[0] for f in (user, value))
    return mine == other


def _of_class(kind: type) -> Iterator[Any]:
    """What a class holds for its instances, and what its methods take from their modules."""
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] not in _LIBRARIES:
            yield from vars(base).values()


def _is_data(values: Collection[Any]) -> bool:
    if len(values) <= MAX_CONTAINER:
        return False
    return len(values) > MAX_OBJECTS or isinstance(next(iter(values)), _PLAIN)
