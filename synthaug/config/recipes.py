"""Recipes: the options of stages as YAML files, ``--set`` items and command line flags."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from synthaug.config.arms import ARMS, Arm, name_of
from synthaug.config.fit import FitConfig
from synthaug.config.stages import (
    CompareConfig,
    DataConfig,
    DemoConfig,
    FilterConfig,
    GenerateConfig,
    Recipe,
)
from synthaug.errors import InputError

T = TypeVar("T")

_STAGES: dict[str, type[Any]] = {
    "fit": FitConfig,
    "generate": GenerateConfig,
    "filter": FilterConfig,
    "data": DataConfig,
    "compare": CompareConfig,
    "demo": DemoConfig,
}


def load_recipe(
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Mapping[str, Any]] | None = None,
) -> Recipe:
    """Read a recipe; later sources win: defaults, the file, command line flags, ``--set``.

    Args:
        path: YAML file of stages and their options; None = all defaults.
        overrides: items ``stage.option=value``, the value in YAML.
        flags: per stage, options from the command line; None values are not given.

    Returns:
        The validated recipe.

    Raises:
        InputError: the file is missing or no YAML mapping, or a stage, option or value is wrong;
            the line names the option, where it stands, and the nearest valid name.
    """
    values: dict[str, dict[str, Any]] = {stage: {} for stage in _STAGES}
    origins: dict[tuple[str, str], str] = {}

    def put(stage: str, option: str, value: Any, origin: str) -> None:
        _check_name(stage, _STAGES, "stage", origin)
        names = [f.name for f in fields(_STAGES[stage])]
        _check_name(option, names, f"option {stage}.", origin)
        values[stage][option] = value
        origins[stage, option] = origin

    for stage, options in _read_yaml(path).items() if path is not None else ():
        _check_name(str(stage), _STAGES, "stage", str(path))
        if options is not None and not isinstance(options, dict):
            raise InputError(f"{path}: stage {stage} must hold options, one 'name: value' a line")
        for option, value in (options or {}).items():
            put(str(stage), str(option), value, str(path))
    named = _definitions(values["compare"].get("arms"))  # they outlive a list of names
    for stage, given in (flags or {}).items():
        for option, value in given.items():
            if value is not None:
                put(stage, option, value, "command line")
    for item in overrides:
        name, equals, text = item.partition("=")
        stage, dot, option = name.strip().partition(".")
        if not equals or not dot:
            raise InputError(
                f"--set {item}: write it as stage.option=value, as in --set fit.seed=1"
            )
        put(stage, option, _parse_value(text, item), f"--set {item}")
    if isinstance(arms := values["compare"].get("arms"), list | tuple):
        origin = f"{origins['compare', 'arms']}: option compare.arms"
        baseline = values["compare"].get("baseline")
        listed = [named.get(arm, arm) if isinstance(arm, str) else arm for arm in arms]
        if isinstance(baseline, str) and baseline in named and named[baseline] not in listed:
            listed.append(named[baseline])
        values["compare"]["arms"] = _read_arms(listed, origin)
    return Recipe(
        **{
            stage: make(
                cls,
                values[stage],
                lambda option, stage=stage: f"{origins[stage, option]}: option {stage}.{option}",
            )
            for stage, cls in _STAGES.items()
        }
    )


def make(cls: type[T], values: Mapping[str, Any], where: Any = None) -> T:
    """Build one stage's config from known option names, with types and ranges checked.

    Args:
        cls: the config's class.
        values: its options; missing ones take their defaults.
        where: callable that turns an option's name into the error line's beginning.

    Raises:
        InputError: a value has the wrong type or lies outside its range.
    """
    from pydantic import TypeAdapter, ValidationError

    def refusal(option: str, words: str) -> InputError:
        begin = where(option) if where is not None else f"option {option}"
        return InputError(f"{begin}: {words}")

    switches = {name for name, kind in get_type_hints(cls).items() if kind is bool}
    for option, value in values.items():  # pydantic would take yes for 1
        held = value if isinstance(value, list | tuple) else [value]
        held = list(value.values()) if isinstance(value, dict) else held
        if option not in switches and any(isinstance(each, bool) for each in held):
            raise refusal(option, f"give a number or a word, not yes or no, got {value!r}")
    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        option, given = str(first["loc"][0]) if first["loc"] else "", first["input"]
        words = f"{first['msg']}, got {given!r}"
        if first["type"] == "missing":
            words = "is missing, give it"
        if first["type"] == "value_error":  # the class's own check
            words = str(first["ctx"]["error"])
        if first["type"] == "tuple_type" and not isinstance(given, dict):
            words = f"give a list, as [{', '.join(str(given).replace(',', ' ').split())}]"
        raise refusal(option, words) from error


def dump_stage(stage: str, config: Any) -> str:
    """Write one stage's config as a recipe, YAML text with the options in their class's order."""
    import yaml

    text: str = yaml.safe_dump({stage: asdict(config)}, sort_keys=False)
    return text


def versions() -> dict[str, str]:
    """Versions of this package and of those that decide its results, for manifests."""
    import importlib
    import platform
    from importlib.metadata import version

    packages = ("torch", "numpy", "timm")
    return {
        "synthaug": importlib.import_module("synthaug").__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def _definitions(arms: Any) -> dict[str, Mapping[str, Any]]:
    """Name -> arm of a recipe's own."""
    entries = arms if isinstance(arms, list | tuple) else ()
    found = {str(arm["name"]): arm for arm in entries if isinstance(arm, Mapping) and "name" in arm}
    return {name: arm for name, arm in found.items() if name not in ARMS}


def _read_arms(given: Sequence[Any], origin: str) -> list[str | Arm]:
    """Make the arms of the user's own among the names of others.

    Raises:
        InputError: a field or value is wrong, or two arms have one name, or one a built-in name.
    """
    found: list[str | Arm] = []
    for number, entry in enumerate(given, start=1):
        where = f"{origin}, entry {number}"
        if isinstance(entry, Mapping):
            for name in entry:
                _check_name(str(name), [f.name for f in fields(Arm)], "field", where)
            entry = make(Arm, entry, lambda name, at=where: f"{at}, {name}" if name else at)
            if entry.name in ARMS:
                raise InputError(f"{where}: {entry.name} is a built-in arm: rename yours")
        if not isinstance(entry, str | Arm):
            raise InputError(f"{where}: give an arm's name, or its fields, got {entry!r}")
        if name_of(entry) in map(name_of, found):
            raise InputError(f"{where}: arm {name_of(entry)} is there already: name each once")
        found.append(entry)
    return found


def _read_yaml(path: str | Path) -> dict[Any, Any]:
    import yaml

    if Path(path).is_dir():
        raise InputError(f"recipe {path} is a folder: name a YAML file")
    try:
        value = _load_yaml(Path(path).read_text(encoding="utf-8-sig"), f"recipe {path}")
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"no recipe at {path}: check the path") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(
            f"recipe {path}{where}: {error.problem}: write it as YAML, one 'name: value' a line"
        ) from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(
            f"cannot read recipe {path}: {' '.join(str(error).split())}: save it as UTF-8 YAML"
        ) from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"recipe {path} must hold stages ({', '.join(_STAGES)}) with options")
    return value


def _load_yaml(text: str, where: str) -> Any:
    """Read YAML as ``yaml.safe_load``, which keeps the last of two values of a key.

    Raises:
        InputError: a key stands twice in one mapping; ``where`` begins the line.
        yaml.YAMLError: it is no YAML.
    """
    import yaml

    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        waiting, seen = [root], set[int]()
        while waiting:
            node = waiting.pop()
            if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
                continue
            seen.add(id(node))  # an anchor may hold itself
            if isinstance(node, yaml.MappingNode):
                _refuse_twice([key for key, _ in node.value], where)
                waiting += [part for pair in node.value for part in pair]
            else:
                waiting += node.value
        return None if root is None else loader.construct_document(root)
    finally:
        loader.dispose()


def _refuse_twice(keys: Iterable[Any], where: str) -> None:
    """Refuse nodes of a mapping's keys if two are the same."""
    first: dict[tuple[str, str], Any] = {}
    for key in keys:
        if key.tag == "tag:yaml.org,2002:merge":
            continue
        known = first.setdefault((key.tag, str(key.value)), key)
        if known is not key:
            line, column = key.start_mark.line + 1, key.start_mark.column + 1
            raise InputError(
                f"{where}, line {line}, column {column}: {key.value} stands there a second time, "
                f"the first is in line {known.start_mark.line + 1}: join the two"
            )


def _parse_value(text: str, item: str) -> Any:
    import yaml

    try:
        return _load_yaml(text, f"--set {item}")
    except InputError:
        raise
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"--set {item}: the value is not YAML; put it in quotes") from error


def _check_name(name: str, known: Iterable[str], what: str, origin: str) -> None:
    known = list(known)
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.65)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    label = f"{what}{name}" if what.endswith(".") else f"{what} {name}"
    raise InputError(f"{origin}: unknown {label}: {hint}")
