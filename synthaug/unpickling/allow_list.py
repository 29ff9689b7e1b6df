"""The unpickler that knows listed names alone, and what stands for some of them."""

from __future__ import annotations

import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from synthaug.unpickling.refusals import RefusedError, brief

Symbol = tuple[str, str]
"""Module and name, as a pickle spells them."""


class Namespace:
    """Stands for `argparse.Namespace`."""


class _Filled:
    """Part of a container that a pickle fills item by item; copies could be asked for endlessly."""

    def __init__(self, *content: object) -> None:
        if any(not isinstance(part, (list, tuple, dict)) or part for part in content):
            raise RefusedError("it copies a container")
        super().__init__()


class Attributes(_Filled, dict[str, Any]):
    """Stands for a dict with attribute access."""


class Ordered(_Filled, OrderedDict[str, Any]):
    """Stands for an ordered dict."""


class Dtype:
    """Stands for a numpy dtype."""

    def __init__(self, code: object, align: object = False, copy: object = False) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[<=|]?[fiub][1248]", code):
            raise RefusedError(f"it holds numpy values of the kind {brief(code)}")
        self.code = code

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", "=", "|"):
            raise RefusedError("it holds numpy values of another byte order")


_BUILT = (Namespace, Attributes, Dtype, Ordered)
KEYS = (str, int)
"""What is hashed; a nested tuple of a few bytes could take for ever."""
_HASHING = {
    pickle.SETITEM: slice(-2, -1), pickle.SETITEMS: slice(None, None, 2),
    pickle.DICT: slice(None, None, 2), pickle.ADDITEMS: slice(None), pickle.FROZENSET: slice(None),
}  # fmt: skip
"""Opcode -> where on the stack lies what it hashes."""


def _load_hashed(opcode: int, keys: slice, reader: Unpickler) -> None:
    """Refuse keys that could take for ever to hash, then do what the opcode says."""
    if any(type(key) not in KEYS for key in reader.stack[keys]):
        raise RefusedError("it has keys that are neither names nor numbers")
    pickle._Unpickler.dispatch[opcode](reader)  # type: ignore[arg-type]


class Unpickler(pickle._Unpickler):
    """Finds symbols in a list alone, and sets attributes of our own stand-ins alone."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]

    def __init__(self, file: io.BytesIO, allowed: Mapping[Symbol, Any]) -> None:
        super().__init__(file)
        self.allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        """Return the reader of a symbol."""
        if module.split(".")[:2] == ["dnnlib", "tflib"]:
            raise RefusedError("it was written by a TensorFlow port, of which no reader is here")
        if (module, name) not in self.allowed:
            raise RefusedError(f"it asks for {module[:80]}.{name[:80]}, which is not allowed")
        return self.allowed[module, name]

    def _build(self) -> None:
        """Set the state of a stand-in."""
        if type(self.stack[-2]) not in _BUILT:
            raise RefusedError(f"it sets the state of a {type(self.stack[-2]).__name__}")
        pickle._Unpickler.dispatch[pickle.BUILD[0]](self)  # type: ignore[arg-type]

    dispatch[pickle.BUILD[0]] = _build

    def _refuse_claim(self) -> None:
        """Python takes the memory that this code claims before it looks for the bytes."""
        raise RefusedError("it holds a byte array")

    dispatch[pickle.BYTEARRAY8[0]] = _refuse_claim

    dispatch |= {code[0]: partial(_load_hashed, code[0], keys) for code, keys in _HASHING.items()}
