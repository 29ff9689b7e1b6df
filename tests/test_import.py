from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import synthaug

_HEAVY = ("torch", "numpy", "cv2", "pydantic", "albumentations", "rich")


def _loaded(statement):
    code = f"{statement}\nimport sys; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_import_loads_nothing_heavy():
    assert _loaded("import synthaug; dir(synthaug)").isdisjoint(_HEAVY)


def test_help_loads_nothing_heavy():
    statement = (
        "import synthaug.cli, sys\nsys.argv = ['synthaug', '--help']\n"
        "try: synthaug.cli.main()\nexcept SystemExit as stop: assert not stop.code"
    )
    loaded = _loaded(statement)
    assert "synthaug.cli.fit" in loaded
    assert loaded.isdisjoint(_HEAVY)


def test_public_names_are_few_and_listed():
    assert len(synthaug.__all__) <= 15
    assert set(synthaug.__all__) <= set(dir(synthaug))
    assert synthaug.generation.Layouts.__doc__  # named so in the README
    with pytest.raises(AttributeError, match="nothing"):
        _ = synthaug.nothing


@pytest.mark.parametrize("name", synthaug.__all__)
def test_public_name_resolves_and_is_documented(name):
    value = getattr(synthaug, name)
    if name != "__version__":
        assert value.__doc__
        assert callable(value)


def test_version_is_the_projects():
    project = Path(__file__).parents[1] / "pyproject.toml"
    assert synthaug.__version__ == tomllib.loads(project.read_text())["project"]["version"]


def test_module_runs_as_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "synthaug", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"synthaug {synthaug.__version__}\n"


def test_transforms_ask_no_package_index():
    """albumentations asks for news when it is imported, unless told not to."""
    code = (
        "import socket\ndef refuse(*a, **_):\n    print('asked', a[0])\n    raise OSError\n"
        "socket.getaddrinfo = refuse\n"
        "from synthaug.mixing import SynthAugment, standard_augmentation as s\ns(40, 56)"
    )
    plain = {k: v for k, v in os.environ.items() if k != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=plain, capture_output=True, text=True, check=True
    )
    assert "asked" not in done.stdout
