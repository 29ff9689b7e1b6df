"""Stages of a run that are skipped while what decided them has not changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from synthaug import files

Echo = Callable[[str], None]
Progress = Callable[[str, int, int], None]
"""Called with what is counted, how much is done, and how much there is."""
T = TypeVar("T")


def run_stage(
    receipt: Path,
    ingredients: Mapping[str, Any],
    make: Callable[[bool], object],
    *,
    there: Callable[[], bool],
    echo: Echo,
    forget: Callable[[], object] = lambda: None,
    product: Path | None = None,
) -> str:
    """Run a stage unless it is done with these ingredients.

    Args:
        receipt: JSON file that notes the ingredients and whether the stage is done; its stem is
            the stage's name.
        ingredients: all that decides the result, in JSON values.
        make: runs the stage; told whether it was begun before with the same ingredients.
        there: whether the result lies where it should.
        echo: takes one line: the stage is there, or begins.
        forget: called, before these ingredients are noted, where others may have left a result
            that ``make`` would go on with.
        product: file that the stage makes and that says nothing of its own soundness: with another
            content than it was made with, it is made again.

    Returns:
        SHA-256 of the ingredients.
    """
    key = files.sha256_bytes(json.dumps(ingredients, sort_keys=True).encode())
    known = files.read_record(receipt, "stage's settings") if receipt.is_file() else {}
    same = known.get("key") == key
    if same and known["done"] and there():
        noted = known.get("product_sha256")
        if product is None or noted in (None, files.sha256_file(product)):
            echo(f"{receipt.stem} is there")
            return key
        echo(f"{receipt.stem}: {product} is not as it was made, made again")
    elif known.get("done") and not same:
        echo(f"{receipt.stem}: what decides it has changed, made again")
    echo(f"{receipt.stem} ...")
    if not same:
        forget()
    content = {"key": key, "done": False, "settings": dict(ingredients)}
    files.write_json(receipt, content)
    make(same and not known.get("done", False))
    made = {} if product is None else {"product_sha256": files.sha256_file(product)}
    files.write_json(receipt, {**content, "done": True, **made})
    return key


def counting(progress: Progress | None, what: str) -> Callable[[int, int], None]:
    """Return a function of (done, total) that reports them as ``what``."""

    def count(done: int, total: int) -> None:
        if progress is not None:
            progress(what, done, total)

    return count


def counted(items: Iterable[T], total: int, progress: Progress | None, what: str) -> Iterator[T]:
    """Pass items on, and report each as ``what`` once the next is asked for."""
    for done, item in enumerate(items, start=1):
        yield item
        if progress is not None:
            progress(what, done, total)


def duration(seconds: float) -> str:
    """Write a time as ``2 h 05 min``, ``1 min 30 s`` or ``7 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
