"""Reading pickled weights of others without running anything that a file brings along.

A pickle is a program that names functions to call. Here every name is looked up in a short list of
exact names, each of which means a reader of ours that only collects plain values; any other name
is refused, and the refusal says which. Sizes are compared with the bytes that are there before
memory is taken for them.
"""

from __future__ import annotations

import argparse
import io
import math
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from synthaug.errors import InputError

Symbol = tuple[str, str]
"""Module and name, as a pickle spells them."""
ITEM_BYTES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2,
    "LongStorage": 8, "IntStorage": 4, "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1,
    "BoolStorage": 1,
}  # fmt: skip
NAMESPACE: Symbol = ("argparse", "Namespace")
_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


@dataclass(frozen=True, eq=False)
class Record:
    """An object of a class that was not loaded.

    Attributes:
        class_name: what the file calls its class.
        state: the object's attributes: plain values, tensors and further records.
    """

    class_name: str
    state: dict[str, Any]


def is_archive(start: bytes) -> bool:
    """Whether a file that starts so (its first 64 bytes or more) is one of ``torch.save``."""
    return start.startswith((_ZIP_MAGIC, pickle.dumps(_LEGACY_MAGIC, protocol=2)))


def load_weights(path: str | Path) -> Any:
    """Read what ``torch.save`` wrote: tensors, plain values and at most `argparse.Namespace`.

    Args:
        path: an archive of either format, new (zip) or legacy.

    Returns:
        What was saved, all tensors on the CPU.

    Raises:
        InputError: no such file; damaged; names a symbol that is not allowed; or claims tensors
            larger than the bytes it holds.
    """
    data = _read(path)
    return _guarded(path, lambda: _load_archive(data, {NAMESPACE: _Namespace}))


def load_persistent_pickle(path: str | Path) -> Any:
    """Read a pickle of NVIDIA's PyTorch ports (StyleGAN2-ADA and later).

    These files carry the source code of their classes, and unpickling them as meant runs it. Here
    it is never looked at: modules become `Record`.

    Returns:
        Dicts, lists and plain values with `Record` and tensors in them.

    Raises:
        InputError: as `load_weights`.
    """
    data = _read(path)
    return _guarded(path, lambda: _PersistentReader(data).load())


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from error


def _guarded(path: str | Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except _RefusedError as refusal:
        raise InputError(f"{path} is refused, and nothing in it was run: {refusal}") from None
    except Exception as error:  # whatever a damaged or hostile program of opcodes ends in
        raise InputError(
            f"{path} holds no weights that can be read ({type(error).__name__}): it is damaged, "
            "cut short, or of another format"
        ) from error


class _RefusedError(Exception):
    """Why a file is not read; never passed on as it is."""


class _Namespace:
    """Stands for `argparse.Namespace`."""


class _Filled:
    """Part of a container that a pickle fills item by item; copies could be asked for endlessly."""

    def __init__(self, *content: object) -> None:
        if any(not isinstance(part, (list, tuple, dict)) or part for part in content):
            raise _RefusedError("it copies a container")
        super().__init__()


class _Attributes(_Filled, dict[str, Any]):
    """Stands for a dict with attribute access."""


class _Ordered(_Filled, OrderedDict[str, Any]):
    """Stands for an ordered dict."""


class _Dtype:
    """Stands for a numpy dtype."""

    def __init__(self, code: object, align: object = False, copy: object = False) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[<=|]?[fiub][1248]", code):
            raise _RefusedError(f"it holds numpy values of the kind {brief(code)}")
        self.code = code

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", "=", "|"):
            raise _RefusedError("it holds numpy values of another byte order")


_BUILT = (_Namespace, _Attributes, _Dtype, _Ordered)
_KEYS = (str, int)
"""What is hashed; a nested tuple of a few bytes could take for ever."""
_HASHING = {
    pickle.SETITEM: slice(-2, -1), pickle.SETITEMS: slice(None, None, 2),
    pickle.DICT: slice(None, None, 2), pickle.ADDITEMS: slice(None), pickle.FROZENSET: slice(None),
}  # fmt: skip
"""Opcode -> where on the stack lies what it hashes."""
_MOST_AXES, _LONGEST_AXIS = 8, 2**48


def _load_hashed(opcode: int, keys: slice, reader: _Unpickler) -> None:
    """Refuse keys that could take for ever to hash, then do what the opcode says."""
    if any(type(key) not in _KEYS for key in reader.stack[keys]):
        raise _RefusedError("it has keys that are neither names nor numbers")
    pickle._Unpickler.dispatch[opcode](reader)  # type: ignore[arg-type]


class _Unpickler(pickle._Unpickler):
    """Finds symbols in a list alone, and sets attributes of our own stand-ins alone."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]

    def __init__(self, file: io.BytesIO, allowed: Mapping[Symbol, Any]) -> None:
        super().__init__(file)
        self.allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        """Return the reader of a symbol."""
        if module.split(".")[:2] == ["dnnlib", "tflib"]:
            raise _RefusedError("it was written by a TensorFlow port, of which no reader is here")
        if (module, name) not in self.allowed:
            raise _RefusedError(f"it asks for {module[:80]}.{name[:80]}, which is not allowed")
        return self.allowed[module, name]

    def _build(self) -> None:
        """Set the state of a stand-in."""
        if type(self.stack[-2]) not in _BUILT:
            raise _RefusedError(f"it sets the state of a {type(self.stack[-2]).__name__}")
        pickle._Unpickler.dispatch[pickle.BUILD[0]](self)  # type: ignore[arg-type]

    dispatch[pickle.BUILD[0]] = _build

    def _refuse_claim(self) -> None:
        """Python takes the memory that this code claims before it looks for the bytes."""
        raise _RefusedError("it holds a byte array")

    dispatch[pickle.BYTEARRAY8[0]] = _refuse_claim

    dispatch |= {code[0]: partial(_load_hashed, code[0], keys) for code, keys in _HASHING.items()}


@dataclass(frozen=True)
class _Claim:
    """A storage as a pickle announces it."""

    numel: int
    item_bytes: int


def _load_archive(data: bytes, extra: Mapping[Symbol, Any]) -> Any:
    """Survey an archive with stand-ins only, then let torch read it with its own allow-list."""
    data = _surveyed_zip(data, extra) if data.startswith(_ZIP_MAGIC) else _surveyed(data, extra)
    with torch.serialization.safe_globals([argparse.Namespace] if extra else []):
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _surveyed_zip(data: bytes, extra: Mapping[Symbol, Any]) -> bytes:
    """Survey an archive of the new format; return a copy that holds nothing else.

    A file may have two tables of contents, of which torch reads another one than Python does.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if len({name.lower() for name in entries}) < len(archive.infolist()):
            raise _RefusedError("it has two entries of one name, of which torch reads another")
        if any(e.compress_type != zipfile.ZIP_STORED for e in entries.values()):
            raise _RefusedError("its content is compressed, which torch.save never does")
        (main,) = [name for name in entries if re.fullmatch(r"[^/]+/data\.pkl", name)]
        if sum(entry.file_size for entry in entries.values()) > len(data):
            raise _RefusedError("it claims more content than it has bytes")
        survey = _Survey(io.BytesIO(archive.read(main)), extra)
        survey.load()
        for key, claim in survey.claims.items():
            entry = entries[f"{main.removesuffix('data.pkl')}data/{key}"]
            if entry.file_size != claim.numel * claim.item_bytes:
                raise _RefusedError("it claims tensors of another size than its content")
        survey.shown.refuse_beyond(len(data))
        copy = io.BytesIO()
        with zipfile.ZipFile(copy, "w") as fresh:
            for name in entries:
                fresh.writestr(name, archive.read(name))
        return copy.getvalue()


def _surveyed(data: bytes, extra: Mapping[Symbol, Any]) -> bytes:
    """Survey an archive of the legacy format: five pickles, then the storages; return it."""
    file = io.BytesIO(data)
    if _Unpickler(file, {}).load() != _LEGACY_MAGIC:
        raise _RefusedError("it is no file of torch.save")
    for _ in range(2):  # version of the format, sizes of types
        _Unpickler(file, {}).load()
    survey = _Survey(file, extra)
    survey.load()
    keys = _Unpickler(file, {}).load()
    if type(keys) is not list or any(type(key) not in _KEYS for key in keys):
        raise _RefusedError("its storages are called by neither names nor numbers")
    if sum(claim.numel * claim.item_bytes for claim in survey.claims.values()) > len(data):
        raise _RefusedError("it claims larger tensors than it has bytes: is it cut short?")
    survey.shown.refuse_beyond(len(data))
    return data


class _Survey(_Unpickler):
    """Goes through an archive's pickle without making a tensor; notes what storages it claims."""

    def __init__(self, file: io.BytesIO, extra: Mapping[Symbol, Any]) -> None:
        allowed: dict[Symbol, Any] = {
            ("collections", "OrderedDict"): _Ordered,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): self._parameter,
            **{("torch", name): size for name, size in ITEM_BYTES.items()},
            **extra,
        }
        super().__init__(file, allowed)
        self.claims: dict[str, _Claim] = {}
        self.shown = _Shown()

    def persistent_load(self, pid: Any) -> _Claim:
        """Note a storage."""
        kind, item_bytes, key, _, numel, *_ = pid
        known = isinstance(item_bytes, int) and type(key) in _KEYS and _is_count(numel)
        if kind != "storage" or not known:
            raise _RefusedError("it claims a storage that torch.save never writes")
        claim = _Claim(numel, item_bytes)
        if self.claims.setdefault(str(key), claim) != claim:
            raise _RefusedError("it claims one storage in two sizes")
        return claim

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> None:
        if not isinstance(storage, _Claim):
            raise _RefusedError("it claims a tensor without a storage")
        self.shown.add(storage.numel, offset, size, stride)

    def _parameter(self, value: Any, *_: Any) -> None:
        if value is not None:
            raise _RefusedError("it claims a parameter that is no tensor")


class _PersistentReader(_Unpickler):
    """Reads NVIDIA's pickles into records."""

    def __init__(self, data: bytes) -> None:
        allowed: dict[Symbol, Any] = {
            ("torch_utils.persistence", "_reconstruct_persistent_obj"): _record,
            ("dnnlib.util", "EasyDict"): _Attributes,
            ("dnnlib", "EasyDict"): _Attributes,
            ("collections", "OrderedDict"): _Ordered,
            ("builtins", "set"): self._set,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): self._parameter,
            ("torch.storage", "_load_from_bytes"): self._storage,
            ("numpy", "dtype"): _Dtype,
            ("numpy.core.multiarray", "scalar"): _scalar,
            ("numpy._core.multiarray", "scalar"): _scalar,
        }
        super().__init__(io.BytesIO(data), allowed)
        self.size = self.left = self.items_left = len(data)
        self.shown = _Shown()

    def _set(self, items: Any = ()) -> set[Any]:
        """Make a set of names; all of them together have no more than the file has bytes."""
        if type(items) not in (list, tuple) or any(type(item) not in _KEYS for item in items):
            raise _RefusedError("it has a set of something else than names or numbers")
        self.items_left -= len(items)
        if self.items_left < 0:
            raise _RefusedError("it copies a container")
        return set(items)

    def _storage(self, data: Any) -> torch.storage.TypedStorage:
        """Read a nested archive; all of them together are no longer than the file."""
        if not isinstance(data, bytes):
            raise _RefusedError("it nests an archive that is no bytes")
        self.left -= len(data)
        if self.left < 0:
            raise _RefusedError("it reads the same bytes again and again")
        storage = _load_archive(data, {})
        if not isinstance(storage, torch.storage.TypedStorage):
            raise _RefusedError("it nests an archive of something else than a storage")
        return storage

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
        if not isinstance(storage, torch.storage.TypedStorage):
            raise _RefusedError("it claims a tensor without a storage")
        untyped: torch.UntypedStorage = storage._untyped_storage
        empty = torch.empty(0, dtype=storage.dtype)
        self.shown.add(untyped.nbytes() // empty.element_size(), offset, size, stride)
        self.shown.refuse_beyond(self.size)
        return empty.set_(untyped, offset, size, stride)  # type: ignore[arg-type,unused-ignore]

    def _parameter(self, value: Any, *_: Any) -> Tensor:
        if not isinstance(value, Tensor):
            raise _RefusedError("it claims a parameter that is no tensor")
        return value


def _record(meta: Any, *_: Any) -> Record:
    """Keep the state of a persistent object and forget its source code."""
    name, state = meta["class_name"], meta["state"]
    if not isinstance(name, str) or not isinstance(state, dict):
        raise _RefusedError("it holds a persistent object without class or state")
    return Record(name, cast(dict[str, Any], state))


def _scalar(dtype: Any, data: Any) -> Any:
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
        raise _RefusedError("it holds a numpy value that is no number")
    code = "?" if dtype.code[-2] == "b" else dtype.code.lstrip("<=|")
    (value,) = np.frombuffer(data, np.dtype(code)).tolist()
    return value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


class _Shown:
    """How many numbers the tensors of a file show; storages may be shared, but not to no end."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, numel: int, offset: Any, size: Any, stride: Any) -> None:
        """Refuse a tensor that reaches beyond its storage, or repeats it to look larger."""
        numbers: Sequence[Any] = (offset, *size, *stride)
        if (
            len(size) != len(stride)
            or len(size) > _MOST_AXES
            or not all(_is_count(n) and n < _LONGEST_AXIS for n in numbers)
        ):
            raise _RefusedError("it claims a tensor of no possible shape")
        shown = math.prod(size)
        reach = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
        if shown > numel or (shown > 0 and reach > numel):
            shape = f"{tuple(size)!s:.60}"
            raise _RefusedError(f"it claims a tensor of shape {shape} from {numel} numbers")
        self.total += shown

    def refuse_beyond(self, most: int) -> None:
        """Refuse more numbers than the file has bytes."""
        if self.total > most:
            raise _RefusedError("its tensors show the same numbers again and again")


def brief(value: object) -> str:
    """Show a value of a file in an error line; of what may be nested, only what it is."""
    if value is None or type(value) in (str, bool, float):
        return f"{value!r:.40}"
    if type(value) is int and abs(value) < _LONGEST_AXIS:
        return str(value)
    return f"of the type {type(value).__name__}"
