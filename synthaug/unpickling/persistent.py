"""Pickles of NVIDIA's PyTorch ports, of whose objects the state alone is kept."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from synthaug.unpickling.allow_list import KEYS, Attributes, Dtype, Ordered, Symbol, Unpickler
from synthaug.unpickling.archives import load_archive
from synthaug.unpickling.refusals import RefusedError, guarded, read_bytes
from synthaug.unpickling.sizes import Shown


@dataclass(frozen=True, eq=False)
class Record:
    """An object of a class that was not loaded.

    Attributes:
        class_name: what the file calls its class.
        state: the object's attributes: plain values, tensors and further records.
    """

    class_name: str
    state: dict[str, Any]


def load_persistent_pickle(path: str | Path) -> Any:
    """Read a pickle of NVIDIA's PyTorch ports (StyleGAN2-ADA and later).

    These files carry the source code of their classes, and unpickling them as meant runs it. Here
    it is never looked at: modules become `Record`.

    Returns:
        Dicts, lists and plain values with `Record` and tensors in them.

    Raises:
        InputError: as `load_weights`.
    """
    data = read_bytes(path)
    return guarded(path, lambda: _PersistentReader(data).load())


class _PersistentReader(Unpickler):
    """Reads NVIDIA's pickles into records."""

    def __init__(self, data: bytes) -> None:
        allowed: dict[Symbol, Any] = {
            ("torch_utils.persistence", "_reconstruct_persistent_obj"): _record,
            ("dnnlib.util", "EasyDict"): Attributes,
            ("dnnlib", "EasyDict"): Attributes,
            ("collections", "OrderedDict"): Ordered,
            ("builtins", "set"): self._set,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): self._parameter,
            ("torch.storage", "_load_from_bytes"): self._storage,
            ("numpy", "dtype"): Dtype,
            ("numpy.core.multiarray", "scalar"): _scalar,
            ("numpy._core.multiarray", "scalar"): _scalar,
        }
        super().__init__(io.BytesIO(data), allowed)
        self.size = self.left = self.items_left = len(data)
        self.shown = Shown()

    def _set(self, items: Any = ()) -> set[Any]:
        """Make a set of names; all of them together have no more than the file has bytes."""
        if type(items) not in (list, tuple) or any(type(item) not in KEYS for item in items):
            raise RefusedError("it has a set of something else than names or numbers")
        self.items_left -= len(items)
        if self.items_left < 0:
            raise RefusedError("it copies a container")
        return set(items)

    def _storage(self, data: Any) -> torch.storage.TypedStorage:
        """Read a nested archive; all of them together are no longer than the file."""
        if not isinstance(data, bytes):
            raise RefusedError("it nests an archive that is no bytes")
        self.left -= len(data)
        if self.left < 0:
            raise RefusedError("it reads the same bytes again and again")
        storage = load_archive(data, {})
        if not isinstance(storage, torch.storage.TypedStorage):
            raise RefusedError("it nests an archive of something else than a storage")
        return storage

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
        if not isinstance(storage, torch.storage.TypedStorage):
            raise RefusedError("it claims a tensor without a storage")
        untyped: torch.UntypedStorage = storage._untyped_storage
        empty = torch.empty(0, dtype=storage.dtype)
        self.shown.add(untyped.nbytes() // empty.element_size(), offset, size, stride)
        self.shown.refuse_beyond(self.size)
        return empty.set_(untyped, offset, size, stride)  # type: ignore[arg-type,unused-ignore]

    def _parameter(self, value: Any, *_: Any) -> Tensor:
        if not isinstance(value, Tensor):
            raise RefusedError("it claims a parameter that is no tensor")
        return value


def _record(meta: Any, *_: Any) -> Record:
    """Keep the state of a persistent object and forget its source code."""
    name, state = meta["class_name"], meta["state"]
    if not isinstance(name, str) or not isinstance(state, dict):
        raise RefusedError("it holds a persistent object without class or state")
    return Record(name, cast(dict[str, Any], state))


def _scalar(dtype: Any, data: Any) -> Any:
    if not isinstance(dtype, Dtype) or not isinstance(data, bytes):
        raise RefusedError("it holds a numpy value that is no number")
    code = "?" if dtype.code[-2] == "b" else dtype.code.lstrip("<=|")
    (value,) = np.frombuffer(data, np.dtype(code)).tolist()
    return value
