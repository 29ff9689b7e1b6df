from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from synthaug.errors import InputError
from synthaug.formats.splits import Unit
from synthaug.gain import compare
from synthaug.gain.parents import ParentsOfOthers
from synthaug.sample import ClassMap, Sample

MakeUnit = Callable[..., Unit]


@pytest.fixture
def units(make_unit: MakeUnit) -> list[Unit]:
    return [make_unit(name, start=50 * i, tests=7) for i, name in enumerate("abc")]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Write a file per unit; the replaced networks do not read them."""
    found = {name: tmp_path / f"{name}.safetensors" for name in "abc"}
    for name, path in found.items():
        path.write_text(name)
    return found


def test_each_unit_starts_from_its_own_parent(
    tmp_path: Path, units: list[Unit], files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def run(unit: Unit, *given: Any, **_: Any) -> dict[str, Any]:
        asked.append((unit.name, given[-1].parent))
        measures = {"J&F": 0.5, "J": 0.5, "F": 0.5, "mIoU": 0.5}
        cost = {"seconds": {"train": 1, "test": 1}, "peak_memory_gb": None}
        return {"measures": measures, "per_class": {}, "per_image": [], **cost}

    monkeypatch.setattr("synthaug.gain.comparison_folder.run", run)
    monkeypatch.setattr("synthaug.gain.runs.build_learner", lambda *_, **__: None)
    expected = [(name, str(files[name])) for name in "abc"]
    options: dict[str, Any] = {"arms": ["standard"], "seeds": 1, "steps": 1}
    compare(units, tmp_path / "out", parent=files, **options)
    assert asked == expected
    asked.clear()
    compare(units, tmp_path / "other", parent=lambda unit: files[unit.name], **options)
    assert asked == expected
    for out in ("out", "other"):
        settings = json.loads((tmp_path / out / "manifest.json").read_text())["settings"]
        assert settings["parent"] == dict(expected)
    compare(units, tmp_path / "one", parent=files["a"], **options)
    assert asked[3:] == [(name, str(files["a"])) for name in "abc"]


def test_a_changed_parent_changes_its_own_unit_alone(
    tmp_path: Path, units: list[Unit], files: dict[str, Path], quick: list[int]
) -> None:
    lines: list[str] = []

    def made(parent: Any) -> list[str]:
        lines.clear()
        arms = ["none", "standard"]
        compare(
            units, tmp_path / "out", arms=arms, seeds=1, steps=1, parent=parent, echo=lines.append
        )
        return [line.split()[1] for line in lines if line.startswith("[")]

    assert made(files) == ["a,", "a,", "b,", "b,", "c,", "c,"]
    files["b"].write_text("another")
    assert made(files) == ["b,", "b,"]
    assert made(lambda unit: files[unit.name]) == []
    moved = files["a"].rename(tmp_path / "moved.safetensors")
    assert made({**files, "a": moved}) == []
    assert made(None) == ["a,", "a,", "b,", "b,", "c,", "c,"]


def test_a_unit_without_its_parent_is_refused(
    tmp_path: Path, units: list[Unit], files: dict[str, Path], quick: list[int]
) -> None:
    del files["c"]
    with pytest.raises(InputError, match="no parent network is given for c"):
        compare(units, tmp_path / "out", arms=["standard"], parent=files)
    with pytest.raises(InputError, match="no parent network at nowhere"):
        compare(units, tmp_path / "out", arms=["standard"], parent={**files, "c": "nowhere"})
    assert not (tmp_path / "out").exists()


def test_no_video_is_in_the_parent_it_starts_from(tmp_path: Path, units: list[Unit]) -> None:
    lines: list[str] = []

    def parents(units: list[Unit], steps: int = 1) -> list[Path]:
        lines.clear()
        trained = ParentsOfOthers(
            units,
            tmp_path / "parents",
            steps=steps,
            side_px=32,
            encoder="resnet18",
            echo=lines.append,
        )
        return [trained.of(unit) for unit in units]

    def frames(path: Path) -> list[str]:
        with safe_open(str(path), "pt") as file:
            found: list[str] = json.loads(file.metadata()["synthaug"])["frames"]
        return found

    found = parents(units)
    assert [path.name for path in found] == [
        "even.safetensors",
        "odd.safetensors",
        "even.safetensors",
    ]
    assert frames(found[0]) == ["b/00050", "b/00053", "b/00056"]
    ids = ("00000", "00003", "00006")
    assert frames(found[1]) == [f"a/{i}" for i in ids] + [f"c/001{i[-2:]}" for i in ids]
    begun = [line for line in lines if "..." in line]
    assert begun == ["parent of b: even ...", "parent of a, c: odd ..."]
    parents(units)
    assert lines == ["parent of b: even is there", "parent of a, c: odd is there"]
    parents(units[:2])
    odd = "parent of a: odd"
    again = f"{odd}: what decides it has changed, made again"
    assert lines == ["parent of b: even is there", again, f"{odd} ..."]
    found[0].unlink()
    parents(units[:2])
    assert lines == ["parent of b: even ...", "parent of a: odd is there"]
    whole = found[0].read_bytes()
    found[0].write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    parents(units[:2])
    assert lines[0].startswith("parent of b: even: ")
    assert "made again" in lines[0]
    assert found[0].read_bytes() == whole


def test_a_parent_learns_objects_whatever_their_ids(
    tmp_path: Path, make_unit: MakeUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The background is the smallest id, and ids that frame 0 lacks are void, as in testing."""
    plain, learned = make_unit("a", tests=3), {}

    def with_ids(sample: Sample) -> Sample:
        mask = np.asarray([3, 7], np.uint8)[sample.mask]
        mask[:2] = 9
        return replace(sample, mask=mask)

    unit = replace(
        plain,
        training=[replace(s, mask=np.asarray([3, 7], np.uint8)[s.mask]) for s in plain.training],
        test=[with_ids(sample) for sample in plain.test],
        classes=ClassMap((3, 7)),
    )

    def train(frames: list[Sample], out: Path, **options: Any) -> None:
        learned[out] = frames
        out.write_bytes(b"weights")

    monkeypatch.setattr("synthaug.gain.parents.train_parent", train)
    options: dict[str, Any] = {"steps": 1, "side_px": 32, "encoder": "resnet18"}
    ParentsOfOthers([unit, make_unit("b")], tmp_path, **options).of(make_unit("b"))
    [first, later] = next(iter(learned.values()))
    assert np.array_equal(first.mask, plain.training[0].mask)
    assert np.unique(later.mask[:2]).tolist() == [255]
    assert np.array_equal(later.mask[2:], plain.test[2].mask[2:])


def test_parents_of_others_need_other_videos(tmp_path: Path, make_unit: MakeUnit) -> None:
    options: dict[str, Any] = {"steps": 1, "side_px": 32, "encoder": "resnet18"}
    images = [make_unit("a", "images"), make_unit("b", "images")]
    for units in ([make_unit()], images):
        with pytest.raises(InputError, match="at least two videos"):
            ParentsOfOthers(units, tmp_path / "parents", **options)
