"""What ``torch.save`` wrote: looked through with stand-ins alone, then read by torch."""

from __future__ import annotations

import argparse
import io
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from synthaug.unpickling.allow_list import KEYS, Namespace, Ordered, Symbol, Unpickler
from synthaug.unpickling.refusals import RefusedError, guarded, read_bytes
from synthaug.unpickling.sizes import Shown, is_count

ITEM_BYTES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2,
    "LongStorage": 8, "IntStorage": 4, "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1,
    "BoolStorage": 1,
}  # fmt: skip
NAMESPACE: Symbol = ("argparse", "Namespace")
_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


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
    data = read_bytes(path)
    return guarded(path, lambda: load_archive(data, {NAMESPACE: Namespace}))


@dataclass(frozen=True)
class _Claim:
    """A storage as a pickle announces it."""

    numel: int
    item_bytes: int


def load_archive(data: bytes, extra: Mapping[Symbol, Any]) -> Any:
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
            raise RefusedError("it has two entries of one name, of which torch reads another")
        if any(e.compress_type != zipfile.ZIP_STORED for e in entries.values()):
            raise RefusedError("its content is compressed, which torch.save never does")
        (main,) = [name for name in entries if re.fullmatch(r"[^/]+/data\.pkl", name)]
        if sum(entry.file_size for entry in entries.values()) > len(data):
            raise RefusedError("it claims more content than it has bytes")
        survey = _Survey(io.BytesIO(archive.read(main)), extra)
        survey.load()
        for key, claim in survey.claims.items():
            entry = entries[f"{main.removesuffix('data.pkl')}data/{key}"]
            if entry.file_size != claim.numel * claim.item_bytes:
                raise RefusedError("it claims tensors of another size than its content")
        survey.shown.refuse_beyond(len(data))
        copy = io.BytesIO()
        with zipfile.ZipFile(copy, "w") as fresh:
            for name in entries:
                fresh.writestr(name, archive.read(name))
        return copy.getvalue()


def _surveyed(data: bytes, extra: Mapping[Symbol, Any]) -> bytes:
    """Survey an archive of the legacy format: five pickles, then the storages; return it."""
    file = io.BytesIO(data)
    if Unpickler(file, {}).load() != _LEGACY_MAGIC:
        raise RefusedError("it is no file of torch.save")
    for _ in range(2):  # version of the format, sizes of types
        Unpickler(file, {}).load()
    survey = _Survey(file, extra)
    survey.load()
    keys = Unpickler(file, {}).load()
    if type(keys) is not list or any(type(key) not in KEYS for key in keys):
        raise RefusedError("its storages are called by neither names nor numbers")
    if sum(claim.numel * claim.item_bytes for claim in survey.claims.values()) > len(data):
        raise RefusedError("it claims larger tensors than it has bytes: is it cut short?")
    survey.shown.refuse_beyond(len(data))
    return data


class _Survey(Unpickler):
    """Goes through an archive's pickle without making a tensor; notes what storages it claims."""

    def __init__(self, file: io.BytesIO, extra: Mapping[Symbol, Any]) -> None:
        allowed: dict[Symbol, Any] = {
            ("collections", "OrderedDict"): Ordered,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): self._parameter,
            **{("torch", name): size for name, size in ITEM_BYTES.items()},
            **extra,
        }
        super().__init__(file, allowed)
        self.claims: dict[str, _Claim] = {}
        self.shown = Shown()

    def persistent_load(self, pid: Any) -> _Claim:
        """Note a storage."""
        kind, item_bytes, key, _, numel, *_ = pid
        known = isinstance(item_bytes, int) and type(key) in KEYS and is_count(numel)
        if kind != "storage" or not known:
            raise RefusedError("it claims a storage that torch.save never writes")
        claim = _Claim(numel, item_bytes)
        if self.claims.setdefault(str(key), claim) != claim:
            raise RefusedError("it claims one storage in two sizes")
        return claim

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> None:
        if not isinstance(storage, _Claim):
            raise RefusedError("it claims a tensor without a storage")
        self.shown.add(storage.numel, offset, size, stride)

    def _parameter(self, value: Any, *_: Any) -> None:
        if value is not None:
            raise RefusedError("it claims a parameter that is no tensor")
