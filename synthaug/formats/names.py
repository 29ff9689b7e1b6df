"""Names of classes, as a user writes them down."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from synthaug.errors import InputError
from synthaug.formats import coco

_NUMBERED = re.compile(r"(\d+)\s*[=:,\t]\s*(.*)")
_LISTED = re.compile(r"(\d+)[.)]?\s+([^\d\s].*)")
"""``8 car`` or ``8. car``, where all lines are so."""
_TRAILED = re.compile(r"(.*\S)[\s,;=]+\d+|\d+\s+\d+\s.*")
_HEADER = re.compile(
    r"pixel value\s*,\s*class|class(es|[ _]?names?)?|names?|labels?|categor(y|ies)", re.IGNORECASE
)
_NO_NAME = re.compile(r"[#\[{<-].*|.*:.*")
"""Lines of YAML, JSON, XML and of CVAT's label maps, or comments."""


def read_names(given: str | Sequence[str]) -> dict[int, str]:
    """Read the names of classes by id.

    Args:
        given: a list of items, or a text of them with commas: names of the ids 0, 1, 2, ... in
            order, or ``ID=NAME`` throughout (or with ``:``, ``,`` or a space). Or a file, whose
            path holds neither ``,`` nor ``=``: one item a line, also as labelme and Roboflow write
            it and below a header such as ``class``, or a COCO file (``.json``), see
            `synthaug.formats.coco.read_names`.

    Raises:
        InputError: there is no such file, it holds no list of names, an item is empty, some items
            have an id and some not, an id is named twice or is not in 0..254, or other numbers
            stand beside the names.
    """
    if not isinstance(given, str):
        return _numbered(given, "names")
    if "," in given or "=" in given:
        return _numbered(given.split(","), "names")
    path = Path(given)
    if path.suffix.lower() == ".json":
        return coco.read_names(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except FileNotFoundError as error:
        raise InputError(
            f"no file of class names at {path}: name one, or write the names with commas"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read class names {path} ({error}): give a text file, one name a line"
        ) from error
    for number, line in enumerate(lines, start=1):
        if _NO_NAME.fullmatch(line.strip()) and not _NUMBERED.fullmatch(line.strip()):
            raise InputError(
                f"{path} line {number} is no class name: write one name a line; one that holds ':' "
                "or begins with one of #[{<- needs its id, ID=NAME"
            )
    if len(lines) > 1 and _HEADER.fullmatch(lines[0].strip()):
        del lines[0]
    return _numbered(lines, str(path))


def _numbered(items: Sequence[str], where: str) -> dict[int, str]:
    if items and items[0].strip() == "__ignore__":  # labelme's id -1
        items = items[1:]
    matches = [_NUMBERED.fullmatch(item.strip()) for item in items]
    if not any(matches):
        listed = [_LISTED.fullmatch(item.strip()) for item in items]
        matches = listed if all(listed) else matches
        _refuse_numbers(items, where)
    if any(matches) and not all(matches):
        raise InputError(f"{where}: some classes have ids and some not: write ID=NAME for all")
    names: dict[int, str] = {}
    for place, (item, match) in enumerate(zip(items, matches, strict=True)):
        class_id, name = (int(match[1]), match[2]) if match else (place, item.strip())
        if not name:
            raise InputError(f"{where}: the name of class id {class_id} is empty: write one")
        if class_id > 254:
            raise InputError(f"{where}: there is no class id {class_id}: ids are 0..254")
        if class_id in names:
            raise InputError(f"{where}: class id {class_id} is named twice: name it once")
        names[class_id] = name
    return names


def _refuse_numbers(items: Sequence[str], where: str) -> None:
    """Refuse ``car 8`` and ``64 0 128 car``, whose place in the list is no id."""
    found = [match[1] or match[0] for item in items if (match := _TRAILED.fullmatch(item.strip()))]
    if len(items) > 1 and len(set(found)) == len(items):
        raise InputError(
            f"{where}: numbers stand beside the names, as in {items[0].strip()!r}: write ID=NAME "
            "for all"
        )
