"""Hostile and honest archives, made here by hand."""

from __future__ import annotations

import argparse
import collections
import io
import os
import pickle
import struct
import zipfile

import pytest
import torch

from synthaug.errors import InputError
from synthaug.unpickling import brief, is_archive, load_persistent_pickle, load_weights

READERS = [load_weights, load_persistent_pickle]


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def refused(read, path):
    with pytest.raises(InputError) as error:
        read(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


def rebuild(data, size, stride, offset=0):
    storage = Call(torch.storage._load_from_bytes, data)
    return Call(
        torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False,
        collections.OrderedDict(),
    )  # fmt: skip


def storage_bytes(numbers):
    file = io.BytesIO()
    torch.save(
        torch.zeros(numbers).storage(), file, _use_new_zipfile_serialization=False
    )  # as a tensor that is pickled plainly does
    return file.getvalue()


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_archives_come_back_as_saved(tmp_path, new):
    module = torch.nn.Linear(3, 4)
    saved = {
        "g_ema": module.state_dict(),
        "args": argparse.Namespace(size=32, lr=0.002, name="x"),
        "optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"betas": (0.0, 0.99)}]},
        "parameter": module.weight,
        "half": torch.ones(2, dtype=torch.float16),
        "view": torch.arange(12).view(3, 4)[1:, ::2],
        "empty": torch.zeros(0, 5),
        "scalar": torch.tensor(0.3),
    }
    path = tmp_path / "weights.pt"
    torch.save(saved, path, _use_new_zipfile_serialization=new)
    assert is_archive(path.read_bytes()[:64])
    loaded = load_weights(path)
    assert vars(loaded["args"]) == {"size": 32, "lr": 0.002, "name": "x"}
    assert loaded["optimizer"] == saved["optimizer"]
    for name in ("parameter", "half", "view", "empty", "scalar"):
        assert torch.equal(loaded[name], saved[name])
    assert torch.equal(loaded["g_ema"]["bias"], module.bias)


def test_plain_pickles_of_tensors_come_back_as_saved(tmp_path):
    saved = {
        "tensor": torch.randn(4, 5)[:, 1:3],
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "numbers": (torch.zeros(1).numpy().dtype.type(0.5), 7, {1, 2}),
    }
    for protocol in (2, 3, 4):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(saved, protocol=protocol))
        if protocol == 2:  # bytes need a codec there, which no such file was written with
            assert "_codecs.encode" in refused(load_persistent_pickle, tmp_path / "a.pkl")
            continue
        loaded = load_persistent_pickle(tmp_path / "a.pkl")
        assert torch.equal(loaded["tensor"], saved["tensor"])
        assert torch.equal(loaded["parameter"], saved["parameter"])
        assert loaded["numbers"] == (0.5, 7, {1, 2})


@pytest.mark.parametrize("how", ["zip", "legacy", "plain", "nested zip", "nested legacy"])
@pytest.mark.parametrize("function", [os.system, eval], ids=["system", "eval"])
def test_code_is_never_run_and_its_name_told(tmp_path, how, function):
    marker = tmp_path / "run"
    argument = f"touch {marker}" if function is os.system else f"open({str(marker)!r}, 'w')"
    hostile = {"g_ema": Call(function, argument)}
    path = tmp_path / "bad"
    if how == "plain":
        path.write_bytes(pickle.dumps(hostile))
    else:
        file = io.BytesIO()
        torch.save(hostile, file, _use_new_zipfile_serialization="zip" in how)
        nested = {"G_ema": rebuild(file.getvalue(), (1,), (1,))}
        path.write_bytes(pickle.dumps(nested) if "nested" in how else file.getvalue())
    read = load_persistent_pickle if how == "plain" or "nested" in how else load_weights
    name = "posix.system" if function is os.system else ".eval"
    message = refused(read, path)
    assert name in message
    assert "nothing in it was run" in message
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "getattr"),
        ("builtins", "set.__class__"),
        ("collections", "OrderedDict.fromkeys"),
        ("torch", "load"),
        ("torch.storage", "_load_from_bytes.__globals__"),
        ("torch_utils.persistence", "import_hook"),
        ("numpy", "load"),
        ("functools", "partial"),
        ("argparse", "ArgumentParser"),
    ],
)
@pytest.mark.parametrize("read", READERS, ids=["archive", "persistent"])
def test_any_other_name_is_refused(tmp_path, module, name, read):
    program = b"\x80\x04" + b"".join(
        b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name)
    )
    program += b"\x93."
    if read is load_weights:
        with zipfile.ZipFile(tmp_path / "bad", "w") as archive:
            archive.writestr("archive/data.pkl", program)
    else:
        (tmp_path / "bad").write_bytes(program)
    assert f"{module}.{name}" in refused(read, tmp_path / "bad")


def test_tensorflow_pickles_are_told_apart(tmp_path):
    (tmp_path / "old.pkl").write_bytes(b"\x80\x03cdnnlib.tflib.network\nNetwork\n.")
    assert "TensorFlow" in refused(load_persistent_pickle, tmp_path / "old.pkl")


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((10**12,), (1,), 0),
        ((10**6, 10**6), (0, 0), 0),
        ((4,), (1,), 1),
        ((4,), (2,), 0),
        ((2, 2), (1,), 0),
        ((-1,), (1,), 0),
        ((2.0,), (1,), 0),
        ((2,), (1,), -1),
    ],
)
def test_tensors_larger_than_their_storage_are_refused(tmp_path, size, stride, offset):
    tensor = rebuild(storage_bytes(4), size, stride, offset)
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(tensor))
    assert "it claims a tensor of" in refused(load_persistent_pickle, tmp_path / "bad.pkl")


def _claims(numel, size):
    """The pickle of one tensor in an archive, with any numbers."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, str) and value == "storage!":
                return ("storage", torch.FloatStorage, "0", "cpu", numel)
            return None

    file = io.BytesIO()
    call = Call(
        torch._utils._rebuild_tensor_v2, "storage!", 0, size, (1,) * len(size), False,
        collections.OrderedDict(),
    )  # fmt: skip
    Pickler(file, protocol=2).dump({"g_ema": call})
    return file.getvalue()


@pytest.mark.parametrize("numel", [10**12, 2**62, 3])
def test_archives_that_claim_other_sizes_are_refused(tmp_path, numel):
    program, content = _claims(numel, (numel,)), struct.pack("<4f", *range(4))
    with zipfile.ZipFile(tmp_path / "new.pt", "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/data/0", content)
        archive.writestr("archive/version", "3\n")
    message = refused(load_weights, tmp_path / "new.pt")
    shape = numel >= 2**48
    assert ("no possible shape" if shape else "of another size than its content") in message
    whole = io.BytesIO()
    torch.save([], whole, _use_new_zipfile_serialization=False)
    head = whole.getvalue()[: -len(pickle.dumps([], protocol=2)) * 2]
    tail = pickle.dumps(["0"], protocol=2) + struct.pack("<q", numel) + content
    (tmp_path / "old.pt").write_bytes(head + program + tail)
    message = refused(load_weights, tmp_path / "old.pt")
    assert numel == 3 or shape or "larger tensors than it has bytes" in message


def test_compressed_archives_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", _claims(10**7, (10**7,)))
        archive.writestr("archive/data/0", bytes(4 * 10**7))
    assert (tmp_path / "bomb.pt").stat().st_size < 10**5
    assert "compressed" in refused(load_weights, tmp_path / "bomb.pt")


def test_bytes_that_are_read_again_and_again_are_refused(tmp_path):
    data = storage_bytes(1000)
    many = [rebuild(data, (1000,), (1,)) for _ in range(100)]  # one copy of the bytes in the file
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(many))
    assert (tmp_path / "bad.pkl").stat().st_size < 20_000
    assert "again and again" in refused(load_persistent_pickle, tmp_path / "bad.pkl")


@pytest.mark.parametrize("read", READERS, ids=["archive", "persistent"])
def test_no_memory_is_taken_for_bytes_that_are_not_there(tmp_path, read):
    claim = pickle.PROTO + b"\x05" + pickle.BYTEARRAY8 + (1 << 40).to_bytes(8, "little")
    (tmp_path / "bad.pkl").write_bytes(claim + pickle.STOP)
    if read is load_persistent_pickle:
        assert "it holds a byte array" in refused(read, tmp_path / "bad.pkl")
    else:
        with zipfile.ZipFile(tmp_path / "bad.pt", "w") as archive:
            archive.writestr("archive/data.pkl", claim + pickle.STOP)
        assert "it holds a byte array" in refused(read, tmp_path / "bad.pt")


def _nested(depth):
    """Pickle of a tuple that holds itself twice, again and again: 2^depth parts, few bytes."""
    program = pickle.NONE
    for _ in range(depth):
        program += pickle.DUP + pickle.TUPLE2
    return program


@pytest.mark.parametrize(
    "program",
    [
        pickle.EMPTY_DICT + _nested(60) + pickle.NONE + pickle.SETITEM,
        pickle.EMPTY_DICT + pickle.MARK + _nested(60) + pickle.NONE + pickle.SETITEMS,
        pickle.MARK + _nested(60) + pickle.NONE + pickle.DICT,
        pickle.EMPTY_SET + pickle.MARK + _nested(60) + pickle.ADDITEMS,
        pickle.MARK + _nested(60) + pickle.FROZENSET,
    ],
    ids=["setitem", "setitems", "dict", "additems", "frozenset"],
)
def test_what_takes_for_ever_to_hash_is_no_key(tmp_path, program):
    (tmp_path / "bad.pkl").write_bytes(pickle.PROTO + b"\x04" + program + pickle.STOP)
    message = refused(load_persistent_pickle, tmp_path / "bad.pkl")
    assert "keys that are neither names nor numbers" in message


def test_what_takes_for_ever_to_spell_is_not_spelled(tmp_path):
    dtype = b"cnumpy\ndtype\n" + _nested(60) + pickle.TUPLE1 + pickle.REDUCE
    (tmp_path / "bad.pkl").write_bytes(pickle.PROTO + b"\x04" + dtype + pickle.STOP)
    assert "kind of the type tuple" in refused(load_persistent_pickle, tmp_path / "bad.pkl")
    storage = pickle.MARK + b"Vstorage\nctorch\nFloatStorage\n" + _nested(60)
    storage += b"Vcpu\nI3\n" + pickle.TUPLE + pickle.BINPERSID
    with zipfile.ZipFile(tmp_path / "bad.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.PROTO + b"\x02" + storage + pickle.STOP)
    assert "never writes" in refused(load_weights, tmp_path / "bad.pt")


def test_names_of_storages_are_looked_at_too(tmp_path):
    file = io.BytesIO()
    torch.save([], file, _use_new_zipfile_serialization=False)
    head = file.getvalue()[: -len(pickle.dumps([], protocol=2))] + pickle.PROTO + b"\x02"
    keyed = pickle.EMPTY_DICT + _nested(60) + pickle.NONE + pickle.SETITEM
    for names in (keyed, pickle.EMPTY_LIST + pickle.NONE + pickle.APPEND):
        (tmp_path / "bad.pt").write_bytes(head + names + pickle.STOP)
        assert "names nor numbers" in refused(load_weights, tmp_path / "bad.pt")


def test_tensors_that_share_a_storage_are_not_made_many(tmp_path):
    shared = torch.zeros(1000, dtype=torch.half)
    torch.save({"a": shared, "b": shared.view(10, 100)}, tmp_path / "good.pt")
    assert load_weights(tmp_path / "good.pt")["b"].shape == (10, 100)
    for name in ("zip", "legacy"):
        many = {str(i): shared for i in range(99)}
        many = {key: value.view(1, 1000) for key, value in many.items()}
        torch.save(many, tmp_path / name, _use_new_zipfile_serialization=name == "zip")
        assert "again and again" in refused(load_weights, tmp_path / name)


def test_torch_reads_what_was_looked_at(tmp_path):
    """Of two tables of contents torch takes the one that the end points to, Python the last."""

    def archive(value, method, padding=0):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as written:
            written.writestr("archive/data.pkl", pickle.dumps(value, protocol=2), method)
            written.writestr("archive/version", b"3\n" + b" " * padding)
        return file.getvalue(), *struct.unpack("<II", file.getvalue()[-10:-2])

    hidden, size, place = archive("x" * 10**5, zipfile.ZIP_DEFLATED)
    _, _, own_place = archive("seen", zipfile.ZIP_STORED)
    shown, own_size, own_place = archive("seen", zipfile.ZIP_STORED, place - own_place)
    assert (own_size, own_place) == (size, place)
    (tmp_path / "two.pt").write_bytes(hidden[: place + size] + shown)
    assert load_weights(tmp_path / "two.pt") == "seen"


@pytest.mark.parametrize("kind", [set, collections.OrderedDict])
def test_containers_are_not_copied_again_and_again(tmp_path, kind):
    items = [str(i) for i in range(100)] if kind is set else [("a", 1)]
    many = [Call(kind, items) for _ in range(1000)]  # one list in the file
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(many))
    assert "copies a container" in refused(load_persistent_pickle, tmp_path / "bad.pkl")


def test_a_tensor_of_very_many_axes_is_refused_without_counting(tmp_path):
    tensor = rebuild(storage_bytes(4), (2**40,) * 100_000, (0,) * 100_000)
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(tensor))
    assert "no possible shape" in refused(load_persistent_pickle, tmp_path / "bad.pkl")


def test_two_entries_of_one_name_are_refused(tmp_path):
    """torch would read the other one than was looked at: its reader ignores case."""
    torch.save({"g_ema": torch.zeros(1)}, tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "bad.pt", "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
            if name.endswith("data.pkl"):
                archive.writestr(name.upper(), data)
    assert "two entries of one name" in refused(load_weights, tmp_path / "bad.pt")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "None"), ("a" * 99, repr("a" * 99)[:40]), (3, "3"), (10**5000, "of the type int")],
    ids=["none", "text", "number", "huge"],
)
def test_values_are_shown_briefly(value, shown):
    assert brief(value) == shown
    assert brief((value,)) == "of the type tuple"


def test_no_state_is_set_on_what_is_not_ours(tmp_path):
    tensor = rebuild(storage_bytes(4), (4,), (1,))

    class Stateful:
        def __reduce__(self):
            return tensor.reduced[0], tensor.reduced[1], (1, 2, 3, 4)

    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(Stateful()))
    assert "sets the state of a Tensor" in refused(load_persistent_pickle, tmp_path / "bad.pkl")


@pytest.mark.parametrize("read", READERS, ids=["archive", "persistent"])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_files_cut_short_anywhere_are_refused(tmp_path, read, new):
    file = io.BytesIO()
    saved = {"g_ema": {"weight": torch.randn(50)}, "args": argparse.Namespace(size=3)}
    if read is load_weights:
        torch.save(saved, file, _use_new_zipfile_serialization=new)
    else:
        pickle.dump(saved["g_ema"], file, protocol=4 if new else 3)
    whole = file.getvalue()
    for length in {0, 1, 5, 30, 100, *range(0, len(whole) - 1, max(1, len(whole) // 37))}:
        (tmp_path / "cut").write_bytes(whole[:length])
        refused(read, tmp_path / "cut")


@pytest.mark.parametrize("read", READERS, ids=["archive", "persistent"])
def test_missing_files_folders_and_noise_are_refused(tmp_path, read):
    refused(read, tmp_path / "nowhere")
    refused(read, tmp_path)
    (tmp_path / "noise").write_bytes(bytes(range(256)) * 20)
    refused(read, tmp_path / "noise")
