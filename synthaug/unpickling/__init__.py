"""Reading pickled weights of others without running anything that a file brings along.

A pickle is a program that names functions to call. Here every name is looked up in a short list of
exact names, each of which means a reader of ours that only collects plain values; any other name
is refused, and the refusal says which. Sizes are compared with the bytes that are there before
memory is taken for them.

- `archives`, `persistent`: files of ``torch.save``; pickles of NVIDIA's PyTorch ports
- `allow_list`: the unpickler that knows listed names alone
- `sizes`, `refusals`: what is claimed beside what is there; one line that says why not
"""

from __future__ import annotations

from synthaug.unpickling.archives import is_archive, load_weights
from synthaug.unpickling.persistent import Record, load_persistent_pickle
from synthaug.unpickling.refusals import brief

__all__ = ["Record", "brief", "is_archive", "load_persistent_pickle", "load_weights"]
