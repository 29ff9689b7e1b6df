"""Atomic writes and content hashes: nothing is ever left half-written."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any

from synthaug.errors import InputError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


_BANK = (
    *("samples.jsonl", "instances.json", "mix.json", "images/*.png", "masks/*.png"),
    *("pairs/images/*.png", "pairs/masks/*.png"),
)
_GENERATOR = (
    *("pairs/images/*.png", "pairs/masks/*.png", "crops.npy", "samples/*.png", "metrics.jsonl"),
    *("checkpoint.pt", "checkpoint.pt.sha256", "snapshot*.safetensors"),
    *("discriminator*.safetensors", "weights.safetensors", "patches.json", "parts.json"),
    *("objects/*.png", "backgrounds/images/*.png", "backgrounds/masks/*.png"),
)
_DEMO = (
    *("index.html", "samples.png", "pair/*.png", "generator/manifest.json", "bank/manifest.json"),
    *(f"generator/{name}" for name in _GENERATOR),
    *(f"bank/{name}" for name in _BANK),
)
_OUTPUTS = {
    "synthaug-bank": ("a bank", _BANK),
    "synthaug-generator": ("a generator", _GENERATOR),
    "synthaug-begun": ("a generator", _GENERATOR),
    "synthaug-weights": ("a generator", _GENERATOR),
    "synthaug-versions": ("painted pictures", ("*.png",)),
    "synthaug-masks": ("predicted masks", ("*.png",)),
    "synthaug-picture-quality": ("a page of figures", ("index.html", "quality.json")),
    "synthaug-demo": ("a demonstration", _DEMO),
}
"""Begins the format of a ``manifest.json`` -> what the folder is, and all files that this and
earlier versions write beside it."""
PARTIAL = ".partial-"
"""Begins the names of what is being written, and stays behind where a process is killed."""
_HERE = f"@{hashlib.sha256(platform.node().encode()).hexdigest()[:8]}"
"""Ends the names of folders that are being written: locks may not reach other machines."""
_LITTER = (".DS_Store", "._*", "Thumbs.db", "desktop.ini")
"""Files that desktops leave in every folder."""
UMASK = os.umask(0o022)
os.umask(UMASK)


def sha256_bytes(data: bytes) -> str:
    """Return the hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_with(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, fsync it, then rename it into place.

    Args:
        path: destination; its folder is created when missing.
        write: called with the temporary path (same suffix as ``path``).

    Raises:
        InputError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=PARTIAL, suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with open(temporary, "rb+") as file:  # Windows flushes what may be written alone
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~UMASK)
        temporary.replace(path)
        temporary = None
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"cannot write {path}: {reason}; free some space or choose another folder"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically. Raises `InputError` as `write_with` does."""
    write_with(path, lambda temporary: temporary.write_bytes(data))


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically as UTF-8. Raises `InputError` as `write_with` does."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` to ``path`` atomically as indented JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | Path, what: str, remedy: str = "make the folder again") -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        what: what it should be, for the error line ("bank manifest").
        remedy: ends the error line of a damaged file.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise InputError(f"no {what} at {path}: check the folder's name") from error
    except (OSError, ValueError) as error:
        raise InputError(f"damaged {what} {path}: {error}; {remedy}") from error


def read_record(path: str | Path, what: str) -> dict[str, Any]:
    """Read a JSON object that synthaug wrote, as `read_json` does, and would write again.

    Raises:
        InputError: the file is missing or damaged, or holds no object.
    """
    remedy = "delete this file alone: the command that wrote it makes it again"
    value = read_json(path, what, remedy)
    if not isinstance(value, dict):
        raise InputError(f"damaged {what} {path}: it holds no record; {remedy}")
    return value


@contextmanager
def claimed(path: str | Path) -> Iterator[None]:
    """Work on a folder alone; it is free again when the process ends, however it does.

    Args:
        path: a folder; one that is not there is made, and goes again if nothing is put into it.

    Raises:
        InputError: another process works on it, or it cannot be made.
    """
    path = Path(path)
    made = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        folder = None if fcntl is None else os.open(path, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose another folder") from error
    try:
        if folder is not None:
            _lock(folder, path)
        try:
            yield
        finally:
            if made:
                with suppress(OSError):  # it holds something
                    path.rmdir()
    finally:
        if folder is not None:
            os.close(folder)


def _lock(folder: int, path: Path) -> None:
    """Lock an open folder; raises `InputError` if another process has, or has just removed it."""
    assert fcntl is not None
    with suppress(OSError):  # some network disks cannot lock
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = path.exists() and os.path.samestat(os.fstat(folder), path.stat())
        except BlockingIOError:
            free = False
        if not free:
            raise InputError(
                f"another process works on {path}: wait for it, or name another folder with --out"
            )


@contextmanager
def new_directory(
    path: str | Path, *, overwrite: bool = False, becomes: str | None = None
) -> Iterator[Path]:
    """Fill a hidden sibling folder and rename it to ``path`` only when all of it is written.

    Args:
        path: destination folder.
        overwrite: replace a non-empty destination instead of refusing.
        becomes: see `check_replaceable`.

    Yields:
        The staging folder to write into.

    Raises:
        InputError: see `check_output_folder`; or another process of this machine fills such a
            folder for ``path``. What killed ones have left of theirs is removed.
    """
    path = Path(path)
    _sweep(path)
    check_output_folder(path, overwrite=overwrite, becomes=becomes)
    target = path.resolve()
    if os.path.ismount(target):  # it could not be renamed, once all is done
        raise InputError(f"{path} is where a disk is mounted: name a folder in it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        prefix = f"{PARTIAL}{target.name}-"
        work = Path(tempfile.mkdtemp(_HERE, prefix, target.parent))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose another folder") from error
    staging, old = work / "new", work / "old"
    try:
        with claimed(work):
            staging.mkdir()
            yield staging
            # others may have written to it meanwhile
            check_output_folder(path, overwrite=overwrite, becomes=becomes)
            if target.exists():
                target.rename(old)
            staging.rename(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"cannot write {path}: {reason}; free some space or choose another folder"
        ) from error
    finally:
        if old.exists() and not target.exists():
            old.rename(target)  # stopped between the two renames
        shutil.rmtree(work, ignore_errors=True)


def _sweep(path: Path) -> None:
    """Remove what killed processes have left of `new_directory` for a folder.

    Raises:
        InputError: one of them lives.
    """
    target = path.resolve()
    name = re.compile(re.escape(f"{PARTIAL}{target.name}-") + r"\w{8}" + re.escape(_HERE))
    if fcntl is None or not target.parent.is_dir():
        return
    for work in target.parent.iterdir():
        if not name.fullmatch(work.name):
            continue
        try:
            folder = os.open(work, os.O_RDONLY)
        except OSError:  # it has just gone
            continue
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (work / "old").exists() and not target.exists():
                (work / "old").rename(target)
            shutil.rmtree(work, ignore_errors=True)
        except BlockingIOError as error:
            raise InputError(
                f"another process works on {path}: wait for it, or name another folder with --out"
            ) from error
        except OSError:  # the disk cannot lock
            pass
        finally:
            os.close(folder)


def clear_directory(path: str | Path) -> None:
    """Remove what a folder holds, if it is there; a link in it goes, not what it leads to.

    The folder itself stays: it may be `claimed`.

    Raises:
        InputError: something in it cannot be removed.
    """
    path = Path(path)
    if not path.is_dir():
        return
    try:
        for held in path.iterdir():
            if held.is_dir() and not held.is_symlink():
                shutil.rmtree(held)
            else:
                held.unlink()
    except OSError as error:
        raise InputError(f"cannot empty {path}: {error.strerror}; choose another folder") from error


def check_output_folder(
    path: str | Path,
    *,
    overwrite: bool,
    reads: Iterable[str | Path | None] = (),
    becomes: str | None = None,
) -> None:
    """Refuse a folder that cannot be written, before any work is done for it.

    Args:
        path: destination folder, there or not.
        overwrite: it may hold an earlier output.
        reads: files and folders that the output is made from; None is none.
        becomes: see `check_replaceable`.

    Raises:
        InputError: it is a file, below a file, or the current folder or one above; or not empty and
            ``overwrite`` is off; or it holds something else than an earlier output of this kind
            (a ``manifest.json`` of ours and what lies beside it) or what is read: these are never
            removed; or another process works on it.
    """
    path = Path(path)
    if Path.cwd().is_relative_to(path.resolve()):
        raise InputError(f"{path} is the current folder or holds it: name a new one with --out")
    file = next((p for p in (path, *path.parents) if p.is_file()), None)
    if file is not None:
        raise InputError(f"{file} is a file: name a folder with --out")
    for read in reads if overwrite and path.is_dir() else ():
        if read is not None and Path(read).resolve().is_relative_to(path.resolve()):
            raise InputError(f"{path} holds {read}, which is read: choose another folder")
    check_replaceable(path, overwrite=overwrite, becomes=becomes)
    if not path.is_dir() or not any(path.iterdir()):
        return
    with claimed(path):  # else a process writes into it
        pass


def check_replaceable(path: Path, *, overwrite: bool, becomes: str | None = None) -> None:
    """Refuse a folder that holds what may not be replaced.

    Args:
        path: the folder, there or not.
        overwrite: it may hold an earlier output.
        becomes: format of the manifest that it will get; None replaces every kind of output.

    Raises:
        InputError: it is not empty and ``overwrite`` is off, or it holds something else than an
            earlier output of this kind: the line names a file that such a folder does not hold.
    """
    if not path.is_dir() or all(is_litter(held.name) for held in path.iterdir()):
        return
    if not overwrite:
        raise InputError(
            f"{path} is not empty: choose another folder or add --overwrite (in Python "
            "overwrite=True)"
        )
    written = _format(path)
    if written not in _OUTPUTS:
        raise InputError(
            f"{path} holds a comparison, or files that synthaug did not write: choose another "
            "folder or empty it"
        )
    kind, names = _OUTPUTS[written]
    if becomes is not None and (wanted := _OUTPUTS[becomes.rpartition("-")[0]][0]) != kind:
        raise InputError(
            f"{path} holds {kind}, and would become {wanted}: choose another folder or remove it"
        )
    own = _any_of(("manifest.json", *names))
    for held in path.rglob("*"):
        file = held.relative_to(path).as_posix()
        known = held.is_dir() or own.fullmatch(file) or is_litter(held.name)
        if not known and f"/{PARTIAL}" not in f"/{file}":
            raise InputError(
                f"{path} holds {file}, which is no part of {kind}: move it away, or choose another "
                "folder"
            )


def is_litter(name: str) -> bool:
    """Whether a file's name is one that desktops leave in every folder."""
    return any(fnmatchcase(name, each) for each in _LITTER)


def _format(path: Path) -> str:
    """What a folder's ``manifest.json`` says it is, without the version; "" where it says none."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return ""
    return str(manifest.get("format")).rpartition("-")[0] if isinstance(manifest, dict) else ""


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    """Match whole relative paths; ``*`` stands for a part of one name."""
    return re.compile("|".join(re.escape(each).replace(r"\*", "[^/]*") for each in patterns))
