"""Bank: a folder of generated samples with a manifest; writing is atomic, reading is lazy.

BANK/manifest.json   what made it: config, seed, versions, hashes of its inputs, filter settings
BANK/samples.jsonl   one line per sample: files and their hashes, latent seed, scores, verdict
BANK/images/*.png    photographs, 8 bits
BANK/masks/*.png     index PNGs, the index is the class id
BANK/pairs/          the labelled pair(s) that the generator learned from, if it has them
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from synthaug import files
from synthaug.errors import InputError
from synthaug.formats import folder
from synthaug.sample import ClassMap, Sample

FORMAT = "synthaug-bank-1"
GENERATOR_FORMAT = "synthaug-generator-1"
_FILES = ("id", "image", "image_sha256", "mask", "mask_sha256")
WRITERS = 2
"""Threads that encode and write samples."""


class Bank(Sequence[Sample]):
    """The kept samples of a bank folder, read from disk on access.

    Attributes:
        path: the bank folder as it was given, for messages; `os.fspath` of a bank is the absolute
            one, from which all is read, so that the current folder may change.
        classes: classes of the masks.

    Args:
        path: the bank folder, or a bank to open anew by its absolute folder.
        include_dropped: also show samples that the filter dropped.

    Raises:
        InputError: the folder is no bank, its manifest is damaged, or a file of it is missing.
            Reading a sample whose file has changed or gone since raises it too and names the file.
    """

    def __init__(self, path: str | os.PathLike[str], *, include_dropped: bool = False) -> None:
        self.path = Path(path)
        self._root = self.path.absolute()
        self.include_dropped = include_dropped
        self.manifest: dict[str, Any] = read_manifest(self.path, "bank")
        if not isinstance(self.manifest, dict) or self.manifest.get("format") != FORMAT:
            raise InputError(f"{self.path} is not a bank: its manifest.json is of another kind")
        self.classes = ClassMap.from_dict(self.manifest.get("classes"), f"bank {self.path}")
        self.all_records = _read_lines(self.path / "samples.jsonl", self.manifest.get("samples"))
        for name in (r[kind] for r in self.records for kind in ("image", "mask")):
            if not (self._root / name).is_file():
                raise InputError(
                    f"bank file {self.path / name} is missing: generate the bank again"
                )

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """Manifest lines of the samples that this view shows."""
        return [r for r in self.all_records if self.include_dropped or r.get("kept", True)]

    def pairs(self) -> list[Sample]:
        """Read the labelled pair(s) that the generator learned from.

        Raises:
            InputError: they are missing or damaged, or the generator was converted without any.
        """
        sources = self.manifest.get("sources")
        require_pairs(f"bank {self.path}", sources, "take a bank of a generator that was fitted")
        for part in ("images", "masks"):
            if not (self._root / "pairs" / part).is_dir():
                raise InputError(
                    f"bank folder {self.path / 'pairs' / part} is missing: generate the bank again"
                )
        return folder.read_pairs(self._root / "pairs" / "images", self._root / "pairs" / "masks")

    def __fspath__(self) -> str:
        """Return the absolute folder: a bank may be given wherever its folder may."""
        return str(self._root)

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        """Read a sample, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        record = self.records[index]
        self._check(record)
        return folder.read_pair(
            self._root / record["image"], self._root / record["mask"], record["id"]
        )

    def check_files(self) -> None:
        """Read the files of all samples that this view shows.

        Raises:
            InputError: one is missing or not as it was written.
        """
        for record in self.records:
            self._check(record)

    def _check(self, record: dict[str, Any]) -> None:
        for kind in ("image", "mask"):
            path, shown = self._root / record[kind], self.path / record[kind]
            if not path.is_file():
                raise InputError(f"bank file {shown} is missing: generate the bank again")
            if files.sha256_file(path) != record[f"{kind}_sha256"]:
                raise InputError(
                    f"bank file {shown} is damaged (hash differs from samples.jsonl): "
                    "generate the bank again"
                )

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    @property
    def content_hash(self) -> str:
        """SHA-256 over the sample lines: identifies what the bank holds."""
        return files.sha256_file(self._root / "samples.jsonl")

    def rewrite(self, records: Iterable[dict[str, Any]], **manifest: Any) -> None:
        """Replace the sample lines and update manifest entries (scores, verdicts, settings)."""
        self.all_records = list(records)
        self.__dict__.pop("records", None)
        if self.manifest.pop("filter", None) is not None:  # it must never stand beside other lines
            files.write_json(self._root / "manifest.json", self.manifest)
        self.manifest.update(manifest, samples=len(self.all_records))
        files.write_text(self._root / "samples.jsonl", _lines(self.all_records))
        files.write_json(self._root / "manifest.json", self.manifest)


def read_manifest(path: Path, what: str) -> Any:
    """Read the ``manifest.json`` of a folder.

    Args:
        path: the folder.
        what: what it should hold, for the error line ("bank").

    Raises:
        InputError: the path is a file, or the manifest is missing or damaged.
    """
    if path.is_file():
        raise InputError(f"{path} is a file: name the folder of the {what}")
    return files.read_json(path / "manifest.json", f"{what} manifest")


def pictures_behind(path: Path) -> set[str]:
    """Return the SHA-256 of the pixels of every picture that a bank or generator has learned from.

    Those of its own ``pairs``, and those that its manifest lists as ``learned_from``: pictures
    behind the bank of objects, the source or the layouts that it was made with, those that pairs
    were resized or cut from, and masks that were given as layouts, by `mask_key`.
    """
    manifest = path / "manifest.json"
    known = files.read_json(manifest, "manifest") if manifest.is_file() else {}
    behind = set(known.get("learned_from", ())) if isinstance(known, dict) else set()
    images = path / "pairs" / "images"
    for file in folder.list_images(images) if images.is_dir() else ():
        behind.add(files.sha256_bytes(folder.read_image(file)[0].tobytes()))
    return behind


def mask_key(mask: NDArray[np.uint8]) -> str:
    """Return what stands for a mask of ids among `pictures_behind`: SHA-256 of its size and ids."""
    return files.sha256_bytes(f"mask {mask.shape}".encode() + mask.tobytes())


def require_masks(path: str | Path, classes: ClassMap) -> None:
    """Refuse a bank or generator whose samples have no masks.

    Args:
        path: its folder, for the error line.
        classes: its classes.

    Raises:
        InputError: there are none, because it has learned from pictures alone.
    """
    if not classes.ids:
        raise InputError(
            f"{path} has pictures without masks, masks are needed here: fit a generator on "
            "labelled pictures"
        )


def require_pairs(name: str | Path, pairs: Sequence[object] | None, remedy: str) -> None:
    """Refuse a bank or generator without training pairs where they are needed.

    Args:
        name: its folder, begins the error line.
        pairs: those that it has; None where that is not known.
        remedy: ends the line.

    Raises:
        InputError: there are none, because its generator was converted.
    """
    if pairs is not None and not pairs:
        raise InputError(f"{name} has no training pairs (its generator was converted): {remedy}")


def names_files(record: Any) -> bool:
    """Whether a line says, as the writers do, what a pair is called and which its files are."""
    return isinstance(record, dict) and all(isinstance(record.get(key), str) for key in _FILES)


def write_bank(
    path: str | Path,
    samples: Iterable[tuple[Sample, dict[str, Any]]],
    pairs: Sequence[Sample],
    classes: ClassMap,
    manifest: dict[str, Any],
    *,
    overwrite: bool = False,
) -> Bank:
    """Write a bank; the folder appears only when every file of it is written.

    Args:
        path: destination folder.
        samples: samples with the extra fields of their manifest line (latent seed, hashes); their
            arrays must not change afterwards.
        pairs: the labelled pair(s) behind them.
        classes: classes of the masks.
        manifest: config, seed, versions and input hashes.
        overwrite: replace a non-empty folder.

    Returns:
        The bank, opened.

    Raises:
        InputError: the folder is in use, or the disk is full (nothing is left behind).
    """
    with files.new_directory(path, overwrite=overwrite, becomes=FORMAT) as staging:
        for pair in pairs:
            folder.write_pair(staging / "pairs", pair.id, pair)
        records = _write_samples(staging, samples)
        files.write_text(staging / "samples.jsonl", _lines(records))
        header = {
            "format": FORMAT,
            "classes": classes.as_dict(),
            "samples": len(records),
            **manifest,
        }
        files.write_json(staging / "manifest.json", header)
    return Bank(path)


def _write_samples(
    path: Path, samples: Iterable[tuple[Sample, dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Encode and write samples in threads while the next are being drawn; return their lines."""
    records: list[dict[str, Any]] = []
    waiting: deque[tuple[str, dict[str, Any], Future[dict[str, str]]]] = deque()

    def settle() -> None:
        name, extra, written = waiting.popleft()
        records.append({"id": name, **written.result(), **extra, "kept": True})

    with ThreadPoolExecutor(WRITERS) as threads:
        for index, (sample, extra) in enumerate(samples):
            name = f"{index:05d}"
            written = threads.submit(folder.write_pair, path, name, sample)
            waiting.append((name, extra, written))
            if len(waiting) > 2 * WRITERS:  # no more than these are held in memory
                settle()
        while waiting:
            settle()
    return records


def _lines(records: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def _read_lines(path: Path, count: int | None) -> list[dict[str, Any]]:
    """Read the sample lines, ``count`` of them where the manifest says so."""
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError as error:
        raise InputError(f"bank file {path} is missing: generate the bank again") from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"bank file {path} is damaged ({error}): generate the bank again"
        ) from error
    for number, record in enumerate(records, start=1):
        if not names_files(record):
            raise InputError(
                f"bank file {path} is damaged (line {number} names no image and mask): "
                "generate the bank again"
            )
    if count not in (None, len(records)):
        raise InputError(
            f"bank file {path} is damaged ({len(records)} of {count} lines): "
            "generate the bank again"
        )
    return records
